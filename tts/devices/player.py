"""Plays the speeches of one connection, one after the other, in a task that can be cancelled at any time."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import structlog

from tts.conversations.context import Context, OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.devices.output import SpeechOutput
from tts.devices.prefetch import OutboxPrefetcher
from tts.devices.transport import DeviceTransport
from tts.models import Utterance
from tts.outbox.leases import LEASE_S
from tts.protocol import messages
from tts.protocol.session import Session
from tts.speech import Speech, SpeechProgress
from tts.states import Origin, QueueReason, UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.pipeline import QuotaDeferred, SpeechFailed, speak
from tts.text.stream import TextStream
from voicecare.core import metrics

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_S = 2.0  # for sending a terminal message; on some servers `send` waits for a stuck device
DEFERRED_TTL = timedelta(minutes=15)  # how long deferred speech remains valid if its connection ends


class SpeechPlayer:
    """Plays the device's own speeches first, then deliveries from the outbox. It has at most one running task.

    `open_conversation` returns the open conversation, or opens one for a delivery. It returns None if that fails.
    """

    def __init__(
        self,
        transport: DeviceTransport,
        dependencies: SpeechDependencies,
        session: Session,
        outbox: OutboxClient,
        open_conversation: Callable[[], Awaitable[OpenConversation | None]],
    ) -> None:
        self._transport = transport
        self._dependencies = dependencies
        self._session = session
        self._outbox = outbox
        self._prefetcher = OutboxPrefetcher(dependencies, session, outbox, open_conversation)
        self._task: asyncio.Task[None] | None = None
        self._output: SpeechOutput | None = None  # set while a speech plays and may be cancelled
        self._finalized = asyncio.Event()
        self._live_first = False
        self._requeue_cancelled = False  # whether the delivery that is being cancelled is to be repeated
        self._is_waiting_for_quota = False
        self._hold_message_conversation_id: uuid.UUID | None = None  # the last conversation in which it was played
        self._is_stopping = False

    # Called by the connection

    def enqueue(self, speech: Speech) -> None:
        """Play this speech, which is in the queue, when its turn comes. Its row is recorded now."""
        self._dependencies.recorder.record(speech)
        self._prefetcher.client_activity()
        self.ensure_running()

    def wake(self) -> None:
        """Make the player look into the outbox once, as soon as its queue is empty. Starts the player if necessary."""
        self._prefetcher.pending_hint = True
        self.ensure_running()

    def ensure_running(self) -> None:
        if self._task is None and not self._is_stopping:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_log_crash)

    def on_conversation_started(self, opened: OpenConversation) -> None:
        if opened.hold_message_spoken:
            self._hold_message_conversation_id = opened.context.conversation_id

    def restore_deferred(self, rows: Iterable[Utterance], context: Context) -> None:
        """Defer the speeches that waited for the quota when the conversation's last connection ended."""
        here = {speech.utterance_id for speech in (*self._session.queue.deferred, *self._session.queue.waiting)}
        for row in (row for row in rows if row.pk not in here):
            self._defer(
                Speech(
                    row.client_speech_id,
                    TextStream(row.text, complete=True),
                    row.origin,
                    context.conversation_id,
                    context.patient_id,
                    utterance_id=row.pk,
                    received_at=row.received_at,
                    progress=SpeechProgress(
                        received_at_monotonic=time.monotonic(),
                        queue_reason=row.queue_reason,
                        expires_at=row.expires_at,
                    ),
                    takeovers=row.attempts,
                )
            )

    def report_playback(self, ms: int) -> None:
        if self._output is not None:
            self._output.report_playback(ms)

    async def stop(self, *, requeue: bool) -> None:
        """Interrupt the current speech. Return when its terminal message was sent; no audio follows it.

        With `requeue`, a delivery will be repeated.
        """
        if self._task is not None and self._output is not None:
            self._requeue_cancelled = requeue
            self._task.cancel()
            await self._finalized.wait()

    async def finish_current(self, seconds: float) -> None:
        """Start no other speech, and give the current one this many seconds to end."""
        self.stop_accepting()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    def stop_accepting(self) -> None:
        """Start no other speech."""
        self._is_stopping = True
        self._prefetcher.close()

    async def cancel_all(self) -> None:
        """Interrupt the current speech and all waiting ones. Deferred speech stays."""
        waiting = self._session.queue.pop_pending()
        if self._task is not None:
            if self._output is not None:
                self._requeue_cancelled = True
                self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_TIMEOUT_S)
        for speech in waiting:
            await self.finalize(speech, UtteranceState.INTERRUPTED)

    def release_deferred(self) -> None:
        """Forget the deferred speeches, so that another connection may play them. The outbox releases their rows."""
        self._session.queue.remove(lambda speech: True)

    # Playing

    async def _run(self) -> None:
        try:
            while not self._is_stopping and (speech := await self._next_speech()):
                await self._play(speech)
        finally:
            self._task = None

    async def _next_speech(self) -> Speech | None:
        queue = self._session.queue
        if queue.deferred and not self._dependencies.quota.hold_remaining_s(time.monotonic()):
            queue.release_deferred()
            self._live_first = True  # speech that an earlier conversation deferred comes before that of this one
        if self._live_first and (speech := await self._prefetcher.next_delivery(live_only=True)):
            return speech
        self._live_first = False
        while (speech := queue.start_next()) is None and self._prefetcher:
            if speech := await self._prefetcher.next_delivery():
                return speech
        return speech

    async def _play(self, speech: Speech) -> None:
        """Play one speech until it ends, for any reason.

        A cancellation interrupts this speech only. `_run` then decides whether it continues with the next one.
        """
        opened = self._session.require_conversation()
        self._finalized.clear()
        speech.progress.started(time.monotonic())
        self._record(speech)
        self._output = output = SpeechOutput(self._transport, speech, opened.context.speech_settings.format)
        code = ""
        try:
            await speak(speech, opened.context, output, self._dependencies)
            outcome = UtteranceState.SPOKEN
        except QuotaDeferred:
            outcome = UtteranceState.QUEUED
        except SpeechFailed as failure:
            outcome, code = UtteranceState.FAILED, failure.code
        except asyncio.CancelledError:
            outcome = UtteranceState.WAITING if speech.claim and self._requeue_cancelled else UtteranceState.INTERRUPTED
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()  # the cancellation was for this speech, not for `_run`
        except Exception:  # a bug: this speech has failed, but the next one may succeed
            log.exception("player.speech_crashed", conversation_id=str(speech.conversation_id))
            outcome, code = UtteranceState.FAILED, SpeechFailed.NO_VOICE
        self._output = None
        self._requeue_cancelled = False
        try:
            if outcome is UtteranceState.QUEUED:
                await self._queue_for_quota(speech, opened.context)
            else:
                await self.finalize(speech, outcome, code)
        finally:
            self._finalized.set()

    async def finalize(self, speech: Speech, outcome: UtteranceState, code: str = "") -> None:
        """Send the terminal message of a speech and record its row.

        A delivery that was put back before any audio was sent has no terminal message.
        """
        speech.finished(outcome, code)
        self._session.finish_speech(speech)
        self._record(speech)
        metrics.SPEECHES.labels(outcome.value).inc()
        if outcome is not UtteranceState.WAITING or speech.progress.bytes_sent:
            await self._transport.send(messages.speech_terminal(speech))
        if speech.claim is not None and outcome is UtteranceState.WAITING:
            self._prefetcher.requeue(speech.claim)
        elif speech.claim is not None:
            self._outbox.finish(speech.claim, speech)
            self._dependencies.spawn(self._outbox.flush())

    def _record(self, speech: Speech) -> None:
        """Record the row of the device's own speech. The outbox writes the rows of deliveries."""
        if speech.claim is None:
            self._dependencies.recorder.record(speech)

    # While the quota is exhausted

    async def _queue_for_quota(self, speech: Speech, context: Context) -> None:
        """Set aside a speech of which no audio was sent. Speech that needs no quota may play before it."""
        if speech.claim is not None:
            speech.queued(QueueReason.QUOTA)
            self._session.finish_speech(speech)
            self._prefetcher.requeue(speech.claim, queued=True)
            if speech.claim.expires_at is not None and self._outbox.mark_queued_notified(speech.claim):
                await self._transport.send(messages.speech_queued(speech.id, "quota", speech.claim.expires_at))
            return
        if speech.origin == Origin.HOLD_MESSAGE:  # it has left the cache, and is useless later
            await self.finalize(speech, UtteranceState.INTERRUPTED)
            return
        speech.queued(QueueReason.QUOTA)
        self._defer(speech)
        until = datetime.now(UTC) + timedelta(seconds=self._dependencies.quota.hold_remaining_s(time.monotonic()))
        await self._transport.send(messages.speech_queued(speech.id, "quota", until))
        if self._hold_message_conversation_id == context.conversation_id:
            return
        self._hold_message_conversation_id = context.conversation_id
        if context.hold_message is None:
            return
        # The hold message plays only if it is cached. Without quota, this voice cannot speak anything else.
        phrases = self._dependencies.phrase_cache
        is_cached = await phrases.get(phrases.key(context.speech_settings, context.hold_message)) is not None
        if is_cached and self._session.conversation is not None:
            self._session.enqueue_hold_message(context.hold_message, time.monotonic())

    def _defer(self, speech: Speech) -> None:
        """Keep the speech in memory. Its row allows another connection to take over if this one ends."""
        now = datetime.now(UTC)
        speech.progress.deferred(
            owner=self._outbox.owner, lease_until=now + timedelta(seconds=LEASE_S), expires_at=now + DEFERRED_TTL
        )
        self._dependencies.recorder.record(speech)
        self._session.queue.defer(speech)
        if not self._is_waiting_for_quota:
            self._is_waiting_for_quota = True
            self._dependencies.spawn(self._wait_for_quota())

    async def _wait_for_quota(self) -> None:
        quota = self._dependencies.quota
        while left := quota.hold_remaining_s(time.monotonic()):
            await quota.wait_for_change(left)
        self._is_waiting_for_quota = False
        self.ensure_running()


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("player.crashed", exc_info=task.exception())
