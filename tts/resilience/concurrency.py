"""The concurrency limit: how many requests the provider serves at the same time for our account, in all processes.

A request needs a slot. Slots are given in order of arrival, with two exceptions. A patient holds at most two slots;
requests of other patients overtake a third one. Background work holds at most half of the slots. A request that holds a
slot is never interrupted: when the limit is lowered, new requests wait. While no limit is known, all requests are
admitted and counted.

Each process sends Redis a full snapshot of its held and waiting requests in one Lua call. Redis returns the waiters to
admit. Snapshots are idempotent, so a lost or repeated call is harmless, and Redis may lose its data. Redis uses its own
clock. If a process stops reporting, its slots expire after `lease_s` and its queue positions after `WAITER_LEASE_S`. If
Redis is unavailable, all requests are admitted (fail open).
"""

import asyncio
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
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
REFRESH_RATIO = 0.3  # of the lease: two snapshots may be late
WAITER_LEASE_S = 1.0
POLL_INTERVAL_S = 0.025  # the delay until a slot that another process released is noticed
REDIS_TIMEOUT_S = 0.25
RETRY_INTERVAL_S = 0.5  # while Redis is unavailable; no request waits for it then
KEYS = ("voicecare:slots", "voicecare:slots:limit")

log = structlog.get_logger(__name__)


class SlotTimeout(Exception):
    """No slot became free in time."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that holds a slot or waits for one. Compared by identity."""

    patient_key: str
    is_background: bool
    requested_at: float = field(default_factory=time.monotonic)
    number: int = field(default_factory=count().__next__)
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    def to_payload(self) -> list[str | bool]:
        return [self.patient_key, self.is_background]


def admit(held: Collection[Waiter], waiting: Iterable[Waiter], limit: int | None) -> list[Waiter]:
    """The waiting requests that get a slot now. `concurrency.lua` applies the same rules in Redis."""
    admitted = []
    total, background = len(held), sum(waiter.is_background for waiter in held)
    per_patient = Counter(waiter.patient_key for waiter in held)
    for waiter in waiting:
        patient_is_at_limit = waiter.patient_key and per_patient[waiter.patient_key] >= MAX_SLOTS_PER_PATIENT
        background_is_at_limit = waiter.is_background and limit and background >= max(1, limit // 2)
        if limit is None or not (total >= limit or patient_is_at_limit or background_is_at_limit):
            admitted.append(waiter)
            total, background = total + 1, background + waiter.is_background
            per_patient[waiter.patient_key] += 1
    return admitted


class ConcurrencyLimiter(ABC):
    """A distributed semaphore. There is one for each process, used on one event loop.

    `limit` is None until the provider has reported it.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self._held: dict[Waiter, None] = {}  # dicts, for their order
        self._waiting: dict[Waiter, None] = {}

    @property
    def held_count(self) -> int:
        """The number of slots that this process holds."""
        return len(self._held)

    @property
    def waiting_count(self) -> int:
        """The number of requests of this process that wait for a slot."""
        return len(self._waiting)

    def set_limit(self, limit: int) -> None:
        """Set the limit that the provider has reported. A number below 1 is ignored."""
        if limit >= 1 and limit != self.limit:
            self.limit = limit
            metrics.SLOTS_LIMIT.set(limit)
            self._on_change()

    @asynccontextmanager
    async def acquire(
        self, patient_id: uuid.UUID | None, *, background: bool = False, wait_s: float
    ) -> AsyncIterator[None]:
        """Hold a slot inside the block. Raises SlotTimeout after `wait_s` seconds, which include the time for Redis.

        The slot is released without waiting, also after an error or a cancellation.
        """
        waiter = Waiter(patient_id.hex if patient_id else "", background)
        self._waiting[waiter] = None
        try:
            self._on_change()
            if not waiter.admitted.is_set():
                try:
                    async with asyncio.timeout(wait_s):
                        await waiter.admitted.wait()
                except TimeoutError:
                    raise SlotTimeout(f"No slot became free within {wait_s:g} s.") from None
            yield
        finally:
            self._waiting.pop(waiter, None)
            self._held.pop(waiter, None)
            self._on_change()

    @abstractmethod
    async def close(self) -> None:
        """Release everything, also for other processes. Call it when no request holds a slot or waits for one."""

    @abstractmethod
    def _on_change(self) -> None:
        """A request has come or gone, or the limit has changed."""

    def _admit(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            del self._waiting[waiter]
            self._held[waiter] = None
            waiter.admitted.set()


class LocalLimiter(ConcurrencyLimiter):
    """Limits this process alone. The limit of the account is kept only if no other process sends requests."""

    def _on_change(self) -> None:
        self._admit(admit(self._held, self._waiting, self.limit))

    async def close(self) -> None:
        """Nothing to release: no other process is involved."""


class RedisLimiter(ConcurrencyLimiter):
    """Limits all processes that use this Redis.

    The slots of a process that was killed stay taken for `lease_s` seconds. `timeout_s` is the timeout of one call to
    Redis. Only the first request of an outage waits that long.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, timeout_s: float = REDIS_TIMEOUT_S) -> None:
        super().__init__()
        # One connection, so that snapshots do not overtake each other. One retry, for a connection that was closed.
        # The old protocol and no library name save three round trips before the first snapshot.
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
        """Send a snapshot after each change, while a request waits, and before the leases end."""
        while not self._is_closing:
            interval_s = REFRESH_RATIO * self._lease_s if self._held else None
            if self._is_redis_down:
                interval_s = RETRY_INTERVAL_S
            elif self._waiting:
                interval_s = uniform(0.8, 1.2) * POLL_INTERVAL_S  # noqa: S311 - so that processes do not poll in step
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._wake.wait()
            await self._sync()
        await self._sync()

    async def _sync(self) -> None:
        """Send a snapshot and admit the waiters that Redis returns. If Redis fails, admit all of them."""
        self._wake.clear()
        arguments, sends_limit, self._has_new_limit = self._script_arguments(), self._has_new_limit, False
        try:
            async with asyncio.timeout(self._timeout_s):
                limit, admitted = await self._script(KEYS, arguments)
        except Exception as error:  # of any kind: without snapshots all requests would wait until their timeout
            self._has_new_limit = self._has_new_limit or sends_limit
            if not self._is_redis_down:
                log.warning("concurrency.limit_suspended", error=type(error).__name__)
            self._is_redis_down = True
            self._fail_open()
            return
        if self._is_redis_down:
            log.info("concurrency.limit_restored")
        self._is_redis_down = False
        numbers = set(admitted)
        self._admit([waiter for waiter in self._waiting if waiter.number in numbers])
        if limit and not self._has_new_limit:
            super().set_limit(limit)

    def _script_arguments(self) -> list[str | int]:
        """The ARGV of `concurrency.lua`. Times are microseconds."""
        now = time.monotonic()
        held = [waiter.to_payload() for waiter in self._held]
        line = [
            [*waiter.to_payload(), waiter.number, round((now - waiter.requested_at) * 1e6)] for waiter in self._waiting
        ]
        return [
            self._process_id,
            json.dumps({"held": held, "line": line}),
            round(self._lease_s * 1e6),
            round(min(WAITER_LEASE_S, self._lease_s) * 1e6),
            MAX_SLOTS_PER_PATIENT,
            self.limit or "",
            int(self._has_new_limit),
        ]


def create_limiter(redis_url: str) -> ConcurrencyLimiter:
    """A limiter for all processes that use this Redis, or for this process if the URL is empty."""
    return RedisLimiter(redis_url) if redis_url else LocalLimiter()
