"""Reads the frames of a device and builds the frames of the server (docs/protocol.md).

Each `require_` function returns a field of a frame or raises ProtocolError.
"""

import math
import uuid
from datetime import datetime
from typing import Any

from tts.speech import Speech
from tts.states import SERVER_PREFIX, UtteranceState
from voicecare.core import strict_json

GREETING_ID = "greeting"
MAX_FRAME_BYTES = 64 * 1024
MAX_ID_LENGTH = 64
MAX_DELTA_LENGTH = 1000

CLOSE_REPLACED = 4001
CLOSE_REVOKED = 4003
CLOSE_TOO_MANY_ERRORS = 4008
CLOSE_FRAME_TOO_LARGE = 4009
CLOSE_SHUTTING_DOWN = 4012

CLOSE_REASONS = {
    CLOSE_REPLACED: "replaced by another connection with the same token",
    CLOSE_REVOKED: "the device is revoked, or its patient is archived or erased",
    CLOSE_TOO_MANY_ERRORS: "too many errors in a row",
    CLOSE_FRAME_TOO_LARGE: "a text frame is over 64 KiB",
    CLOSE_SHUTTING_DOWN: "the server is shutting down",
    # Refused handshakes of browsers (tts/protocol/refusals.py)
    4400: "the subprotocol voicecare.v1 was not offered",
    4401: "the token is missing or unknown",
    4403: "the device is revoked, or its patient is archived or erased",
    4404: "no WebSocket at this path",
    4406: "the origin is not allowed",
}  # at most 123 bytes each

Frame = dict[str, object]

BACKUP_VOICE_NOTICE: Frame = {
    "type": "notice",
    "code": "backup_voice",
    "message": "Temporary voice issue, using backup voice",  # specified word for word
}
VOICE_CHANGED_NOTICE: Frame = {
    "type": "notice",
    "code": "voice_changed",
    "message": "This voice is no longer available. Continuing in another voice.",
}
FAILURE_MESSAGES = {
    "no_voice": "The provider, the backup voice and the offline voice have all failed. Try again soon.",
    "text_rejected": "The speech provider refuses this text. Change the text.",
    "over_budget": "This text exceeds a budget of the patient or their clinic. Raise it, or wait for the next period.",
    "expired": "The speech expired before it could be played.",
}


class ProtocolError(Exception):
    """A frame of the device is not accepted. `frame` is the `error` frame that reports this to the device."""

    def __init__(self, code: str, message: str, speech_id: str | None = None) -> None:
        super().__init__(message)
        self.frame = {"type": "error", "code": code, "message": message}
        if speech_id is not None:
            self.frame["id"] = speech_id


def parse_json_object(frame: str) -> dict[str, Any]:
    """Return the JSON object in the frame. Raises ProtocolError (`bad_json`) if it has none."""
    try:
        message = strict_json.decode(frame)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ProtocolError("bad_json", "A frame must be one JSON object.")
    return message


def is_finite(value: float | str) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def require_text(message: dict[str, Any], name: str, speech_id: str | None = None) -> str:
    """Return a field that must be a text that the database can store. Raises ProtocolError (`bad_message`).

    `speech_id` is the id for the error frame.
    """
    value = message.get(name)
    if not isinstance(value, str):
        raise ProtocolError("bad_message", f"`{name}` must be a text.", speech_id)
    try:
        value.encode()  # UTF-8 cannot encode a lone surrogate
    except UnicodeEncodeError:
        raise _not_storable(name, speech_id) from None
    if "\0" in value:  # PostgreSQL cannot store NUL
        raise _not_storable(name, speech_id)
    return value


