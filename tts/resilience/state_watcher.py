"""Follows the one `ProviderState` row for this process: the circuit and the quota take over what it says, and what is
due (a probe of the provider, a look at the subscription) is done beside it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from tts.resilience.circuit_breaker import CircuitBreaker, Probe
from tts.resilience.concurrency import ConcurrencyLimiter
from tts.resilience.quota_gate import QuotaGate
from usage.provider_state import circuit as provider
from usage.provider_state import quota
from voicecare.core import pubsub
from voicecare.core.database import run_in_db_thread
from voicecare.providers.errors import QuotaExceeded

POLL_INTERVAL_S = 1.0

log = structlog.get_logger(__name__)


class ProviderStatePoller:
    """One for each process. `own` runs work in the background: a probe takes longer than the next look may wait."""

    def __init__(
        self,
        circuit: CircuitBreaker,
        quota: QuotaGate,
        slots: ConcurrencyLimiter,
        probe: Probe,
        own: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._circuit = circuit
        self._quota = quota
        self._limiter = slots
        self._probe = probe
        self._spawn = own
        self._poll_requested = asyncio.Event()
        self._stored_limit: int | None = None

    async def run(self) -> None:
        """Looks every second until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception as error:  # whatever it is: who stops looking stays on the offline voice for good
                log.warning("provider.look_failed", error=type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poll_requested.wait(), POLL_INTERVAL_S)
            self._poll_requested.clear()

    def poll_now(self) -> None:
        """The row is known to have changed: looks at it now."""
        self._poll_requested.set()

    async def poll(self) -> None:
        """Once. While the quota is spent the provider is not probed either: a probe is a request."""
        circuit_mark, quota_mark = self._circuit.version(), self._quota.version()
        known = await run_in_db_thread(provider.read_status)
        self._circuit.apply(known, circuit_mark)
        self._quota.apply(known, quota_mark)
        self._sync_limit(known.concurrency_limit)
        if known.probe_due and not self._quota.is_exhausted:
            self._spawn(self._circuit.probe(self._run_probe))
        if known.poll_due:
            self._spawn(self._poll_subscription())

    def _sync_limit(self, known: int | None) -> None:
        """A process that has not been told the limit yet takes the row's; one that has writes it down."""
        limit = self._limiter.limit
        if limit is None and known is not None:
            self._stored_limit = known
            self._limiter.set_limit(known)
        elif limit is not None and limit != self._stored_limit:
            self._stored_limit = limit
            self._spawn(run_in_db_thread(provider.set_concurrency_limit, limit))

    async def _run_probe(self) -> None:
        try:
            await self._probe()
        except QuotaExceeded as error:
            self._quota.mark_exhausted(1, error.support_details)
            raise

    async def _poll_subscription(self) -> None:
        await run_in_db_thread(quota.poll)
        await run_in_db_thread(pubsub.publish_provider)
        self.poll_now()
