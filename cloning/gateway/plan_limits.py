"""The limits that the plan of the provider account sets for voices.

They are checked before a voice is created. Administrators are notified when a limit is nearly reached.
"""

from collections.abc import Iterator

from cloning.gateway.failures import CloneFailure
from usage.alerts import incidents
from voicecare.providers.elevenlabs.responses import Subscription

WARNING_RATIO = 0.9  # part of a limit from which administrators are notified


def blocking_limit(subscription: Subscription) -> CloneFailure | None:
    """Returns the failure for the limit that prevents the creation of a new voice, or None if a voice can be created.

    Pure. Call this before an upload of up to ten megabytes, which the provider would refuse.
    """
    if not subscription.can_clone:
        return CloneFailure.from_code("can_not_use_instant_voice_cloning")
    if _is_full(subscription.voice_slots_used, subscription.voice_limit):
        return CloneFailure.from_code("voice_limit_reached")
    if _is_full(subscription.voice_edits_used, subscription.voice_edits_limit):
        return CloneFailure.from_code("voice_add_edit_limit_reached")
    return None


def describe(subscription: Subscription) -> str:
    """Returns a text that says how many voices of the plan are used. Empty if the plan sets no limit. Pure."""
    return " ".join(text for text, _ in _limits(subscription))


def warning(subscription: Subscription) -> str:
    """Returns a text about the limits that are nearly reached. Empty if no limit is nearly reached. Pure."""
    return " ".join(text for text, is_short in _limits(subscription) if is_short)


def _limits(subscription: Subscription) -> Iterator[tuple[str, bool]]:
    """Yields for each limit of the plan a text about its use, and whether the limit is nearly reached."""
    used, limit = subscription.voice_slots_used, subscription.voice_limit
    if used is not None and limit is not None:
        yield f"{used} of the {limit} voices of the plan are in use.", _is_nearly_reached(used, limit)
    used, limit = subscription.voice_edits_used, subscription.voice_edits_limit
    if used is not None and limit is not None:
        yield (
            f"{used} of the {limit} new voices of this billing period have been created.",
            _is_nearly_reached(used, limit),
        )


def _is_full(used: int | None, limit: int | None) -> bool:
    return used is not None and limit is not None and used >= limit


def _is_nearly_reached(used: int, limit: int) -> bool:
    return used >= min(limit * WARNING_RATIO, limit - 1)


def update_incident(subscription: Subscription) -> None:
    """Opens an incident if a voice limit of the plan is nearly reached. Otherwise resolves the incident."""
    if detail := warning(subscription):
        incidents.open_incident(incidents.Kind.VOICE_SLOTS, detail=detail)
    else:
        incidents.resolve_incident(incidents.Kind.VOICE_SLOTS)
