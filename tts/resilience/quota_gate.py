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

from tts.resilience.cached_state import CachedRow
from usage.provider_state import circuit, quota
from voicecare.core import metrics, pubsub
from voicecare.core.database import run_in_db_thread

HOLD_CHANGE_THRESHOLD_S = 2.0  # a reading may shift the end of the hold by so much without anybody being woken


class QuotaGate(CachedRow):
    """One for each process. `own` runs work in the background."""

    def __init__(self, own: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        super().__init__()
        self.is_exhausted = False
        self._spawn = own
        self._hold_until = 0.0
        self._next_poll_at = 0.0
        self._change = asyncio.Event()

    def hold_remaining_s(self, now: float) -> float:
        """Seconds left, at `now` (monotonic), of the first 60 s of the incident, in which live speech waits."""
        return max(self._hold_until - now, 0.0) if self.is_exhausted else 0.0

    def mark_exhausted(self, needed: int, detail: str = "") -> None:
        """A request of that many characters was refused for want of credits. Known here at once, everywhere within a
        second; `detail` goes to administrators: the provider's code and request id, never a text.
        """
        if not self.is_exhausted:
            self._begin_write()
            self._set_state(True, circuit.HOLD_S)
            self._spawn(self._write_exhausted(needed, detail))

    def on_billed(self, characters: int, credits: int | None) -> None:
        """A request was billed. Beyond a credit a character, which no model costs, something is unlike what we believe
        (a voice with a price of its own): the subscription is read at once, not at its next turn.
        """
        now = time.monotonic()
        if credits is not None and credits > characters and now >= self._next_poll_at:
            self._next_poll_at = now + settings.QUOTA_POLL_S
            self._spawn(run_in_db_thread(quota.poll_now))

    async def wait_for_change(self, timeout_s: float) -> bool:
        """Waits until the quota is spent or back, or the end of the hold has moved; false when the time is over."""
        change = self._change
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await change.wait()
        return change.is_set()

    def apply(self, known: circuit.ProviderStatus, mark: int | None) -> None:
        """Takes over what the row says; `mark` was taken before it was read."""
        if not self.is_stale(mark):
            self._set_state(known.quota_exhausted, known.hold_s)

    async def _write_exhausted(self, needed: int, detail: str) -> None:
        try:
            await run_in_db_thread(quota.mark_exhausted, needed, detail)
            await run_in_db_thread(pubsub.publish_provider)
        finally:
            self._end_write()

    def _set_state(self, spent: bool, hold_s: float) -> None:
        now = time.monotonic()
        before = self.is_exhausted, self.hold_remaining_s(now)
        self.is_exhausted, self._hold_until = spent, now + hold_s
        metrics.QUOTA_SPENT.set(spent)
        if before[0] != spent or abs(before[1] - self.hold_remaining_s(now)) > HOLD_CHANGE_THRESHOLD_S:
            self._change.set()
            self._change = asyncio.Event()
