"""Says what one connection has to say, one speech after the other, in a task that can be stopped at any moment."""

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
from tts.outbox.claim import Claim
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

CANCEL_TIMEOUT_S = (
    2.0  # for the terminal message of a cancelled speech, on a server whose `send` waits for a stuck device
)
DEFERRED_TTL = timedelta(minutes=15)  # what the quota holds is of use for so long, should its connection end meanwhile


class SpeechPlayer:
    """The one task of a connection that speaks: the device's own speeches first, then what the outbox has.

    `open_conversation` gives the open one, or opens one for a delivery; None where that is impossible now.
    """

    def __init__(
        self,
        socket: DeviceTransport,
        services: SpeechDependencies,
        session: Session,
        deliveries: OutboxClient,
        open_conversation: Callable[[], Awaitable[OpenConversation | None]],
    ) -> None:
        self._transport = socket
        self._services = services
        self._session = session
        self._outbox = deliveries
        self._prefetcher = OutboxPrefetcher(services, session, deliveries, open_conversation)
        self._task: asyncio.Task[None] | None = None
        self._output: SpeechOutput | None = None  # set exactly while a speech may be cancelled
        self._finalized = asyncio.Event()
        self._live_first = False
        self._requeue_cancelled = False  # a cancelled delivery is to be repeated
        self._is_waiting_for_quota = False
        self._hold_message_conversation_id: uuid.UUID | None = None  # in this conversation
        self._is_stopping = False

    # What the connection tells it

    def enqueue(self, speech: Speech) -> None:
        """This one is new in the line. Its row is there from now on, whatever becomes of this process."""
        self._services.recorder.record(speech)
        self._prefetcher.client_activity()
        self.ensure_running()

    def wake(self) -> None:
        """Look into the outbox when nothing else is to be said."""
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
        """What waited for the quota when the conversation's last connection ended waits here from now on."""
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

    async def stop(self, *, put_back: bool) -> None:
        """Ends the speech that plays; returns when its terminal message is out. No byte of it follows.

        `put_back`: one of the outbox is to be said again.
        """
        if self._task is not None and self._output is not None:
            self._requeue_cancelled = put_back
            self._task.cancel()
            await self._finalized.wait()

    async def finish_current(self, seconds: float) -> None:
        """What plays may end within that time; nothing new begins."""
        self.stop_accepting()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    def stop_accepting(self) -> None:
        """Nothing new begins from here on."""
        self._is_stopping = True
        self._prefetcher.close()

    async def cancel_all(self) -> None:
        """What plays and waits ends as interrupted; what the quota holds stays held."""
        waiting = self._session.queue.pop_pending()
        if self._task is not None:
            if self._output is not None:
                self._requeue_cancelled = True
                self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_TIMEOUT_S)
        for speech in waiting:
            await self.finalize(speech, UtteranceState.INTERRUPTED)

    def release_deferred(self) -> None:
        """Another connection may say what the quota holds here."""
        self._session.queue.remove(lambda speech: True)  # its rows are freed where they are still this owner's

    # The line

    async def _run(self) -> None:
        try:
            while not self._is_stopping and (speech := await self._next_speech()):
                await self._play(speech)
        finally:
            self._task = None

    async def _next_speech(self) -> Speech | None:
        line = self._session.queue
        if line.deferred and not self._services.quota.hold_remaining_s(time.monotonic()):
            line.release_deferred()
            self._live_first = True  # what was held in an earlier conversation comes before what was held here
        if self._live_first and (speech := await self._prefetcher.next_delivery(live_only=True)):
            return speech
        self._live_first = False
        while (speech := line.start_next()) is None and self._prefetcher:
            if speech := await self._prefetcher.next_delivery():
                return speech
        return speech

    async def _play(self, speech: Speech) -> None:
        """Says one speech to its end, whatever that is. A cancellation ends this speech, as interrupted, and not the
        line: that looks for itself whether it may go on."""
        opened = self._session.require_conversation()
        self._finalized.clear()
        speech.progress.started(time.monotonic())
        self._record(speech)
        self._output = delivery = SpeechOutput(self._transport, speech, opened.context.speech_settings.format)
        code = ""
        try:
            await speak(speech, opened.context, delivery, self._services)
            outcome = UtteranceState.SPOKEN
        except QuotaDeferred:
            outcome = UtteranceState.QUEUED
        except SpeechFailed as failure:
            outcome, code = UtteranceState.FAILED, failure.code
        except asyncio.CancelledError:
            outcome = UtteranceState.WAITING if speech.claim and self._requeue_cancelled else UtteranceState.INTERRUPTED
            _uncancel()
        except Exception:  # a defect of ours: this speech has failed, the patient's next one may not
            log.exception("speaker.defect", conversation=str(speech.conversation_id))
            outcome, code = UtteranceState.FAILED, SpeechFailed.NO_VOICE
        self._output = None
        self._requeue_cancelled = False
        try:
            await (
                self._queue_for_quota(speech, opened.context)
                if outcome is UtteranceState.QUEUED
                else self.finalize(speech, outcome, code)
            )
        finally:
            self._finalized.set()

    async def finalize(self, speech: Speech, outcome: UtteranceState, code: str = "") -> None:
        """The one terminal message of a speech, and its row. A delivery of which nothing was heard has none."""
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
            self._services.spawn(self._outbox.flush())

    def _record(self, speech: Speech) -> None:
        """The row of a claimed one is the outbox's."""
        if speech.claim is None:
            self._services.recorder.record(speech)

    # While the quota is spent

    async def _queue_for_quota(self, speech: Speech, context: Context) -> None:
        """Nothing of it was heard: it is queued, and others that need no quota may pass."""
        if speech.claim is not None:
            speech.queued(QueueReason.QUOTA)
            await self._requeue_delivery(speech.claim, speech)
            return
        if speech.origin == Origin.HOLD_MESSAGE:  # its clip went out of the cache meanwhile: it is of no use later
            await self.finalize(speech, UtteranceState.INTERRUPTED)
            return
        speech.queued(QueueReason.QUOTA)
        self._defer(speech)
        until = datetime.now(UTC) + timedelta(seconds=self._services.quota.hold_remaining_s(time.monotonic()))
        await self._transport.send(messages.speech_queued(speech.id, "quota", until))
        if self._hold_message_conversation_id != context.conversation_id:
            self._hold_message_conversation_id = context.conversation_id
            await self._enqueue_hold_message(context)

    async def _requeue_delivery(self, claim: Claim, speech: Speech) -> None:
        self._session.finish_speech(speech)
        self._prefetcher.requeue(claim, queued=True)
        if claim.expires_at is not None and self._outbox.mark_queued_notified(claim):
            await self._transport.send(messages.speech_queued(speech.id, "quota", claim.expires_at))

    def _defer(self, speech: Speech) -> None:
        """In memory, and in its row for another connection, should this one end."""
        now = datetime.now(UTC)
        speech.progress.deferred(
            owner=self._outbox.owner, lease_until=now + timedelta(seconds=LEASE_S), expires_at=now + DEFERRED_TTL
        )
        self._services.recorder.record(speech)
        self._session.queue.defer(speech)
        if not self._is_waiting_for_quota:
            self._is_waiting_for_quota = True
            self._services.spawn(self._wait_for_quota())

    async def _wait_for_quota(self) -> None:
        quota = self._services.quota
        while left := quota.hold_remaining_s(time.monotonic()):
            await quota.wait_for_change(left)
        self._is_waiting_for_quota = False
        self.ensure_running()

    async def _enqueue_hold_message(self, context: Context) -> None:
        """Only one that is in the cache: while the quota is spent nothing else can be said in this voice."""
        if context.hold_message is None:
            return
        phrases = self._services.phrase_cache
        is_cached = await phrases.get(phrases.key(context.speech_settings, context.hold_message)) is not None
        if is_cached and self._session.conversation is not None:
            self._session.enqueue_hold_message(context.hold_message, time.monotonic())


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("speaker.stopped", exc_info=task.exception())


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
