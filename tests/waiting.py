"""Waiting for what another task, thread or process does: never for ever, and a failure says what was seen instead."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Seen = TypeVar("Seen")

PATIENCE_S = 20.0
PAUSE_S = 0.02


def until(look: Callable[[], Seen], within_s: float = PATIENCE_S, *, wanted: Callable[[Seen], object] = bool) -> Seen:
    """Looks until it sees what is wanted, and returns that; AssertionError with what it saw last."""
    deadline = time.monotonic() + within_s
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s; seen last: {seen!r}"
        time.sleep(PAUSE_S)
    return seen


async def eventually(
    look: Callable[[], Awaitable[Seen] | Seen], within_s: float = PATIENCE_S, *, wanted: Callable[[Seen], object] = bool
) -> Seen:
    """The same while an event loop goes on; `look` may be a coroutine function."""
    deadline = time.monotonic() + within_s
    while not wanted(seen := await _value(look())):
        assert time.monotonic() < deadline, f"not within {within_s} s; seen last: {seen!r}"
        await asyncio.sleep(PAUSE_S)
    return seen


async def _value(seen: Awaitable[Seen] | Seen) -> Seen:
    return await seen if inspect.isawaitable(seen) else seen
