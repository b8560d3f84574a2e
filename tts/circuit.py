"""Whether the provider is known to be down: one answer for all processes, so that nobody pays its time-outs twice.

The truth is the one `ProviderState` row. Each process keeps a copy, looks at the row every second, and asks its copy
on the road. The circuit opens when the live, the repeated and the backup request of one segment have all failed while
nobody else was answered; while it is open one process at a time looks whether the provider is back. Only such a look
closes it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from channels.db import DatabaseSyncToAsync
from django.utils import timezone

from usage import provider
from voicecare import metrics
from voicecare.elevenlabs.errors import Busy, ProviderError

LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[None]]


class Circuit:
    """One for each process. `open` is read on the road; `given_up` and `answered` are told there what came of it."""

    def __init__(self) -> None:
        self.open = False
        self._announcing = False
        self._answered_at = 0.0

    def given_up(self, error: ProviderError, since: float) -> bool:
        """Every request for a segment has failed since `since` (monotonic seconds), the last one with `error`.

        True if that opens the circuit: the caller has `announce` run. Where another speech was answered meanwhile, or
        the provider refused for a reason of its own, it is not down.
        """
        if not _is_down(error) or self._answered_at > since or self.open:
            return False
        self.open = self._announcing = True
        metrics.CIRCUIT_OPEN.set(True)
        return True

    def answered(self) -> None:
        """A request was answered to its end."""
        self._answered_at = time.monotonic()

    async def announce(self, since: float) -> None:
        """Tells all processes and the administrators that the provider is down since then (monotonic seconds)."""
        began = timezone.now() - timedelta(seconds=time.monotonic() - since)
        try:
            await DatabaseSyncToAsync(provider.opened, thread_sensitive=False)(began)
        finally:
            self._announcing = False

    async def watch(self, probe: Probe) -> None:
        """Follows the row until cancelled; `probe` asks the provider and raises ProviderError if it is still down."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look(probe)
            except Exception as error:  # whatever it is: who stops looking stays on the offline voice for good
                log.warning("circuit.look_failed", error=type(error).__name__)

    async def _look(self, probe: Probe) -> None:
        is_open, due = await DatabaseSyncToAsync(provider.circuit, thread_sensitive=False)()
        if self._announcing:  # the row does not know yet what this process does
            return
        self.open = is_open
        metrics.CIRCUIT_OPEN.set(is_open)
        if due and await DatabaseSyncToAsync(provider.claim_probe, thread_sensitive=False)():
            await self._probe(probe)

    async def _probe(self, probe: Probe) -> None:
        try:
            async with asyncio.timeout(provider.PROBE_LEASE_S - 1):
                await probe()
        except (ProviderError, TimeoutError) as error:
            log.info("circuit.probe_failed", error=type(error).__name__)
            answered = isinstance(error, ProviderError) and not _is_down(error)
        else:
            answered = True
        if not answered:
            await DatabaseSyncToAsync(provider.still_down, thread_sensitive=False)()
        else:
            await DatabaseSyncToAsync(provider.closed, thread_sensitive=False)()
            self.open = False
            metrics.CIRCUIT_OPEN.set(False)


def _is_down(error: ProviderError) -> bool:
    """Whether it speaks of a provider that does not work. A refusal is an answer, if an unwelcome one."""
    return error.retryable and not isinstance(error, Busy)
