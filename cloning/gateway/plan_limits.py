"""How many voices the account may still hold: asked before a voice is made, and told to administrators in time."""

from collections.abc import Iterator

from cloning.gateway.failures import CloneFailure
from usage.alerts import incidents
from voicecare.providers.elevenlabs.responses import Subscription

WARNING_RATIO = 0.9  # of what the plan allows


def blocking_limit(subscription: Subscription) -> CloneFailure | None:
    """Why a voice cannot be made, known without sending ten megabytes first. Pure."""
    if not subscription.can_clone:
        return CloneFailure.from_code("can_not_use_instant_voice_cloning")
    if _is_full(subscription.voice_slots_used, subscription.voice_limit):
        return CloneFailure.from_code("voice_limit_reached")
    if _is_full(subscription.voice_edits_used, subscription.voice_edits_limit):
        return CloneFailure.from_code("voice_add_edit_limit_reached")
    return None


def describe(subscription: Subscription) -> str:
    """What of the plan is in use, in words; empty where it sets no limit. Pure."""
    return " ".join(text for text, _ in _limits(subscription))


def warning(subscription: Subscription) -> str:
    """What administrators are to be told; nothing while there is room enough. Pure."""
    return " ".join(text for text, is_short in _limits(subscription) if is_short)


def _limits(subscription: Subscription) -> Iterator[tuple[str, bool]]:
    """Each limit in words, and whether it is nearly reached."""
    used, limit = subscription.voice_slots_used, subscription.voice_limit
    if used is not None and limit is not None:
        yield f"{used} of the {limit} voices of the plan are in use.", _is_nearly_reached(used, limit)
    used, limit = subscription.voice_edits_used, subscription.voice_edits_limit
    if used is not None and limit is not None:
        yield (
            f"{used} of the {limit} voices that may be made in this period have been made.",
            _is_nearly_reached(used, limit),
        )


def _is_full(used: int | None, limit: int | None) -> bool:
    return used is not None and limit is not None and used >= limit


def _is_nearly_reached(used: int, limit: int) -> bool:
    return used >= min(limit * WARNING_RATIO, limit - 1)


def update_incident(subscription: Subscription) -> None:
    """Opens the incident, or resolves it."""
    if detail := warning(subscription):
        incidents.open_incident(incidents.Kind.VOICE_SLOTS, detail=detail)
    else:
        incidents.resolve_incident(incidents.Kind.VOICE_SLOTS)
