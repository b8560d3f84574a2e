"""Polls the one `ProviderState` row and applies it to the circuit breaker, the quota and the concurrency limit.

When the row says so, it also probes the provider and reads the subscription, both in the background.
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
    """Polls the provider state. There is one for each process.

    `spawn` runs work in the background, because a probe takes longer than the poll interval.
    """

    def __init__(
        self,
        circuit: CircuitBreaker,
        quota: QuotaGate,
        limiter: ConcurrencyLimiter,
        probe: Probe,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._circuit = circuit
        self._quota = quota
        self._limiter = limiter
        self._probe = probe
        self._spawn = spawn
        self._poll_requested = asyncio.Event()
        self._stored_limit: int | None = None

    async def run(self) -> None:
        """Poll every `POLL_INTERVAL_S` seconds until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception as error:
                # Of any kind, because without polls this process could stay on the offline voice for ever.
                log.warning("provider_state.poll_failed", error=type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poll_requested.wait(), POLL_INTERVAL_S)
            self._poll_requested.clear()

    def poll_now(self) -> None:
        """Poll immediately, because the row is known to have changed."""
        self._poll_requested.set()

    async def poll(self) -> None:
        """Poll once. While the quota is exhausted the provider is not probed, because a probe is a request."""
        circuit_version, quota_version = self._circuit.version(), self._quota.version()
        status = await run_in_db_thread(provider.read_status)
        self._circuit.apply(status, circuit_version)
        self._quota.apply(status, quota_version)
        limit, stored_limit = self._limiter.limit, status.concurrency_limit
        if limit is None and stored_limit is not None:  # another process knows the limit, this one does not yet
            self._stored_limit = stored_limit
            self._limiter.set_limit(stored_limit)
        elif limit is not None and limit != self._stored_limit:
            self._stored_limit = limit
            self._spawn(run_in_db_thread(provider.set_concurrency_limit, limit))
        if status.probe_due and not self._quota.is_exhausted:
            self._spawn(self._circuit.probe(self._run_probe))
        if status.poll_due:
            self._spawn(self._poll_subscription())

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
