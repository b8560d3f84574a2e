"""The device protocol without I/O: frames in, commands out (the contract, section 1).

`Session` knows what one socket may say next: which ids are used, what waits, what is playing. It never touches a
socket, a database or a task, and takes times and ids from its caller, who carries out the commands in the order
given:

    SendFrame(frame)         send this JSON frame
    StartConversation(...)   open or resume a conversation, then call `start_conversation()` or
                             `reject()`; until then no frame may be fed
    StartSpeech(speech)      this speech is new in the queue: play it when its turn comes
    StopSpeech(requeue)      end what is playing now, as interrupted; `requeue`: a delivery, which
                             is to be repeated
    DiscardSpeech(speech)    this one was waiting and will not be spoken: it ends as interrupted
    AcknowledgeDelivery(id)  the device has played this delivery, maybe of an earlier connection
    CancelDelivery(id)       a delivery that is not playing here will not be spoken
    ReportPlayback(ms)       how far playback of what is playing has come
    EndConversation()        close the conversation
    CloseConnection(code)    close the socket
"""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tts.conversations.context import OpenConversation
from tts.protocol.commands import (
    AcknowledgeDelivery,
    CancelDelivery,
    CloseConnection,
    Command,
    DiscardSpeech,
    EndConversation,
    ReportPlayback,
    SendFrame,
    StartConversation,
    StartSpeech,
    StopSpeech,
)
from tts.protocol.messages import (
    CLOSE_FRAME_TOO_LARGE,
    CLOSE_TOO_MANY_ERRORS,
    GREETING_ID,
    MAX_FRAME_BYTES,
    ProtocolError,
    is_finite,
    optional_bool,
    optional_text,
    parse_json_object,
    require_client_id,
    require_id,
    require_text,
)
from tts.protocol.queue import SpeechQueue
from tts.protocol.rate_limit import SlidingWindowRateLimiter
from tts.protocol.text_assembler import MAX_TEXT_LENGTH, TextAssembler
from tts.speech import Speech, SpeechProgress
from tts.states import SERVER_PREFIX, Origin
from tts.text.stream import TextStream
from voicecare.audio.formats import DEVICE_FORMATS

MAX_DELTA_LENGTH = 1000
MAX_PENDING_SPEECHES = 32
MAX_CONSECUTIVE_ERRORS = 20


