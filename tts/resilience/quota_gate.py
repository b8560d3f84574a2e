"""Whether the provider's quota is spent, as this process knows it: read on the road, so without a query.

The truth is the one `ProviderState` row (`usage.provider_state.quota`), which `tts.resilience.state_watcher` reads
every second. A process
whose own request is refused knows at once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from django.conf import settings

from tts.resilience.cached_state import RowCopy
from usage.provider_state import circuit, quota
from voicecare.core import metrics, pubsub
from voicecare.core.database import run_in_db_thread

NOTABLE_S = 2.0  # a reading may shift the end of the hold by so much without anybody being woken


class Quota(RowCopy):
    """One for each process. `own` runs work in the background."""

    def __init__(self, own: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        super().__init__()
        self.spent = False
        self._own = own
        self._hold_until = 0.0
        self._look_again_at = 0.0
        self._change = asyncio.Event()

    def holding_s(self, now: float) -> float:
        """Seconds left, at `now` (monotonic), of the first 60 s of the incident, in which live speech waits."""
        return max(self._hold_until - now, 0.0) if self.spent else 0.0

    def refused(self, needed: int, detail: str = "") -> None:
        """A request of that many characters was refused for want of credits. Known here at once, everywhere within a
        second; `detail` goes to administrators: the provider's code and request id, never a text.
        """
        if not self.spent:
            self._begin()
            self._become(True, circuit.HOLD_S)
            self._own(self._write(needed, detail))

    def answered(self, characters: int, credits: int | None) -> None:
        """A request was billed. Beyond a credit a character, which no model costs, something is unlike what we believe
        (a voice with a price of its own): the subscription is read at once, not at its next turn.
        """
        now = time.monotonic()
        if credits is not None and credits > characters and now >= self._look_again_at:
            self._look_again_at = now + settings.QUOTA_POLL_S
            self._own(run_in_db_thread(quota.poll_now))

    async def changed(self, timeout_s: float) -> bool:
        """Waits until the quota is spent or back, or the end of the hold has moved; false when the time is over."""
        change = self._change
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await change.wait()
        return change.is_set()

    def follow(self, known: circuit.ProviderStatus, mark: int | None) -> None:
        """Takes over what the row says; `mark` was taken before it was read."""
        if not self.is_old(mark):
            self._become(known.quota_exhausted, known.hold_s)

    async def _write(self, needed: int, detail: str) -> None:
        try:
            await run_in_db_thread(quota.mark_exhausted, needed, detail)
            await run_in_db_thread(pubsub.publish_provider)
        finally:
            self._end()

    def _become(self, spent: bool, hold_s: float) -> None:
        now = time.monotonic()
        before = self.spent, self.holding_s(now)
        self.spent, self._hold_until = spent, now + hold_s
        metrics.QUOTA_SPENT.set(spent)
        if before[0] != spent or abs(before[1] - self.holding_s(now)) > NOTABLE_S:
            self._change.set()
            self._change = asyncio.Event()
