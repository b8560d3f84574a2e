"""`until` and `eventually` return the wanted result, or fail with the last result."""

import asyncio
from itertools import count

import pytest

from tests.waiting import eventually, until


def test_until_returns_the_wanted_result():
    numbers = count()
    assert until(lambda: next(numbers), wanted=lambda number: number == 3) == 3


def test_until_fails_with_the_last_result():
    with pytest.raises(AssertionError, match=r"not within 0 s; seen last: \['failed'\]"):
        until(lambda: ["failed"], 0, wanted=lambda outcomes: outcomes == ["completed"])


async def test_eventually_does_not_block_the_event_loop():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, event.set)
    assert await eventually(event.is_set)


async def test_eventually_awaits_a_coroutine_function():
    async def state() -> str:
        return "claimed"

    assert await eventually(state, wanted=lambda found: found == "claimed") == "claimed"
    with pytest.raises(AssertionError, match="seen last: 'claimed'"):
        await eventually(state, 0, wanted=lambda found: found == "spoken")
