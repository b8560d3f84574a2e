"""Standing in line for a busy provider, which is no failure (the contract, section 2, rule 7)."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tts.resilience.concurrency import ConcurrencyLimiter

PAUSE_S = 0.2
NOTICE_S = 0.5


class Turn:
    """One segment's turn, from the moment it is wanted. It may spend `limit_s` in line, in however many pieces.

    `tell` is given the seconds that are left, in the background, when it has been in line for `NOTICE_S`.
    """

    def __init__(
        self, slots: ConcurrencyLimiter, patient: uuid.UUID | None, limit_s: float, tell: Callable[[float], None]
    ) -> None:
        self.since = time.monotonic()
        self._slots = slots
        self._patient = patient
        self._limit_s = limit_s
        self._tell = tell
        self._waited = 0.0

    def silence_s(self) -> float:
        """For how long the segment has been wanted, without what it spent in line."""
        return time.monotonic() - self.since - self._waited

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the streams that the provider allows. Raises SlotsFull when the patience is over."""
        hold = self._slots.acquire(self._patient, wait_s=self._left_s())
        await self._in_line(hold.__aenter__())
        try:
            yield
        finally:
            await hold.__aexit__(None, None, None)

    async def wait(self) -> bool:
        """The provider had none after all: returns when one may have become free; false when the patience is over."""
        if not self._left_s():
            return False
        await self._in_line(asyncio.sleep(PAUSE_S))
        return True

    async def _in_line(self, waiting: Awaitable[None]) -> None:
        """Counts the time, and tells the device when it has waited for long enough to wonder."""
        began = time.monotonic()
        in_s = max(NOTICE_S - self._waited, 0.0)
        notice = asyncio.get_running_loop().call_later(in_s, lambda: self._tell(self._left_s()))
        try:
            await waiting
        finally:
            notice.cancel()
            self._waited += time.monotonic() - began

    def _left_s(self) -> float:
        return max(self._limit_s - self._waited, 0.0)
