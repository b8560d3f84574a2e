"""One leads, the others follow: chunk by chunk, from the beginning, and never into silence."""

import asyncio
from collections.abc import Callable

import pytest

from tts.cache.single_flight import Fill, FillFailed, Fills

KEY = "ab" * 32
STALL_S = 5.0


@pytest.fixture
def fills() -> Fills:
    return Fills()


async def everything(fill: Fill, stall_s: float = STALL_S) -> list[bytes]:
    return [chunk async for chunk in fill.chunks(stall_s)]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_follower_gets_each_chunk_as_it_comes(fills: Fills):
    fill = fills.lead(KEY)
    chunks = fills.follow(KEY).chunks(STALL_S)
    for chunk in (b"one", b"two", b"three"):
        waiting = asyncio.ensure_future(anext(chunks))
        await turns()
        assert not waiting.done()
        fill.add(chunk)
        assert await waiting == chunk
    assert fill.complete() == b"onetwothree"
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_whoever_comes_late_gets_it_from_the_beginning(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    fill.add(b"two")
    follower = asyncio.create_task(everything(fills.follow(KEY)))
    await turns()
    fill.add(b"three")
    fill.complete()
    assert await follower == [b"one", b"two", b"three"]


async def test_what_was_followed_in_time_is_whole_also_for_a_slow_follower(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    chunks = fill.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    fill.add(b"two")
    fill.complete()
    assert [chunk async for chunk in chunks] == [b"two"]


async def test_a_complete_fill_is_followed_by_nobody_new(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    fill.complete()
    assert fills.follow(KEY) is None


async def test_other_keys_are_other_fills(fills: Fills):
    fills.lead(KEY)
    assert fills.follow("cd" * 32) is None


# Failing


async def test_when_the_leader_fails_those_who_wait_know_at_once(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    followers = [asyncio.create_task(everything(fill)) for _ in range(5)]
    await turns()
    fill.fail()
    async with asyncio.timeout(0.5):
        outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [FillFailed] * 5
    assert fills.follow(KEY) is None


async def test_of_a_failed_fill_no_further_chunk_is_given(fills: Fills):
    """The follower has to begin again: every chunk more would be said twice."""
    fill = fills.lead(KEY)
    fill.add(b"one")
    fill.add(b"two")
    chunks = fill.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    fill.fail()
    with pytest.raises(FillFailed):
        await anext(chunks)


async def test_a_fill_without_sound_has_failed(fills: Fills):
    fill = fills.lead(KEY)
    assert fill.complete() == b""
    with pytest.raises(FillFailed):
        await everything(fill)


@pytest.mark.parametrize("first", [Fill.complete, Fill.fail])
@pytest.mark.parametrize("then", [Fill.complete, Fill.fail])
async def test_the_first_end_decides(fills: Fills, first: Callable[[Fill], object], then: Callable[[Fill], object]):
    fill = fills.lead(KEY)
    fill.add(b"one")
    first(fill)
    then(fill)
    fill.add(b"two")
    if first is Fill.complete:
        assert await everything(fill) == [b"one"]
        assert fill.complete() == b"one"
    else:
        assert fill.complete() == b""
        with pytest.raises(FillFailed):
            await everything(fill)


async def test_a_leader_that_leaves_without_completing_has_failed(fills: Fills):
    with fills.lead(KEY) as fill:
        fill.add(b"one")
    assert fills.follow(KEY) is None
    with pytest.raises(FillFailed):
        await everything(fill)


async def test_a_leader_that_completed_may_leave(fills: Fills):
    with fills.lead(KEY) as fill:
        fill.add(b"one")
        fill.complete()
    assert await everything(fill) == [b"one"]


async def test_a_cancelled_leader_has_failed(fills: Fills):
    async def lead() -> None:
        with fills.lead(KEY) as fill:
            fill.add(b"one")
            await asyncio.sleep(60)

    leader = asyncio.create_task(lead())
    await turns()
    follower = asyncio.create_task(everything(fills.follow(KEY)))
    await turns()
    leader.cancel()
    with pytest.raises(FillFailed):
        await follower


# Stalling


async def test_nobody_waits_for_ever_and_nobody_else_follows_a_leader_that_hangs(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    with pytest.raises(FillFailed):
        await everything(fill, stall_s=0.02)
    assert fills.follow(KEY) is None


async def test_a_leader_that_was_only_slow_still_completes_for_those_who_stayed(fills: Fills):
    slow = fills.lead(KEY)
    slow.add(b"one")
    patient = asyncio.create_task(everything(slow))
    with pytest.raises(FillFailed):
        await everything(slow, stall_s=0.02)
    with fills.lead(KEY) as quick:
        assert slow.complete() == b"one"
        assert await patient == [b"one"]
        assert fills.follow(KEY) is quick


async def test_time_that_the_follower_takes_itself_is_no_stall(fills: Fills):
    fill = fills.lead(KEY)
    fill.add(b"one")
    fill.add(b"two")
    chunks = fill.chunks(stall_s=0.02)
    await anext(chunks)
    await asyncio.sleep(0.05)
    assert await anext(chunks) == b"two"


# Many


async def speak(fills: Fills, led: list[int], number: int, *, fails: int) -> list[bytes]:
    """How a speech uses them: between `follow` and `lead` there is no await."""
    while True:
        fill = fills.follow(KEY)
        if fill is not None:
            try:
                return await everything(fill)
            except FillFailed:
                continue
        with fills.lead(KEY) as fill:
            led.append(number)
            if len(led) <= fails:
                await asyncio.sleep(0.001)
                fill.add(b"half")
                await asyncio.sleep(0.001)
                continue
            for chunk in (b"one", b"two", b"three"):
                await asyncio.sleep(0.001)
                fill.add(chunk)
            fill.complete()
            return [b"one", b"two", b"three"]


@pytest.mark.parametrize("fails", [0, 1, 3])
async def test_of_100_at_once_one_asks_and_when_it_fails_exactly_one_more(fills: Fills, fails: int):
    led: list[int] = []
    said = await asyncio.gather(*(speak(fills, led, number, fails=fails) for number in range(100)))
    assert said == [[b"one", b"two", b"three"]] * 100
    assert len(led) == fails + 1


async def test_followers_that_are_cancelled_disturb_nobody(fills: Fills):
    fill = fills.lead(KEY)
    followers = [asyncio.create_task(everything(fill)) for _ in range(100)]
    for number, chunk in enumerate((b"one", b"two", b"three")):
        fill.add(chunk)
        await turns(number)
        for follower in followers[number::4]:
            follower.cancel()
    fill.complete()
    outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert outcomes[3::4] == [[b"one", b"two", b"three"]] * 25
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[0:3])


async def test_the_leader_is_not_held_up_by_a_thousand_followers(fills: Fills):
    """Adding does not run them: it returns before any of them has got the chunk."""
    fill = fills.lead(KEY)
    got: list[bytes] = []

    async def follow() -> None:
        async for chunk in fill.chunks(STALL_S):
            got.append(chunk)

    followers = [asyncio.create_task(follow()) for _ in range(1000)]
    await turns()
    fill.add(b"one")
    assert got == []
    await turns()
    assert got == [b"one"] * 1000
    fill.complete()
    await asyncio.gather(*followers)
