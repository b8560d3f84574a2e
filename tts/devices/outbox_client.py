"""The outbox for one connection: claims deliveries, and finishes, requeues and acknowledges them.

The rows in the database decide (`tts.outbox.store`). This module only remembers, for one connection:

- the queued speeches that the device was notified of, so that it can be notified when they expire;
- the changes that could not be written yet. Until they are written, a row that seems to play on this connection blocks
  all other deliveries of its patient;
- the last delivery whose audio was sent completely, until the device acknowledges it.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import DataError, Error, IntegrityError
from django.db.models import Case, Value, When

from tts.conversations.context import Context
from tts.models import Utterance
from tts.outbox import deferred, leases, store
from tts.outbox.claim import Claim
from tts.outbox.deferred import Fate
from tts.queue_reason import QueueReason
from tts.speech import Speech, SpeechProgress
from tts.states import SERVER_PREFIX, Origin, UtteranceState
from tts.text.stream import TextStream
from voicecare.core.database import run_in_db_thread

T = TypeVar("T")

ACK_RETRY_INTERVAL_S = 0.5
PLAYBACK_S = 10.0  # all audio of a delivery has been sent, but the device may need so long to play it

log = structlog.get_logger(__name__)


class OutboxClient:
    """The outbox of one connection. An unavailable database delays its writes, never speech.

    `owner` is the name of the connection in the rows.
    """

    def __init__(self, device_id: uuid.UUID, epoch: int, patient_id: uuid.UUID) -> None:
        self.owner = leases.owner_name(device_id, epoch)
        self._device_id = device_id
        self._patient_id = patient_id
        # By speech id: the utterance id and the expiry time (monotonic).
        self._notified_queued: dict[str, tuple[uuid.UUID, float]] = {}
        self._pending_writes: list[Callable[[], object]] = []
        self._write_lock = asyncio.Lock()  # pending writes happen in order, in `flush` and before a claim
        self._unacknowledged = ""  # the speech id of the last delivery that was sent completely
        self._acknowledged = asyncio.Event()  # unset while the device probably plays this delivery
        self._acknowledged.set()
        self._played_at = 0.0  # monotonic; when it has been played at the latest

    async def take_over(self) -> None:
        """Mark the device as online and release the rows of its earlier connections."""
        await _or_default(run_in_db_thread(leases.take_over, self._device_id, self.owner), None)

    async def take_deferred(self, speech: Speech) -> Fate | None:
        """Start a speech that this process kept in memory until the quota returned, if this connection still owns it.

        Return its fate, or None if the database is unavailable.
        """
        taking = run_in_db_thread(deferred.take, speech.utterance_id, self._device_id, self.owner, speech.takeovers)
        return await _or_default(taking, None)

    async def end_deferred(self, speeches: Iterable[Speech]) -> dict[uuid.UUID, Fate]:
        """End these deferred speeches, which wait for the quota, unless another connection has taken them over.

        Return the fate of each speech, by utterance id. Raises DatabaseError.
        """
        return await run_in_db_thread(deferred.end_all, {speech.utterance_id: speech.takeovers for speech in speeches})

    async def release_deferred(self, speech: Speech) -> None:
        """Undo `take_deferred`, so that another connection can play the speech."""
        await _or_default(run_in_db_thread(deferred.release, speech.utterance_id, speech.takeovers), None)

    async def claim(
        self,
        conversation: uuid.UUID | None,
        *,
        quota_exhausted: bool,
        hold_live: bool,
        live_only: bool = False,
        exclude: Collection[uuid.UUID] = (),
    ) -> Claim | None:
        """Claim the next delivery for this patient. Return None if there is none, or if the database is unavailable.

        Do not call it while a delivery plays. `conversation` is the id of the open conversation. For the next three
        arguments see `tts.outbox.store.claim`. `exclude` are the utterances that this connection has in memory.
        """
        claiming = partial(
            store.claim,
            self._device_id,
            self.owner,
            conversation,
            quota_exhausted=quota_exhausted,
            hold_live=hold_live,
            live_only=live_only,
            exclude=exclude,
        )
        try:
            await self._write_pending()
            return await run_in_db_thread(claiming)
        except Error as error:
            log.warning("outbox.claim_failed", error=type(error).__name__)
            # The claim may have succeeded although the answer was lost.
            self._pending_writes.append(partial(_release_speaking, self._patient_id, self.owner, is_played=False))
            return None

    @property
    def has_pending_writes(self) -> bool:
        """Whether some changes are not written yet. `claim` and `flush` write them."""
        return bool(self._pending_writes)

    async def _write_pending(self) -> None:
        async with self._write_lock:
            while self._pending_writes:
                try:
                    await run_in_db_thread(self._pending_writes[0])
                except (DataError, IntegrityError) as error:  # the fault of this row, which must not block the others
                    log.error("outbox.row_rejected", error=type(error).__name__)
                    await run_in_db_thread(_release_speaking, self._patient_id, self.owner, is_played=True)
                del self._pending_writes[0]

    async def flush(self) -> None:
        """Write the changes of `finish` and `requeue`, in order. If the database is unavailable, they stay pending."""
        await _or_default(self._write_pending(), None)

    def make_speech(self, claim: Claim, context: Context) -> Speech:
        """Return the claimed delivery as a speech to play in the conversation of `context`."""
        self._notified_queued.pop(claim.speech_id, None)
        return Speech(
            claim.speech_id,
            TextStream(claim.text, complete=True),
            claim.origin,
            context.conversation_id,
            context.patient_id,
            utterance_id=claim.id,
            received_at=datetime.now(UTC),
            progress=SpeechProgress(
                received_at_monotonic=time.monotonic(),
                waited_for_quota=claim.was_queued,
                queue_reason=QueueReason.QUOTA.value if claim.was_queued else "",
            ),
            claim=claim,
        )

    async def confirm_start(self, claim: Claim) -> bool:
        """Check, just before the delivery starts, whether its claim is still valid.

        The device may have acknowledged or cancelled the delivery since it was claimed. If the database is unavailable,
        return False and give the delivery back to the queue.
        """
        try:
            return await run_in_db_thread(store.confirm, claim)
        except Error as error:
            log.warning("outbox.confirm_failed", error=type(error).__name__)
            self.requeue(claim)
            return False

    async def keep_claim(self, claim: Claim) -> bool:
        """Renew the claim of the delivery that is playing. Return False if another connection has claimed it."""
        return await _or_default(run_in_db_thread(store.keep, claim), True)

    def finish(self, claim: Claim, speech: Speech) -> None:
        """Note that the delivery has ended, for any reason.

        Call `flush` afterwards, which writes this to the database.
        """
        progress = speech.progress
        finishing = partial(
            store.finish,
            claim,
            state=progress.state,
            source=progress.source,
            code=progress.code,
            queue_reason=progress.queue_reason,
            characters=progress.characters,
            bytes_sent=progress.bytes_sent,
            first_chunk_ms=progress.first_chunk_ms,
            spoken_at=progress.spoken_at,
            conversation_id=speech.conversation_id,
        )
        self._pending_writes.append(finishing)
        if progress.state == UtteranceState.SPOKEN and speech.origin != Origin.DEVICE:
            self._unacknowledged = speech.id
            self._acknowledged.clear()
            self._played_at = time.monotonic() + PLAYBACK_S

    async def wait_for_playback(self, seconds: float) -> None:
        """Wait until the device has acknowledged the delivery that it plays, at most `seconds` and PLAYBACK_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._played_at - time.monotonic())):
                await self._acknowledged.wait()

    def requeue(self, claim: Claim, *, queued: bool = False) -> None:
        """Let the delivery wait again for a later attempt. Call `flush` afterwards, which writes this to the database.

        `queued` means that it waits for the quota.
        """
        self._pending_writes.append(partial(store.requeue, claim, queued=queued))

    def mark_queued_notified(self, claim: Claim) -> bool:
        """Note that the device is notified of this queued speech. Return whether this is its first notification."""
        is_first = claim.speech_id not in self._notified_queued
        if claim.seconds_left is not None:
            self._notified_queued[claim.speech_id] = claim.id, time.monotonic() + claim.seconds_left
        return is_first

    def overdue(self, now: float) -> list[uuid.UUID]:
        """Return the ids of the queued speeches that the device was notified of and whose expiry time has passed.

        `now` is a time of `time.monotonic`. The database decides whether they have expired (`store.expired_among`),
        because another device of the patient may have played or cancelled the speech.
        """
        return [key for key, until in self._notified_queued.values() if until <= now]

    def pop_overdue(self, overdue: Collection[uuid.UUID], expired: Collection[uuid.UUID]) -> list[str]:
        """Forget the queued speeches in `overdue`. Return the speech ids of those that are in `expired`, too.

        So each expired speech is returned once.
        """
        popped = {speech_id: key for speech_id, (key, _) in self._notified_queued.items() if key in overdue}
        for speech_id in popped:
            self.forget_queued(speech_id)
        return [speech_id for speech_id, key in popped.items() if key in expired]

    async def acknowledge(self, speech_id: str, *, is_doubtful: bool = False) -> bool:
        """Acknowledge a delivery. Return False if no delivery of this patient has this id.

        A doubtful acknowledgement, which came before the device can have played the delivery, does not count the first
        time: the delivery is repeated. Retries until the database is available. Otherwise the patient would hear the
        speech again.
        """
        key = _utterance_id(speech_id)
        while key is not None:
            try:
                if is_doubtful and await run_in_db_thread(store.doubt_ack, key, self._patient_id, self.owner):
                    log.info("outbox.ack_doubted", utterance_id=str(key))
                    is_known = True
                else:
                    is_known = await run_in_db_thread(store.acknowledge, key, self._patient_id)
            except Error as error:
                log.warning("outbox.acknowledge_failed", error=type(error).__name__)
                await asyncio.sleep(ACK_RETRY_INTERVAL_S)
            else:
                if speech_id == self._unacknowledged:
                    self._acknowledged.set()
                return is_known
        return False

    async def cancel(self, speech_id: str) -> bool:
        """End a waiting delivery. Return False if it is not waiting, or if the database is unavailable."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(run_in_db_thread(store.cancel, key, self._patient_id), False)

    async def is_known(self, speech_id: str) -> bool:
        """Whether a delivery of this patient has this id. True if the database is unavailable."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(
            run_in_db_thread(store.is_delivery_of, key, self._patient_id), True
        )

    def forget_queued(self, speech_id: str) -> bool:
        """Forget a speech that is no longer queued. Return whether the device was told that this speech was queued."""
        return self._notified_queued.pop(speech_id, None) is not None

    async def release_all(self) -> None:
        """Release all rows of this connection, which has ended. Raises DatabaseError."""
        await self.flush()
        await run_in_db_thread(leases.release_all, self._device_id, self.owner)


def _release_speaking(patient_id: uuid.UUID, owner: str, *, is_played: bool) -> None:
    """Let the deliveries that seem to play on this connection wait again.

    With `is_played`, this connection has played them, so only other connections may play them again.
    """
    waits = Case(When(origin=Origin.DEVICE, then=Value(UtteranceState.QUEUED)), default=Value(UtteranceState.WAITING))
    rows = Utterance.objects.filter(patient=patient_id, owner=owner, state=UtteranceState.SPEAKING)
    rows.update(state=waits, owner="", lease_until=None, **({"played_by": owner} if is_played else {}))


def _utterance_id(speech_id: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(speech_id.removeprefix(SERVER_PREFIX))
    except ValueError:
        return None


async def _or_default(query: Coroutine[Any, Any, T], default: T) -> T:
    """Await `query`. Return its result, or `default` if the database is unavailable.

    A missed write only delays rows until their leases expire.
    """
    try:
        return await query
    except Error as error:
        log.warning("outbox.write_failed", error=type(error).__name__)
        return default
