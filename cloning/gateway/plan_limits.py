"""The voice limits of the provider account: checked before a voice is created, and reported before they are reached."""

from collections.abc import Iterator

from cloning.gateway.failures import CloneFailure
from usage.alerts import incidents
from voicecare.providers.elevenlabs.responses import Subscription

WARNING_RATIO = 0.9  # part of a limit from which administrators are notified


def blocking_limit(subscription: Subscription) -> CloneFailure | None:
    """Returns the limit that prevents a new voice, or None. Pure.

    It is checked first, to avoid a useless upload of ten megabytes.
    """
    if not subscription.can_clone:
        return CloneFailure.from_code("can_not_use_instant_voice_cloning")
    if _is_full(subscription.voice_slots_used, subscription.voice_limit):
        return CloneFailure.from_code("voice_limit_reached")
    if _is_full(subscription.voice_edits_used, subscription.voice_edits_limit):
        return CloneFailure.from_code("voice_add_edit_limit_reached")
    return None


def describe(subscription: Subscription) -> str:
    """Describes how much of the plan is used. Empty if the plan sets no limit. Pure."""
    return " ".join(text for text, _ in _limits(subscription))


def warning(subscription: Subscription) -> str:
    """Describes the limits that are nearly reached. Empty if there is none. Pure."""
    return " ".join(text for text, is_short in _limits(subscription) if is_short)


def _limits(subscription: Subscription) -> Iterator[tuple[str, bool]]:
    """Yields the description of each limit, and whether it is nearly reached."""
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
    """Opens the incident for nearly used-up voice limits, or resolves it."""
    if detail := warning(subscription):
        incidents.open_incident(incidents.Kind.VOICE_SLOTS, detail=detail)
    else:
        incidents.resolve_incident(incidents.Kind.VOICE_SLOTS)
