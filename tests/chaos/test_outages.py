"""Fifty devices talk while one thing after the other that voicecare stands on goes away and comes back."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.listening import KILLED_S, Bedside
from tests.e2e.device import Device
from tests.server import ServerProcess
from tests.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]  # each wait has an end of its own, and says what it saw

PATIENTS, DELIVERIES = 50, 5
ADD_PHRASE = "INSERT INTO tts_phrase (kind, language, text) VALUES ('common', 'en', %s)"


@dataclass
class Ward:
    """Fifty who talk, to two web processes by turns."""

    cluster: Cluster
    servers: list[ServerProcess]
    bedsides: list[Bedside]

    async def hear(self, sentences: int) -> None:
        """Returns when everybody has heard so many more."""
        goals = [len(bedside.said) + sentences for bedside in self.bedsides]

        def behind() -> int:
            return sum(len(b.said) < goal for b, goal in zip(self.bedsides, goals, strict=True))

        await eventually(behind, 60, wanted=lambda bedsides: bedsides == 0)

    def closed(self) -> list[int | None]:
        """The codes with which connections ended before their time."""
        return [heard.close_code for bedside in self.bedsides for heard in bedside.connections[:-1]]


@asynccontextmanager
async def talking(cluster: Cluster, budget: int | None = None) -> AsyncIterator[Ward]:
    """Everybody talks inside; outside, they have heard all they asked for and all that was to be delivered."""
    listeners = await asyncio.to_thread(cluster.seed, PATIENTS, DELIVERIES)
    await asyncio.to_thread(cluster.write, "UPDATE patients_patient SET monthly_character_budget = %s", budget)
    servers = [await asyncio.to_thread(cluster.start_server) for _ in range(2)]

    def urls(place: int) -> Callable[[], list[str]]:
        return lambda: [s.ws for s in (servers[place:] + servers[:place]) if s.process.poll() is None]

    ward = Ward(cluster, servers, [Bedside(listener, urls(n % 2)) for n, listener in enumerate(listeners)])
    tasks = [asyncio.create_task(bedside.run(talks=True)) for bedside in ward.bedsides]
    try:
        await ward.hear(2)
        yield ward
        for bedside in ward.bedsides:
            bedside.stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def nothing_was_lost(ward: Ward) -> None:
    for bedside in ward.bedsides:
        assert not bedside.missing
        assert set(bedside.sources) == {"live"}, bedside.sources
        for connection in bedside.connections:
            assert len(connection.began) == len(set(connection.began)), "twice in one connection"


Record = dict[str, Any]


def nothing(record: Record) -> bool:
    return False


def around(killed_at: float) -> Callable[[Record], bool]:
    """What a process that was killed then had no time to write down."""
    return lambda record: killed_at - KILLED_S < record["at"] <= killed_at + 0.1


async def books_balance(ward: Ward, excused: Callable[[Record], bool] = nothing) -> None:
    """The ledger says what the provider says, but for what is excused."""

    async def wrong() -> list[object]:
        booked, billed = await asyncio.to_thread(ward.cluster.booked), await asyncio.to_thread(ward.cluster.billed)
        lost = [record for key, record in billed.items() if key not in booked and not excused(record)]
        other = [key for key, characters in booked.items() if billed[key]["characters"] != characters]
        differs = [await asyncio.to_thread(ward.cluster.counted) - await asyncio.to_thread(ward.cluster.spoken)]
        return [*lost, *other, *(d for d in differs if d)][:5]

    await eventually(wrong, 8, wanted=lambda found: not found)


async def everything_is_heard(ward: Ward) -> None:
    listeners = [bedside.listener for bedside in ward.bedsides]
    everything = {"heard": PATIENTS * DELIVERIES}
    await eventually(
        lambda: asyncio.to_thread(ward.cluster.states, listeners), 8, wanted=lambda states: states == everything
    )


async def all_say(cluster: Cluster, status: int) -> None:
    """Whether they are ready, without being told that anything has changed."""
    for server in cluster.servers:
        asking = partial(asyncio.to_thread, server.get, "/readyz")
        await eventually(asking, 5, wanted=lambda seen: seen[0] == status)


async def redis_stops_and_comes_back_empty(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.redis.stop)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(cluster.redis.start)


async def redis_is_emptied_and_hangs(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.redis.flush)
    await asyncio.to_thread(cluster.redis.pause)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(cluster.redis.resume)


async def postgres_restarts(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.stop)
    await asyncio.sleep(1)
    await all_say(cluster, 503)
    await asyncio.to_thread(cluster.postgres.start)


async def postgres_crashes(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.kill)
    await asyncio.to_thread(cluster.postgres.start)


async def postgres_hangs(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.pause)
    await all_say(cluster, 503)
    await asyncio.sleep(3)
    await asyncio.to_thread(cluster.postgres.resume)


@pytest.mark.parametrize(
    "trouble",
    [
        redis_stops_and_comes_back_empty,
        redis_is_emptied_and_hangs,
        postgres_restarts,
        postgres_crashes,
        postgres_hangs,
    ],
)
async def test_no_sentence_is_lost_and_nobody_is_disconnected(
    trouble: Callable[[Cluster], Awaitable[None]], cluster: Cluster
) -> None:
    async with talking(cluster) as ward:
        await trouble(cluster)
        await all_say(cluster, 200)
        await ward.hear(3)
    assert ward.closed() == []
    nothing_was_lost(ward)
    await everything_is_heard(ward)
    assert not [again for bedside in ward.bedsides for again in bedside.again]
    await books_balance(ward)


async def test_a_conversation_that_is_asked_for_while_the_database_restarts_opens_when_it_is_back(
    cluster: Cluster,
) -> None:
    (listener,) = await asyncio.to_thread(cluster.seed, 1)
    server = await asyncio.to_thread(cluster.start_server)
    async with Device(server.ws, listener.token) as device:
        former = await device.start(greeting=False)
        await device.speak("This is said before the database goes away.", id="before")
        await device.end()
        await asyncio.to_thread(cluster.postgres.stop)
        starting = asyncio.create_task(device.start(greeting=False))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(cluster.postgres.start)
        started = await starting
        assert started["conversation"] != former["conversation"]
        spoken = await device.speak("And this is said when it is back again.", id="after")
    assert spoken.terminal["source"] == "live"


async def test_a_web_process_is_killed_and_its_devices_go_on_elsewhere(cluster: Cluster) -> None:
    async with talking(cluster) as ward:
        ward.servers[0].signal(signal.SIGKILL)
        killed_at = time.monotonic()
        await ward.hear(3)
    nothing_was_lost(ward)
    await everything_is_heard(ward)
    await books_balance(ward, around(killed_at))


async def test_a_web_process_goes_down_in_order_and_takes_nothing_with_it(cluster: Cluster) -> None:
    async with talking(cluster) as ward:
        ward.servers[0].signal(signal.SIGTERM)
        await asyncio.to_thread(ward.servers[0].wait)
        await ward.hear(3)
    assert ward.closed() == [4012] * (PATIENTS // 2)
    nothing_was_lost(ward)
    await everything_is_heard(ward)
    await books_balance(ward)


async def test_a_worker_is_killed_and_the_next_one_does_the_rest(cluster: Cluster) -> None:
    """In the middle of making a phrase: all others are made by its successor, and nobody who talks notices."""
    phrases = [f"This phrase, number {number}, is made ahead." for number in range(4)]
    cluster.sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "^This phrase"}, first=1)
    async with talking(cluster) as ward:
        for text in phrases:
            await asyncio.to_thread(cluster.write, ADD_PHRASE, text)
        await asyncio.to_thread(cluster.start_worker)
        await asyncio.to_thread(cluster.tell_worker, "tts.warm_due")
        await eventually(lambda: asyncio.to_thread(is_making_a_phrase, cluster), 60)
        await asyncio.to_thread(cluster.kill_worker)
        await ward.hear(1)
        await asyncio.to_thread(cluster.tell_worker, "tts.warm_due")  # nobody is there to hear it
        await asyncio.to_thread(cluster.start_worker)
        await eventually(lambda: asyncio.to_thread(has_made, cluster, len(phrases) - 1), 40)
        await ward.hear(1)
    assert ward.closed() == []
    nothing_was_lost(ward)
    await everything_is_heard(ward)
    await books_balance(ward, lambda record: record["fault"] == "slow")
    unknown = "SELECT count(*) FROM usage_usageevent WHERE kind = 'warm' AND outcome = 'unknown'"
    assert cluster.ask(unknown) == [(1,)]  # for the reconciliation


def is_making_a_phrase(cluster: Cluster) -> bool:
    return any(r["text"].startswith("This phrase") and r["billed"] for r in cluster.sandbox.requests())


def has_made(cluster: Cluster, phrases: int) -> bool:
    """Those that nobody had begun; the one that was under way has a maker for a few minutes."""
    return cluster.ask("SELECT count(*) FROM tts_clip WHERE size > 0") == [(phrases,)]
