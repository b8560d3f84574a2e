"""The failures: of requests at the provider, of the credits, and of processes."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.chaos.cluster import Cluster
from tests.server import ServerProcess

INTERVAL_S = (4.0, 20.0)
CREDITS = 10_000_000
REQUEST_FAULTS = (
    {"kind": "error", "preset": "internal_error", "first": 4},
    {"kind": "error", "preset": "service_unavailable", "first": 12},
    {"kind": "error", "preset": "system_busy", "first": 6},
    {"kind": "error", "preset": "rate_limit_exceeded", "first": 6},
    {"kind": "error", "preset": "bad_gateway_html", "first": 4},
    {"kind": "refuse", "first": 3},
    {"kind": "unanswered", "first": 2, "seconds": 5},
    {"kind": "slow_headers", "first": 3},
    {"kind": "stall_middle", "after_bytes": 8000, "first": 3},
    {"kind": "cut", "after_bytes": 6000, "first": 5},
    {"kind": "cut_reset", "after_bytes": 6000, "first": 5},
    {"kind": "cut_clean", "after_bytes": 6000, "first": 3},
    {"kind": "empty", "first": 2},
    {"kind": "html", "first": 2},
    {"kind": "garbage", "first": 2},
    {"kind": "slow", "bytes_per_s": 2000, "first": 3},
)


class Disturbances:
    """`steady` is never killed, so that its memory can be compared. `other` is killed and started again.

    `kills` has the times (monotonic) at which a web process was killed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.steady, self.other = cluster.servers
        self.counts: Counter[str] = Counter()
        self.kills: list[float] = []

    def running(self) -> list[ServerProcess]:
        return [server for server in (self.steady, self.other) if server.process.poll() is None]

    async def run(self, until: float) -> None:
        """Disturb until this time (monotonic). Every disturbance is over when this returns."""
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            *[self.fail_requests] * 5,
            *[self.suspend_web] * 2,
            self.kill_web,
            self.kill_worker,
            self.exhaust_credits,
            self.lower_concurrency,
        )
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(*INTERVAL_S))
            disturb = random.choice(kinds)
            self.counts[disturb.__name__] += 1
            await disturb()
        await asyncio.to_thread(self._cluster.sandbox.clear_faults)

    async def fail_requests(self) -> None:
        await asyncio.to_thread(self._cluster.sandbox.fault, **random.choice(REQUEST_FAULTS))

    async def suspend_web(self) -> None:
        """Suspend a web process, sometimes for longer than its leases."""
        server = random.choice(self.running())
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(random.choice((0.5, 3, 18)))
        server.signal(signal.SIGCONT)

    async def kill_web(self) -> None:
        self.other.signal(signal.SIGKILL)
        self.kills.append(time.monotonic())
        await asyncio.to_thread(self.other.stop)
        await asyncio.sleep(random.uniform(0, 5))
        self.other = await asyncio.to_thread(self._cluster.start_server)

    async def kill_worker(self) -> None:
        await asyncio.to_thread(self._cluster.kill_worker)
        await asyncio.to_thread(self._cluster.start_worker)

    async def exhaust_credits(self) -> None:
        await asyncio.to_thread(self._cluster.sandbox.settings, characters_used=CREDITS)
        await asyncio.sleep(random.uniform(5, 75))
        await asyncio.to_thread(self._cluster.sandbox.settings, characters_used=0)

    async def lower_concurrency(self) -> None:
        await asyncio.to_thread(self._cluster.sandbox.settings, concurrency=3)
        await asyncio.sleep(random.uniform(5, 20))
        await asyncio.to_thread(self._cluster.sandbox.settings, concurrency=30)
