"""The schedule of Celery beat: names of tasks and intervals in seconds.

`expires` drops the message for a task if no worker has started the task within this number of seconds.
"""

from typing import Any

SCHEDULE: dict[str, dict[str, Any]] = {
    "end-abandoned-conversations": {"task": "tts.end_abandoned_conversations", "schedule": 60.0},
    "tidy-outbox": {"task": "tts.tidy_outbox", "schedule": 10.0, "options": {"expires": 10}},
    "prune-phrases": {"task": "tts.prune_phrases", "schedule": 3600.0},
    "remove-revoked-audio": {"task": "tts.remove_revoked_audio", "schedule": 60.0, "options": {"expires": 60}},
    "remove-audio": {"task": "tts.remove_audio", "schedule": 3600.0, "options": {"expires": 3600}},
    "warm-due": {"task": "tts.warm_due", "schedule": 900.0, "options": {"expires": 900}},
    "poll-quota": {"task": "usage.poll_quota", "schedule": 60.0, "options": {"expires": 60}},
    "reconcile": {"task": "voicecare.reconcile", "schedule": 3600.0, "options": {"expires": 3600}},
    "deliver-alerts": {"task": "usage.deliver_alerts", "schedule": 10.0, "options": {"expires": 10}},
    "notify-channels": {"task": "usage.notify_channels", "schedule": 10.0, "options": {"expires": 10}},
    "deliver-webhooks": {"task": "webhooks.deliver", "schedule": 10.0, "options": {"expires": 10}},
    "prune-webhooks": {"task": "webhooks.prune", "schedule": 6 * 3600.0, "options": {"expires": 3600}},
    "look-for-lateness": {"task": "usage.look_for_lateness", "schedule": 60.0, "options": {"expires": 60}},
    "check-region": {"task": "usage.check_region", "schedule": 60.0, "options": {"expires": 60}},
    "check-zero-retention": {
        "task": "voicecare.check_zero_retention",
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "delete-history": {"task": "usage.delete_history", "schedule": 60.0, "options": {"expires": 60}},
    "heartbeat": {"task": "usage.heartbeat", "schedule": 15.0, "options": {"expires": 15}},
    "mend-budgets": {"task": "usage.mend_budgets", "schedule": 60.0, "options": {"expires": 60}},
    "check-default-voice": {"task": "usage.check_voices", "schedule": 60.0, "options": {"expires": 60}},
    "sweep-clones": {"task": "cloning.sweep", "schedule": 5.0, "options": {"expires": 5}},
    "check-voices": {"task": "cloning.check_voices", "schedule": 900.0, "options": {"expires": 900}},
    "read-first-voices": {"task": "cloning.read_first_voices", "schedule": 60.0, "options": {"expires": 60}},
    "prune-samples": {"task": "cloning.prune_samples", "schedule": 3600.0, "options": {"expires": 3600}},
    "prune-texts": {"task": "tts.prune_texts", "schedule": 6 * 3600.0, "options": {"expires": 3600}},
    "prune-logins": {"task": "voicecare.prune_logins", "schedule": 3600.0, "options": {"expires": 3600}},
    "prune-idempotency-keys": {
        "task": "voicecare.prune_idempotency_keys",
        "schedule": 3600.0,
        "options": {"expires": 3600},
    },
    "prune-audit": {"task": "voicecare.prune_audit", "schedule": 6 * 3600.0, "options": {"expires": 3600}},
    "mail-statement": {"task": "usage.mail_statement", "schedule": 600.0, "options": {"expires": 600}},
    "mail-digest": {"task": "usage.mail_digest", "schedule": 600.0, "options": {"expires": 600}},
    "erase": {"task": "tts.erase", "schedule": 60.0, "options": {"expires": 60}},
}
