"""Changes the body of a response as its fault says: delays, cuts and replaced bytes."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable

from voicecare.providers.elevenlabs.sandbox.faults.faults import Fault


class SplittableBody:
    """A response body that can be read up to a number of bytes or a time, and later from there to its end."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self._remainder = b""

    async def _next(self) -> bytes:
        spare, self._remainder = self._remainder, b""
        return spare or await anext(self._chunks, b"")

    async def until_break_point(self, fault: Fault) -> AsyncGenerator[bytes, None]:
        """Yields the body up to the fault's `after_bytes` or `after_ms`, whichever is first.

        If the body ends before `after_ms`, waits until that time.
        """
        room = float("inf") if fault.after_bytes is None else fault.after_bytes
        end = None if fault.after_ms is None else time.monotonic() + fault.after_ms / 1000
        while room > 0 and (end is None or time.monotonic() < end) and (chunk := await self._next()):
            part = chunk if room >= len(chunk) else chunk[: int(room)]
            self._remainder = chunk[len(part) :]
            room -= len(part)
            yield part
        if end is not None and room > 0:
            await asyncio.sleep(end - time.monotonic())

    async def rest(self) -> AsyncGenerator[bytes, None]:
        while chunk := await self._next():
            yield chunk


async def stall(seconds: float | None) -> None:
    """Waits for `seconds`. If it is None, waits until the client disconnects, which cancels the task of the request."""
    await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))


async def _stall_after_headers(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    await stall(fault.seconds)
    async for chunk in body.rest():
        yield chunk


async def _stall_in_the_middle(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    async for chunk in body.until_break_point(fault):
        yield chunk
    await stall(fault.seconds)
    async for chunk in body.rest():
        yield chunk


async def _end_early(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    async for chunk in body.until_break_point(fault):
        yield chunk


async def _limit_rate(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    rate = max(fault.bytes_per_s, 1.0)
    step = max(1, round(rate / 20))
    async for chunk in body.rest():
        for start in range(0, len(chunk), step):
            yield chunk[start : start + step]
            await asyncio.sleep(step / rate)


async def _send_single_bytes(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    async for chunk in body.rest():
        for value in chunk:
            yield bytes((value,))
            await asyncio.sleep(0.5 if fault.seconds is None else fault.seconds)


async def _send_random_bytes(_fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    async for chunk in body.rest():
        yield os.urandom(len(chunk))


async def _send_prefix(fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    yield bytes.fromhex(fault.hex)
    async for chunk in body.rest():
        yield chunk


async def _repeat_forever(_fault: Fault, body: SplittableBody) -> AsyncGenerator[bytes, None]:
    chunks = [chunk async for chunk in body.rest()]
    while True:
        for chunk in chunks:
            yield chunk
        await asyncio.sleep(0.01)


Injector = Callable[[Fault, SplittableBody], AsyncGenerator[bytes, None]]
INJECTORS: dict[str, Injector] = {
    "stall_headers": _stall_after_headers,
    "stall_middle": _stall_in_the_middle,
    "cut": _end_early,
    "cut_reset": _end_early,
    "cut_clean": _end_early,
    "slow": _limit_rate,
    "drip": _send_single_bytes,
    "empty": lambda _fault, _body: single_chunk(b""),
    "garbage": _send_random_bytes,
    "prefix": _send_prefix,
    "endless": _repeat_forever,
}


async def single_chunk(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yields a complete body as one chunk. Yields nothing for an empty body."""
    if body:
        yield body
