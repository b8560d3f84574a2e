"""One connected device: executes the commands of `tts.protocol.session` and lets `tts.devices.player` speak."""

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
WRITE_TIMEOUT_S = 2.0  # for the rows of a closed connection; without the write, their leases expire

T = TypeVar("T")


class Connection:
    """One device connection from accept to close. Call `receive` for one frame at a time."""

    def __init__(
        self,
        transport: DeviceTransport,
        dependencies: SpeechDependencies,
        device_id: uuid.UUID,
        epoch: int,
        patient_id: uuid.UUID,
    ) -> None:
        self.device_id = device_id
        self.epoch = epoch
        self.patient_id = patient_id
        self.session = Session(
            settings.DEVICE_CHARACTERS_PER_MINUTE, new_id=uuid.uuid4, utc_now=partial(datetime.now, UTC)
        )
        self.outbox = OutboxClient(device_id, epoch, patient_id)
        self._transport = transport
        self._dependencies = dependencies
        self._player = SpeechPlayer(transport, dependencies, self.session, self.outbox, self._conversation_for_delivery)
        self._conversation_lock = asyncio.Lock()  # held while a conversation starts or ends
        self._closed = False

    def buffered_bytes(self) -> int:
        """Bytes that were sent to the device and have not left this process."""
        return self._transport.buffered_bytes()

    def wake(self) -> None:
        """Look into the outbox soon: it may have a delivery for this patient."""
        self._player.wake()

    async def on_registered(self) -> None:
        """Mark the device as online and release the claims of its earlier connections."""
        await self.outbox.take_over()

    async def notify_expired(self) -> None:
        """Report queued speeches that have expired as failed."""
        for speech_id in await self.outbox.pop_expired():
            self._dependencies.spawn(self._transport.send(messages.speech_failed(speech_id, "expired")))

    async def receive(self, text: str | None) -> None:
        """Handle one text frame of the device. None stands for a binary frame."""
        if self._closed:
            return
        commands = self.session.binary_frame() if text is None else self.session.text_frame(text, time.monotonic())
        for command in commands:
            await self._execute(command)

    async def close(self, code: int) -> None:
        """Close the socket with this code. All speech ends as interrupted first, and the device is notified."""
        if not self._closed:
            self._stop_accepting()
            await self._player.cancel_all()
            await self._transport.close(code)
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self.outbox.flush()

    async def drain(self, seconds: float) -> None:
        """Close for a server shutdown with 4012. The current speech may take this many seconds to end."""
        await self._player.finish_current(seconds)
        await self.close(CLOSE_SHUTTING_DOWN)

    async def detach_conversation(self, conversation_id: uuid.UUID) -> None:
        """End the conversation here, with all its speech, because another device has resumed it."""
        await self._player.cancel_all()
        self._player.release_deferred()
        await self._write(lambda: self.outbox.release_deferred(conversation_id))
        if self._is_open(conversation_id):
            _, characters = self.session.finish_conversation()
            await self._transport.send(messages.conversation_ended(conversation_id, characters))

    async def reset_voice(self, conversation_id: uuid.UUID) -> None:
        """Use the default voice from the next speech on, because the conversation's voice was withdrawn."""
        async with self._conversation_lock:
            opened = self.session.conversation
            if opened is not None and self._is_open(conversation_id):
                context = await run_in_db_thread(lifecycle.switch_to_default_voice, opened.context)
                self.session.start_conversation(replace(opened, context=context))
                await self._transport.send(messages.VOICE_CHANGED_NOTICE)

    async def on_disconnect(self) -> None:
        """Clean up after the socket was closed by either side. Also safe after `close`.

        Playing and waiting speech ends as interrupted. The conversation stays open, so that the device can resume it.
        Speech that waits for the quota and unacknowledged deliveries stay in the outbox for another connection.
        """
        self._stop_accepting()
        self._transport.stop_sending()
        await self._player.cancel_all()
        self._player.release_deferred()
        await self._write(self.outbox.release_all)
        if self.session.conversation is not None:
            open_ids = [self.session.conversation.context.conversation_id]
            await self._write(lambda: run_in_db_thread(lifecycle.heartbeat, open_ids))

    def _stop_accepting(self) -> None:
        self._closed = True
        self._player.stop_accepting()

    def _is_open(self, conversation_id: uuid.UUID) -> bool:
        opened = self.session.conversation
        return opened is not None and opened.context.conversation_id == conversation_id

    # Commands

    async def _execute(self, command: Command) -> None:
        match command:
            case StartSpeech(speech):
                self._player.enqueue(speech)
            case SendFrame(frame):
                await self._transport.send(frame)
            case StopSpeech(requeue):
                await self._player.stop(requeue=requeue)
            case DiscardSpeech(speech):
                await self._player.finalize(speech, UtteranceState.INTERRUPTED)
            case ReportPlayback(ms):
                self._player.report_playback(ms)
            case AcknowledgeDelivery(speech_id):
                self._dependencies.spawn(self._acknowledge(speech_id))
            case CancelDelivery(speech_id):
                self._dependencies.spawn(self._cancel_delivery(speech_id))
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

    async def _reject(self, error: ProtocolError) -> None:
        for command in self.session.reject(error):
            await self._execute(command)

    async def _start(self, start: StartConversation) -> None:
        self._dependencies.spawn(self._dependencies.client.preconnect())
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
            rows = await self.outbox.reclaim_deferred(opened.context.conversation_id)
            self._player.restore_deferred(rows, opened.context)
        wants_greeting = start.resume is None if start.greeting is None else start.greeting
        if wants_greeting and (greeting := self.session.enqueue_greeting(time.monotonic())):
            self._player.enqueue(greeting)
        self._player.wake()

    async def _open(self, start: StartConversation) -> OpenConversation:
        """Start, resume or adopt a conversation. Wait up to OPEN_TIMEOUT_S for a database that is unavailable.

        Closing the socket instead would let all devices reconnect at the same time.
        """
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while True:
            try:
                if start.resume is not None:
                    # A device that reconnects immediately resumes speech that may not be written yet.
                    await self._dependencies.recorder.flush()
                return await run_in_db_thread(_open_or_adopt, self.device_id, start, self.session.conversation)
            except (OperationalError, InterfaceError) as error:
                if self._closed or time.monotonic() > deadline:
                    raise
                log.warning("connection.open_failed", error=type(error).__name__)
            await asyncio.sleep(OPEN_RETRY_INTERVAL_S)

    async def _conversation_for_delivery(self) -> OpenConversation | None:
        """Return the open conversation, or open one. Return None while the database is unavailable."""
        async with self._conversation_lock:
            if self.session.conversation is None:
                opened = await self._write(lambda: run_in_db_thread(lifecycle.start_for_delivery, self.device_id))
                if opened is None or self._closed:
                    return None
                self.session.start_conversation(opened)
                await self._transport.send(opened.context.started_frame())
            return self.session.conversation

    async def _end(self) -> None:
        # Under the lock: a conversation for a delivery must not start before the device knows that this one has ended.
        async with self._conversation_lock:
            opened, characters = self.session.finish_conversation()
            counted = await self._write(lambda: run_in_db_thread(lifecycle.end, opened.context.conversation_id))
            characters = characters if counted is None else counted  # the row includes other processes' characters
            await self._transport.send(messages.conversation_ended(opened.context.conversation_id, characters))
        self._player.wake()

    async def _write(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Make this change to the database after all recorded speech was written.

        Return None if the database is unavailable. A sweep makes up for the change later.
        """
        try:
            await self._dependencies.recorder.flush()
            return await change()
        except Error as error:
            log.warning("connection.write_failed", error=type(error).__name__)
            return None


def _unknown_id(speech_id: str) -> ProtocolError:
    return ProtocolError("unknown_id", "No speech has this `id`.", speech_id)


def _open_or_adopt(
    device_id: uuid.UUID, start: StartConversation, server_opened: OpenConversation | None
) -> OpenConversation:
    """Start or resume a conversation, or adopt the one that the server has opened on this connection."""
    if server_opened is not None and start.resume in (None, str(server_opened.context.conversation_id)):
        return lifecycle.adopt(device_id, server_opened, start.format)
    if start.resume is None:
        opened = lifecycle.start(device_id, start.format)
    else:
        opened = lifecycle.resume(device_id, start.resume)
    if server_opened is not None:
        lifecycle.end(server_opened.context.conversation_id)
    return opened
