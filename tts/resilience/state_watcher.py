"""Polls the one `ProviderState` row and applies it to the circuit breaker, the quota and the concurrency limit.

When the provider has accepted a request again, the poller records in that row that our API key is no longer refused.
When the row says that it is time, it probes the provider and reads the subscription, both in the background.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog

from tts.resilience.circuit_breaker import CircuitBreaker, Probe
from tts.resilience.concurrency import ConcurrencyLimiter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import SpeechGateway
from usage.provider_state import access, quota
from usage.provider_state import circuit as provider
from voicecare.core import pubsub
from voicecare.core.database import run_in_db_thread
from voicecare.providers.errors import QuotaExceeded

POLL_INTERVAL_S = 1.0

log = structlog.get_logger(__name__)


class ProviderStatePoller:
    """Polls the provider's state in the database. Each process has one.

    `spawn` runs work in the background, because a probe takes longer than the poll interval.
    """

    def __init__(
        self,
        circuit: CircuitBreaker,
        quota: QuotaGate,
        limiter: ConcurrencyLimiter,
        probe: Probe,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
        *,
        gateway: SpeechGateway,
    ) -> None:
        self._circuit = circuit
        self._quota = quota
        self._limiter = limiter
        self._probe = probe
        self._gateway = gateway
        self._spawn = spawn
        self._poll_requested = asyncio.Event()
        self._stored_limit: int | None = None
        self._plan_limit: int | None = None
        self._refused_since = math.inf
        self._access_changed_at: datetime | None = None
        self.access_refused = False
        """Whether the provider refuses our key, plan or permissions, as of the last poll."""

    async def run(self) -> None:
        """Poll every POLL_INTERVAL_S seconds until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception as error:
                # Of any kind, because without polls this process could stay in the offline voice forever.
                log.warning("provider_state.poll_failed", error=type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poll_requested.wait(), POLL_INTERVAL_S)
            self._poll_requested.clear()

    def poll_now(self) -> None:
        """Make `run` poll immediately, because the row is known to have changed."""
        self._poll_requested.set()

    async def poll(self) -> None:
        """Read the row once and apply it.

        While the quota is exhausted, the provider is not probed, because a probe costs quota.
        """
        circuit_version, quota_version = self._circuit.version(), self._quota.version()
        status = await run_in_db_thread(provider.read_status)
        self._circuit.apply(status, circuit_version)
        self._quota.apply(status, quota_version)
        self._exchange_limit(status)
        self._follow_access(status)
        if status.probe_due and not self._quota.is_exhausted:
            self._spawn(self._circuit.probe(self._run_probe))
        if status.poll_due:
            self._spawn(self._poll_subscription())

    def _exchange_limit(self, status: provider.ProviderStatus) -> None:
        """Take the concurrency limit from the database row, or write it there.

        The limit is taken if this process knows none yet, or if the plan has changed since the last poll. Otherwise the
        limit that the provider has reported to this process is written, if it is a new one.
        """
        limit, stored_limit = self._limiter.limit, status.concurrency_limit
        plan_limit, self._plan_limit = self._plan_limit, status.plan_concurrency_limit
        plan_changed = plan_limit is not None and plan_limit != status.plan_concurrency_limit
        if stored_limit is not None and (limit is None or plan_changed):
            self._stored_limit = stored_limit
            self._limiter.set_limit(stored_limit)
        elif limit is not None and limit != self._stored_limit:
            self._stored_limit = limit
            self._spawn(run_in_db_thread(provider.set_concurrency_limit, limit))

    def _follow_access(self, status: provider.ProviderStatus) -> None:
        """If the row says that our API key is refused, correct it when the provider has accepted a request since."""
        if status.access_refused and (not self.access_refused or status.access_changed_at != self._access_changed_at):
            self._refused_since = time.monotonic()
        elif status.access_refused and self._gateway.accepted_at > self._refused_since:
            self._spawn(run_in_db_thread(access.speech_accepted))
        self.access_refused = status.access_refused
        self._access_changed_at = status.access_changed_at

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
