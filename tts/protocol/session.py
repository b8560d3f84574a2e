"""The device protocol as a state machine without I/O: frames in, commands out (docs/protocol.md).

`Session` knows which ids are used, which speeches wait and which one plays. It touches no socket, database or task, and
gets times and ids from its caller. The caller executes the returned commands in order:

    SendFrame(frame)         Send this JSON frame.
    StartConversation(...)   Open or resume a conversation. Then call `start_conversation()` or `reject()`. Handle no
                             other frame until then.
    StartSpeech(speech)      This speech is new in the queue. Play it when its turn comes.
    StopSpeech(requeue)      Interrupt the speech that plays. With `requeue`, it is a delivery that will be repeated.
    DiscardSpeech(speech)    This speech was removed from the queue. Report it as interrupted.
    AcknowledgeDelivery(...) The device has played this delivery, perhaps over an earlier connection.
    CancelDelivery(...)      The device does not want this delivery, which is not playing on this connection.
    ReportPlayback(id, ms)   The device has played this many milliseconds of the speech.
    DiscardAudio(id)         The device, which has a small buffer, has discarded the audio of this speech, or without an
                             id that of all its own speeches.
    EndConversation()        End the conversation.
    CloseConnection(code)    Close the socket.

AcknowledgeDelivery and CancelDelivery need the database. Call `confirm` or `reject` after each of them, in the order of
the commands. Other frames may be handled until then.
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
    DeliveryLookup,
    DiscardAudio,
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
    optional_whole_number,
    parse_json_object,
    require_client_id,
    require_id,
    require_piece,
    require_text,
)
from tts.protocol.queue import SpeechQueue
from tts.protocol.rate_limit import SlidingWindowRateLimiter
from tts.protocol.text_assembler import MAX_TEXT_LENGTH, TextAssembler
from tts.speech import Speech, SpeechProgress
from tts.states import SERVER_PREFIX, Origin
from tts.text.stream import TextStream
from voicecare.audio.formats import DEVICE_FORMATS

MAX_PENDING_SPEECHES = 32
MIN_BUFFER_MS = 500  # with less, the next sentence would often come too late
MAX_BUFFER_MS = 600_000  # more than the longest text takes
MAX_CONSECUTIVE_ERRORS = 20


class Session:
    """The protocol state of one device socket. It has at most one conversation at a time.

    `characters` are the billed characters of the conversation. All parameters named `now` are monotonic seconds.
    `new_id` and `utc_now` supply ids and the wall-clock time of new speech.
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
        self._error_run = 0  # an accepted message ends a run of errors and begins another one
        self._rate_limiter = SlidingWindowRateLimiter(characters_per_minute)
        self._new_id = new_id
        self._utc_now = utc_now

    # Frames of the device

    def text_frame(self, frame: str, now: float) -> list[Command]:
        """Handle one text frame of the device and return the commands to execute. `now` is in monotonic seconds.

        An invalid frame raises nothing: its commands send an error to the device.
        """
        if len(frame) > MAX_FRAME_BYTES or len(frame.encode(errors="replace")) > MAX_FRAME_BYTES:
            return [CloseConnection(CLOSE_FRAME_TOO_LARGE)]
        try:
            message = parse_json_object(frame)
        except ProtocolError as error:
            if "speak.delta" in frame:
                self._texts.end_all()
            return self.reject(error)
        try:
            kind = message.get("type")
            handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
            if handler is None:
                raise ProtocolError("bad_message", "`type` must be one of " + ", ".join(_HANDLERS) + ".")
            commands = handler(self, message, now)
        except ProtocolError as error:
            return self.reject(error)
        # Whether these commands are accepted shows only when they are executed.
        if not any(isinstance(command, StartConversation | DeliveryLookup) for command in commands):
            self._begin_error_run()
        return commands

    def binary_frame(self) -> list[Command]:
        return self.reject(ProtocolError("unexpected_binary", "Only text frames are accepted here."))

    def confirm(self, lookup: DeliveryLookup) -> None:
        """Record that the frame behind this command was accepted: the database knows the delivery."""
        if lookup.error_run == self._error_run:
            self._begin_error_run()

    def reject(self, error: ProtocolError, lookup: DeliveryLookup | None = None) -> list[Command]:
        """Return the commands that report an error to the device.

        Too many errors without an accepted frame close the socket. The connection also calls this for a command that it
        could not execute. The error of a `lookup` is not counted if a frame that came after it was accepted in the
        meantime.
        """
        commands: list[Command] = [SendFrame(error.frame)]
        if lookup is None or lookup.error_run == self._error_run:
            self._errors += 1
            if self._errors >= MAX_CONSECUTIVE_ERRORS:
                commands.append(CloseConnection(CLOSE_TOO_MANY_ERRORS))
        return commands

    def _begin_error_run(self) -> None:
        self._errors = 0
        self._error_run += 1

    # Conversations

    def start_conversation(self, opened: OpenConversation) -> None:
        """Make this conversation the open one.

        If it is already open, only its context changes: the device has taken over a conversation that the server
        opened, or the voice was replaced.
        """
        self._begin_error_run()
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

        Execute them before `start_conversation(opened)`.
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
        """Close the conversation. Return it with its billed characters. Call this when no speech plays or waits."""
        opened = self.require_conversation()
        self.conversation = None
        self._texts.clear()
        return opened, self.characters

    def require_conversation(self) -> OpenConversation:
        """Return the open conversation. Raises ProtocolError (`no_conversation`) if none is open."""
        if self.conversation is None:
            raise ProtocolError("no_conversation", "Open one with conversation.start first.")
        return self.conversation

    def _is_open(self, conversation_id: uuid.UUID | None) -> bool:
        return self.conversation is not None and self.conversation.context.conversation_id == conversation_id

    # Speeches

    def enqueue_hold_message(self, text: str, now: float) -> None:
        """Put the hold message in front of the queue. It says to the patient that other speech has to wait."""
        speech_id = f"{SERVER_PREFIX}{self._new_id()}"
        self._enqueue(speech_id, TextStream(text, complete=True), Origin.HOLD_MESSAGE, now)
        self._hold_message_ids.add(speech_id)
        self.queue.waiting.rotate()

    def start_delivery(self, speech: Speech) -> Speech:
        """Mark a delivery from the outbox as playing, and return it."""
        self._used_ids.add(speech.id)
        return self.queue.start(speech)

    def finish_speech(self, speech: Speech) -> None:
        """Remove a speech that has ended, for any reason, and count its characters."""
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
            optional_text(message, "format"),
            optional_text(message, "resume"),
            optional_bool(message, "greeting"),
            optional_whole_number(message, "buffer_ms", MIN_BUFFER_MS, MAX_BUFFER_MS),
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
        try:
            require_id(message)
        except ProtocolError:
            self._texts.end_all()
            raise
        speech_id = require_client_id(message)
        if message.get("text") == "":  # nothing is missing without it, so the text continues
            raise ProtocolError("bad_message", "`text` of a piece must not be empty.", speech_id)
        try:
            piece, half = require_piece(message, speech_id, self._texts.half(speech_id))
            if speech_id in self._texts:
                self._texts.append(speech_id, piece, half, now, self._rate_limiter)
                return []
            self._admit(speech_id, len(piece), now)
        except ProtocolError as error:
            if error.frame["code"] not in ("duplicate_id", "no_conversation"):
                self._texts.end(speech_id)
            raise
        speech = self._enqueue(speech_id, TextStream(piece, complete=False), Origin.DEVICE, now)
        self._texts.start(speech, half)
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
            return [CancelDelivery(speech_id, self._error_run)]  # only the database knows whether it exists
        opened = self.require_conversation()
        if speech_id is not None and speech_id not in self._used_ids:
            raise ProtocolError("unknown_id", "No speech has this `id`.", speech_id)
        commands = self._interrupt(_is_client_speech if speech_id is None else lambda speech: speech.id == speech_id)
        return commands if opened.buffer_ms is None else [*commands, DiscardAudio(speech_id)]

    def _on_ack(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = require_id(message)
        if speech_id in self._hold_message_ids:
            return []
        if speech_id.startswith(SERVER_PREFIX):  # valid without a conversation: it may be from an earlier connection
            return [AcknowledgeDelivery(speech_id, self._error_run)]
        self._require_known_id(message)
        return []

    def _on_progress(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = self._require_known_id(message)
        ms = message.get("ms")
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not is_finite(ms) or ms < 0:
            raise ProtocolError("bad_message", "`ms` must be a number of milliseconds, 0 or more.", speech_id)
        return [ReportPlayback(speech_id, int(ms))]

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
        """Check that a new speech of `size` characters may be queued, and count them. Raises ProtocolError."""
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
    """Whether the speech is a request of the device or the greeting. Otherwise it was started by the server."""
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
