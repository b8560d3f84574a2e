"""One connected device: executes the commands of `tts.protocol.session` and lets `tts.devices.player` speak."""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.db import Error, InterfaceError, OperationalError, transaction

from tts.conversations import lifecycle
from tts.conversations.context import OpenConversation
from tts.conversations.takeover import VoiceChoice
from tts.devices.outbox_client import OutboxClient
from tts.devices.player import SpeechPlayer
from tts.devices.transport import DeviceTransport
from tts.models import Utterance
from tts.outbox import deferred
from tts.protocol import messages
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
from tts.protocol.messages import CLOSE_SHUTTING_DOWN, ProtocolError
from tts.protocol.session import Session
from tts.states import UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from voicecare.core.database import run_in_db_thread

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
OPEN_RETRY_INTERVAL_S = 0.5
WRITE_TIMEOUT_S = 2.0  # for the rows of a closed connection; without the write, their leases expire

MAX_WAITING_LOOKUPS = 16  # a device has one delivery at a time

T = TypeVar("T")


class Connection:
    """One device connection from its acceptance to its end. Call `receive` for one frame at a time."""

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
        self.session = Session(settings.DEVICE_CHARACTERS_PER_MINUTE, new_id=uuid.uuid4, utc_now=_steady_utc_clock())
        self.outbox = OutboxClient(device_id, epoch, patient_id)
        self._transport = transport
        self._dependencies = dependencies
        self._player = SpeechPlayer(transport, dependencies, self.session, self.outbox, self._conversation_for_delivery)
        self._lookups: asyncio.Queue[tuple[DeliveryLookup, bool]] = asyncio.Queue(MAX_WAITING_LOOKUPS)
        self._is_looking_up = False
        self._conversation_lock = asyncio.Lock()  # held while a conversation starts or ends
        self._is_detaching = False  # whether a task waits for this lock in order to detach the conversation
        self._closed = False

    def buffered_bytes(self) -> int:
        """The number of bytes for the device that have not left this process."""
        return self._transport.buffered_bytes() + self._player.unsent_bytes()

    def wake(self) -> None:
        """Make the player look into the outbox soon, because it may have a delivery for this patient."""
        self._player.wake()

    async def on_registered(self) -> None:
        """Mark the device as online and release the claims of its earlier connections.

        The registry calls this method.
        """
        await self.outbox.take_over()

    def stop_lost_delivery(self) -> None:
        """Stop the delivery that is playing if another connection has claimed it.

        Returns immediately. The work is done in the background.
        """
        self._dependencies.spawn(self._player.stop_lost_delivery())

    def notify_expired(self, overdue: Collection[uuid.UUID], expired: Collection[uuid.UUID]) -> None:
        """Report queued speech that has expired to the device, as failed.

        `overdue` are the ids of speeches whose expiry time has passed, `expired` those that have expired in the
        database, too.
        """
        for speech_id in self.outbox.pop_overdue(overdue, expired):
            self._dependencies.spawn(self._transport.send(messages.speech_failed(speech_id, "expired")))

    async def receive(self, text: str | None) -> None:
        """Handle one text frame of the device. `text` is None for a binary frame."""
        if not self._closed:
            commands = self.session.binary_frame() if text is None else self.session.text_frame(text, time.monotonic())
            for command in commands:
                await self._execute(command)
        self._transport.read_on()

    async def close(self, code: int) -> None:
        """Close the socket with this close code.

        Before that, end all speech as interrupted and notify the device of it.
        """
        if not self._closed:
            self._stop_accepting()
            await self._player.cancel_all()
            await self._transport.close(code)
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self.outbox.flush()

    async def drain(self, seconds: float) -> None:
        """Close the socket with code 4012, because the server shuts down.

        The current speech may take `seconds` to end. Of these, a delivery may take what is left to be acknowledged:
        otherwise the patient would hear it again at the next connection.
        """
        deadline = time.monotonic() + seconds
        await self._player.finish_current(seconds)
        await self.outbox.wait_for_playback(deadline - time.monotonic())
        await self.close(CLOSE_SHUTTING_DOWN)

    def detach_conversation(self, conversation_id: uuid.UUID) -> None:
        """End the conversation and its speech on this connection, because another device has resumed it.

        Returns immediately. The work is done in the background. A call does nothing while an earlier one waits.
        """
        if not self._is_detaching:
            self._is_detaching = True
            self._dependencies.spawn(self._detach(conversation_id))

    async def _detach(self, conversation_id: uuid.UUID) -> None:
        async with self._conversation_lock:
            self._is_detaching = False  # a later sweep may find the next conversation
            if not self._is_open(conversation_id):
                return
            self._player.playback.save_all()
            _, characters = self.session.finish_conversation()  # from now on, further speech is refused
            await self._player.cancel_all()
            while not self._closed:
                try:
                    await self._player.end_deferred()
                    break
                except Error as error:  # only the database knows which device ends the deferred speech
                    log.warning("connection.detach_failed", error=type(error).__name__)
                await asyncio.sleep(OPEN_RETRY_INTERVAL_S)
            counted = await self._write(lambda: run_in_db_thread(lifecycle.characters_of, conversation_id))
            characters = characters if counted is None else counted
            await self._transport.send(messages.conversation_ended(conversation_id, characters))
        self._player.wake()

    def change_voices(self, conversation_id: uuid.UUID, choice: VoiceChoice) -> None:
        """Use these voices from the next speech on. The device is notified if the voice of the conversation changes.

        Returns immediately. A conversation that is being resumed now may get its former voice. The next sweep
        finds it.
        """
        opened = self.session.conversation
        if opened is not None and self._is_open(conversation_id):
            former = opened.context.speech_settings.voice
            self.session.start_conversation(replace(opened, context=choice.apply_to(opened.context)))
            if choice.voice.id != former.id:
                self._dependencies.spawn(self._transport.send(messages.VOICE_CHANGED_NOTICE))

    async def on_disconnect(self) -> None:
        """Clean up after the socket was closed by either side. Also safe after `close`.

        Playing and waiting speech ends as interrupted. The conversation stays open, so that the device can resume it.
        Speech that waits for the quota and unacknowledged deliveries stay in the outbox for another connection.
        """
        self._stop_accepting()
        self._transport.stop_sending()
        await self._player.cancel_all()
        self._player.playback.save_all()
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
            case ReportPlayback(speech_id, ms):
                self._player.report_playback(speech_id, ms)
            case DiscardAudio(speech_id):
                self._player.discard_audio(speech_id)
            case AcknowledgeDelivery() | CancelDelivery():
                is_doubtful = isinstance(command, AcknowledgeDelivery) and self._player.playback.is_doubtful_ack(
                    command.speech_id, time.monotonic()
                )
                await self._lookups.put((command, is_doubtful))
                if not self._is_looking_up:
                    self._is_looking_up = True
                    self._dependencies.spawn(self._look_up_deliveries())
            case StartConversation():
                await self._start(command)
            case EndConversation():
                await self._end()
            case CloseConnection(code):
                await self.close(code)

    async def _look_up_deliveries(self) -> None:
        """Carry out the device's acknowledgements and cancellations of deliveries, one after the other.

        So a device uses at most one database thread. A device that sends more than MAX_WAITING_LOOKUPS has to wait: no
        further frame is read from it. All lookups that it has sent are carried out, even after it has disconnected.
        """
        try:
            while not self._lookups.empty():
                lookup, is_doubtful = self._lookups.get_nowait()
                try:
                    await self._look_up_delivery(lookup, is_doubtful=is_doubtful)
                except Exception:  # without the next lookups, the device would be read no further
                    log.exception("connection.lookup_failed")
        finally:
            self._is_looking_up = False

    async def _look_up_delivery(self, lookup: DeliveryLookup, *, is_doubtful: bool) -> None:
        speech_id = lookup.speech_id
        if isinstance(lookup, AcknowledgeDelivery):
            is_known = await self.outbox.acknowledge(speech_id, is_doubtful=is_doubtful)
            if is_doubtful:
                self._player.wake()
        elif await self.outbox.cancel(speech_id):
            is_known = True
            if self.outbox.forget_queued(speech_id):
                await self._transport.send(messages.speech_cancelled(speech_id))
        else:
            is_known = await self.outbox.is_known(speech_id)
        if is_known:
            self.session.confirm(lookup)
        elif not self._closed:
            await self._reject(ProtocolError("unknown_id", "No speech has this `id`.", speech_id), lookup)

    async def _reject(self, error: ProtocolError, lookup: DeliveryLookup | None = None) -> None:
        for command in self.session.reject(error, lookup):
            await self._execute(command)

    async def _start(self, start: StartConversation) -> None:
        self._dependencies.spawn(self._dependencies.client.preconnect())
        async with self._conversation_lock:
            try:
                opened, deferred_rows = await self._open(start)
            except lifecycle.UnknownConversation as error:
                await self._reject(ProtocolError(error.code, error.message))
                return
            for command in self.session.switch_conversation(opened):
                await self._execute(command)
            self.session.start_conversation(opened)
            if opened.context.speech_settings.voice.is_offline:
                self._dependencies.error_reporter.report_no_usable_voice(opened.context.conversation_id)
            self._player.on_conversation_started(opened)
            await self._transport.send(opened.context.started_frame())
            self._player.restore_deferred(deferred_rows, opened.context)
        wants_greeting = start.resume is None if start.greeting is None else start.greeting
        if wants_greeting and (greeting := self.session.enqueue_greeting(time.monotonic())):
            self._player.enqueue(greeting)
        self._player.wake()

    async def _open(self, start: StartConversation) -> tuple[OpenConversation, list[Utterance]]:
        """Start, resume or adopt a conversation.

        Return it together with its deferred speech from an earlier connection. If the database is unavailable, this
        waits up to OPEN_TIMEOUT_S for it. Closing the socket instead would let all devices reconnect at the same time.
        """
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        while True:
            try:
                if start.resume is not None:
                    # A device that reconnects immediately resumes speech that may not be written yet.
                    await self._dependencies.recorder.flush()
                return await run_in_db_thread(
                    _open_or_adopt, self.device_id, self.outbox.owner, start, self.session.conversation
                )
            except (OperationalError, InterfaceError) as error:
                if self._closed or time.monotonic() > deadline:
                    raise
                log.warning("connection.open_failed", error=type(error).__name__)
            await asyncio.sleep(OPEN_RETRY_INTERVAL_S)

    async def _conversation_for_delivery(self) -> OpenConversation | None:
        """Return the open conversation, or start one. Return None while the database is unavailable."""
        async with self._conversation_lock:
            if self.session.conversation is None:
                opened = await self._write(lambda: run_in_db_thread(lifecycle.start_for_delivery, self.device_id))
                if opened is None or self._closed:
                    return None
                self.session.start_conversation(opened)
                self._player.on_conversation_started(opened)
                await self._transport.send(opened.context.started_frame())
            return self.session.conversation

    async def _end(self) -> None:
        # Under the lock: a conversation for a delivery must not start before the device knows that this one has ended.
        async with self._conversation_lock:
            if self.session.conversation is None:  # another device has resumed it, and `_detach` has sent the end
                return
            self._player.playback.save_all()
            opened, characters = self.session.finish_conversation()
            counted = await self._write(lambda: run_in_db_thread(lifecycle.end, opened.context.conversation_id))
            characters = characters if counted is None else counted  # the row includes other processes' characters
            await self._transport.send(messages.conversation_ended(opened.context.conversation_id, characters))
        self._player.wake()

    async def _write(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Await `change`, a write to the database, after all recorded speech was written. Return its result.

        Return None if the database is unavailable. A periodic sweep makes up for the change later.
        """
        try:
            await self._dependencies.recorder.flush()
            return await change()
        except Error as error:
            log.warning("connection.write_failed", error=type(error).__name__)
            return None


def _steady_utc_clock() -> Callable[[], datetime]:
    """Return a clock in UTC that never goes back, because queued speech is played in the order of its times."""
    offset = datetime.now(UTC) - timedelta(seconds=time.monotonic())
    return lambda: offset + timedelta(seconds=time.monotonic())


def _open_or_adopt(
    device_id: uuid.UUID, owner: str, start: StartConversation, server_opened: OpenConversation | None
) -> tuple[OpenConversation, list[Utterance]]:
    """Start or resume a conversation, or adopt the one that the server has started on this connection.

    Also return the rows of its deferred speech, which this connection (`owner`) owns now. If another device has the
    conversation, it loses the conversation and this speech in one transaction.
    """
    wanted = None if start.resume is None else lifecycle.parse_id(start.resume)
    if server_opened is not None and wanted in (None, server_opened.context.conversation_id):
        return lifecycle.adopt(device_id, server_opened, start.format, start.buffer_ms), []
    if wanted is None:
        opened, rows = lifecycle.start(device_id, start.format, start.buffer_ms), []
    else:
        with transaction.atomic():
            # Utterances are locked before their conversation, as in the recorder. In another order they could deadlock.
            rows = deferred.reclaim(wanted, owner)
            opened = lifecycle.resume(device_id, wanted, start.buffer_ms)
    if server_opened is not None:
        lifecycle.end(server_opened.context.conversation_id)
    return opened, rows
