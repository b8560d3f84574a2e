"""The voice limits of the plan: blocking limits, descriptions, and the incident."""

from dataclasses import replace

import pytest

from cloning.gateway import plan_limits
from usage.models import Incident
from voicecare.providers.elevenlabs.responses import Subscription

ROOMY = Subscription(
    tier="creator",
    status="active",
    used=0,
    limit=100,
    extension=None,
    resets_at_unix=None,
    can_clone=True,
    voice_slots_used=2,
    voice_limit=30,
    voice_edits_used=5,
    voice_edits_limit=95,
)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"voice_slots_used": 29}, None),
        ({"voice_slots_used": 30}, "voice_limit_reached"),
        ({"voice_slots_used": 31}, "voice_limit_reached"),
        ({"voice_limit": None}, None),
        ({"voice_slots_used": None}, None),
        ({"voice_edits_used": 95}, "voice_add_edit_limit_reached"),
        ({"can_clone": False}, "can_not_use_instant_voice_cloning"),
        ({"can_clone": False, "voice_slots_used": 30}, "can_not_use_instant_voice_cloning"),
    ],
    ids=str,
)
def test_the_blocking_limit_is_returned(changes: dict, code: str | None):
    refusal = plan_limits.blocking_limit(replace(ROOMY, **changes))
    assert (refusal.code if refusal else None) == code


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"voice_slots_used": 26}, []),
        ({"voice_slots_used": 27}, ["27 of the 30 voices"]),
        ({"voice_slots_used": 1, "voice_limit": 3}, []),
        ({"voice_slots_used": 2, "voice_limit": 3}, ["2 of the 3 voices"]),
        ({"voice_edits_used": 90}, ["90 of the 95 new voices"]),
        ({"voice_slots_used": 30, "voice_edits_used": 95}, ["30 of the 30", "95 of the 95"]),
        ({"voice_slots_used": 30, "voice_limit": None}, []),
    ],
    ids=str,
)
def test_nearly_reached_limits_are_in_the_warning(changes: dict, words: list[str]):
    text = plan_limits.warning(replace(ROOMY, **changes))
    assert bool(text) is bool(words)
    assert all(word in text for word in words)


def test_the_usage_of_the_plan_is_described():
    text = "2 of the 30 voices of the plan are in use. 5 of the 95 new voices of this billing period have been created."
    assert plan_limits.describe(ROOMY) == text
    assert plan_limits.describe(replace(ROOMY, voice_limit=None, voice_edits_limit=None)) == ""


@pytest.mark.django_db
def test_the_incident_is_resolved_when_slots_are_free_again():
    plan_limits.update_incident(replace(ROOMY, voice_slots_used=30))
    plan_limits.update_incident(ROOMY)
    incident = Incident.objects.get()
    assert (incident.kind, incident.resolved_at is None) == ("voice_slots", False)
