"""One device's socket, driven: carries out what `tts.session` decides and owns the task that speaks."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from channels.db import DatabaseSyncToAsync
from django.conf import settings
from django.db import DatabaseError

from tts import conversations
from tts.delivery import Delivery, Socket
from tts.frames import CLOSE_GOING_DOWN, Close, Command, Drop, End, Heard, Play, Reply, Start, Stop
from tts.models import Utterance
from tts.script import Speech
from tts.session import Session
from tts.sources import Services
from tts.speech import SpeechFailed, speak
from voicecare import metrics

log = structlog.get_logger(__name__)

State = Utterance.State
T = TypeVar("T")

CONCLUDE_S = 2.0  # for the terminal message of a cancelled speech, on a server whose `send` waits for a stuck device


class Connection:
    """From accept to close. Frames are fed one at a time; speaking runs in a task that this object cancels and
    awaits.
    """

    def __init__(self, socket: Socket, services: Services, device: uuid.UUID, epoch: int) -> None:
        self.device = device
        self.epoch = epoch
        self.session = Session(settings.DEVICE_CHARACTERS_PER_MINUTE)
        self._socket = socket
        self._services = services
        self._line: asyncio.Task[None] | None = None
        self._delivery: Delivery | None = None  # set exactly while a speech may be cancelled
        self._concluded = asyncio.Event()
        self._draining = False
        self._closed = False

    def held(self) -> int:
        """Bytes that were sent to the device and have not left this process."""
        return self._socket.held()

    async def receive(self, text: str | None) -> None:
        """One frame of the device; None stands for a binary one."""
        if self._closed:
            return
        commands = self.session.binary_frame() if text is None else self.session.text_frame(text, time.monotonic())
        for command in commands:
            await self._carry_out(command)

    async def close(self, code: int) -> None:
        """Closes from our side. What plays and waits ends as interrupted, and the device is told so first."""
        if not self._closed:
            self._closed = True
            await self._end_line()
            await self._socket.close(code)

    async def drain(self, seconds: float) -> None:
        """The server goes down: what is playing may end within `seconds`, then the socket is closed with 4012."""
        self._draining = True
        if self._line is not None:
            await asyncio.wait({self._line}, timeout=seconds)
        await self.close(CLOSE_GOING_DOWN)

    async def lose_conversation(self, conversation: uuid.UUID) -> None:
        """Another device goes on with it: here it ends, with all that plays and waits."""
        await self._end_line()
        if self.session.opened is not None and self.session.opened.context.conversation == conversation:
            _, characters = self.session.finish()
            await self._socket.frame(_ended_frame(conversation, characters))

    async def gone(self) -> None:
        """The socket is closed, by whomever: the device's own speeches end as interrupted. Safe after `close`.

        The conversation stays open, to be resumed.
        """
        self._closed = True
        self._socket.mute()
        await self._end_line()
        if self.session.opened is not None:
            await self._write(conversations.touch, [self.session.opened.context.conversation])

    async def _end_line(self) -> None:
        waiting = self.session.drop_waiting()
        if self._line is not None:
            if self._delivery is not None:
                self._line.cancel()
            await asyncio.wait({self._line}, timeout=CONCLUDE_S)
        for speech in waiting:
            await self._conclude(speech, State.INTERRUPTED)

    # Commands

    async def _carry_out(self, command: Command) -> None:
        match command:
            case Play():
                self._play()
            case Reply(frame):
                await self._socket.frame(frame)
            case Stop():
                await self._interrupt()
            case Drop(speech):
                await self._conclude(speech, State.INTERRUPTED)
            case Heard(ms):
                if self._delivery is not None:
                    self._delivery.heard(ms)
            case Start():
                await self._start(command)
            case End():
                await self._end()
            case Close(code):
                await self.close(code)

    async def _start(self, start: Start) -> None:
        self._services.own(self._services.client.preconnect())
        if start.resume is not None:
            await self._services.recorder.flush()  # a device that reconnects at once resumes what was just said
        try:
            opened = await DatabaseSyncToAsync(_open, thread_sensitive=False)(self.device, start)
        except conversations.UnknownConversation as error:
            for command in self.session.refuse_start(error.code, error.message):
                await self._carry_out(command)
            return
        self.session.begin(opened)
        await self._socket.frame(opened.context.started_frame())
        wants_greeting = start.resume is None if start.greeting is None else start.greeting
        if wants_greeting and self.session.greet():
            self._play()

    async def _end(self) -> None:
        opened, characters = self.session.finish()
        booked = await self._write(conversations.end, opened.context.conversation)
        characters = characters if booked is None else booked  # the row knows what another process has counted
        await self._socket.frame(_ended_frame(opened.context.conversation, characters))

    async def _write(self, change: Callable[[Any], T], subject: object) -> T | None:
        """Writes after everything said so far is written. Without a database the sweep for abandoned conversations
        does it later."""
        try:
            await self._services.recorder.flush()
            written: T = await DatabaseSyncToAsync(change, thread_sensitive=False)(subject)
        except DatabaseError as error:
            log.warning("connection.not_written", change=change.__name__, error=type(error).__name__)
            return None
        return written

    # Speaking

    def _play(self) -> None:
        """Something new waits. Its row is there from now on, whatever becomes of this process."""
        self._services.recorder.note(self.session.waiting[-1])
        if self._line is None and not self._draining:
            self._line = asyncio.create_task(self._speak_in_turn())

    async def _interrupt(self) -> None:
        """Ends the speech that plays; returns when its terminal message is out. No byte of it follows."""
        if self._line is not None and self._delivery is not None:
            self._line.cancel()
            await self._concluded.wait()

    async def _speak_in_turn(self) -> None:
        try:
            while not (self._draining or self._closed) and (speech := self.session.next()):
                await self._speak(speech)
        finally:
            self._line = None

    async def _speak(self, speech: Speech) -> None:
        """Says one speech to its end, whatever that is. A cancellation ends this speech, as interrupted, and not the
        line: that looks for itself whether it may go on."""
        opened = self.session.require_conversation()
        self._concluded.clear()
        speech.taken = time.perf_counter()
        speech.state = State.SPEAKING.value
        self._services.recorder.note(speech)
        self._delivery = delivery = Delivery(self._socket, speech, opened.context.rendering.format)
        try:
            await speak(speech, opened.context, delivery, self._services)
            outcome = State.SPOKEN
        except SpeechFailed as failure:
            outcome, speech.code = State.FAILED, failure.code
        except asyncio.CancelledError:
            outcome = State.INTERRUPTED
            _uncancel()
        except Exception:  # a defect of ours: this speech has failed, the patient's next one may not
            log.exception("connection.defect", conversation=str(speech.conversation))
            outcome, speech.code = State.FAILED, SpeechFailed.NO_VOICE
        self._delivery = None
        try:
            await self._conclude(speech, outcome)
        finally:
            self._concluded.set()

    async def _conclude(self, speech: Speech, outcome: Utterance.State) -> None:
        """The one terminal message of a speech, and its row."""
        speech.state = outcome.value
        self.session.over(speech)
        self._services.recorder.note(speech)
        metrics.SPEECHES.labels(outcome.value).inc()
        await self._socket.frame(_terminal_frame(speech))


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _open(device: uuid.UUID, start: Start) -> conversations.Opened:
    if start.resume is None:
        return conversations.begin(device, start.format)
    return conversations.resume(device, start.resume)


def _ended_frame(conversation: uuid.UUID, characters: int) -> dict[str, object]:
    return {"type": "conversation.ended", "conversation": str(conversation), "characters": characters}


def _terminal_frame(speech: Speech) -> dict[str, object]:
    frame: dict[str, object] = {"type": "speech.interrupted", "id": speech.id}
    measures = {"bytes": speech.bytes_sent, "characters": speech.characters}
    match speech.state:
        case State.SPOKEN:
            frame |= {"type": "speech.finished", "source": speech.source, "first_chunk_ms": speech.first_chunk_ms}
            return frame | measures
        case State.FAILED:
            return frame | {"type": "speech.failed", "code": speech.code, "message": SpeechFailed.MESSAGES[speech.code]}
    return frame | measures
