"""The outbox as one connection sees it: claims deliveries, and finishes, requeues and acknowledges them.

The rows in the database decide (`tts.outbox.store`). This module only remembers, for one connection:

- the deliveries that it has played, so that none is played twice on one socket;
- the queued speeches that the device knows of, so that the device is notified when they expire;
- the changes that could not be written yet. A row that seems to play here blocks all others of its patient.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import DataError, Error, IntegrityError
from django.db.models import Case, Value, When

from tts.conversations.context import Context
from tts.models import Utterance
from tts.outbox import leases, store
from tts.outbox.claim import Claim
from tts.speech import Speech, SpeechProgress
from tts.states import SERVER_PREFIX, Origin, QueueReason, UtteranceState
from tts.text.stream import TextStream
from voicecare.core.database import run_in_db_thread

T = TypeVar("T")

ACK_RETRY_INTERVAL_S = 0.5

log = structlog.get_logger(__name__)


class OutboxClient:
    """`owner` is the name of the connection in the rows. An unavailable database delays writes, never speech."""

    def __init__(self, device_id: uuid.UUID, epoch: int, patient_id: uuid.UUID) -> None:
        self.owner = leases.owner_name(device_id, epoch)
        self._device_id = device_id
        self._patient_id = patient_id
        self._delivered_here: set[uuid.UUID] = set()
        self._notified_queued: dict[
            str, tuple[uuid.UUID, float]
        ] = {}  # speech id: utterance id, expiry time (monotonic)
        self._pending_writes: list[Callable[[], object]] = []
        self._write_lock = asyncio.Lock()  # pending writes happen in order, in `flush` and before a claim

    async def take_over(self) -> None:
        """Mark the device as online and release the rows of its earlier connections."""
        await _or_default(run_in_db_thread(leases.take_over, self._device_id, self.owner), None)

    async def reclaim_deferred(self, conversation: uuid.UUID) -> list[Utterance]:
        """Take over the speeches of this conversation that wait for the quota."""
        return await _or_default(run_in_db_thread(leases.reclaim, conversation, self.owner), [])

    async def claim(
        self, conversation: uuid.UUID | None, *, quota_exhausted: bool, hold_live: bool, live_only: bool = False
    ) -> Claim | None:
        """Claim the next delivery for this patient. Do not call it while a delivery plays."""
        claiming = partial(
            store.claim,
            self._device_id,
            self.owner,
            conversation,
            quota_exhausted=quota_exhausted,
            hold_live=hold_live,
            live_only=live_only,
            exclude=frozenset(self._delivered_here),
        )
        try:
            await self._write_pending()
            return await run_in_db_thread(claiming)
        except Error as error:
            log.warning("outbox.claim_failed", error=type(error).__name__)
            # The claim may have succeeded although the answer was lost.
            self._pending_writes.append(partial(_release_speaking, self._patient_id, self.owner))
            return None

    @property
    def has_pending_writes(self) -> bool:
        """Whether changes are not written yet. `claim` writes them first."""
        return bool(self._pending_writes)

    async def _write_pending(self) -> None:
        async with self._write_lock:
            while self._pending_writes:
                try:
                    await run_in_db_thread(self._pending_writes[0])
                except (DataError, IntegrityError) as error:  # the fault of this row, which must not block the others
                    log.error("outbox.row_rejected", error=type(error).__name__)
                    await run_in_db_thread(_release_speaking, self._patient_id, self.owner)
                del self._pending_writes[0]

    async def flush(self) -> None:
        """Write the changes of `finish` and `requeue` in order. If the database is unavailable, they stay pending."""
        await _or_default(self._write_pending(), None)

    def make_speech(self, claim: Claim, context: Context) -> Speech:
        """Return the speech of a claim. It keeps the device's id only in the conversation of its request."""
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
        """Whether the claim is still valid. It may have been acknowledged or cancelled since."""
        try:
            return await run_in_db_thread(store.confirm, claim)
        except Error as error:
            log.warning("outbox.confirm_failed", error=type(error).__name__)
            self.requeue(claim)
            return False

    def finish(self, claim: Claim, speech: Speech) -> None:
        """The delivery has ended, for any reason. Call `flush` afterwards, which writes it."""
        self._delivered_here.add(claim.id)
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

    def requeue(self, claim: Claim, *, queued: bool = False) -> None:
        """Let the delivery wait again for a later attempt. Call `flush` afterwards, which writes it."""
        self._pending_writes.append(partial(store.requeue, claim, queued=queued))

    def mark_queued_notified(self, claim: Claim) -> bool:
        """Remember that the device is notified of this queued speech. Return whether this is the first time."""
        is_first = claim.speech_id not in self._notified_queued
        if claim.seconds_left is not None:
            self._notified_queued[claim.speech_id] = claim.id, time.monotonic() + claim.seconds_left
        return is_first

    async def pop_expired(self) -> list[str]:
        """Return the ids of queued speeches that the device knows of and that have expired. Each is returned once.

        The rows decide, because another device of the patient may have played or cancelled the speech.
        """
        now = time.monotonic()
        due = {key: speech_id for speech_id, (key, until) in self._notified_queued.items() if until <= now}
        over = await _or_default(run_in_db_thread(store.expired_among, list(due)), None) if due else set()
        if over is None:
            return []
        for speech_id in due.values():
            self.forget_queued(speech_id)
        return [speech_id for key, speech_id in due.items() if key in over]

    async def acknowledge(self, speech_id: str) -> bool:
        """Return False if no delivery of this patient has this id.

        Retry until the database is available. Otherwise the patient would hear the speech again.
        """
        key = _utterance_id(speech_id)
        while key is not None:
            try:
                return await run_in_db_thread(store.acknowledge, key, self._patient_id)
            except Error as error:
                log.warning("outbox.acknowledge_failed", error=type(error).__name__)
            await asyncio.sleep(ACK_RETRY_INTERVAL_S)
        return False

    async def cancel(self, speech_id: str) -> bool:
        """End a waiting delivery. Return False if it does not wait."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(run_in_db_thread(store.cancel, key, self._patient_id), False)

    async def is_known(self, speech_id: str) -> bool:
        """Whether a delivery of this patient has this id."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(
            run_in_db_thread(store.is_delivery_of, key, self._patient_id), True
        )

    def forget_queued(self, speech_id: str) -> bool:
        """Forget a speech that is no longer queued. Return whether the device knew of it."""
        return self._notified_queued.pop(speech_id, None) is not None

    async def release_deferred(self, conversation_id: uuid.UUID) -> None:
        """Release the speeches of this conversation that wait for the quota. Deliveries stay."""
        await self.flush()
        await run_in_db_thread(leases.release, conversation_id, self.owner)

    async def release_all(self) -> None:
        """Release all rows of this connection, which has ended."""
        await self.flush()
        await run_in_db_thread(leases.release_all, self._device_id, self.owner)


def _release_speaking(patient_id: uuid.UUID, owner: str) -> None:
    """Let the rows that seem to play on this connection wait again."""
    waits = Case(When(origin=Origin.DEVICE, then=Value(UtteranceState.QUEUED)), default=Value(UtteranceState.WAITING))
    rows = Utterance.objects.filter(patient=patient_id, owner=owner, state=UtteranceState.SPEAKING)
    rows.update(state=waits, owner="", lease_until=None)


def _utterance_id(speech_id: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(speech_id.removeprefix(SERVER_PREFIX))
    except ValueError:
        return None


async def _or_default(query: Coroutine[Any, Any, T], default: T) -> T:
    """Return the default if the database is unavailable. A missed write only delays rows until their leases expire."""
    try:
        return await query
    except Error as error:
        log.warning("outbox.write_failed", error=type(error).__name__)
        return default
