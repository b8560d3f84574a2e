"""One leads, the others follow: chunk by chunk, from the beginning, and never into silence."""

import asyncio
from collections.abc import Callable

import pytest

from tts.cache.single_flight import Flight, FlightFailed, SingleFlight

KEY = "ab" * 32
STALL_S = 5.0


@pytest.fixture
def fills() -> SingleFlight:
    return SingleFlight()


async def everything(fill: Flight, stall_s: float = STALL_S) -> list[bytes]:
    return [chunk async for chunk in fill.chunks(stall_s)]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_follower_gets_each_chunk_as_it_comes(fills: SingleFlight):
    fill = fills.start(KEY)
    chunks = fills.join(KEY).chunks(STALL_S)
    for chunk in (b"one", b"two", b"three"):
        waiting = asyncio.ensure_future(anext(chunks))
        await turns()
        assert not waiting.done()
        fill.add(chunk)
        assert await waiting == chunk
    assert fill.complete() == b"onetwothree"
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_whoever_comes_late_gets_it_from_the_beginning(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    fill.add(b"two")
    follower = asyncio.create_task(everything(fills.join(KEY)))
    await turns()
    fill.add(b"three")
    fill.complete()
    assert await follower == [b"one", b"two", b"three"]


async def test_what_was_followed_in_time_is_whole_also_for_a_slow_follower(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    chunks = fill.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    fill.add(b"two")
    fill.complete()
    assert [chunk async for chunk in chunks] == [b"two"]


async def test_a_complete_fill_is_followed_by_nobody_new(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    fill.complete()
    assert fills.join(KEY) is None


async def test_other_keys_are_other_fills(fills: SingleFlight):
    fills.start(KEY)
    assert fills.join("cd" * 32) is None


# Failing


async def test_when_the_leader_fails_those_who_wait_know_at_once(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    followers = [asyncio.create_task(everything(fill)) for _ in range(5)]
    await turns()
    fill.fail()
    async with asyncio.timeout(0.5):
        outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [FlightFailed] * 5
    assert fills.join(KEY) is None


async def test_of_a_failed_fill_no_further_chunk_is_given(fills: SingleFlight):
    """The follower has to begin again: every chunk more would be said twice."""
    fill = fills.start(KEY)
    fill.add(b"one")
    fill.add(b"two")
    chunks = fill.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    fill.fail()
    with pytest.raises(FlightFailed):
        await anext(chunks)


async def test_a_fill_without_sound_has_failed(fills: SingleFlight):
    fill = fills.start(KEY)
    assert fill.complete() == b""
    with pytest.raises(FlightFailed):
        await everything(fill)


@pytest.mark.parametrize("first", [Flight.complete, Flight.fail])
@pytest.mark.parametrize("then", [Flight.complete, Flight.fail])
async def test_the_first_end_decides(
    fills: SingleFlight, first: Callable[[Flight], object], then: Callable[[Flight], object]
):
    fill = fills.start(KEY)
    fill.add(b"one")
    first(fill)
    then(fill)
    fill.add(b"two")
    if first is Flight.complete:
        assert await everything(fill) == [b"one"]
        assert fill.complete() == b"one"
    else:
        assert fill.complete() == b""
        with pytest.raises(FlightFailed):
            await everything(fill)


async def test_a_leader_that_leaves_without_completing_has_failed(fills: SingleFlight):
    with fills.start(KEY) as fill:
        fill.add(b"one")
    assert fills.join(KEY) is None
    with pytest.raises(FlightFailed):
        await everything(fill)


async def test_a_leader_that_completed_may_leave(fills: SingleFlight):
    with fills.start(KEY) as fill:
        fill.add(b"one")
        fill.complete()
    assert await everything(fill) == [b"one"]


async def test_a_cancelled_leader_has_failed(fills: SingleFlight):
    async def lead() -> None:
        with fills.start(KEY) as fill:
            fill.add(b"one")
            await asyncio.sleep(60)

    leader = asyncio.create_task(lead())
    await turns()
    follower = asyncio.create_task(everything(fills.join(KEY)))
    await turns()
    leader.cancel()
    with pytest.raises(FlightFailed):
        await follower


# Stalling


async def test_nobody_waits_for_ever_and_nobody_else_follows_a_leader_that_hangs(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    with pytest.raises(FlightFailed):
        await everything(fill, stall_s=0.02)
    assert fills.join(KEY) is None


async def test_a_leader_that_was_only_slow_still_completes_for_those_who_stayed(fills: SingleFlight):
    slow = fills.start(KEY)
    slow.add(b"one")
    patient = asyncio.create_task(everything(slow))
    with pytest.raises(FlightFailed):
        await everything(slow, stall_s=0.02)
    with fills.start(KEY) as quick:
        assert slow.complete() == b"one"
        assert await patient == [b"one"]
        assert fills.join(KEY) is quick


async def test_time_that_the_follower_takes_itself_is_no_stall(fills: SingleFlight):
    fill = fills.start(KEY)
    fill.add(b"one")
    fill.add(b"two")
    chunks = fill.chunks(stall_s=0.02)
    await anext(chunks)
    await asyncio.sleep(0.05)
    assert await anext(chunks) == b"two"


# Many


async def speak(fills: SingleFlight, led: list[int], number: int, *, fails: int) -> list[bytes]:
    """How a speech uses them: between `follow` and `lead` there is no await."""
    while True:
        fill = fills.join(KEY)
        if fill is not None:
            try:
                return await everything(fill)
            except FlightFailed:
                continue
        with fills.start(KEY) as fill:
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
async def test_of_100_at_once_one_asks_and_when_it_fails_exactly_one_more(fills: SingleFlight, fails: int):
    led: list[int] = []
    said = await asyncio.gather(*(speak(fills, led, number, fails=fails) for number in range(100)))
    assert said == [[b"one", b"two", b"three"]] * 100
    assert len(led) == fails + 1


async def test_followers_that_are_cancelled_disturb_nobody(fills: SingleFlight):
    fill = fills.start(KEY)
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


async def test_the_leader_is_not_held_up_by_a_thousand_followers(fills: SingleFlight):
    """Adding does not run them: it returns before any of them has got the chunk."""
    fill = fills.start(KEY)
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
