"""Waiting for what another thread or process does: never for ever, and a failure says what was seen instead."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Seen = TypeVar("Seen")

PATIENCE_S = 20.0
PAUSE_S = 0.01


def until(look: Callable[[], Seen], wanted: Callable[[Seen], object] = bool, within_s: float = PATIENCE_S) -> Seen:
    """Looks until it sees what is wanted, and returns that; AssertionError with the last that it saw."""
    deadline = time.monotonic() + within_s
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s, but: {seen!r}"
        time.sleep(PAUSE_S)
    return seen


async def eventually(
    look: Callable[[], Awaitable[Seen]], wanted: Callable[[Seen], object] = bool, within_s: float = PATIENCE_S
) -> Seen:
    """The same for an event loop, which goes on meanwhile."""
    deadline = time.monotonic() + within_s
    while not wanted(seen := await look()):
        assert time.monotonic() < deadline, f"not within {within_s} s, but: {seen!r}"
        await asyncio.sleep(PAUSE_S)
    return seen
