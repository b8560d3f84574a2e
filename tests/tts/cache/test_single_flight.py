"""Single-flight: one leader, and followers that get all of its chunks or an error."""

import asyncio
from collections.abc import Callable

import pytest

from tts.cache.single_flight import Flight, FlightFailed, SingleFlight

KEY = "ab" * 32
STALL_S = 5.0


@pytest.fixture
def flights() -> SingleFlight:
    return SingleFlight()


async def everything(flight: Flight, stall_s: float = STALL_S) -> list[bytes]:
    return [chunk async for chunk in flight.chunks(stall_s)]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_follower_gets_each_chunk_immediately(flights: SingleFlight):
    flight = flights.start(KEY)
    chunks = flights.join(KEY).chunks(STALL_S)
    for chunk in (b"one", b"two", b"three"):
        waiting = asyncio.ensure_future(anext(chunks))
        await turns()
        assert not waiting.done()
        flight.add(chunk)
        assert await waiting == chunk
    assert flight.complete() == b"onetwothree"
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_a_late_follower_gets_all_chunks_from_the_beginning(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    flight.add(b"two")
    follower = asyncio.create_task(everything(flights.join(KEY)))
    await turns()
    flight.add(b"three")
    flight.complete()
    assert await follower == [b"one", b"two", b"three"]


async def test_a_slow_follower_gets_all_chunks_of_a_complete_flight(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    chunks = flight.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    flight.add(b"two")
    flight.complete()
    assert [chunk async for chunk in chunks] == [b"two"]


async def test_a_complete_flight_cannot_be_joined(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    flight.complete()
    assert flights.join(KEY) is None


async def test_each_key_has_its_own_flight(flights: SingleFlight):
    flights.start(KEY)
    assert flights.join("cd" * 32) is None


# Failure


async def test_followers_fail_immediately_when_the_leader_fails(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    followers = [asyncio.create_task(everything(flight)) for _ in range(5)]
    await turns()
    flight.fail()
    async with asyncio.timeout(0.5):
        outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [FlightFailed] * 5
    assert flights.join(KEY) is None


async def test_a_failed_flight_yields_no_further_chunk(flights: SingleFlight):
    """The follower speaks the text again, so further chunks would be played twice."""
    flight = flights.start(KEY)
    flight.add(b"one")
    flight.add(b"two")
    chunks = flight.chunks(STALL_S)
    assert await anext(chunks) == b"one"
    flight.fail()
    with pytest.raises(FlightFailed):
        await anext(chunks)


async def test_a_flight_without_audio_fails(flights: SingleFlight):
    flight = flights.start(KEY)
    assert flight.complete() == b""
    with pytest.raises(FlightFailed):
        await everything(flight)


@pytest.mark.parametrize("first", [Flight.complete, Flight.fail])
@pytest.mark.parametrize("then", [Flight.complete, Flight.fail])
async def test_only_the_first_of_complete_and_fail_counts(
    flights: SingleFlight, first: Callable[[Flight], object], then: Callable[[Flight], object]
):
    flight = flights.start(KEY)
    flight.add(b"one")
    first(flight)
    then(flight)
    flight.add(b"two")
    if first is Flight.complete:
        assert await everything(flight) == [b"one"]
        assert flight.complete() == b"one"
    else:
        assert flight.complete() == b""
        with pytest.raises(FlightFailed):
            await everything(flight)


async def test_leaving_the_block_without_complete_fails_the_flight(flights: SingleFlight):
    with flights.start(KEY) as flight:
        flight.add(b"one")
    assert flights.join(KEY) is None
    with pytest.raises(FlightFailed):
        await everything(flight)


async def test_leaving_the_block_after_complete_keeps_the_flight_complete(flights: SingleFlight):
    with flights.start(KEY) as flight:
        flight.add(b"one")
        flight.complete()
    assert await everything(flight) == [b"one"]


async def test_cancelling_the_leader_fails_the_flight(flights: SingleFlight):
    async def lead() -> None:
        with flights.start(KEY) as flight:
            flight.add(b"one")
            await asyncio.sleep(60)

    leader = asyncio.create_task(lead())
    await turns()
    follower = asyncio.create_task(everything(flights.join(KEY)))
    await turns()
    leader.cancel()
    with pytest.raises(FlightFailed):
        await follower


# Stall


async def test_a_stalled_flight_fails_its_follower_and_cannot_be_joined(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    with pytest.raises(FlightFailed):
        await everything(flight, stall_s=0.02)
    assert flights.join(KEY) is None


async def test_a_slow_leader_completes_for_the_remaining_followers(flights: SingleFlight):
    slow = flights.start(KEY)
    slow.add(b"one")
    patient = asyncio.create_task(everything(slow))
    with pytest.raises(FlightFailed):
        await everything(slow, stall_s=0.02)
    with flights.start(KEY) as quick:
        assert slow.complete() == b"one"
        assert await patient == [b"one"]
        assert flights.join(KEY) is quick


async def test_a_slow_follower_does_not_count_as_a_stall(flights: SingleFlight):
    flight = flights.start(KEY)
    flight.add(b"one")
    flight.add(b"two")
    chunks = flight.chunks(stall_s=0.02)
    await anext(chunks)
    await asyncio.sleep(0.05)
    assert await anext(chunks) == b"two"


# Many followers


async def speak(flights: SingleFlight, led: list[int], number: int, *, fails: int) -> list[bytes]:
    """Uses flights as a speech does, without an await between `join` and `start`."""
    while True:
        flight = flights.join(KEY)
        if flight is not None:
            try:
                return await everything(flight)
            except FlightFailed:
                continue
        with flights.start(KEY) as flight:
            led.append(number)
            if len(led) <= fails:
                await asyncio.sleep(0.001)
                flight.add(b"half")
                await asyncio.sleep(0.001)
                continue
            for chunk in (b"one", b"two", b"three"):
                await asyncio.sleep(0.001)
                flight.add(chunk)
            flight.complete()
            return [b"one", b"two", b"three"]


@pytest.mark.parametrize("fails", [0, 1, 3])
async def test_one_of_100_speeches_leads_and_after_a_failure_exactly_one_more(flights: SingleFlight, fails: int):
    led: list[int] = []
    said = await asyncio.gather(*(speak(flights, led, number, fails=fails) for number in range(100)))
    assert said == [[b"one", b"two", b"three"]] * 100
    assert len(led) == fails + 1


async def test_cancelled_followers_do_not_affect_the_others(flights: SingleFlight):
    flight = flights.start(KEY)
    followers = [asyncio.create_task(everything(flight)) for _ in range(100)]
    for number, chunk in enumerate((b"one", b"two", b"three")):
        flight.add(chunk)
        await turns(number)
        for follower in followers[number::4]:
            follower.cancel()
    flight.complete()
    outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert outcomes[3::4] == [[b"one", b"two", b"three"]] * 25
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[0:3])


async def test_a_thousand_followers_do_not_slow_down_the_leader(flights: SingleFlight):
    """`add` returns before any follower has received the chunk."""
    flight = flights.start(KEY)
    got: list[bytes] = []

    async def follow() -> None:
        async for chunk in flight.chunks(STALL_S):
            got.append(chunk)

    followers = [asyncio.create_task(follow()) for _ in range(1000)]
    await turns()
    flight.add(b"one")
    assert got == []
    await turns()
    assert got == [b"one"] * 1000
    flight.complete()
    await asyncio.gather(*followers)
