"""How the console shows a message or another speech: its state, why, and in which voice. Never its text."""

from collections.abc import Iterable
from dataclasses import dataclass

from tts.api.serializers import has_expired
from tts.models import Utterance
from tts.outbox.store import WAITS
from tts.protocol.messages import FAILURE_MESSAGES
from tts.states import Origin, Source, UtteranceState
from voicecare.admin.lists import BadgeKind

_BADGES: dict[str, BadgeKind] = {
    UtteranceState.SPOKEN: "good",
    UtteranceState.HEARD: "good",
    UtteranceState.FAILED: "bad",
    UtteranceState.EXPIRED: "bad",
    UtteranceState.SPEAKING: "plain",
    UtteranceState.INTERRUPTED: "plain",
}
_ORIGINS = {
    Origin.DEVICE: "Companion",
    Origin.GREETING: "Greeting",
    Origin.SERVER: "Message",
    Origin.HOLD_MESSAGE: "Hold message",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One speech, as it is shown. `reason` says why it waits or has failed, or how much was played.

    `can_be_cancelled` is for messages.
    """

    utterance: Utterance
    origin: str
    state: str
    badge: BadgeKind
    reason: str
    voice: str
    can_be_cancelled: bool


def lines_of(utterances: Iterable[Utterance]) -> list[Line]:
    return [_line(utterance) for utterance in utterances]


def _line(utterance: Utterance) -> Line:
    is_message = utterance.origin == Origin.SERVER
    has_ended = has_expired(utterance)
    state = UtteranceState.EXPIRED if has_ended else UtteranceState(utterance.state)
    words = state.value.title() if has_ended else utterance.get_state_display()
    if is_message and state == UtteranceState.INTERRUPTED and utterance.spoken_at is None:
        words = "Cancelled"
    return Line(
        utterance=utterance,
        origin=_ORIGINS[Origin(utterance.origin)],
        state=words,
        badge=_BADGES.get(state, "warning"),
        reason=_reason(utterance, state),
        voice="" if utterance.source in ("", Source.LIVE) else utterance.get_source_display(),
        can_be_cancelled=is_message and state in WAITS,
    )


def _reason(utterance: Utterance, state: UtteranceState) -> str:
    if state == UtteranceState.WAITING:
        return utterance.get_queue_reason_display()
    if state == UtteranceState.EXPIRED:
        return FAILURE_MESSAGES["expired"]
    if state == UtteranceState.FAILED:
        return FAILURE_MESSAGES.get(utterance.code, utterance.code)
    if state in (UtteranceState.SPOKEN, UtteranceState.INTERRUPTED) and utterance.played_ms is not None:
        return f"played for {utterance.played_ms / 1000:.1f} s"
    return ""
