"""Follows the one `ProviderState` row for this process: the circuit and the quota take over what it says, and what is
due (a probe of the provider, a look at the subscription) is done beside it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from tts.resilience.circuit_breaker import Circuit, Probe
from tts.resilience.concurrency import Slots
from tts.resilience.quota_gate import Quota
from usage.provider_state import circuit as provider
from usage.provider_state import quota
from voicecare.core import pubsub
from voicecare.core.database import run_in_db_thread
from voicecare.providers.errors import QuotaExceeded

LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class Watch:
    """One for each process. `own` runs work in the background: a probe takes longer than the next look may wait."""

    def __init__(
        self,
        circuit: Circuit,
        quota: Quota,
        slots: Slots,
        probe: Probe,
        own: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._circuit = circuit
        self._quota = quota
        self._slots = slots
        self._probe = probe
        self._own = own
        self._look_now = asyncio.Event()
        self._written: int | None = None

    async def run(self) -> None:
        """Looks every second until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # whatever it is: who stops looking stays on the offline voice for good
                log.warning("provider.look_failed", error=type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_EVERY_S)
            self._look_now.clear()

    def hurry(self) -> None:
        """The row is known to have changed: looks at it now."""
        self._look_now.set()

    async def look(self) -> None:
        """Once. While the quota is spent the provider is not probed either: a probe is a request."""
        circuit_mark, quota_mark = self._circuit.mark(), self._quota.mark()
        known = await run_in_db_thread(provider.read_status)
        self._circuit.follow(known, circuit_mark)
        self._quota.follow(known, quota_mark)
        self._follow_limit(known.concurrency_limit)
        if known.probe_due and not self._quota.spent:
            self._own(self._circuit.probe(self._ask))
        if known.poll_due:
            self._own(self._poll())

    def _follow_limit(self, known: int | None) -> None:
        """A process that has not been told the limit yet takes the row's; one that has writes it down."""
        limit = self._slots.limit
        if limit is None and known is not None:
            self._written = known
            self._slots.learned(known)
        elif limit is not None and limit != self._written:
            self._written = limit
            self._own(run_in_db_thread(provider.set_concurrency_limit, limit))

    async def _ask(self) -> None:
        try:
            await self._probe()
        except QuotaExceeded as error:
            self._quota.refused(1, error.support_details)
            raise

    async def _poll(self) -> None:
        await run_in_db_thread(quota.poll)
        await run_in_db_thread(pubsub.publish_provider)
        self.hurry()
