"""One device's socket: carries out what `tts.protocol.session` decides; `tts.devices.player` does the speaking."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db import Error, InterfaceError, OperationalError

from tts.conversations import lifecycle
from tts.conversations.context import OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.devices.player import SpeechPlayer
from tts.devices.transport import DeviceTransport
from tts.protocol import messages
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
from tts.protocol.messages import CLOSE_SHUTTING_DOWN, ProtocolError
from tts.protocol.session import Session
from tts.states import UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from voicecare.core.database import run_in_db_thread

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
OPEN_RETRY_INTERVAL_S = 0.5
WRITE_TIMEOUT_S = 2.0  # for the rows of what a closed connection had; their leases end by themselves
T = TypeVar("T")


class Connection:
    """From accept to close. Frames are fed one at a time."""

    def __init__(
        self, socket: DeviceTransport, services: SpeechDependencies, device: uuid.UUID, epoch: int, patient: uuid.UUID
    ) -> None:
        self.device_id = device
        self.epoch = epoch
        self.patient_id = patient
        self.session = Session(
            settings.DEVICE_CHARACTERS_PER_MINUTE, new_id=uuid.uuid4, utc_now=partial(datetime.now, UTC)
        )
        self.outbox = OutboxClient(device, epoch, patient)
        self._transport = socket
        self._services = services
        self._player = SpeechPlayer(socket, services, self.session, self.outbox, self._conversation_for_delivery)
        self._conversation_lock = asyncio.Lock()  # or ending a conversation: by the device, or for a delivery
        self._closed = False

    def buffered_bytes(self) -> int:
        """Bytes that were sent to the device and have not left this process."""
        return self._transport.buffered_bytes()

    def wake(self) -> None:
        """The outbox may have something for this patient."""
        self._player.wake()

    async def on_registered(self) -> None:
        """It is registered: what earlier connections of its device had waits for it."""
        await self.outbox.take_over()

    async def notify_expired(self) -> None:
        """What the device knows to be queued and is of no use any more has failed."""
        for speech_id in await self.outbox.pop_expired():
            self._services.spawn(self._transport.send(messages.speech_failed(speech_id, "expired")))

    async def receive(self, text: str | None) -> None:
        """One frame of the device; None stands for a binary one."""
        if self._closed:
            return
        commands = self.session.binary_frame() if text is None else self.session.text_frame(text, time.monotonic())
        for command in commands:
            await self._execute(command)

    async def close(self, code: int) -> None:
        """Closes from our side. What plays and waits ends as interrupted, and the device is told so first."""
        if not self._closed:
            self._stop_accepting()
            await self._player.cancel_all()
            await self._transport.close(code)
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self.outbox.flush()

    async def drain(self, seconds: float) -> None:
        """The server goes down: what is playing may end within `seconds`, then the socket is closed with 4012."""
        await self._player.finish_current(seconds)
        await self.close(CLOSE_SHUTTING_DOWN)

    async def detach_conversation(self, conversation: uuid.UUID) -> None:
        """Another device goes on with it: here it ends, with all that plays and waits."""
        await self._player.cancel_all()
        self._player.release_deferred()
        await self._write(lambda: self.outbox.release_deferred(conversation))
        if self.session.conversation is not None and self.session.conversation.context.conversation_id == conversation:
            _, characters = self.session.finish_conversation()
            await self._transport.send(messages.conversation_ended(conversation, characters))

    async def reset_voice(self, conversation: uuid.UUID) -> None:
        """Its voice was withdrawn: from the next speech on it is the default voice."""
        async with self._conversation_lock:
            opened = self.session.conversation
            if opened is not None and opened.context.conversation_id == conversation:
                context = await run_in_db_thread(lifecycle.switch_to_default_voice, opened.context)
                self.session.start_conversation(replace(opened, context=context))
                await self._transport.send(messages.VOICE_CHANGED_NOTICE)

    async def on_disconnect(self) -> None:
        """The socket is closed, by whomever: what plays and waits ends as interrupted. Safe after `close`.

        The conversation stays open, to be resumed; what the quota holds and what was not acknowledged stays too.
        """
        self._stop_accepting()
        self._transport.stop_sending()
        await self._player.cancel_all()
        await self._release_claims()
        if self.session.conversation is not None:
            held = [self.session.conversation.context.conversation_id]
            await self._write(lambda: run_in_db_thread(lifecycle.heartbeat, held))

    def _stop_accepting(self) -> None:
        self._closed = True
        self._player.stop_accepting()

    async def _release_claims(self) -> None:
        """Whatever of the outbox this connection has may be said by another one."""
        self._player.release_deferred()
        await self._write(self.outbox.release_all)

    # Commands

    async def _execute(self, command: Command) -> None:
        match command:
            case StartSpeech(speech):
                self._player.enqueue(speech)
            case SendFrame(frame):
                await self._transport.send(frame)
            case StopSpeech(put_back):
                await self._player.stop(put_back=put_back)
            case DiscardSpeech(speech):
                await self._player.finalize(speech, UtteranceState.INTERRUPTED)
            case ReportPlayback(ms):
                self._player.report_playback(ms)
            case AcknowledgeDelivery(speech_id):
                self._services.spawn(self._acknowledge(speech_id))
            case CancelDelivery(speech_id):
                self._services.spawn(self._cancel_delivery(speech_id))
            case StartConversation():
                await self._start(command)
            case EndConversation():
                await self._end()
            case CloseConnection(code):
                await self.close(code)

    async def _acknowledge(self, speech_id: str) -> None:
        if not await self.outbox.acknowledge(speech_id):
            await self._reject(_unknown_id(speech_id))

    async def _cancel_delivery(self, speech_id: str) -> None:
        if await self.outbox.cancel(speech_id):
            if self.outbox.forget_queued(speech_id):
                await self._transport.send(messages.speech_cancelled(speech_id))
        elif not await self.outbox.is_known(speech_id):
            await self._reject(_unknown_id(speech_id))

    async def _reject(self, refused: ProtocolError) -> None:
        for command in self.session.reject(refused):
            await self._execute(command)

    async def _start(self, start: StartConversation) -> None:
        self._services.spawn(self._services.client.preconnect())
        async with self._conversation_lock:
            try:
                opened = await self._open(start)
            except lifecycle.UnknownConversation as error:
                await self._reject(ProtocolError(error.code, error.message))
                return
            for command in self.session.switch_conversation(opened):
                await self._execute(command)
            self.session.start_conversation(opened)
            self._player.on_conversation_started(opened)
            await self._transport.send(opened.context.started_frame())
        if start.resume is not None:
            self._player.restore_deferred(
                await self.outbox.reclaim_deferred(opened.context.conversation_id), opened.context
            )
        wants_greeting = start.resume is None if start.greeting is None else start.greeting
        if wants_greeting and (greeting := self.session.enqueue_greeting(time.monotonic())):
            self._player.enqueue(greeting)
        self._player.wake()

    async def _open(self, start: StartConversation) -> OpenConversation:
        """Waits for a database that restarts: closing the socket would only bring the device back at the same time."""
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while True:
            try:
                if start.resume is not None:
                    await self._services.recorder.flush()  # a device that reconnects at once resumes what was just said
                return await run_in_db_thread(_open_or_adopt, self.device_id, start, self.session.conversation)
            except (OperationalError, InterfaceError) as error:
                if self._closed or time.monotonic() > deadline:
                    raise
                log.warning("connection.not_opened", error=type(error).__name__)
            await asyncio.sleep(OPEN_RETRY_INTERVAL_S)

    async def _conversation_for_delivery(self) -> OpenConversation | None:
        """The open conversation; where there is none the server opens one. None while the database is away."""
        async with self._conversation_lock:
            if self.session.conversation is None:
                opened = await self._write(lambda: run_in_db_thread(lifecycle.start_for_delivery, self.device_id))
                if opened is None or self._closed:
                    return None
                self.session.start_conversation(opened)
                await self._transport.send(opened.context.started_frame())
            return self.session.conversation

    async def _end(self) -> None:
        async with (
            self._conversation_lock
        ):  # the next one, for a delivery, begins when the device knows that this one has ended
            opened, characters = self.session.finish_conversation()
            booked = await self._write(lambda: run_in_db_thread(lifecycle.end, opened.context.conversation_id))
            characters = characters if booked is None else booked  # the row knows what another process has counted
            await self._transport.send(messages.conversation_ended(opened.context.conversation_id, characters))
        self._player.wake()

    async def _write(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Writes after everything said so far is written. Without a database a sweep does it later."""
        try:
            await self._services.recorder.flush()
            return await change()
        except Error as error:
            log.warning("connection.not_written", error=type(error).__name__)
            return None


def _unknown_id(speech_id: str) -> ProtocolError:
    return ProtocolError("unknown_id", "No speech has this `id`.", speech_id)


def _open_or_adopt(device: uuid.UUID, start: StartConversation, servers: OpenConversation | None) -> OpenConversation:
    """Opens or resumes one, or takes over the one that the server has opened."""
    if servers is not None and start.resume in (None, str(servers.context.conversation_id)):
        return lifecycle.adopt(device, servers, start.format)
    opened = _start_or_resume(device, start)
    if servers is not None:
        lifecycle.end(servers.context.conversation_id)
    return opened


def _start_or_resume(device: uuid.UUID, start: StartConversation) -> OpenConversation:
    if start.resume is None:
        return lifecycle.start(device, start.format)
    return lifecycle.resume(device, start.resume)
