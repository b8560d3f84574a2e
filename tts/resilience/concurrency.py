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

MAX_SLOTS_PER_PATIENT = 2
LEASE_S = 10.0
REFRESH_RATIO = 0.3  # of the lease: two statements may be late
WAITER_LEASE_S = 1.0
POLL_INTERVAL_S = 0.025  # how soon a slot that another process gave back is seen
REDIS_TIMEOUT_S = 0.25
RETRY_INTERVAL_S = 0.5  # in an outage; nobody waits for the answer
KEYS = ("voicecare:slots", "voicecare:slots:limit")

log = structlog.get_logger(__name__)


class SlotTimeout(Exception):
    """No slot became free in time."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One who holds a slot or waits for it. Compared by identity."""

    patient_key: str
    is_background: bool
    requested_at: float = field(default_factory=time.monotonic)
    number: int = field(default_factory=count().__next__)
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    def to_payload(self) -> list[str | bool]:
        return [self.patient_key, self.is_background]


def admit(held: Collection[Waiter], line: Iterable[Waiter], limit: int | None) -> list[Waiter]:
    """Those in line whose turn it is. Redis decides by the same rules, in slots.lua."""
    going = []
    total, background = len(held), sum(claim.is_background for claim in held)
    of_patient = Counter(claim.patient_key for claim in held)
    for claim in line:
        at_cap = claim.patient_key and of_patient[claim.patient_key] >= MAX_SLOTS_PER_PATIENT
        at_half = claim.is_background and limit and background >= max(1, limit // 2)
        if limit is None or not (total >= limit or at_cap or at_half):
            going.append(claim)
            total, background = total + 1, background + claim.is_background
            of_patient[claim.patient_key] += 1
    return going


class ConcurrencyLimiter(ABC):
    """One for each process, used on one event loop. `limit` is None until the provider has told it."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._held: dict[Waiter, None] = {}  # dicts, for their order
        self._waiting: dict[Waiter, None] = {}

    @property
    def held_count(self) -> int:
        """How many slots this process holds."""
        return len(self._held)

    @property
    def waiting_count(self) -> int:
        """How many in this process wait for one."""
        return len(self._waiting)

    def set_limit(self, limit: int) -> None:
        """What the provider says its limit is; a number that cannot be one is ignored."""
        if limit >= 1 and limit != self.limit:
            self.limit = limit
            metrics.SLOTS_LIMIT.set(limit)
            self._on_change()

    def acquire(
        self, patient: uuid.UUID | None, *, background: bool = False, wait_s: float
    ) -> AbstractAsyncContextManager[None]:
        """Enters when a slot is held, and gives it back at the end without waiting for anybody. Raises SlotsFull
        after `wait_s`, in which Redis is asked too.

        However it ends, by cancelling too, nothing stays held or in line.
        """
        return self._acquire(Waiter(patient.hex if patient else "", background), wait_s)

    @abstractmethod
    async def close(self) -> None:
        """At the end, when nothing is held or waited for any more: others know it when this returns."""

    @abstractmethod
    def _on_change(self) -> None:
        """Somebody has come or gone, or the limit is another."""

    @asynccontextmanager
    async def _acquire(self, claim: Waiter, wait_s: float) -> AsyncIterator[None]:
        self._waiting[claim] = None
        try:
            self._on_change()
            await self._wait_for_admission(claim, wait_s)
            yield
        finally:
            self._waiting.pop(claim, None)
            self._held.pop(claim, None)
            self._on_change()

    async def _wait_for_admission(self, claim: Waiter, wait_s: float) -> None:
        if not claim.admitted.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await claim.admitted.wait()
            except TimeoutError:
                raise SlotTimeout(f"No slot became free within {wait_s:g} s.") from None

    def _admit(self, claims: Iterable[Waiter]) -> None:
        for claim in claims:
            del self._waiting[claim]
            self._held[claim] = None
            claim.admitted.set()


class LocalLimiter(ConcurrencyLimiter):
    """Of this process alone: the limit holds if no other process speaks."""

    def _on_change(self) -> None:
        self._admit(admit(self._held, self._waiting, self.limit))

    async def close(self) -> None:
        """There is nobody to tell."""


class RedisLimiter(ConcurrencyLimiter):
    """Shared by all processes that use this Redis.

    `lease_s` is how long the slots of a killed process stay taken, `timeout_s` how long Redis is waited for, once in an
    outage.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, timeout_s: float = REDIS_TIMEOUT_S) -> None:
        super().__init__()
        # One connection: statements must not overtake each other. One repetition, for a connection that has died.
        # The old protocol and no library name: three round trips less before the first statement.
        self._redis = Redis.from_url(
            url, single_connection_client=True, retry=Retry(NoBackoff(), 1), protocol=2, driver_info=None
        )
        self._script = self._redis.register_script(Path(__file__).with_suffix(".lua").read_text())
        self._process_id = uuid.uuid4().hex
        self._lease_s, self._timeout_s = lease_s, timeout_s
        self._wake = asyncio.Event()
        self._sync_task: asyncio.Task[None] | None = None
        self._has_new_limit = self._is_redis_down = self._is_closing = False

    def set_limit(self, limit: int) -> None:
        before = self.limit
        super().set_limit(limit)
        self._has_new_limit = self._has_new_limit or self.limit != before

    async def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._sync_task:
            await self._sync_task
        await self._redis.aclose()

    def _on_change(self) -> None:
        if self._is_redis_down:
            self._fail_open()
        else:
            self._wake.set()
        if self._sync_task is None:
            self._sync_task = asyncio.create_task(self._sync_until_closed())

    def _fail_open(self) -> None:
        metrics.SLOTS_UNLIMITED.inc(len(self._waiting))
        self._admit(list(self._waiting))

    async def _sync_until_closed(self) -> None:
        """States what is so when it changes, while somebody waits, and before it is forgotten."""
        while not self._is_closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            await self._sync()
        await self._sync()

    def _pause(self) -> float | None:
        if self._is_redis_down:
            return RETRY_INTERVAL_S
        if self._waiting:
            return uniform(0.8, 1.2) * POLL_INTERVAL_S  # noqa: S311 - so that processes do not ask in step
        return REFRESH_RATIO * self._lease_s if self._held else None

    async def _sync(self) -> None:
        self._wake.clear()
        arguments, news, self._has_new_limit = self._script_arguments(), self._has_new_limit, False
        try:
            async with asyncio.timeout(self._timeout_s):
                limit, going = await self._script(KEYS, arguments)
        except Exception as error:  # whatever it is: who stops stating makes everybody wait for nothing
            self._has_new_limit = self._has_new_limit or news
            self._on_redis_error(error)
        else:
            self._apply_reply(limit, set(going))

    def _script_arguments(self) -> list[str | int]:
        now = time.monotonic()
        held = [claim.to_payload() for claim in self._held]
        line = [[*claim.to_payload(), claim.number, round((now - claim.requested_at) * 1e6)] for claim in self._waiting]
        lease, patience = round(self._lease_s * 1e6), round(min(WAITER_LEASE_S, self._lease_s) * 1e6)
        stated = json.dumps({"held": held, "line": line})
        return [
            self._process_id,
            stated,
            lease,
            patience,
            MAX_SLOTS_PER_PATIENT,
            self.limit or "",
            int(self._has_new_limit),
        ]

    def _apply_reply(self, limit: int | None, going: Collection[int]) -> None:
        if self._is_redis_down:
            log.info("slots.limited_again")
        self._is_redis_down = False
        self._admit([claim for claim in self._waiting if claim.number in going])
        if limit and not self._has_new_limit:
            super().set_limit(limit)

    def _on_redis_error(self, error: Exception) -> None:
        if not self._is_redis_down:
            log.warning("slots.unlimited", error=type(error).__name__)
        self._is_redis_down = True
        self._fail_open()


def create_limiter(redis_url: str) -> ConcurrencyLimiter:
    return RedisLimiter(redis_url) if redis_url else LocalLimiter()
