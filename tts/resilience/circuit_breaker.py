"""The circuit breaker: whether the provider is known to be down. All processes share one state.

The state is in the one `ProviderState` row. Each process has a copy, which `tts.resilience.state_watcher` updates every
second; the hot path reads only the copy. The circuit opens when the live, the repeated and the backup request of one
segment have all failed and no other request succeeded in that time. While it is open, one process at a time probes the
provider. Only a successful probe closes it. A refusal counts as success too: a provider that refuses a request works.
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
    """The local state of the circuit. There is one for each process.

    The hot path reads `is_open` and reports with `record_failure` and `record_success`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self._last_success_at = 0.0

    def record_failure(self, error: ProviderError, since: float) -> bool:
        """Report that every request for a segment has failed since `since` (monotonic seconds), the last with `error`.

        Returns True if that opens the circuit. The caller then runs `publish_open`. The provider is not down if another
        request succeeded in that time, or if `error` is a refusal.
        """
        if not _is_down(error) or self._last_success_at > since or self.is_open:
            return False
        self._begin_write()
        self._set_open(True)
        return True

    def record_success(self) -> None:
        """Report that a response was received to its end."""
        self._last_success_at = time.monotonic()

    async def publish_open(self, since: float) -> None:
        """Write that the provider is down since `since` (monotonic seconds), for all processes and administrators."""
        began = timezone.now() - timedelta(seconds=time.monotonic() - since)
        try:
            await run_in_db_thread(circuit.open_circuit, began)
        finally:
            self._end_write()

    def apply(self, status: circuit.ProviderStatus, version: int | None) -> None:
        """Apply the row's state. `version` was taken before the row was read."""
        if not self.is_stale(version):
            self._set_open(status.circuit_open)

    async def probe(self, probe: Probe) -> None:
        """Probe the provider, unless another process does, and close the circuit if the provider answers.

        `probe` sends a request and raises ProviderError if the provider is still down.
        """
        if not await run_in_db_thread(circuit.claim_probe):
            return
        try:
            async with asyncio.timeout(circuit.PROBE_LEASE_S - 1):
                await probe()
        except (ProviderError, TimeoutError) as error:
            log.info("circuit.probe_failed", error=type(error).__name__)
            if not isinstance(error, ProviderError) or _is_down(error):  # a refusal is an answer
                await run_in_db_thread(circuit.record_failed_probe)
                return
        self._begin_write()
        try:
            await run_in_db_thread(circuit.close_circuit)
            self._set_open(False)
        finally:
            self._end_write()

    def _set_open(self, is_open: bool) -> None:
        self.is_open = is_open
        metrics.CIRCUIT_OPEN.set(is_open)


def _is_down(error: ProviderError) -> bool:
    """Whether the error means that the provider does not work. A refusal does not."""
    return error.retryable and not isinstance(error, RateLimited)
