"""Slots: how many requests the provider serves at once for our account, shared by all processes.

First come, first served, over all who may go: a patient holds at most two slots (others overtake one who has them),
and background work holds at most half of them. A request that holds a slot is never cut: when the limit is lowered,
newcomers wait. While no limit is known everybody goes, and is counted.

With Redis each process states all that it holds and waits for in one script call, on Redis' own clock; the answer names
those that may go. A statement replaces the former one, so a lost or repeated call leaves nothing behind, and one that
Redis has forgotten is made again. A process that falls silent is forgotten: its slots after `lease_s`, its place in the
line after `PATIENCE_S`. While Redis does not answer everybody goes: speech comes before order.
"""

import asyncio
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import uniform

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from voicecare.core import metrics

MOST_OF_A_PATIENT = 2
LEASE_S = 10.0
STATE_AGAIN = 0.3  # of the lease: two statements may be late
PATIENCE_S = 1.0
POLL_S = 0.025  # how soon a slot that another process gave back is seen
ANSWER_S = 0.25
ASK_AGAIN_S = 0.5  # in an outage; nobody waits for the answer
KEYS = ("voicecare:slots", "voicecare:slots:limit")

log = structlog.get_logger(__name__)


class SlotsFull(Exception):
    """No slot became free in time."""


@dataclass(eq=False, slots=True)
class Claim:
    """One who holds a slot or waits for it. Compared by identity."""

    patient: str
    background: bool
    asked: float = field(default_factory=time.monotonic)
    number: int = field(default_factory=count().__next__)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def stated(self) -> list[str | bool]:
        return [self.patient, self.background]


