"""What the outbox has for one connection: claimed when its turn comes, finished or put back, acknowledged.

The rows decide (`tts.outbox.store`); here is only what this connection must remember of them: what it has been given,
so that
nothing is said twice on one socket; what it was told is queued, so that it is told too when that expires; and what
could not be written yet: a row that seems to be spoken here holds back all others of its patient.
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
    """`owner` names the connection in the rows. A database that is away makes a row late, and nobody silent."""

    def __init__(self, device: uuid.UUID, epoch: int, patient: uuid.UUID) -> None:
        self.owner = leases.owner_name(device, epoch)
        self._device_id = device
        self._patient_id = patient
        self._delivered_here: set[uuid.UUID] = set()
        self._notified_queued: dict[
            str, tuple[uuid.UUID, float]
        ] = {}  # that the device knows of, and when they are of no use
        self._pending_writes: list[Callable[[], object]] = []
        self._write_lock = asyncio.Lock()  # in order: by `write`, in the background, and before a claim

    async def take_over(self) -> None:
        """The device is online, and what its earlier connections had is free."""
        await _or_default(run_in_db_thread(leases.take_over, self._device_id, self.owner), None)

    async def reclaim_deferred(self, conversation: uuid.UUID) -> list[Utterance]:
        """What waited for the quota in this conversation, ours from now on."""
        return await _or_default(run_in_db_thread(leases.reclaim, conversation, self.owner), [])

    async def claim(
        self, conversation: uuid.UUID | None, *, quota_exhausted: bool, hold_live: bool, live_only: bool = False
    ) -> Claim | None:
        """The next one of this patient that nobody has, ours from now on. No delivery may be said meanwhile."""
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
            log.warning("deliveries.not_claimed", error=type(error).__name__)
            # It may have been claimed all the same, without an answer.
            self._pending_writes.append(partial(_release_speaking, self._patient_id, self.owner))
            return None

    @property
    def has_pending_writes(self) -> bool:
        """Something is still to be written: `claim` does it first."""
        return bool(self._pending_writes)

    async def _write_pending(self) -> None:
        async with self._write_lock:
            while self._pending_writes:
                try:
                    await run_in_db_thread(self._pending_writes[0])
                except (DataError, IntegrityError) as error:  # this row is to blame: it must not hold up the others
                    log.error("deliveries.row_refused", error=type(error).__name__)
                    await run_in_db_thread(_release_speaking, self._patient_id, self.owner)
                del self._pending_writes[0]

    async def flush(self) -> None:
        """Writes what `finish` and `put_back` were told, in order; where the database is away the next one does."""
        await _or_default(self._write_pending(), None)

    def make_speech(self, claim: Claim, context: Context) -> Speech:
        """In the conversation where it was asked for it keeps its id; anywhere else it has one of the server's."""
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
        """Whether it may still be said: it may have been acknowledged or withdrawn since it was claimed."""
        try:
            return await run_in_db_thread(store.confirm, claim)
        except Error as error:
            log.warning("deliveries.not_begun", error=type(error).__name__)
            self.requeue(claim)
            return False

    def finish(self, claim: Claim, speech: Speech) -> None:
        """It has come to its end, whatever that is; `write` is to follow, which may wait for the database."""
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
        """It was not said, or not to its end: another connection or a later moment is to say it. As `finish`."""
        self._pending_writes.append(partial(store.requeue, claim, queued=queued))

    def mark_queued_notified(self, claim: Claim) -> bool:
        """Whether the device is to be told that this one is queued: it does not know yet."""
        is_news = claim.speech_id not in self._notified_queued
        if claim.seconds_left is not None:
            self._notified_queued[claim.speech_id] = claim.id, time.monotonic() + claim.seconds_left
        return is_news

    async def pop_expired(self) -> list[str]:
        """The ids of those that the device knows to be queued and that nobody will say any more. Each once.

        The rows are asked: another device of the patient may have heard it, or said that it need not be.
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
        """False: no delivery of this patient has this id. Waits for a database that is away: who has heard it is not
        to hear it again.
        """
        key = _utterance_id(speech_id)
        while key is not None:
            try:
                return await run_in_db_thread(store.acknowledge, key, self._patient_id)
            except Error as error:
                log.warning("deliveries.not_acknowledged", error=type(error).__name__)
            await asyncio.sleep(ACK_RETRY_INTERVAL_S)
        return False

    async def cancel(self, speech_id: str) -> bool:
        """Ends one that waits. False: none waits."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(run_in_db_thread(store.cancel, key, self._patient_id), False)

    async def is_known(self, speech_id: str) -> bool:
        """Whether a delivery of this patient has this id."""
        key = _utterance_id(speech_id)
        return key is not None and await _or_default(
            run_in_db_thread(store.is_delivery_of, key, self._patient_id), True
        )

    def forget_queued(self, speech_id: str) -> bool:
        """Whether the device knew this one to be queued; it is not any more."""
        return self._notified_queued.pop(speech_id, None) is not None

    async def release_deferred(self, conversation: uuid.UUID) -> None:
        await self.flush()
        await run_in_db_thread(leases.release, conversation, self.owner)

    async def release_all(self) -> None:
        """The connection is over, or has lost its conversation: what it had may be said by another one."""
        await self.flush()
        await run_in_db_thread(leases.release_all, self._device_id, self.owner)


def _release_speaking(patient: uuid.UUID, owner: str) -> None:
    """What this connection seems to speak, while it says nothing, waits again."""
    waits = Case(When(origin=Origin.DEVICE, then=Value(UtteranceState.QUEUED)), default=Value(UtteranceState.WAITING))
    mine = Utterance.objects.filter(patient=patient, owner=owner, state=UtteranceState.SPEAKING)
    mine.update(state=waits, owner="", lease_until=None)


def _utterance_id(speech_id: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(speech_id.removeprefix(SERVER_PREFIX))
    except ValueError:
        return None


async def _or_default(asking: Coroutine[Any, Any, T], otherwise: T) -> T:
    """The leases end by themselves: a row that could not be written is only late."""
    try:
        return await asking
    except Error as error:
        log.warning("deliveries.not_written", error=type(error).__name__)
        return otherwise
