"""The device protocol as a state machine without I/O: frames in, commands out (docs/protocol.md).

`Session` knows which ids are used, which speeches wait and which one plays. It touches no socket, database or task, and
gets times and ids from its caller. The caller executes the returned commands in order:

    SendFrame(frame)         Send this JSON frame.
    StartConversation(...)   Open or resume a conversation. Then call `start_conversation()` or `reject()`. Feed no
                             other frame until then.
    StartSpeech(speech)      This speech is new in the queue. Play it when its turn comes.
    StopSpeech(requeue)      Interrupt the speech that plays. With `requeue`, it is a delivery that will be repeated.
    DiscardSpeech(speech)    This speech was removed from the queue. Report it as interrupted.
    AcknowledgeDelivery(id)  The device has played this delivery, perhaps over an earlier connection.
    CancelDelivery(id)       The device does not want this delivery, which does not play here.
    ReportPlayback(ms)       The device has played this many milliseconds of the current speech.
    EndConversation()        End the conversation.
    CloseConnection(code)    Close the socket.
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
    """The protocol state of one device socket. It has at most one conversation at a time.

    `characters` are those counted in the conversation. All parameters named `now` are monotonic seconds. `new_id` and
    `utc_now` supply ids and the wall-clock time of new speech.
    """

    def __init__(
        self, characters_per_minute: int, *, new_id: Callable[[], uuid.UUID], utc_now: Callable[[], datetime]
    ) -> None:
        self.conversation: OpenConversation | None = None
        self.characters = 0
        self.queue = SpeechQueue()
        self._used_ids: set[str] = set()
        self._texts = TextAssembler()
        self._hold_message_ids: set[str] = set()  # hold messages need no `ack`
        self._errors = 0
        self._rate_limiter = SlidingWindowRateLimiter(characters_per_minute)
        self._new_id = new_id
        self._utc_now = utc_now

    # Frames of the device

    def text_frame(self, frame: str, now: float) -> list[Command]:
        if len(frame) > MAX_FRAME_BYTES or len(frame.encode(errors="replace")) > MAX_FRAME_BYTES:
            return [CloseConnection(CLOSE_FRAME_TOO_LARGE)]
        try:
            message = parse_json_object(frame)
            kind = message.get("type")
            handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
            if handler is None:
                raise ProtocolError("bad_message", "`type` must be one of " + ", ".join(_HANDLERS) + ".")
            commands = handler(self, message, now)
        except ProtocolError as error:
            return self.reject(error)
        # Whether StartConversation is accepted shows only when it is executed.
        if not any(isinstance(command, StartConversation) for command in commands):
            self._errors = 0
        return commands

    def binary_frame(self) -> list[Command]:
        return self.reject(ProtocolError("unexpected_binary", "Only text frames are accepted here."))

    def reject(self, error: ProtocolError) -> list[Command]:
        """Report an error. The connection also calls this for a command that it could not execute."""
        self._errors += 1
        commands: list[Command] = [SendFrame(error.frame)]
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            commands.append(CloseConnection(CLOSE_TOO_MANY_ERRORS))
        return commands

    # Conversations

    def start_conversation(self, opened: OpenConversation) -> None:
        """Make this conversation the open one.

        If it is already open, only its context changes: the device has taken over a conversation that the server
        opened, or the voice was replaced.
        """
        self._errors = 0
        is_same = self._is_open(opened.context.conversation_id)
        self.conversation = opened
        if is_same:
            return
        self.characters = opened.characters
        self._texts.clear()
        self._used_ids = set(opened.used_speech_ids)
        if self.queue.playing is not None:  # a delivery that began in a conversation which the server opened
            self._used_ids.add(self.queue.playing.id)

    def switch_conversation(self, opened: OpenConversation) -> list[Command]:
        """Return commands that cancel the device's own speech when it leaves a conversation that the server opened.

        Execute them before `start_conversation()`.
        """
        if self.conversation is None or self._is_open(opened.context.conversation_id):
            return []
        return self._interrupt(_is_client_speech)

    def enqueue_greeting(self, now: float) -> Speech | None:
        """Add the greeting to the queue. Return None if there is no greeting in the patient's language."""
        text = self.require_conversation().context.greeting
        if not text:
            return None
        return self._enqueue(GREETING_ID, TextStream(text, complete=True), Origin.GREETING, now)

    def finish_conversation(self) -> tuple[OpenConversation, int]:
        """Close the conversation and return it with its character count. Call it when no speech plays or waits."""
        opened = self.require_conversation()
        self.conversation = None
        self._texts.clear()
        return opened, self.characters

    def require_conversation(self) -> OpenConversation:
        """Return the open conversation. Raises ProtocolError (`no_conversation`)."""
        if self.conversation is None:
            raise ProtocolError("no_conversation", "Open one with conversation.start first.")
        return self.conversation

    def _is_open(self, conversation_id: uuid.UUID | None) -> bool:
        return self.conversation is not None and self.conversation.context.conversation_id == conversation_id

    # Speeches

    def enqueue_hold_message(self, text: str, now: float) -> None:
        """Put the hold message in front of the queue. The patient hears that other speech has to wait."""
        speech_id = f"{SERVER_PREFIX}{self._new_id()}"
        self._enqueue(speech_id, TextStream(text, complete=True), Origin.HOLD_MESSAGE, now)
        self._hold_message_ids.add(speech_id)
        self.queue.waiting.rotate()

    def start_delivery(self, speech: Speech) -> Speech:
        """Mark a speech from the outbox as playing."""
        self._used_ids.add(speech.id)
        return self.queue.start(speech)

    def finish_speech(self, speech: Speech) -> None:
        """Count a speech that has ended, for any reason."""
        self.queue.finish(speech)
        if self._is_open(speech.conversation_id):
            self.characters += speech.progress.characters
        self._texts.detach(speech)

    def _enqueue(self, speech_id: str, text_stream: TextStream, origin: Origin, now: float) -> Speech:
        context = self.require_conversation().context
        speech = Speech(
            speech_id,
            text_stream,
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

    # One method for each frame type

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
        except ProtocolError as error:
            if error.frame["code"] in ("too_many", "rate_limited"):
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
        if speech_id is not None and speech_id.startswith(SERVER_PREFIX) and not self._is_playing(speech_id):
            return [CancelDelivery(speech_id)]  # only the database knows whether it exists
        self.require_conversation()
        if speech_id is None:
            return self._interrupt(_is_client_speech)
        if speech_id not in self._used_ids:
            raise ProtocolError("unknown_id", "No speech has this `id`.", speech_id)
        return self._interrupt(lambda speech: speech.id == speech_id)

    def _on_ack(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_id(message)
        if speech_id in self._hold_message_ids:
            return []
        if speech_id.startswith(SERVER_PREFIX):  # valid without a conversation: it may be from an earlier connection
            return [AcknowledgeDelivery(speech_id)]
        self._require_known_id(message)
        return []

    def _on_progress(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = self._require_known_id(message)
        ms = message.get("ms")
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not is_finite(ms) or ms < 0:
            raise ProtocolError("bad_message", "`ms` must be a number of milliseconds, 0 or more.", speech_id)
        return [ReportPlayback(int(ms))] if self._is_playing(speech_id) else []

    def _on_end(self, message: dict[str, Any], now: float) -> list[Command]:
        self.require_conversation()
        commands = self._interrupt(_is_client_speech)
        if self.queue.playing is not None and not _is_client_speech(self.queue.playing):
            commands.insert(0, StopSpeech(requeue=True))
        return [*commands, EndConversation()]

    def _on_ping(self, message: dict[str, Any], now: float) -> list[Command]:
        t = message.get("t")
        if isinstance(t, str):
            require_text(message, "t")
        elif t is not None and (isinstance(t, bool) or not isinstance(t, int | float) or not is_finite(t)):
            raise ProtocolError("bad_message", "`t` must be a number or a text.")
        return [SendFrame({"type": "pong"} if t is None else {"type": "pong", "t": t})]

    # Shared by several frame types

    def _interrupt(self, predicate: Callable[[Speech], bool]) -> list[Command]:
        commands: list[Command] = []
        if self.queue.playing is not None and predicate(self.queue.playing):
            commands.append(StopSpeech())
        return [*commands, *map(DiscardSpeech, self.queue.remove(predicate))]

    def _is_playing(self, speech_id: str) -> bool:
        return self.queue.playing is not None and self.queue.playing.id == speech_id

    def _admit(self, speech_id: str, size: int, now: float) -> None:
        """Check that a new speech of this size may be queued, and count its characters. Raises ProtocolError."""
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
    """Whether the speech is one of the device's own or the greeting, as opposed to one that the server started."""
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
