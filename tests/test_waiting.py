"""A wait ends with what it saw, whether that was wanted or not."""

import asyncio
from itertools import count

import pytest

from tests.waiting import eventually, until


def test_it_returns_what_was_wanted():
    numbers = count()
    assert until(lambda: next(numbers), wanted=lambda number: number == 3) == 3


def test_it_fails_with_what_it_saw_last():
    with pytest.raises(AssertionError, match=r"not within 0 s; seen last: \['failed'\]"):
        until(lambda: ["failed"], 0, wanted=lambda outcomes: outcomes == ["completed"])


async def test_it_lets_the_loop_go_on():
    came = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, came.set)
    assert await eventually(came.is_set)


async def test_it_awaits_what_takes_its_time():
    async def state() -> str:
        return "claimed"

    assert await eventually(state, wanted=lambda found: found == "claimed") == "claimed"
    with pytest.raises(AssertionError, match="seen last: 'claimed'"):
        await eventually(state, 0, wanted=lambda found: found == "spoken")