def may_go(held: Collection[Claim], line: Iterable[Claim], limit: int | None) -> list[Claim]:
    """Those in line whose turn it is. Redis decides by the same rules, in slots.lua."""
    going = []
    total, background = len(held), sum(claim.background for claim in held)
    of_patient = Counter(claim.patient for claim in held)
    for claim in line:
        at_cap = claim.patient and of_patient[claim.patient] >= MOST_OF_A_PATIENT
        at_half = claim.background and limit and background >= max(1, limit // 2)
        if limit is None or not (total >= limit or at_cap or at_half):
            going.append(claim)
            total, background = total + 1, background + claim.background
            of_patient[claim.patient] += 1
    return going


class Slots(ABC):
    """One for each process, used on one event loop. `limit` is None until the provider has told it."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._held: dict[Claim, None] = {}  # dicts, for their order
        self._line: dict[Claim, None] = {}

    @property
    def held(self) -> int:
        """How many slots this process holds."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many in this process wait for one."""
        return len(self._line)

    def learned(self, limit: int) -> None:
        """What the provider says its limit is; a number that cannot be one is ignored."""
        if limit >= 1 and limit != self.limit:
            self.limit = limit
            metrics.SLOTS_LIMIT.set(limit)
            self._changed()

    def hold(
        self, patient: uuid.UUID | None, *, background: bool = False, wait_s: float
    ) -> AbstractAsyncContextManager[None]:
        """Enters when a slot is held, and gives it back at the end without waiting for anybody. Raises SlotsFull
        after `wait_s`, in which Redis is asked too.

        However it ends, by cancelling too, nothing stays held or in line.
        """
        return self._hold(Claim(patient.hex if patient else "", background), wait_s)

    @abstractmethod
    async def close(self) -> None:
        """At the end, when nothing is held or waited for any more: others know it when this returns."""

    @abstractmethod
    def _changed(self) -> None:
        """Somebody has come or gone, or the limit is another."""

    @asynccontextmanager
    async def _hold(self, claim: Claim, wait_s: float) -> AsyncIterator[None]:
        self._line[claim] = None
        try:
            self._changed()
            await self._turn(claim, wait_s)
            yield
        finally:
            self._line.pop(claim, None)
            self._held.pop(claim, None)
            self._changed()

    async def _turn(self, claim: Claim, wait_s: float) -> None:
        if not claim.entered.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await claim.entered.wait()
            except TimeoutError:
                raise SlotsFull(f"No slot became free within {wait_s:g} s.") from None

    def _admit(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            del self._line[claim]
            self._held[claim] = None
            claim.entered.set()


class LocalSlots(Slots):
    """Of this process alone: the limit holds if no other process speaks."""

    def _changed(self) -> None:
        self._admit(may_go(self._held, self._line, self.limit))

    async def close(self) -> None:
        """There is nobody to tell."""


class RedisSlots(Slots):
    """Shared by all processes that use this Redis.

    `lease_s` is how long the slots of a killed process stay taken, `answer_s` how long Redis is waited for, once in an
    outage.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, answer_s: float = ANSWER_S) -> None:
        super().__init__()
        # One connection: statements must not overtake each other. One repetition, for a connection that has died.
        # The old protocol and no library name: three round trips less before the first statement.
        self._redis = Redis.from_url(
            url, single_connection_client=True, retry=Retry(NoBackoff(), 1), protocol=2, driver_info=None
        )
        self._statement = self._redis.register_script(Path(__file__).with_suffix(".lua").read_text())
        self._process = uuid.uuid4().hex
        self._lease_s, self._answer_s = lease_s, answer_s
        self._wake = asyncio.Event()
        self._stating: asyncio.Task[None] | None = None
        self._news = self._down = self._closing = False

    def learned(self, limit: int) -> None:
        before = self.limit
        super().learned(limit)
        self._news = self._news or self.limit != before

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._stating:
            await self._stating
        await self._redis.aclose()

    def _changed(self) -> None:
        if self._down:
            self._let_all_go()
        else:
            self._wake.set()
        if self._stating is None:
            self._stating = asyncio.create_task(self._run())

    def _let_all_go(self) -> None:
        metrics.SLOTS_UNLIMITED.inc(len(self._line))
        self._admit(list(self._line))

    async def _run(self) -> None:
        """States what is so when it changes, while somebody waits, and before it is forgotten."""
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            await self._state()
        await self._state()

    def _pause(self) -> float | None:
        if self._down:
            return ASK_AGAIN_S
        if self._line:
            return uniform(0.8, 1.2) * POLL_S  # noqa: S311 - so that processes do not ask in step
        return STATE_AGAIN * self._lease_s if self._held else None

    async def _state(self) -> None:
        self._wake.clear()
        arguments, news, self._news = self._arguments(), self._news, False
        try:
            async with asyncio.timeout(self._answer_s):
                limit, going = await self._statement(KEYS, arguments)
        except Exception as error:  # whatever it is: who stops stating makes everybody wait for nothing
            self._news = self._news or news
            self._lost(error)
        else:
            self._answered(limit, set(going))

    def _arguments(self) -> list[str | int]:
        now = time.monotonic()
        held = [claim.stated() for claim in self._held]
        line = [[*claim.stated(), claim.number, round((now - claim.asked) * 1e6)] for claim in self._line]
        lease, patience = round(self._lease_s * 1e6), round(min(PATIENCE_S, self._lease_s) * 1e6)
        stated = json.dumps({"held": held, "line": line})
        return [self._process, stated, lease, patience, MOST_OF_A_PATIENT, self.limit or "", int(self._news)]

    def _answered(self, limit: int | None, going: Collection[int]) -> None:
        if self._down:
            log.info("slots.limited_again")
        self._down = False
        self._admit([claim for claim in self._line if claim.number in going])
        if limit and not self._news:
            super().learned(limit)

    def _lost(self, error: Exception) -> None:
        if not self._down:
            log.warning("slots.unlimited", error=type(error).__name__)
        self._down = True
        self._let_all_go()


def slots_for(redis_url: str) -> Slots:
    return RedisSlots(redis_url) if redis_url else LocalSlots()
