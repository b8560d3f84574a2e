"""The device protocol without I/O: frames in, commands out (the contract, section 1).

`Session` knows what one socket may say next: which ids are used, what waits, what is playing. It never touches a
socket, a clock, a database or a task; whoever drives it passes the time in and carries out the commands in the
order given:

    Reply(frame)     send this JSON frame
    Start(...)       open or resume a conversation, then call `begin()` or `refuse()`; until then
                     no frame may be fed
    Play()           something waits: take it with `next()` when nothing else plays
    Stop(back)       end what is playing now, as interrupted; `back`: a delivery, which is to be repeated
    Drop(speech)     this one was waiting and will not be spoken: it ends as interrupted
    Ack(id)          the device has played this delivery, maybe of an earlier connection
    Withdraw(id)     a delivery that is not playing here shall not be spoken
    Heard(ms)        how far playback of what is playing has come
    End()            close the conversation
    Close(code)      close the socket
"""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tts.conversations.context import Opened
from tts.protocol.commands import Ack, Close, Command, Drop, End, Heard, Play, Reply, Start, Stop, Withdraw
from tts.protocol.messages import (
    CLOSE_FRAME_TOO_LARGE,
    CLOSE_TOO_MANY_ERRORS,
    GREETING_ID,
    MAX_FRAME_BYTES,
    Refused,
    any_id,
    finite,
    flag,
    object_of,
    optional_text,
    own_id,
    text_of,
)
from tts.protocol.queue import Line
from tts.protocol.rate_limit import CharacterRate
from tts.protocol.text_assembler import MAX_TEXT, Writing
from tts.speech import Speech
from tts.states import SERVER_PREFIX, Origin
from tts.text.stream import Script
from voicecare.audio.formats import DEVICE_FORMATS

MAX_PIECE = 1000
MAX_WAITING = 32
MAX_ERRORS = 20


