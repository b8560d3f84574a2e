"""The concurrency limit: how many requests the provider serves at the same time for our account, in all processes.

A request needs a slot. There are two classes of requests: for patients, and background work (cache warming, and speech
for clinicians over REST). A waiting patient is always served before waiting background work. Inside a class, slots are
given in the order of arrival. A patient holds at most two slots. Requests of other patients overtake a patient's third
request. A request that holds a slot is never interrupted: if the limit is lowered, new requests wait. While no limit is
known, all requests for patients are admitted and counted.

A request takes seconds, so background work must leave room for patients who come while it runs. It holds at most a
quarter of the slots, at least one, and it never takes the last free slot: with a limit of 2 it runs only while no
patient speaks, and with a limit of 1 it never runs. While no limit is known, it holds one slot.

Each process sends Redis a full snapshot of its held and waiting requests in one Lua call. Redis returns the waiting
requests to admit. Snapshots are idempotent, so a lost or repeated call is harmless, and Redis may lose its data. Redis
uses its own clock. If a process stops reporting, its slots expire after `lease_s` and its waiting requests after
`WAITER_LEASE_S`. If Redis is unavailable, all requests for patients are admitted (fail open), and background work is
admitted as if there were no other process.
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
    """No concurrency slot became free in time."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that holds a slot or waits for one. Two requests are never equal (compared by identity)."""

    patient_key: str
    is_background: bool
    requested_at: float = field(default_factory=time.monotonic)
    number: int = field(default_factory=count().__next__)
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    def to_payload(self) -> list[str | bool]:
        return [self.patient_key, self.is_background]


def admit(held: Collection[Waiter], waiting: Iterable[Waiter], limit: int | None) -> list[Waiter]:
    """Return the waiting requests that get a slot now. `concurrency.lua` applies the same rules in Redis.

    `waiting` is in the order of arrival.
    """
    admitted = []
    total, background = len(held), sum(waiter.is_background for waiter in held)
    per_patient = Counter(waiter.patient_key for waiter in held if not waiter.is_background)
    for waiter in sorted(waiting, key=lambda waiter: waiter.is_background):
        if waiter.is_background:
            may_go = background < max_background(limit) and (limit is None or total < limit - 1)
        else:
            patient_is_at_limit = waiter.patient_key and per_patient[waiter.patient_key] >= MAX_SLOTS_PER_PATIENT
            may_go = limit is None or (total < limit and not patient_is_at_limit)
        if may_go:
            admitted.append(waiter)
            total, background = total + 1, background + waiter.is_background
            per_patient[waiter.patient_key] += not waiter.is_background
    return admitted


def max_background(limit: int | None) -> int:
    """Return the maximum number of slots that background work may hold."""
    return 1 if limit is None else min(max(limit // 4, 1), limit - 1)


class ConcurrencyLimiter(ABC):
    """A semaphore for speech requests, shared by all processes. Each process has one, used on one event loop.

    `limit` is None until the provider has reported the concurrency limit.
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
        """Set the concurrency limit that the provider has reported. A number below 1 is ignored."""
        if limit >= 1 and limit != self.limit:
            self.limit = limit
            metrics.SLOTS_LIMIT.set(limit)
            self._on_change()

    @asynccontextmanager
    async def acquire(
        self, patient_id: uuid.UUID | None, *, background: bool = False, wait_s: float
    ) -> AsyncIterator[None]:
        """Hold a slot inside the block. Raises SlotTimeout after `wait_s` seconds, which include the time for Redis.

        With `background`, the request does not count towards the slots of the patient. It raises SlotTimeout
        immediately if the limit leaves no slot for background work. The slot is released without waiting, also after an
        error or a cancellation.
        """
        if background and not max_background(self.limit):
            raise SlotTimeout("The limit leaves no slot for background work.")
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
        """Release all slots, also for other processes. Call this when no request holds a slot or waits for one."""

    @abstractmethod
    def _on_change(self) -> None:
        """Called when a request has come or gone, or when the limit has changed. Admits waiting requests."""

    def _admit(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            del self._waiting[waiter]
            self._held[waiter] = None
            waiter.admitted.set()


class LocalLimiter(ConcurrencyLimiter):
    """Limits the requests of this process only.

    The limit of the account is respected only if no other process sends requests.
    """

    def _on_change(self) -> None:
        self._admit(admit(self._held, self._waiting, self.limit))

    async def close(self) -> None:
        """Do nothing: no other process knows of the slots."""


class RedisLimiter(ConcurrencyLimiter):
    """Limits the requests of all processes that use this Redis.

    The slots of a killed process stay taken for `lease_s` seconds. `timeout_s` is the timeout of one call to Redis. In
    an outage of Redis, only the first request waits that long.
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
        """Admit all requests for patients, and background work as if this process were alone."""
        patients = [waiter for waiter in self._waiting if not waiter.is_background]
        metrics.SLOTS_UNLIMITED.inc(len(patients))
        self._admit(patients)
        self._admit(admit(self._held, self._waiting, self.limit))

    async def _sync_until_closed(self) -> None:
        """Send a snapshot after each change, regularly while a request waits, and before the leases end."""
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
        """Send the running and the waiting requests of this process to Redis, and admit those that Redis returns.

        If Redis fails, admit all requests for patients, and other requests as if this process were alone.
        """
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
        """Return the ARGV of `concurrency.lua`. Times are in microseconds."""
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
    """Return a limiter for all processes that use this Redis. If the URL is empty, it limits this process only."""
    return RedisLimiter(redis_url) if redis_url else LocalLimiter()
