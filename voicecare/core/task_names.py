"""Names of the Celery tasks that other code enqueues.

The sender uses the name and does not import the task, because `voicecare.patients` and `cloning` may not import `tts`.
A test checks that each name is a registered task.
"""

WARM_PATIENT = "tts.warm_patient"  # argument: the patient's id
WARM_VOICE = "tts.warm_voice"  # argument: the voice's id
WARM_PHRASE = "tts.warm_phrase"  # argument: the phrase's id
WARM_DUE = "tts.warm_due"
WARM_MISSING = "tts.warm_missing"
REMOVE_AUDIO = "tts.remove_audio"
RUN_CLONE_JOB = "cloning.run"  # argument: the clone job's id
WITHDRAW_CLONE = "cloning.withdraw"  # argument: the clone job's id
SEND_RESET_LINKS = "voicecare.send_reset_links"  # arguments: ids of users
DELIVER_WEBHOOKS = "webhooks.deliver"
HEARTBEAT = "usage.heartbeat"
