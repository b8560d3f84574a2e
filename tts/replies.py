"""The frames with which the server tells of speeches and conversations (the contract, section 1). Pure."""

import uuid
from datetime import datetime

from tts.models import Utterance
from tts.text.stream import Speech

Frame = dict[str, object]
State = Utterance.State

NOTICE: Frame = {
    "type": "notice",
    "code": "backup_voice",
    "message": "Temporary voice issue, using backup voice",  # the owner's words
}
VOICE_CHANGED: Frame = {
    "type": "notice",
    "code": "voice_changed",
    "message": "This voice may not be used any more, the default voice goes on",
}
FAILURES = {
    "no_voice": "No voice could be reached: neither the provider nor a substitute. Try again soon.",
    "text_rejected": "The speech provider refuses this text. Change the text.",
    "over_budget": "The patient's monthly budget has no room for it. Raise it, or wait for the next month.",
    "expired": "It could not be said in time and is of no use any more.",
}


def queued(speech_id: str, reason: str, expires_at: datetime) -> Frame:
    """`reason` is `quota` or `busy`; `expires_at` is in UTC."""
    return {"type": "speech.queued", "id": speech_id, "reason": reason, "expires_at": expires_at.isoformat()}


def failed(speech_id: str, code: str) -> Frame:
    return {"type": "speech.failed", "id": speech_id, "code": code, "message": FAILURES[code]}


def ending(speech: Speech) -> Frame:
    """The one terminal message of a speech. Who was cut off and will be repeated is interrupted for now."""
    measures: Frame = {"bytes": speech.bytes_sent, "characters": speech.characters}
    match speech.state:
        case State.SPOKEN:
            heard: Frame = {"source": speech.source, "first_chunk_ms": speech.first_chunk_ms}
            return {"type": "speech.finished", "id": speech.id, **heard, **measures}
        case State.FAILED:
            return failed(speech.id, speech.code)
    return {"type": "speech.interrupted", "id": speech.id, **measures}


def withdrawn(speech_id: str) -> Frame:
    """The end of a queued speech that was never taken up."""
    return {"type": "speech.interrupted", "id": speech_id, "bytes": 0, "characters": 0}


def conversation_ended(conversation: uuid.UUID, characters: int) -> Frame:
    return {"type": "conversation.ended", "conversation": str(conversation), "characters": characters}
