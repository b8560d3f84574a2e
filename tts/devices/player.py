"""Plays the speeches of one connection, one after the other, in a task that can be cancelled at any time."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from django.db import Error

from tts.conversations.context import Context, OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.devices.output import SpeechOutput
from tts.devices.playback import Playback
from tts.devices.prefetch import OutboxPrefetcher
from tts.devices.transport import DeviceTransport
from tts.models import Utterance
from tts.outbox.deferred import Fate
from tts.protocol import messages
from tts.protocol.session import Session
from tts.queue_reason import QueueReason
from tts.recorder import Heard
from tts.speech import Speech, SpeechProgress
from tts.states import SERVER_PREFIX, Origin, UtteranceState
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.pipeline import QuotaDeferred, SpeechFailed, speak
from tts.text.stream import TextStream
from voicecare.core import metrics

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_S = 2.0  # for sending a terminal message; on some servers `send` waits for a stuck device
DEFERRED_TTL_S = 15 * 60.0  # how long deferred speech remains valid if its connection ends
TAKE_TIMEOUT_S = 1.0  # other speech waits no longer for the database to confirm a deferred speech
TAKE_RETRY_S = 1.0


class SpeechPlayer:
    """Plays the device's own speeches first, then deliveries from the outbox. It has at most one running task.

    A deferred speech is one of the device's own speeches that waits in memory for the quota. `open_conversation`
    returns the open conversation, or starts one for a delivery. It returns None if that fails.
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
        self.playback = Playback(self._save_heard)
        self._prefetcher = OutboxPrefetcher(dependencies, session, outbox, open_conversation)
        self._task: asyncio.Task[None] | None = None
        self._output: SpeechOutput | None = None  # set while a speech plays and may be cancelled
        self._finalized = asyncio.Event()  # unset from the start of a speech until its terminal message was sent
        self._finalized.set()
        self._live_first = False
        self._requeue_cancelled = False  # whether the delivery that is being cancelled is to be repeated
        self._is_waiting_for_quota = False
        self._taking: tuple[Speech, asyncio.Task[Fate | None]] | None = None  # a query of `_take` without an answer yet
        self._take_again_at = 0.0  # monotonic; in the future if the database gave no answer
        self._hold_message_conversation_id: uuid.UUID | None = None  # the last conversation in which it was played
        self._is_stopping = False

    # Called by the connection

    def enqueue(self, speech: Speech) -> None:
        """Play this speech when its turn comes. The caller has added it to the session's queue.

        Its row is recorded now.
        """
        self._dependencies.recorder.record(speech)
        self._prefetcher.client_activity()
        self.ensure_running()

    def wake(self) -> None:
        """Make the player look into the outbox once, as soon as its queue is empty.

        Start its task if it does not run.
        """
        self._prefetcher.pending_hint = True
        self.ensure_running()

    def ensure_running(self) -> None:
        if self._task is None and not self._is_stopping:
            self._task = asyncio.create_task(self._run())

    def on_conversation_started(self, opened: OpenConversation) -> None:
        """Note what the device can hold. Call this for each conversation, also for one that the server has opened."""
        self.playback.buffer_s = None if opened.buffer_ms is None else opened.buffer_ms / 1000
        if opened.hold_message_spoken:
            self._hold_message_conversation_id = opened.context.conversation_id

    def restore_deferred(self, rows: Iterable[Utterance], context: Context) -> None:
        """Defer the speeches that waited for the quota when the conversation was on an earlier connection.

        `rows` are their utterances, which this connection owns now.
        """
        here = self._session.queue.pending_ids()
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
                    ),
                    takeovers=row.attempts,
                )
            )

    def report_playback(self, speech_id: str, ms: int) -> None:
        """Note that the device has played `ms` milliseconds of this speech, which may have ended."""
        self.playback.record_progress(speech_id, ms, time.monotonic())
        playing = self._session.queue.playing
        if self._output is not None and playing is not None and playing.id == speech_id:
            self._output.report_playback(ms)

    def discard_audio(self, speech_id: str | None) -> None:
        """Note that the device has discarded the audio of this speech, or without an id of all its own speeches."""
        self.playback.discard(
            lambda key: key == speech_id if speech_id else not key.startswith(SERVER_PREFIX), time.monotonic()
        )

    def _save_heard(self, utterance_id: uuid.UUID, ms: int) -> None:
        self._dependencies.recorder.record(Heard(utterance_id, ms))

    def unsent_bytes(self) -> int:
        """The number of bytes of audio that wait in the output because the device reads slowly."""
        return 0 if self._output is None else self._output.unsent_bytes()

    async def stop(self, *, requeue: bool) -> None:
        """Interrupt the current speech, and wait until its terminal frame was sent. No audio follows that frame.

        With `requeue`, a delivery will be repeated.
        """
        if self._task is not None and self._output is not None:
            self._requeue_cancelled = requeue
            self._task.cancel()
            await self._finalized.wait()

    async def stop_lost_delivery(self) -> None:
        """Stop the delivery that is playing if another connection has claimed it."""
        speech = self._session.queue.playing
        if speech is None or speech.claim is None or await self._outbox.keep_claim(speech.claim):
            return
        if self._session.queue.playing is speech:
            await self.stop(requeue=False)

    async def finish_current(self, seconds: float) -> None:
        """Start no other speech, and wait up to `seconds` for the current speech to end."""
        self.stop_accepting()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    def stop_accepting(self) -> None:
        """Start no further speech. The current speech continues."""
        self._is_stopping = True
        self._prefetcher.close()

    async def cancel_all(self) -> None:
        """Interrupt the current speech and all waiting speeches, but not those that wait for the quota."""
        waiting = self._session.queue.pop_pending()
        if self._task is not None and self._output is not None:
            self._requeue_cancelled = True
            self._task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._finalized.wait()
        for speech in waiting:
            await self.finalize(speech, UtteranceState.INTERRUPTED)

    async def end_deferred(self) -> None:
        """End the deferred speeches, which wait for the quota, unless another connection has taken them over.

        Raises DatabaseError.
        """
        speeches = list(self._session.queue.deferred)
        if speeches:
            await self._dependencies.recorder.flush()  # another connection cannot see a row that is not written
            fates = await self._outbox.end_deferred(speeches)
            for speech in self._session.queue.remove(lambda speech: speech in speeches):
                await self._give_up(speech, fates[speech.utterance_id])

    def release_deferred(self) -> None:
        """Forget the deferred speeches, which wait for the quota, so that another connection may play them.

        `OutboxClient.release_all` releases their rows.
        """
        self._session.queue.remove(lambda speech: True)

    # Playing

    async def _run(self) -> None:
        try:
            while not self._is_stopping:
                if speech := await self._next_speech():
                    await self._play(speech)
                elif not self._may_play_deferred():  # its deferral may have ended during `_next_speech`
                    if self._session.conversation is not None and self._session.queue.deferred:
                        self._play_deferred_later()  # the last wait may have ended while the player was busy
                    break
        except Exception:  # a defect; the next speech is played by a new task
            log.exception("player.crashed")
        finally:
            self._task = None

    async def _next_speech(self) -> Speech | None:
        queue = self._session.queue
        if self._may_play_deferred():
            queue.release_deferred()
            self._live_first = True  # speech that an earlier conversation deferred comes before that of this one
        if self._live_first and (speech := await self._prefetcher.next_delivery(live_only=True)):
            return speech
        self._live_first = False
        while (speech := await self._start_next()) is None and self._prefetcher:
            if speech := await self._prefetcher.next_delivery():
                return speech
        return speech

    async def _start_next(self) -> Speech | None:
        """Return the next speech of the queue that this connection still owns, marked as playing, or None.

        Another connection may have taken over a deferred speech in the meantime.
        """
        queue = self._session.queue
        while not self._is_stopping and (speech := queue.next_deferred()) is not None:
            fate = await self._take(speech)
            if self._is_stopping or queue.next_deferred() is not speech:  # it has ended, or must not start here
                if fate is Fate.OWNED and speech.progress.state == UtteranceState.QUEUED:
                    await self._outbox.release_deferred(speech)
                continue
            if fate is Fate.OWNED:
                break
            if fate is None:  # no answer: other speech plays first, and the query is repeated later
                queue.defer_released()
                self._take_again_at = time.monotonic() + TAKE_RETRY_S
                self._play_deferred_later()
                break
            queue.waiting.popleft()
            await self._give_up(speech, fate)
        return None if self._is_stopping else queue.start_next()

    async def _take(self, speech: Speech) -> Fate | None:
        """Find out in the database who owns a deferred speech, which waited for the quota.

        Start it if this connection does. Return None if there is no answer within TAKE_TIMEOUT_S. The query continues
        in that case, and the next call returns its result.
        """

        async def query() -> Fate | None:
            try:
                await self._dependencies.recorder.flush()  # its row may not be written yet
            except Error as error:
                log.warning("player.take_failed", error=type(error).__name__)
                return None
            return await self._outbox.take_deferred(speech)

        if self._taking is None or self._taking[0] is not speech:
            self._taking = speech, asyncio.create_task(query())
        _, taking = self._taking
        done, _ = await asyncio.wait({taking}, timeout=TAKE_TIMEOUT_S)
        if not done:
            return None
        self._taking = None
        return taking.result()

    async def _give_up(self, speech: Speech, fate: Fate) -> None:
        """End a deferred speech that this connection no longer owns.

        If another connection owns it now, that connection reports its end to the device.
        """
        match fate:
            case Fate.MOVED:
                self._session.finish_speech(speech)
                speech.log("speech.moved")
            case Fate.EXPIRED:
                await self.finalize(speech, UtteranceState.EXPIRED, "expired")
            case _:
                await self.finalize(speech, UtteranceState.INTERRUPTED)

    async def _play(self, speech: Speech) -> None:
        """Play one speech until it ends, for any reason.

        A cancellation of the task interrupts only this speech. `_run` then decides whether to continue with the next
        one.
        """
        opened = self._session.require_conversation()
        self._finalized.clear()
        speech.progress.started(time.monotonic())
        self._record(speech)
        self.playback.begin(speech.id, speech.utterance_id)
        self._output = output = SpeechOutput(
            self._transport, speech, opened.context.speech_settings.format, self.playback
        )
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
        await output.close()
        is_discarded = outcome in (UtteranceState.INTERRUPTED, UtteranceState.WAITING)
        self.playback.end(speech.id, time.monotonic(), is_discarded=is_discarded)
        try:
            if outcome is UtteranceState.QUEUED:
                await self._queue_for_quota(speech, opened.context)
            else:
                await self.finalize(speech, outcome, code)
        finally:
            self._finalized.set()

    async def finalize(self, speech: Speech, outcome: UtteranceState, code: str = "") -> None:
        """Send the terminal frame of a speech and record its row.

        A delivery that was put back before any audio was sent has no terminal frame.
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
        """Record the row of a speech that the device requested. `OutboxClient` writes the rows of deliveries."""
        if speech.claim is None:
            self._dependencies.recorder.record(speech)

    # While the quota is exhausted

    async def _queue_for_quota(self, speech: Speech, context: Context) -> None:
        """Let a speech of which no audio was sent wait for the quota. Speech that needs no quota may play before it."""
        if speech.claim is not None:
            speech.queued(QueueReason.QUOTA)
            self._session.finish_speech(speech)
            self._prefetcher.requeue(speech.claim, queued=True)
            if speech.claim.expires_at is not None and self._outbox.mark_queued_notified(speech.claim):
                await self._transport.send(messages.speech_queued(speech.id, "quota", speech.claim.expires_at))
            return
        if speech.origin == Origin.HOLD_MESSAGE:  # its clip is no longer cached, and it is useless later
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
        """Keep the speech in memory until there is quota.

        If this connection ends, another one can take it over from its row.
        """
        expires_at = time.monotonic() + DEFERRED_TTL_S
        speech.progress.deferred(owner=self._outbox.owner, expires_at_monotonic=expires_at)
        self._dependencies.recorder.record(speech)
        self._session.queue.defer(speech)
        self._play_deferred_later()

    def _deferral_remaining_s(self) -> float:
        """Return the seconds until speech that waits for the quota may play.

        If the quota comes back, it may play earlier.
        """
        now = time.monotonic()
        return max(self._dependencies.quota.hold_remaining_s(now), self._take_again_at - now, 0.0)

    def _may_play_deferred(self) -> bool:
        """Whether a conversation is open and has deferred speech that may play now."""
        is_open = self._session.conversation is not None
        return is_open and bool(self._session.queue.deferred) and not self._deferral_remaining_s()

    def _play_deferred_later(self) -> None:
        async def wait_for_quota() -> None:
            while not self._is_stopping and (left := self._deferral_remaining_s()):
                await self._dependencies.quota.wait_for_change(left)
            self._is_waiting_for_quota = False
            self.ensure_running()

        if not self._is_waiting_for_quota:
            self._is_waiting_for_quota = True
            self._dependencies.spawn(wait_for_quota())
