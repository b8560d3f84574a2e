"""A thousand deliveries to fifty patients while one of two web processes is killed."""

import asyncio
import random
import signal
import time

import pytest

from tests.chaos.cluster import Cluster, Listener
from tests.chaos.listening import UNWRITTEN_S, Bedside
from tests.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

PATIENTS, EACH = 50, 20


async def test_a_thousand_deliveries_arrive_in_order_although_a_process_is_killed(cluster: Cluster) -> None:
    listeners = await asyncio.to_thread(cluster.seed, PATIENTS, EACH)
    doomed, other = await asyncio.gather(*(asyncio.to_thread(cluster.start_server) for _ in range(2)))
    alive = {doomed.ws, other.ws}

    def urls() -> list[str]:
        return random.sample(sorted(alive), len(alive))

    bedsides = [Bedside(listener, urls) for listener in listeners]
    for bedside in bedsides:
        bedside.stopping = True  # it runs until it has acknowledged everything
    listening = asyncio.gather(*(bedside.run(talks=False) for bedside in bedsides))

    async def is_partly_done() -> bool:
        return sum(len(bedside.acknowledged) for bedside in bedsides) > PATIENTS * EACH * 0.4

    await eventually(is_partly_done, 60)
    doomed.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    alive.remove(doomed.ws)
    cut_off = {connection.url for bedside in bedsides for connection in bedside.connections[-1:]}
    async with asyncio.timeout(100):
        await listening
    print(f"drained {time.monotonic() - killed_at:.1f} s after the kill")

    assert cut_off == {doomed.ws, other.ws}  # both were in use
    await wait_until_acknowledged(cluster, listeners)
    for bedside in bedsides:
        assert_in_order(bedside)
        for speech_id, at, url in bedside.repeated:
            assert (url, at > killed_at - UNWRITTEN_S) == (doomed.ws, True), (
                f"{speech_id} was acknowledged and came again"
            )
    assert_accounts_right(cluster, killed_at)


async def wait_until_acknowledged(cluster: Cluster, listeners: list[Listener]) -> None:
    everything = {"heard": PATIENTS * EACH}
    await eventually(
        lambda: asyncio.to_thread(cluster.states, listeners), 5, wanted=lambda states: states == everything
    )


def assert_in_order(bedside: Bedside) -> None:
    """Assert that no speech starts twice in a connection, and that all start and finish in order."""
    place = {speech_id: number for number, speech_id in enumerate(bedside.listener.deliveries)}
    for connection in bedside.connections:
        began = [place[speech_id] for speech_id in connection.began]
        assert began == sorted(set(began))
    heard = list(dict.fromkeys(speech_id for connection in bedside.connections for speech_id in connection.finished))
    assert heard == bedside.listener.deliveries


def assert_accounts_right(cluster: Cluster, killed_at: float) -> None:
    """Assert that only requests just before the kill are missing from the ledger."""
    recorded, billed = cluster.ledger_characters(), cluster.billed_requests()
    assert {key: billed[key]["characters"] for key in recorded} == recorded
    missing = [record for key, record in billed.items() if key not in recorded]
    assert all(killed_at - UNWRITTEN_S < record["at"] <= killed_at + 0.1 for record in missing), missing
    assert len(missing) <= PATIENTS
    assert cluster.conversation_characters() == sum(recorded.values())
