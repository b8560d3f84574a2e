"""Fifty devices speak while PostgreSQL, Redis, a web process or a worker fails and returns."""

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
from tests.chaos.listening import UNWRITTEN_S, Bedside
from tests.e2e.device import Device
from tests.server import ServerProcess
from tests.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]  # each wait has its own timeout and a clearer message

PATIENTS, DELIVERIES = 50, 5
ADD_PHRASE = "INSERT INTO tts_phrase (kind, language, text) VALUES ('common', 'en', %s)"


@dataclass
class Ward:
    """Fifty speaking devices, half of them on each of two web processes."""

    cluster: Cluster
    servers: list[ServerProcess]
    bedsides: list[Bedside]

    async def wait_for_sentences(self, sentences: int) -> None:
        """Return when each device has received this many more sentences."""
        goals = [len(bedside.spoken_texts) + sentences for bedside in self.bedsides]

        def behind() -> int:
            return sum(len(b.spoken_texts) < goal for b, goal in zip(self.bedsides, goals, strict=True))

        await eventually(behind, 60, wanted=lambda bedsides: bedsides == 0)

    def early_close_codes(self) -> list[int | None]:
        """Return the close codes of all connections that were followed by another one."""
        return [heard.close_code for bedside in self.bedsides for heard in bedside.connections[:-1]]


@asynccontextmanager
async def talking_ward(cluster: Cluster, budget: int | None = None) -> AsyncIterator[Ward]:
    """Inside the block all devices speak. After it they have received all their sentences and deliveries."""
    listeners = await asyncio.to_thread(cluster.seed, PATIENTS, DELIVERIES)
    await asyncio.to_thread(cluster.execute, "UPDATE patients_patient SET monthly_character_budget = %s", budget)
    servers = [await asyncio.to_thread(cluster.start_server) for _ in range(2)]

    def urls(place: int) -> Callable[[], list[str]]:
        return lambda: [s.ws for s in (servers[place:] + servers[:place]) if s.process.poll() is None]

    ward = Ward(cluster, servers, [Bedside(listener, urls(n % 2)) for n, listener in enumerate(listeners)])
    tasks = [asyncio.create_task(bedside.run(talks=True)) for bedside in ward.bedsides]
    try:
        await ward.wait_for_sentences(2)
        yield ward
        for bedside in ward.bedsides:
            bedside.stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def assert_nothing_lost(ward: Ward) -> None:
    for bedside in ward.bedsides:
        assert not bedside.missing
        assert set(bedside.sources) == {"live"}, bedside.sources
        for connection in bedside.connections:
            assert len(connection.began) == len(set(connection.began)), "twice in one connection"


Record = dict[str, Any]


def never_excused(record: Record) -> bool:
    return False


def sent_around(killed_at: float) -> Callable[[Record], bool]:
    """Return a predicate for requests that a process killed at this time may not have written."""
    return lambda record: killed_at - UNWRITTEN_S < record["at"] <= killed_at + 0.1


async def assert_accounts_agree(ward: Ward, excused: Callable[[Record], bool] = never_excused) -> None:
    """Wait until ledger and provider agree, except for excused requests."""

    async def wrong() -> list[object]:
        recorded, billed = (
            await asyncio.to_thread(ward.cluster.ledger_characters),
            await asyncio.to_thread(ward.cluster.billed_requests),
        )
        lost = [record for key, record in billed.items() if key not in recorded and not excused(record)]
        other = [key for key, characters in recorded.items() if billed[key]["characters"] != characters]
        differs = [
            await asyncio.to_thread(ward.cluster.conversation_characters)
            - await asyncio.to_thread(ward.cluster.conversation_ledger_characters)
        ]
        return [*lost, *other, *(d for d in differs if d)][:5]

    await eventually(wrong, 8, wanted=lambda found: not found)


async def wait_until_all_acknowledged(ward: Ward) -> None:
    listeners = [bedside.listener for bedside in ward.bedsides]
    everything = {"heard": PATIENTS * DELIVERIES}
    await eventually(
        lambda: asyncio.to_thread(ward.cluster.states, listeners), 8, wanted=lambda states: states == everything
    )


async def wait_for_readiness(cluster: Cluster, status: int) -> None:
    """Wait until `/readyz` of all servers has this status. Nothing notifies them of the change."""
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
    await wait_for_readiness(cluster, 503)
    await asyncio.to_thread(cluster.postgres.start)


async def postgres_crashes(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.kill)
    await asyncio.to_thread(cluster.postgres.start)


async def postgres_hangs(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.pause)
    await wait_for_readiness(cluster, 503)
    await asyncio.sleep(3)
    await asyncio.to_thread(cluster.postgres.resume)


