"""Standing in line for a busy provider, which is no failure (the contract, section 2, rule 7)."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tts.resilience.concurrency import ConcurrencyLimiter

RETRY_INTERVAL_S = 0.2
NOTIFY_AFTER_S = 0.5


class AdmissionTicket:
    """One segment's turn, from the moment it is wanted. It may spend `limit_s` in line, in however many pieces.

    `tell` is given the seconds that are left, in the background, when it has been in line for `NOTICE_S`.
    """

    def __init__(
        self, slots: ConcurrencyLimiter, patient: uuid.UUID | None, limit_s: float, tell: Callable[[float], None]
    ) -> None:
        self.requested_at = time.monotonic()
        self._limiter = slots
        self._patient = patient
        self._max_wait_s = limit_s
        self._on_wait = tell
        self._waited_s = 0.0

    def elapsed_s(self) -> float:
        """For how long the segment has been wanted, without what it spent in line."""
        return time.monotonic() - self.requested_at - self._waited_s

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the streams that the provider allows. Raises SlotsFull when the patience is over."""
        hold = self._limiter.acquire(self._patient, wait_s=self._remaining_s())
        await self._count_wait(hold.__aenter__())
        try:
            yield
        finally:
            await hold.__aexit__(None, None, None)

    async def wait_for_retry(self) -> bool:
        """The provider had none after all: returns when one may have become free; false when the patience is over."""
        if not self._remaining_s():
            return False
        await self._count_wait(asyncio.sleep(RETRY_INTERVAL_S))
        return True

    async def _count_wait(self, waiting: Awaitable[None]) -> None:
        """Counts the time, and tells the device when it has waited for long enough to wonder."""
        began = time.monotonic()
        in_s = max(NOTIFY_AFTER_S - self._waited_s, 0.0)
        notice = asyncio.get_running_loop().call_later(in_s, lambda: self._on_wait(self._remaining_s()))
        try:
            await waiting
        finally:
            notice.cancel()
            self._waited_s += time.monotonic() - began

    def _remaining_s(self) -> float:
        return max(self._max_wait_s - self._waited_s, 0.0)
