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
from tts.states import SERVER_PREFIX, Origin, UtteranceState
from tts.text.stream import Script
from voicecare.core.database import run_in_db_thread

T = TypeVar("T")

ACK_AGAIN_S = 0.5

log = structlog.get_logger(__name__)


class Deliveries:
    """`owner` names the connection in the rows. A database that is away makes a row late, and nobody silent."""

    def __init__(self, device: uuid.UUID, epoch: int, patient: uuid.UUID) -> None:
        self.owner = leases.owner_of(device, epoch)
        self._device = device
        self._patient = patient
        self._given: set[uuid.UUID] = set()
        self._queued: dict[str, tuple[uuid.UUID, float]] = {}  # that the device knows of, and when they are of no use
        self._unwritten: list[Callable[[], object]] = []
        self._writing = asyncio.Lock()  # in order: by `write`, in the background, and before a claim

    async def arrived(self) -> None:
        """The device is online, and what its earlier connections had is free."""
        await _unless_away(run_in_db_thread(leases.take_over, self._device, self.owner), None)

    async def hold_again(self, conversation: uuid.UUID) -> list[Utterance]:
        """What waited for the quota in this conversation, ours from now on."""
        return await _unless_away(run_in_db_thread(leases.hold_again, conversation, self.owner), [])

    async def claim(
        self, conversation: uuid.UUID | None, *, quota_spent: bool, holding: bool, live_only: bool = False
    ) -> Claim | None:
        """The next one of this patient that nobody has, ours from now on. No delivery may be said meanwhile."""
        claiming = partial(
            store.claim,
            self._device,
            self.owner,
            conversation,
            quota_spent=quota_spent,
            holding=holding,
            live_only=live_only,
            passed=frozenset(self._given),
        )
        try:
            await self._catch_up()
            return await run_in_db_thread(claiming)
        except Error as error:
            log.warning("deliveries.not_claimed", error=type(error).__name__)
            # It may have been claimed all the same, without an answer.
            self._unwritten.append(partial(_let_go, self._patient, self.owner))
            return None

    @property
    def late(self) -> bool:
        """Something is still to be written: `claim` does it first."""
        return bool(self._unwritten)

    async def _catch_up(self) -> None:
        async with self._writing:
            while self._unwritten:
                try:
                    await run_in_db_thread(self._unwritten[0])
                except (DataError, IntegrityError) as error:  # this row is to blame: it must not hold up the others
                    log.error("deliveries.row_refused", error=type(error).__name__)
                    await run_in_db_thread(_let_go, self._patient, self.owner)
                del self._unwritten[0]

    async def write(self) -> None:
        """Writes what `finish` and `put_back` were told, in order; where the database is away the next one does."""
        await _unless_away(self._catch_up(), None)

    def speech(self, claim: Claim, context: Context) -> Speech:
        """In the conversation where it was asked for it keeps its id; anywhere else it has one of the server's."""
        self._queued.pop(claim.speech_id, None)
        return Speech(
            claim.speech_id,
            Script(claim.text, complete=True),
            claim.origin,
            context.conversation_id,
            context.patient_id,
            utterance_id=claim.id,
            received_at=datetime.now(UTC),
            progress=SpeechProgress(
                received_at_monotonic=time.monotonic(),
                waited_for_quota=claim.was_queued,
            ),
            claim=claim,
        )

    async def begins(self, claim: Claim) -> bool:
        """Whether it may still be said: it may have been acknowledged or withdrawn since it was claimed."""
        try:
            return await run_in_db_thread(store.start, claim)
        except Error as error:
            log.warning("deliveries.not_begun", error=type(error).__name__)
            self.put_back(claim)
            return False

    def finish(self, claim: Claim, speech: Speech) -> None:
        """It has come to its end, whatever that is; `write` is to follow, which may wait for the database."""
        self._given.add(claim.id)
        progress = speech.progress
        finishing = partial(
            store.finish,
            claim,
            state=progress.state,
            source=progress.source,
            code=progress.code,
            characters=progress.characters,
            bytes_sent=progress.bytes_sent,
            first_chunk_ms=progress.first_chunk_ms,
            spoken_at=progress.spoken_at,
            conversation=speech.conversation_id,
        )
        self._unwritten.append(finishing)

    def put_back(self, claim: Claim, *, queued: bool = False) -> None:
        """It was not said, or not to its end: another connection or a later moment is to say it. As `finish`."""
        self._unwritten.append(partial(store.put_back, claim, queued=queued))

    def tells_queued(self, claim: Claim) -> bool:
        """Whether the device is to be told that this one is queued: it does not know yet."""
        is_news = claim.speech_id not in self._queued
        if claim.seconds_left is not None:
            self._queued[claim.speech_id] = claim.id, time.monotonic() + claim.seconds_left
        return is_news

    async def expired(self) -> list[str]:
        """The ids of those that the device knows to be queued and that nobody will say any more. Each once.

        The rows are asked: another device of the patient may have heard it, or said that it need not be.
        """
        now = time.monotonic()
        due = {key: speech_id for speech_id, (key, until) in self._queued.items() if until <= now}
        over = await _unless_away(run_in_db_thread(store.expired, list(due)), None) if due else set()
        if over is None:
            return []
        for speech_id in due.values():
            self.forget_queued(speech_id)
        return [speech_id for key, speech_id in due.items() if key in over]

    async def acknowledge(self, speech_id: str) -> bool:
        """False: no delivery of this patient has this id. Waits for a database that is away: who has heard it is not
        to hear it again.
        """
        key = _key(speech_id)
        while key is not None:
            try:
                return await run_in_db_thread(store.acknowledge, key, self._patient)
            except Error as error:
                log.warning("deliveries.not_acknowledged", error=type(error).__name__)
            await asyncio.sleep(ACK_AGAIN_S)
        return False

    async def withdraw(self, speech_id: str) -> bool:
        """Ends one that waits. False: none waits."""
        key = _key(speech_id)
        return key is not None and await _unless_away(run_in_db_thread(store.interrupt, key, self._patient), False)

    async def known(self, speech_id: str) -> bool:
        """Whether a delivery of this patient has this id."""
        key = _key(speech_id)
        return key is not None and await _unless_away(run_in_db_thread(store.known, key, self._patient), True)

    def forget_queued(self, speech_id: str) -> bool:
        """Whether the device knew this one to be queued; it is not any more."""
        return self._queued.pop(speech_id, None) is not None

    async def let_go(self, conversation: uuid.UUID) -> None:
        await self.write()
        await run_in_db_thread(leases.let_go, conversation, self.owner)

    async def gone(self) -> None:
        """The connection is over, or has lost its conversation: what it had may be said by another one."""
        await self.write()
        await run_in_db_thread(leases.gone, self._device, self.owner)


def _let_go(patient: uuid.UUID, owner: str) -> None:
    """What this connection seems to speak, while it says nothing, waits again."""
    waits = Case(When(origin=Origin.DEVICE, then=Value(UtteranceState.QUEUED)), default=Value(UtteranceState.WAITING))
    mine = Utterance.objects.filter(patient=patient, owner=owner, state=UtteranceState.SPEAKING)
    mine.update(state=waits, owner="", lease_until=None)


def _key(speech_id: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(speech_id.removeprefix(SERVER_PREFIX))
    except ValueError:
        return None


async def _unless_away(asking: Coroutine[Any, Any, T], otherwise: T) -> T:
    """The leases end by themselves: a row that could not be written is only late."""
    try:
        return await asking
    except Error as error:
        log.warning("deliveries.not_written", error=type(error).__name__)
        return otherwise