def require_piece(message: dict[str, Any], speech_id: str, half: str) -> tuple[str, str]:
    """Return the field `text` of a piece, and the half of a character at its end, or "".

    Raises ProtocolError (`bad_message`). A character can be split between two pieces: "\\ud83d" at the end of one piece
    and "\\ude42" at the beginning of the next. `half` is the half that the previous piece ended with.
    """
    value = message.get("text")
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_DELTA_LENGTH:
        raise ProtocolError(
            "bad_message", f"`text` of a piece must be a text of 1 to {MAX_DELTA_LENGTH} characters.", speech_id
        )
    left = value[-1] if "\ud800" <= value[-1] <= "\udbff" else ""
    try:
        # UTF-16 joins the halves of a character and cannot decode a half alone.
        piece = (half + value.removesuffix(left)).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise _not_storable("text", speech_id) from None
    if "\0" in piece:
        raise _not_storable("text", speech_id)
    return piece, left


def _not_storable(name: str, speech_id: str | None) -> ProtocolError:
    return ProtocolError("bad_message", f"`{name}` contains a lone surrogate or NUL.", speech_id)


def optional_text(message: dict[str, Any], name: str) -> str | None:
    """Return the field, or None if it is missing or null. Raises ProtocolError."""
    return None if message.get(name) is None else require_text(message, name)


def optional_bool(message: dict[str, Any], name: str) -> bool | None:
    """Return the field, or None if it is missing or null. Raises ProtocolError."""
    value = message.get(name)
    if value is not None and not isinstance(value, bool):
        raise ProtocolError("bad_message", f"`{name}` must be true or false.")
    return value


def optional_whole_number(message: dict[str, Any], name: str, least: int, most: int) -> int | None:
    """Return the field, or None if it is missing or null. Raises ProtocolError (`bad_message`)."""
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ProtocolError("bad_message", f"`{name}` must be a whole number from {least} to {most}.")
    return value


def require_id(message: dict[str, Any]) -> str:
    """Return the id of a speech, which the device or the server has started. Raises ProtocolError (`bad_message`)."""
    speech_id = require_text(message, "id")
    if not 1 <= len(speech_id) <= MAX_ID_LENGTH or not speech_id.strip():
        raise ProtocolError("bad_message", f"`id` must have 1 to {MAX_ID_LENGTH} characters.")
    return speech_id


def require_client_id(message: dict[str, Any]) -> str:
    """Return an id that the device may give to its own speech. Raises ProtocolError (`bad_message`)."""
    speech_id = require_id(message)
    if speech_id == GREETING_ID or speech_id.startswith(SERVER_PREFIX):
        raise ProtocolError(
            "bad_message", f"`id` may not be `{GREETING_ID}` nor begin with `{SERVER_PREFIX}`.", speech_id
        )
    return speech_id


# Frames of the server


def speech_queued(speech_id: str, reason: str, expires_at: datetime) -> Frame:
    """Build the frame for a speech that has to wait. `reason` is `quota` or `busy`. `expires_at` is in UTC."""
    return {"type": "speech.queued", "id": speech_id, "reason": reason, "expires_at": expires_at.isoformat()}


def speech_failed(speech_id: str, code: str) -> Frame:
    return {"type": "speech.failed", "id": speech_id, "code": code, "message": FAILURE_MESSAGES[code]}


def speech_terminal(speech: Speech) -> Frame:
    """Build the terminal frame of a speech. A delivery that will be repeated is reported as interrupted."""
    progress = speech.progress
    measures: Frame = {"bytes": progress.bytes_sent, "characters": progress.characters}
    match progress.state:
        case UtteranceState.SPOKEN:
            result: Frame = {"source": progress.source, "first_chunk_ms": progress.first_chunk_ms}
            return {"type": "speech.finished", "id": speech.id, **result, **measures}
        case UtteranceState.FAILED | UtteranceState.EXPIRED:
            return speech_failed(speech.id, progress.code)
    return {"type": "speech.interrupted", "id": speech.id, **measures}


def speech_cancelled(speech_id: str) -> Frame:
    """Build the terminal frame of a queued speech that has never begun."""
    return {"type": "speech.interrupted", "id": speech_id, "bytes": 0, "characters": 0}


def conversation_ended(conversation: uuid.UUID, characters: int) -> Frame:
    return {"type": "conversation.ended", "conversation": str(conversation), "characters": characters}
