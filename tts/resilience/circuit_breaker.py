"""The circuit breaker: whether the provider is known to be down. All processes share one state.

The state is in the one `ProviderState` row. Each process has a copy, which `tts.resilience.state_watcher` updates every
second. Speech reads only the copy. `tts.resilience.outage_detector` decides when the circuit opens. While it is open,
one process at a time probes the provider. Only a successful probe closes the circuit. A refusal counts as success too:
a provider that refuses a request works.
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
    """This process's copy of the state of the circuit. Each process has one.

    Speech reads `is_open` and reports with `record_success`. The outage detector reports with `record_outage`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self._last_success_at = 0.0

    def record_outage(self, since: float) -> bool:
        """Report evidence that the provider is down since `since` (monotonic seconds).

        Returns True if this report opens the circuit. The caller then runs `publish_open`. The circuit stays as it is
        if a request has succeeded since then.
        """
        if self.has_succeeded_since(since) or self.is_open:
            return False
        self._begin_write()
        self._set_open(True)
        return True

    def record_success(self) -> None:
        """Report that the provider has completed a response."""
        self._last_success_at = time.monotonic()

    def has_succeeded_since(self, since: float) -> bool:
        """Whether `record_success` was called after `since` (monotonic seconds)."""
        return self._last_success_at > since

    async def publish_open(self, since: float) -> None:
        """Open the circuit in the database, for all processes, and open the incident.

        The outage began at `since` (monotonic seconds).
        """
        began = timezone.now() - timedelta(seconds=time.monotonic() - since)
        try:
            await run_in_db_thread(circuit.open_circuit, began)
        finally:
            self._end_write()

    def apply(self, status: circuit.ProviderStatus, version: int | None) -> None:
        """Apply the state that was read from the row. `version` was taken before the row was read."""
        if not self.is_stale(version):
            self._set_open(status.circuit_open)

    async def probe(self, probe: Probe) -> None:
        """Run `probe` if no other process is probing, and close the circuit if the provider answers.

        `probe` sends a request and raises ProviderError if the provider is still down.
        """
        if not await run_in_db_thread(circuit.claim_probe):
            return
        try:
            async with asyncio.timeout(circuit.PROBE_LEASE_S - 1):
                await probe()
        except (ProviderError, TimeoutError) as error:
            log.info("circuit.probe_failed", error=type(error).__name__)
            if not isinstance(error, ProviderError) or is_outage(error):  # a refusal is an answer
                await run_in_db_thread(circuit.record_failed_probe)
                return
        self.record_success()
        self._begin_write()
        try:
            await run_in_db_thread(circuit.close_circuit)
            self._set_open(False)
        finally:
            self._end_write()

    def _set_open(self, is_open: bool) -> None:
        self.is_open = is_open
        metrics.CIRCUIT_OPEN.set(is_open)


def is_outage(error: ProviderError) -> bool:
    """Whether this error can mean that the provider is down.

    A refusal cannot, because a provider that refuses works.
    """
    return error.retryable and not isinstance(error, RateLimited)
