"""How a fault bends a body that is under way: bodies in, bodies out, with the delays and losses of the fault."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable

from voicecare.providers.elevenlabs.sandbox.faults.faults import Fault


class Body:
    """Chunks that can be handed out up to a byte and taken up again behind it."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self._spare = b""

    async def _next(self) -> bytes:
        spare, self._spare = self._spare, b""
        return spare or await anext(self._chunks, b"")

    async def before(self, fault: Fault) -> AsyncGenerator[bytes, None]:
        """Up to the fault's breaking point; returns there, and not sooner for a body that is done before its time."""
        room = float("inf") if fault.after_bytes is None else fault.after_bytes
        end = None if fault.after_ms is None else time.monotonic() + fault.after_ms / 1000
        while room > 0 and (end is None or time.monotonic() < end) and (chunk := await self._next()):
            part = chunk if room >= len(chunk) else chunk[: int(room)]
            self._spare = chunk[len(part) :]
            room -= len(part)
            yield part
        if end is not None and room > 0:
            await asyncio.sleep(end - time.monotonic())

    async def rest(self) -> AsyncGenerator[bytes, None]:
        while chunk := await self._next():
            yield chunk


async def stall(seconds: float | None) -> None:
    """Silence for so long; without a length, until the client leaves and this task is cancelled."""
    await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))


async def _stalled_at_headers(fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    await stall(fault.seconds)
    async for chunk in body.rest():
        yield chunk


async def _stalled_in_the_middle(fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    async for chunk in body.before(fault):
        yield chunk
    await stall(fault.seconds)
    async for chunk in body.rest():
        yield chunk


async def _ended_early(fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    async for chunk in body.before(fault):
        yield chunk


async def _slowed(fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    rate = max(fault.bytes_per_s, 1.0)
    step = max(1, round(rate / 20))
    async for chunk in body.rest():
        for start in range(0, len(chunk), step):
            yield chunk[start : start + step]
            await asyncio.sleep(step / rate)


async def _dripped(fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    async for chunk in body.rest():
        for value in chunk:
            yield bytes((value,))
            await asyncio.sleep(0.5 if fault.seconds is None else fault.seconds)


def _emptied(_fault: Fault, _body: Body) -> AsyncGenerator[bytes, None]:
    return whole(b"")


async def _randomised(_fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    async for chunk in body.rest():
        yield os.urandom(len(chunk))


async def _repeated(_fault: Fault, body: Body) -> AsyncGenerator[bytes, None]:
    chunks = [chunk async for chunk in body.rest()]
    while True:
        for chunk in chunks:
            yield chunk
        await asyncio.sleep(0.01)


Bend = Callable[[Fault, Body], AsyncGenerator[bytes, None]]
BENDS: dict[str, Bend] = {
    "stall_headers": _stalled_at_headers,
    "stall_middle": _stalled_in_the_middle,
    "cut": _ended_early,
    "cut_reset": _ended_early,
    "cut_clean": _ended_early,
    "slow": _slowed,
    "drip": _dripped,
    "empty": _emptied,
    "garbage": _randomised,
    "endless": _repeated,
}


async def whole(body: bytes) -> AsyncGenerator[bytes, None]:
    """A body that is there already, as chunks."""
    if body:
        yield body
