"""This process's copy of whether the provider's quota is exhausted. Speech reads it without a query.

The state is in the one `ProviderState` row (`usage.provider_state.quota`), which `tts.resilience.state_watcher` reads
every second. A process whose own request was refused knows it immediately.
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

HOLD_CHANGE_THRESHOLD_S = 2.0  # seconds; a smaller change of the hold does not wake waiting speech


class QuotaGate(CachedRow):
    """This process's copy of the state of the quota, for callers that send no request while the quota is exhausted.

    Each process has one. `spawn` runs the writes to the database in the background.
    """

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        super().__init__()
        self.is_exhausted = False
        self._spawn = spawn
        self._hold_until = 0.0
        self._next_poll_at = 0.0
        self._change = asyncio.Event()

    def hold_remaining_s(self, now: float) -> float:
        """Return for how many more seconds live speech waits for the quota. `now` is monotonic.

        Live speech waits in the first 60 s of the incident. The result is 0.0 after that, or if the quota is not
        exhausted.
        """
        return max(self._hold_until - now, 0.0) if self.is_exhausted else 0.0

    def mark_exhausted(self, needed: int, detail: str = "") -> None:
        """Report that a request of `needed` characters was refused because the quota is exhausted.

        Other processes know it within a second. `detail` is sent to administrators: the provider's code and request id,
        never a text.
        """

        async def write() -> None:
            try:
                await run_in_db_thread(quota.mark_exhausted, needed, detail)
                await run_in_db_thread(pubsub.publish_provider)
            finally:
                self._end_write()

        if not self.is_exhausted:
            self._begin_write()
            self._set_state(True, circuit.HOLD_S)
            self._spawn(write())

    def on_billed(self, characters: int, credits: int | None) -> None:
        """Called after each billed request. `credits` is None if the provider does not state the price.

        If the request cost more than one credit per character (for example in a premium voice), the stored usage is
        probably wrong. So the subscription is read now instead of at the next poll.
        """
        now = time.monotonic()
        if credits is not None and credits > characters and now >= self._next_poll_at:
            self._next_poll_at = now + settings.QUOTA_POLL_S
            self._spawn(run_in_db_thread(quota.poll_now))

    async def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until the quota is exhausted or available again, or until the time that live speech waits has changed.

        Returns False after `timeout_s` seconds without a change.
        """
        change = self._change
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await change.wait()
        return change.is_set()

    def apply(self, status: circuit.ProviderStatus, version: int | None) -> None:
        """Apply the state that was read from the row. `version` was taken before the row was read."""
        if not self.is_stale(version):
            self._set_state(status.quota_exhausted, status.hold_s)

    def _set_state(self, is_exhausted: bool, hold_s: float) -> None:
        now = time.monotonic()
        was_exhausted, old_hold_s = self.is_exhausted, self.hold_remaining_s(now)
        self.is_exhausted, self._hold_until = is_exhausted, now + hold_s
        metrics.QUOTA_SPENT.set(is_exhausted)
        hold_change_s = abs(self.hold_remaining_s(now) - old_hold_s)
        if is_exhausted != was_exhausted or hold_change_s > HOLD_CHANGE_THRESHOLD_S:
            self._change.set()
            self._change = asyncio.Event()