class Session:
    """What one device socket may say and what it is owed. One conversation at a time."""

    def __init__(
        self, characters_per_minute: int, *, new_id: Callable[[], uuid.UUID], utc_now: Callable[[], datetime]
    ) -> None:
        self.conversation: OpenConversation | None = None
        self.characters = 0
        self.queue = SpeechQueue()
        self._used_ids: set[str] = set()
        self._texts = TextAssembler()
        self._hold_message_ids: set[str] = set()  # ids of holding phrases: nobody waits for their `ack`
        self._errors = 0
        self._rate_limiter = SlidingWindowRateLimiter(characters_per_minute)
        self._new_id = new_id
        self._utc_now = utc_now

    # Frames in

    def text_frame(self, frame: str, now: float) -> list[Command]:
        """`now` is a monotonic clock in seconds, here and below."""
        if len(frame) > MAX_FRAME_BYTES or len(frame.encode(errors="replace")) > MAX_FRAME_BYTES:
            return [CloseConnection(CLOSE_FRAME_TOO_LARGE)]
        try:
            commands = self._dispatch(parse_json_object(frame), now)
        except ProtocolError as refused:
            return self.reject(refused)
        if not any(
            isinstance(command, StartConversation) for command in commands
        ):  # whether that is accepted shows later
            self._errors = 0
        return commands

    def binary_frame(self) -> list[Command]:
        return self.reject(ProtocolError("unexpected_binary", "Only text frames are accepted here."))

    def reject(self, refused: ProtocolError) -> list[Command]:
        """Also for a command that could not be carried out."""
        self._errors += 1
        commands: list[Command] = [SendFrame(refused.frame)]
        return (
            commands if self._errors < MAX_CONSECUTIVE_ERRORS else [*commands, CloseConnection(CLOSE_TOO_MANY_ERRORS)]
        )

    # The conversation's life

    def start_conversation(self, opened: OpenConversation) -> None:
        self._errors = 0
        if (
            self.conversation is not None
            and self.conversation.context.conversation_id == opened.context.conversation_id
        ):
            self.conversation = opened  # the device takes over what the server had opened: ids and characters stay
            return
        self.conversation = opened
        self.characters = opened.characters
        self._texts.clear()
        self._used_ids = set(opened.used_speech_ids)
        if self.queue.playing is not None:  # a delivery that began in the conversation which the server had opened
            self._used_ids.add(self.queue.playing.id)

    def switch_conversation(self, opened: OpenConversation) -> list[Command]:
        """What the device asked for in the conversation that the server had opened ends with it, where the device goes
        on in another one. To be carried out before `begin`.
        """
        if self.conversation is None or self.conversation.context.conversation_id == opened.context.conversation_id:
            return []
        return self._interrupt(_is_client_speech)

    def enqueue_greeting(self, now: float) -> Speech | None:
        """Puts the greeting first in line; None where the patient's language has none."""
        text = self.require_conversation().context.greeting
        if not text:
            return None
        return self._enqueue(GREETING_ID, TextStream(text, complete=True), Origin.GREETING, now)

    def finish_conversation(self) -> tuple[OpenConversation, int]:
        """Forgets the conversation, in which nothing plays or waits any more; returns it and its characters."""
        opened = self.require_conversation()
        self.conversation = None
        self._texts.clear()
        return opened, self.characters

    def require_conversation(self) -> OpenConversation:
        """The open conversation. Raises ProtocolError (`no_conversation`)."""
        if self.conversation is None:
            raise ProtocolError("no_conversation", "Open one with conversation.start first.")
        return self.conversation

    # Speeches that come and go

    def enqueue_hold_message(self, text: str, now: float) -> None:
        """First in line: it says that what was asked for has to wait."""
        speech_id = f"{SERVER_PREFIX}{self._new_id()}"
        self._enqueue(speech_id, TextStream(text, complete=True), Origin.HOLDING, now)
        self._hold_message_ids.add(speech_id)
        self.queue.waiting.rotate()

    def start_delivery(self, speech: Speech) -> Speech:
        """A speech of the outbox plays now."""
        self._used_ids.add(speech.id)
        return self.queue.start(speech)

    def finish_speech(self, speech: Speech) -> None:
        """The speech has ended, however."""
        self.queue.finish(speech)
        if self.conversation is not None and self.conversation.context.conversation_id == speech.conversation_id:
            self.characters += speech.progress.characters
        self._texts.detach(speech)

    def _enqueue(self, speech_id: str, script: TextStream, origin: Origin, now: float) -> Speech:
        context = self.require_conversation().context
        speech = Speech(
            speech_id,
            script,
            origin.value,
            context.conversation_id,
            context.patient_id,
            utterance_id=self._new_id(),
            received_at=self._utc_now(),
            progress=SpeechProgress(received_at_monotonic=now),
        )
        self._used_ids.add(speech_id)
        self.queue.waiting.append(speech)
        return speech

    # One method for each type of frame

    def _dispatch(self, message: dict[str, Any], now: float) -> list[Command]:
        kind = message.get("type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise ProtocolError("bad_message", "`type` must be one of " + ", ".join(_HANDLERS) + ".")
        return handler(self, message, now)

    def _on_start(self, message: dict[str, Any], now: float) -> list[Command]:
        start = StartConversation(
            optional_text(message, "format"), optional_text(message, "resume"), optional_bool(message, "greeting")
        )
        if start.format is not None and start.format not in DEVICE_FORMATS:
            raise ProtocolError("unknown_format", "`format` must be one of " + ", ".join(DEVICE_FORMATS) + ".")
        if self.conversation is not None and self.conversation.context.initiated_by == "device":
            raise ProtocolError("already_started", "A conversation is open: end it with conversation.end first.")
        return [start]

    def _on_speak(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_client_id(message)
        text = require_text(message, "text", speech_id)
        if not text.strip():
            raise ProtocolError("bad_message", "`text` must not be blank.", speech_id)
        if len(text) > MAX_TEXT_LENGTH:
            raise ProtocolError("too_long", f"`text` may have {MAX_TEXT_LENGTH} characters at most.", speech_id)
        self._admit(speech_id, len(text), now)
        self._texts.discard(speech_id)
        return [StartSpeech(self._enqueue(speech_id, TextStream(text, complete=True), Origin.DEVICE, now))]

    def _on_delta(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_client_id(message)
        piece = require_text(message, "text", speech_id)
        if not 1 <= len(piece) <= MAX_DELTA_LENGTH:
            raise ProtocolError(
                "bad_message", f"`text` of a piece must have 1 to {MAX_DELTA_LENGTH} characters.", speech_id
            )
        if speech_id in self._texts:
            self._texts.append(speech_id, piece, now, self._rate_limiter)
            return []
        try:
            self._admit(speech_id, len(piece), now)
        except ProtocolError as refused:
            if refused.frame["code"] in ("too_many", "rate_limited"):
                self._texts.ignore_rest(speech_id)
            raise
        speech = self._enqueue(speech_id, TextStream(piece, complete=False), Origin.DEVICE, now)
        self._texts.start(speech)
        return [StartSpeech(speech)]

    def _on_done(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_client_id(message)
        self.require_conversation()
        if speech_id not in self._used_ids and speech_id not in self._texts:
            raise ProtocolError("unknown_id", "No text with this `id` is being written.", speech_id)
        self._texts.finish(speech_id)
        return []

    def _on_interrupt(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = None if message.get("id") is None else require_id(message)
        if speech_id is not None and self._is_foreign_delivery(speech_id):
            return [CancelDelivery(speech_id)]
        self.require_conversation()
        if speech_id is None:
            return self._interrupt(_is_client_speech)
        if speech_id not in self._used_ids:
            raise ProtocolError("unknown_id", "No speech has this `id`.", speech_id)
        return self._interrupt(lambda speech: speech.id == speech_id)

    def _is_foreign_delivery(self, speech_id: str) -> bool:
        """A delivery that is not playing here: whether there is one, only the rows know."""
        return speech_id.startswith(SERVER_PREFIX) and (
            self.queue.playing is None or self.queue.playing.id != speech_id
        )

    def _on_ack(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_id(message)
        if speech_id in self._hold_message_ids:
            return []
        if speech_id.startswith(SERVER_PREFIX):  # also before a conversation: it may be of an earlier connection
            return [AcknowledgeDelivery(speech_id)]
        self._require_known_id(message)
        return []

    def _on_progress(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = self._require_known_id(message)
        ms = message.get("ms")
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not is_finite(ms) or ms < 0:
            raise ProtocolError("bad_message", "`ms` must be a number of milliseconds, 0 or more.", speech_id)
        return (
            [ReportPlayback(int(ms))] if self.queue.playing is not None and self.queue.playing.id == speech_id else []
        )

    def _on_end(self, message: dict[str, Any], now: float) -> list[Command]:
        self.require_conversation()
        stopped = self._interrupt(_is_client_speech)
        if self.queue.playing is not None and not _is_client_speech(self.queue.playing):
            stopped.insert(0, StopSpeech(requeue=True))
        return [*stopped, EndConversation()]

    def _on_ping(self, message: dict[str, Any], now: float) -> list[Command]:
        t = message.get("t")
        if isinstance(t, str):
            require_text(message, "t")
        elif t is not None and (isinstance(t, bool) or not isinstance(t, int | float) or not is_finite(t)):
            raise ProtocolError("bad_message", "`t` must be a number or a text.")
        return [SendFrame({"type": "pong"} if t is None else {"type": "pong", "t": t})]

    # What several of them share

    def _interrupt(self, meant: Callable[[Speech], bool]) -> list[Command]:
        commands: list[Command] = []
        if self.queue.playing is not None and meant(self.queue.playing):
            commands.append(StopSpeech())
        return [*commands, *map(DiscardSpeech, self.queue.remove(meant))]

    def _admit(self, speech_id: str, size: int, now: float) -> None:
        self.require_conversation()
        if speech_id in self._used_ids:
            raise ProtocolError("duplicate_id", "This `id` was used in this conversation: use a new one.", speech_id)
        if len(self.queue.waiting) + len(self.queue.deferred) >= MAX_PENDING_SPEECHES:
            raise ProtocolError(
                "too_many", f"{MAX_PENDING_SPEECHES} speeches are waiting: try again when one has ended.", speech_id
            )
        self._rate_limiter.acquire(size, now, speech_id)

    def _require_known_id(self, message: dict[str, Any]) -> str:
        speech_id = require_id(message)
        self.require_conversation()
        if speech_id not in self._used_ids:
            raise ProtocolError("unknown_id", "No speech has this `id`.", speech_id)
        return speech_id


def _is_client_speech(speech: Speech) -> bool:
    """The device asked for it, or it is the greeting."""
    return not speech.id.startswith(SERVER_PREFIX)


_HANDLERS: dict[str, Callable[[Session, dict[str, Any], float], list[Command]]] = {
    "conversation.start": Session._on_start,
    "speak": Session._on_speak,
    "speak.delta": Session._on_delta,
    "speak.done": Session._on_done,
    "interrupt": Session._on_interrupt,
    "ack": Session._on_ack,
    "progress": Session._on_progress,
    "conversation.end": Session._on_end,
    "ping": Session._on_ping,
}
