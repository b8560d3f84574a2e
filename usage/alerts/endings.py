"""Which incidents the server ends itself. A person may mark only the others as resolved.

The server ends an incident when it detects that the cause has ended. A person who could resolve it earlier would only
hide it. The table below has each kind. docs/operation.md has the same in words.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from usage.models import Incident
from voicecare.patients.models import Voice

CLONES = "clones"
"""The key of the `access` incident about voice clones. No later call shows that clones are permitted again."""

REFUSED = "refused"
"""The key of the `voice` incident about several voices that exist, but that the provider refuses to speak in."""

COMPARED_FOR = timedelta(days=31)  # the ledger of older days is not compared again

Kind = Incident.Kind


def is_end_detected(incident: Incident) -> bool:
    """Whether the server will detect the end of this incident. Then people can acknowledge and mute it only.

    Reads the database for some kinds.
    """
    return _DETECTED[Kind(incident.kind)](incident)


def _always(incident: Incident) -> bool:
    return True


def _never(incident: Incident) -> bool:
    return False


def _is_about_speech(incident: Incident) -> bool:
    return incident.key != CLONES


def _is_about_lost_voices(incident: Incident) -> bool:
    """Lost voices can be found again, and patients can get other ones. Nothing shows that a refusal has ended."""
    if incident.key in ("", REFUSED):
        return not incident.key
    return Voice.objects.filter(pk=incident.key, state=Voice.State.GONE).exists()


def _is_compared_again(incident: Incident) -> bool:
    return incident.key > f"{timezone.localdate() - COMPARED_FOR}"  # the key is the day


def _is_scheduled(incident: Incident) -> bool:
    """A task of an earlier release does not run again, so it cannot succeed."""
    return incident.key in {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}


_DETECTED: Mapping[Incident.Kind, Callable[[Incident], bool]] = {
    Kind.PROVIDER_DOWN: _always,  # a probe is answered
    Kind.ACCESS: _is_about_speech,  # a call is accepted, or the voices are found in the workspace of the key
    Kind.REQUEST: _never,
    Kind.VOICE: _is_about_lost_voices,  # the voices are found again, or no patient has them any longer
    Kind.DEFAULT_VOICE: _never,  # partly: the server cannot know that administrators want to keep the new voice
    Kind.NO_USABLE_VOICE: _always,  # the account has a usable voice
    Kind.VOICE_ENDING: _always,  # the patients have other voices
    Kind.NO_VOICE: _never,
    Kind.QUOTA: _always,  # the subscription shows credits, or a request is accepted
    Kind.VOICE_SLOTS: _always,  # the subscription shows free slots
    Kind.QUOTA_LOW: _always,  # the subscription shows enough credits
    Kind.FORECAST: _always,  # the next forecast
    Kind.SLOW: _always,  # the next speeches
    Kind.BUDGET: _always,  # the budget is raised, or the month or the day ends
    Kind.DRIFT: _is_compared_again,  # a later comparison finds the day in order
    Kind.SILENT: _always,  # the next heartbeat
    Kind.SECOND_BEAT: _always,  # only one beat gives heartbeats
    Kind.ALERTS: _always,  # the channel sends a message, or is removed from the settings
    Kind.CHANNEL: _always,  # the channel sends a message, or is disabled or deleted
    Kind.HISTORY: _always,  # the deletions succeed
    Kind.RETENTION: _always,  # a later check does not find its request in the history, or the setting is off
    Kind.REGION: _always,  # all requests are handled in the promised region again
    Kind.WEBHOOK: _always,  # the endpoint is enabled again or deleted
    Kind.TASK: _is_scheduled,  # the task succeeds
}
