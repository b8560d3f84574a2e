"""Whether the provider is known to be down: one answer for all processes, so that nobody pays its time-outs twice.

The truth is the one `ProviderState` row. Each process keeps a copy, which `tts.resilience.state_watcher` brings up to
date every second,
and asks its copy on the road. The circuit opens when the live, the repeated and the backup request of one segment
have all failed while nobody else was answered; while it is open one process at a time looks whether the provider is
back. Only such a look closes it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from django.utils import timezone

from tts.resilience.cached_state import CachedRow
from usage.provider_state import circuit
from voicecare.core import metrics
from voicecare.core.database import run_in_db_thread
from voicecare.providers.errors import ProviderError, RateLimited

log = structlog.get_logger(__name__)

Probe = Callable[[], Awaitable[None]]


class CircuitBreaker(CachedRow):
    """One for each process. `open` is read on the road; `given_up` and `answered` are told there what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self._last_success_at = 0.0

    def record_failure(self, error: ProviderError, since: float) -> bool:
        """Every request for a segment has failed since `since` (monotonic seconds), the last one with `error`.

        True if that opens the circuit: the caller has `announce` run. Where another speech was answered meanwhile, or
        the provider refused for a reason of its own, it is not down.
        """
        if not _is_down(error) or self._last_success_at > since or self.is_open:
            return False
        self._begin_write()
        self._set_open(True)
        return True

    def record_success(self) -> None:
        """A request was answered to its end."""
        self._last_success_at = time.monotonic()

    async def publish_open(self, since: float) -> None:
        """Tells all processes and the administrators that the provider is down since then (monotonic seconds)."""
        began = timezone.now() - timedelta(seconds=time.monotonic() - since)
        try:
            await run_in_db_thread(circuit.open_circuit, began)
        finally:
            self._end_write()

    def apply(self, known: circuit.ProviderStatus, mark: int | None) -> None:
        """Takes over what the row says; `mark` was taken before it was read."""
        if not self.is_stale(mark):
            self._set_open(known.circuit_open)

    async def probe(self, probe: Probe) -> None:
        """Looks whether the provider is back, if no other process does.

        `probe` asks the provider and raises ProviderError if it is still down.
        """
        if not await run_in_db_thread(circuit.claim_probe):
            return
        if await _is_answered(probe):
            await self._close()
        else:
            await run_in_db_thread(circuit.record_failed_probe)

    async def _close(self) -> None:
        self._begin_write()
        try:
            await run_in_db_thread(circuit.close_circuit)
            self._set_open(False)
        finally:
            self._end_write()

    def _set_open(self, is_open: bool) -> None:
        self.is_open = is_open
        metrics.CIRCUIT_OPEN.set(is_open)


async def _is_answered(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(circuit.PROBE_LEASE_S - 1):
            await probe()
    except (ProviderError, TimeoutError) as error:
        log.info("circuit.probe_failed", error=type(error).__name__)
        return isinstance(error, ProviderError) and not _is_down(error)
    return True


def _is_down(error: ProviderError) -> bool:
    """Whether it speaks of a provider that does not work. A refusal is an answer, if an unwelcome one."""
    return error.retryable and not isinstance(error, RateLimited)
