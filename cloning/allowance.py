"""How many voices the account may still hold: asked before a voice is made, and told to administrators in time."""

from cloning.refusals import Refusal
from usage import alerts
from voicecare.elevenlabs.replies import Subscription

NEARLY = 0.9  # of the slots


def refusal(subscription: Subscription) -> Refusal | None:
    """Why a voice cannot be made, known without sending ten megabytes first. Pure."""
    if not subscription.can_clone:
        return Refusal.named("can_not_use_instant_voice_cloning")
    used, limit = subscription.voice_slots_used, subscription.voice_limit
    if used is not None and limit is not None and used >= limit:
        return Refusal.named("voice_limit_reached")
    return None


def shortage(subscription: Subscription) -> str:
    """What administrators are to be told; nothing while there is room enough. Pure."""
    used, limit = subscription.voice_slots_used, subscription.voice_limit
    if used is None or limit is None or used < min(limit * NEARLY, limit - 1):
        return ""
    return f"{used} of the {limit} voices of the plan are in use."


def note(subscription: Subscription) -> None:
    """Opens the incident, or resolves it."""
    if detail := shortage(subscription):
        alerts.open_incident(alerts.Kind.VOICE_SLOTS, detail=detail)
    else:
        alerts.resolve_incident(alerts.Kind.VOICE_SLOTS)