@pytest.mark.parametrize(
    "outage",
    [
        redis_stops_and_comes_back_empty,
        redis_is_emptied_and_hangs,
        postgres_restarts,
        postgres_crashes,
        postgres_hangs,
    ],
)
async def test_no_sentence_is_lost_and_no_device_is_disconnected(
    outage: Callable[[Cluster], Awaitable[None]], cluster: Cluster
) -> None:
    async with talking_ward(cluster) as ward:
        await outage(cluster)
        await wait_for_readiness(cluster, 200)
        await ward.wait_for_sentences(3)
    assert ward.early_close_codes() == []
    assert_nothing_lost(ward)
    await wait_until_all_acknowledged(ward)
    assert not [again for bedside in ward.bedsides for again in bedside.repeated]
    await assert_accounts_agree(ward)


async def test_a_conversation_requested_during_a_database_restart_opens_afterwards(
    cluster: Cluster,
) -> None:
    (listener,) = await asyncio.to_thread(cluster.seed, 1)
    server = await asyncio.to_thread(cluster.start_server)
    async with Device(server.ws, listener.token) as device:
        earlier = await device.start(greeting=False)
        await device.speak("This is said before the database goes away.", id="before")
        await device.end()
        await asyncio.to_thread(cluster.postgres.stop)
        starting = asyncio.create_task(device.start(greeting=False))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(cluster.postgres.start)
        started = await starting
        assert started["conversation"] != earlier["conversation"]
        spoken = await device.speak("And this is said when it is back again.", id="after")
    assert spoken.terminal["source"] == "live"


async def test_devices_of_a_killed_web_process_continue_on_the_other_one(cluster: Cluster) -> None:
    async with talking_ward(cluster) as ward:
        ward.servers[0].signal(signal.SIGKILL)
        killed_at = time.monotonic()
        await ward.wait_for_sentences(3)
    assert_nothing_lost(ward)
    await wait_until_all_acknowledged(ward)
    await assert_accounts_agree(ward, sent_around(killed_at))


async def test_a_web_process_that_shuts_down_loses_nothing(cluster: Cluster) -> None:
    async with talking_ward(cluster) as ward:
        ward.servers[0].signal(signal.SIGTERM)
        await asyncio.to_thread(ward.servers[0].wait)
        await ward.wait_for_sentences(3)
    assert ward.early_close_codes() == [4012] * (PATIENTS // 2)
    assert_nothing_lost(ward)
    await wait_until_all_acknowledged(ward)
    await assert_accounts_agree(ward)


async def test_the_next_worker_continues_the_work_of_a_killed_one(cluster: Cluster) -> None:
    """A worker is killed while it generates a phrase. The next one generates the others. No device is disturbed."""
    phrases = [f"This phrase, number {number}, is made ahead." for number in range(4)]
    cluster.sandbox.fault(kind="slow", bytes_per_s=8_000, match={"text": "^This phrase"}, first=1)
    async with talking_ward(cluster) as ward:
        for text in phrases:
            await asyncio.to_thread(cluster.execute, ADD_PHRASE, text)
        await asyncio.to_thread(cluster.start_worker)
        await asyncio.to_thread(cluster.enqueue_task, "tts.warm_due")
        await eventually(lambda: asyncio.to_thread(is_generating_a_phrase, cluster), 60)
        await asyncio.to_thread(cluster.kill_worker)
        await ward.wait_for_sentences(1)
        await asyncio.to_thread(cluster.enqueue_task, "tts.warm_due")  # no worker runs
        await asyncio.to_thread(cluster.start_worker)
        await eventually(lambda: asyncio.to_thread(has_generated, cluster, len(phrases) - 1), 90)
        await ward.wait_for_sentences(1)
    assert ward.early_close_codes() == []
    assert_nothing_lost(ward)
    await wait_until_all_acknowledged(ward)
    await assert_accounts_agree(ward, lambda record: record["fault"] == "slow")
    unknown = "SELECT count(*) FROM usage_usageevent WHERE kind = 'warm' AND outcome = 'unknown'"
    assert cluster.query(unknown) == [(1,)]  # reconciliation will settle it


def is_generating_a_phrase(cluster: Cluster) -> bool:
    return any(r["text"].startswith("This phrase") and r["billed"] for r in cluster.sandbox.requests())


def has_generated(cluster: Cluster, phrases: int) -> bool:
    """Return whether this many phrases are generated, or more.

    The killed worker has the lease of the interrupted one. On a slow machine the lease ends meanwhile.
    """
    [(generated,)] = cluster.query("SELECT count(*) FROM tts_clip WHERE size > 0")
    return generated >= phrases
