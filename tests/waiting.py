"""Wait for the effects of another task, thread or process, with a timeout and a useful failure message."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Seen = TypeVar("Seen")

PATIENCE_S = 20.0
PAUSE_S = 0.02


def until(look: Callable[[], Seen], within_s: float = PATIENCE_S, *, wanted: Callable[[Seen], object] = bool) -> Seen:
    """Call `look` until `wanted` accepts its result, and return that result.

    Raises AssertionError with the last result after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s; seen last: {seen!r}"
        time.sleep(PAUSE_S)
    return seen


async def eventually(
    look: Callable[[], Awaitable[Seen] | Seen], within_s: float = PATIENCE_S, *, wanted: Callable[[Seen], object] = bool
) -> Seen:
    """Like `until`, without blocking the event loop. `look` may be a coroutine function."""
    deadline = time.monotonic() + within_s
    while not wanted(seen := await _value(look())):
        assert time.monotonic() < deadline, f"not within {within_s} s; seen last: {seen!r}"
        await asyncio.sleep(PAUSE_S)
    return seen


async def _value(seen: Awaitable[Seen] | Seen) -> Seen:
    return await seen if inspect.isawaitable(seen) else seen