class Session:
    """What one device socket may say and what it is owed. One conversation at a time."""

    def __init__(self, characters_per_minute: int) -> None:
        self.opened: Opened | None = None
        self.characters = 0
        self.line = Line()
        self._used: set[str] = set()
        self._writing = Writing()
        self._holding: set[str] = set()  # ids of holding phrases: nobody waits for their `ack`
        self._errors = 0
        self._rate = CharacterRate(characters_per_minute)

    # Frames in

    def text_frame(self, frame: str, now: float) -> list[Command]:
        """`now` is a monotonic clock in seconds."""
        if len(frame) > MAX_FRAME_BYTES or len(frame.encode(errors="replace")) > MAX_FRAME_BYTES:
            return [Close(CLOSE_FRAME_TOO_LARGE)]
        try:
            commands = self._accept(object_of(frame), now)
        except Refused as refused:
            return self.refuse(refused)
        if not any(isinstance(command, Start) for command in commands):  # whether that is accepted shows later
            self._errors = 0
        return commands

    def binary_frame(self) -> list[Command]:
        return self.refuse(Refused("unexpected_binary", "Only text frames are accepted here."))

    def refuse(self, refused: Refused) -> list[Command]:
        """Also for a command that could not be carried out."""
        self._errors += 1
        commands: list[Command] = [Reply(refused.frame)]
        return commands if self._errors < MAX_ERRORS else [*commands, Close(CLOSE_TOO_MANY_ERRORS)]

    # The conversation's life

    def begin(self, opened: Opened) -> None:
        self._errors = 0
        if self.opened is not None and self.opened.context.conversation_id == opened.context.conversation_id:
            self.opened = opened  # the device takes over what the server had opened: ids and characters stay
            return
        self.opened = opened
        self.characters = opened.characters
        self._writing.clear()
        self._used = set(opened.used_ids)
        if self.line.playing is not None:  # a delivery that began in the conversation which the server had opened
            self._used.add(self.line.playing.id)

    def leave_for(self, opened: Opened) -> list[Command]:
        """What the device asked for in the conversation that the server had opened ends with it, where the device goes
        on in another one. To be carried out before `begin`.
        """
        if self.opened is None or self.opened.context.conversation_id == opened.context.conversation_id:
            return []
        return self._interrupt(_is_own)

    def greet(self) -> Speech | None:
        """Puts the greeting first in line; None where the patient's language has none."""
        text = self.require_conversation().context.greeting
        if not text:
            return None
        return self._enqueue(GREETING_ID, Script(text, complete=True), Origin.GREETING)

    def finish(self) -> tuple[Opened, int]:
        """Forgets the conversation, in which nothing plays or waits any more; returns it and its characters."""
        opened = self.require_conversation()
        self.opened = None
        self._writing.clear()
        return opened, self.characters

    def require_conversation(self) -> Opened:
        """The open conversation. Raises Refused (`no_conversation`)."""
        if self.opened is None:
            raise Refused("no_conversation", "Open one with conversation.start first.")
        return self.opened

    # Speeches that come and go

    def say_holding_phrase(self, text: str) -> None:
        """First in line: it says that what was asked for has to wait."""
        speech_id = f"{SERVER_PREFIX}{uuid.uuid4()}"
        self._enqueue(speech_id, Script(text, complete=True), Origin.HOLDING)
        self._holding.add(speech_id)
        self.line.waiting.rotate()

    def deliver(self, speech: Speech) -> Speech:
        """A speech of the outbox plays now."""
        self._used.add(speech.id)
        return self.line.take(speech)

    def over(self, speech: Speech) -> None:
        """The speech has ended, however."""
        self.line.over(speech)
        if self.opened is not None and self.opened.context.conversation_id == speech.conversation_id:
            self.characters += speech.characters
        self._writing.let_go(speech)

    def _enqueue(self, speech_id: str, script: Script, origin: Origin) -> Speech:
        context = self.require_conversation().context
        speech = Speech(
            speech_id, script, origin.value, context.conversation_id, context.patient_id, received_at=datetime.now(UTC)
        )
        self._used.add(speech_id)
        self.line.waiting.append(speech)
        return speech

    # One method for each type of frame

    def _accept(self, message: dict[str, Any], now: float) -> list[Command]:
        kind = message.get("type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise Refused("bad_message", "`type` must be one of " + ", ".join(_HANDLERS) + ".")
        return handler(self, message, now)

    def _on_start(self, message: dict[str, Any], now: float) -> list[Command]:
        start = Start(optional_text(message, "format"), optional_text(message, "resume"), flag(message, "greeting"))
        if start.format is not None and start.format not in DEVICE_FORMATS:
            raise Refused("unknown_format", "`format` must be one of " + ", ".join(DEVICE_FORMATS) + ".")
        if self.opened is not None and self.opened.context.initiated == "device":
            raise Refused("already_started", "A conversation is open: end it with conversation.end first.")
        return [start]

    def _on_speak(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = own_id(message)
        text = text_of(message, "text", speech_id)
        if not text.strip():
            raise Refused("bad_message", "`text` must not be blank.", speech_id)
        if len(text) > MAX_TEXT:
            raise Refused("too_long", f"`text` may have {MAX_TEXT} characters at most.", speech_id)
        self._admit(speech_id, len(text), now)
        self._writing.forget(speech_id)
        self._enqueue(speech_id, Script(text, complete=True), Origin.DEVICE)
        return [Play()]

    def _on_delta(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = own_id(message)
        piece = text_of(message, "text", speech_id)
        if not 1 <= len(piece) <= MAX_PIECE:
            raise Refused("bad_message", f"`text` of a piece must have 1 to {MAX_PIECE} characters.", speech_id)
        if speech_id in self._writing:
            self._writing.append(speech_id, piece, now, self._rate)
            return []
        try:
            self._admit(speech_id, len(piece), now)
        except Refused as refused:
            if refused.frame["code"] in ("too_many", "rate_limited"):
                self._writing.swallow(speech_id)
            raise
        self._writing.begin(self._enqueue(speech_id, Script(piece, complete=False), Origin.DEVICE))
        return [Play()]

    def _on_done(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = own_id(message)
        self.require_conversation()
        if speech_id not in self._used and speech_id not in self._writing:
            raise Refused("unknown_id", "No text with this `id` is being written.", speech_id)
        self._writing.finish(speech_id)
        return []

    def _on_interrupt(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = None if message.get("id") is None else any_id(message)
        if speech_id is not None and self._is_elsewhere(speech_id):
            return [Withdraw(speech_id)]
        self.require_conversation()
        if speech_id is None:
            return self._interrupt(_is_own)
        if speech_id not in self._used:
            raise Refused("unknown_id", "No speech has this `id`.", speech_id)
        return self._interrupt(lambda speech: speech.id == speech_id)

    def _is_elsewhere(self, speech_id: str) -> bool:
        """A delivery that is not playing here: whether there is one, only the rows know."""
        return speech_id.startswith(SERVER_PREFIX) and (self.line.playing is None or self.line.playing.id != speech_id)

    def _on_ack(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = any_id(message)
        if speech_id in self._holding:
            return []
        if speech_id.startswith(SERVER_PREFIX):  # also before a conversation: it may be of an earlier connection
            return [Ack(speech_id)]
        self._known(message)
        return []

    def _on_progress(self, message: dict[str, Any], now: float) -> list[Command]:
        speech_id = self._known(message)
        ms = message.get("ms")
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not finite(ms) or ms < 0:
            raise Refused("bad_message", "`ms` must be a number of milliseconds, 0 or more.", speech_id)
        return [Heard(int(ms))] if self.line.playing is not None and self.line.playing.id == speech_id else []

    def _on_end(self, message: dict[str, Any], now: float) -> list[Command]:
        self.require_conversation()
        stopped = self._interrupt(_is_own)
        if self.line.playing is not None and not _is_own(self.line.playing):
            stopped.insert(0, Stop(back=True))
        return [*stopped, End()]

    def _on_ping(self, message: dict[str, Any], now: float) -> list[Command]:
        t = message.get("t")
        if isinstance(t, str):
            text_of(message, "t")
        elif t is not None and (isinstance(t, bool) or not isinstance(t, int | float) or not finite(t)):
            raise Refused("bad_message", "`t` must be a number or a text.")
        return [Reply({"type": "pong"} if t is None else {"type": "pong", "t": t})]

    # What several of them share

    def _interrupt(self, meant: Callable[[Speech], bool]) -> list[Command]:
        commands: list[Command] = []
        if self.line.playing is not None and meant(self.line.playing):
            commands.append(Stop())
        return [*commands, *map(Drop, self.line.drop(meant))]

    def _admit(self, speech_id: str, size: int, now: float) -> None:
        self.require_conversation()
        if speech_id in self._used:
            raise Refused("duplicate_id", "This `id` was used in this conversation: use a new one.", speech_id)
        if len(self.line.waiting) + len(self.line.held) >= MAX_WAITING:
            raise Refused("too_many", f"{MAX_WAITING} speeches are waiting: try again when one has ended.", speech_id)
        self._rate.take(size, now, speech_id)

    def _known(self, message: dict[str, Any]) -> str:
        speech_id = any_id(message)
        self.require_conversation()
        if speech_id not in self._used:
            raise Refused("unknown_id", "No speech has this `id`.", speech_id)
        return speech_id


def _is_own(speech: Speech) -> bool:
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
