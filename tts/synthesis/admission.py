"""The wait of a segment for a busy provider, which is not a failure (docs/protocol.md, rule 7).

`tts.queue_reason` lists all reasons for which a speech waits, and where each is decided.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tts.resilience.concurrency import ConcurrencyLimiter

RETRY_INTERVAL_S = 0.2
NOTIFY_AFTER_S = 0.5


class AdmissionTicket:
    """The waits of one segment for the provider, from the moment that the segment is needed.

    All waits together may take `max_wait_s` seconds. After NOTIFY_AFTER_S of waiting, `on_wait` is called with the
    number of seconds that are left. `patient_id` is None for speech that belongs to no patient. `background` is the
    class of the request (`tts.resilience.concurrency`).
    """

    def __init__(
        self,
        limiter: ConcurrencyLimiter,
        patient_id: uuid.UUID | None,
        max_wait_s: float,
        on_wait: Callable[[float], None],
        *,
        background: bool = False,
    ) -> None:
        self.requested_at = time.monotonic()
        self._limiter = limiter
        self._patient_id = patient_id
        self._max_wait_s = max_wait_s
        self._on_wait = on_wait
        self._background = background
        self._waited_s = 0.0

    def elapsed_s(self) -> float:
        """Return the seconds since the segment was needed, without the time that it waited."""
        return time.monotonic() - self.requested_at - self._waited_s

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the provider's slots inside the block.

        Raises SlotTimeout when all waits have taken `max_wait_s`.
        """
        slot = self._limiter.acquire(self._patient_id, background=self._background, wait_s=self._remaining_s())
        await self._count_wait(slot.__aenter__())
        try:
            yield
        finally:
            await slot.__aexit__(None, None, None)

    async def wait_for_retry(self) -> bool:
        """Wait before the next request, because the provider was busy although this process held a slot.

        Returns False, without waiting, if all waits have taken `max_wait_s`.
        """
        if not self._remaining_s():
            return False
        await self._count_wait(asyncio.sleep(RETRY_INTERVAL_S))
        return True

    async def _count_wait(self, waiting: Awaitable[None]) -> None:
        """Await `waiting`, add its time to the waits, and call `on_wait` once they have taken NOTIFY_AFTER_S."""
        began = time.monotonic()
        notice_in_s = max(NOTIFY_AFTER_S - self._waited_s, 0.0)
        notice = asyncio.get_running_loop().call_later(notice_in_s, lambda: self._on_wait(self._remaining_s()))
        try:
            await waiting
        finally:
            notice.cancel()
            self._waited_s += time.monotonic() - began

    def _remaining_s(self) -> float:
        return max(self._max_wait_s - self._waited_s, 0.0)
