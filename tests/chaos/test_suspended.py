"""A web process is suspended for longer than its leases while speech waits there for the quota, or plays."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.chaos.cluster import Cluster, Listener
from tests.e2e.device import Device
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.outbox.leases import LEASE_S
from voicecare_client import TERMINAL_TYPES

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

SUSPENDED_S = LEASE_S + 3
TEXTS = {f"held-{number}": f"This is the text number {number}, which waits for the quota." for number in range(2)}
STATES = "SELECT client_id, state FROM tts_utterance WHERE origin = 'device' ORDER BY client_id"


@asynccontextmanager
async def suspended(server: ServerProcess) -> AsyncIterator[None]:
    """Suspend the server, run the block, and let the server continue when its leases have expired."""
    server.signal(signal.SIGSTOP)
    try:
        expiry = asyncio.create_task(asyncio.sleep(SUSPENDED_S))
        yield
        await expiry
    finally:
        server.signal(signal.SIGCONT)


async def wards(cluster: Cluster, servers: int) -> tuple[Listener, Sequence[ServerProcess]]:
    (listener,) = await asyncio.to_thread(cluster.seed, 1)
    return listener, [await asyncio.to_thread(cluster.start_server, QUOTA_POLL_S=0.5) for _ in range(servers)]


async def hold_speech(cluster: Cluster, device: Device) -> str:
    """Open a conversation whose speeches wait for the quota. Return its id when their rows are written."""
    cluster.sandbox.settings(characters_used=10_000_000)
    started = await device.start(greeting=False)
    for speech_id, text in TEXTS.items():
        await device.send({"type": "speak", "id": speech_id, "text": text})
        await device.wait_for_frame("speech.queued", id=speech_id, reason="quota")
    queued = [(speech_id, "queued") for speech_id in TEXTS]
    await eventually(lambda: asyncio.to_thread(cluster.query, STATES), wanted=lambda rows: rows == queued)
    return str(started["conversation"])


async def restore_quota(cluster: Cluster) -> None:
    """Return when a process that is not suspended has found the quota restored."""
    cluster.sandbox.settings(characters_used=0)
    restored = "SELECT 1 FROM usage_providerstate WHERE quota = 'available'"
    await eventually(lambda: asyncio.to_thread(cluster.query, restored))


def count(kinds: frozenset[str], *devices: Device) -> Counter[str]:
    """Count the messages of these types for each speech, on all these devices."""
    frames = [frame for device in devices for frame in device.received if isinstance(frame, dict)]
    return Counter(frame["id"] for frame in frames if frame["type"] in kinds)


STARTED = frozenset({"speech.started"})
ONCE = dict.fromkeys(TEXTS, 1)


async def test_held_speech_is_spoken_once_after_its_process_was_suspended(cluster: Cluster) -> None:
    listener, (server, _) = await wards(cluster, 2)
    async with Device(server.ws, listener.token) as device:
        await hold_speech(cluster, device)
        async with suspended(server):
            await restore_quota(cluster)
        for speech_id in TEXTS:
            await device.wait_for(speech_id)
        await device.speak("This is said last, so that nothing can come after it unseen.", id="last")
        await asyncio.sleep(2)
        await device.assert_nothing_pending()
    assert count(STARTED, device) == count(TERMINAL_TYPES, device) == {**ONCE, "last": 1}
    assert Counter(request["text"] for request in cluster.sandbox.requests() if request["billed"])[TEXTS["held-0"]] == 1


async def test_held_speech_that_was_resumed_elsewhere_is_not_spoken_by_the_process_that_was_suspended(
    cluster: Cluster,
) -> None:
    listener, (server, other_server) = await wards(cluster, 2)
    async with Device(server.ws, listener.token) as device, AsyncExitStack() as stack:
        conversation = await hold_speech(cluster, device)  # before the other connection, as below
        async with suspended(server):
            again = await stack.enter_async_context(Device(other_server.ws, listener.token))
            await again.start(resume=conversation)
            await restore_quota(cluster)
            for speech_id in TEXTS:
                await again.wait_for(speech_id)
        assert await device.wait_closed() == 4001
    assert count(STARTED, device, again) == count(TERMINAL_TYPES, device, again) == ONCE
    rows = await asyncio.to_thread(cluster.query, STATES)
    assert rows == [(speech_id, "spoken") for speech_id in TEXTS]


async def test_held_speech_that_another_conversation_has_spoken_is_not_spoken_again(cluster: Cluster) -> None:
    listener, (server, other_server) = await wards(cluster, 2)
    async with Device(server.ws, listener.token) as device, AsyncExitStack() as stack:
        await hold_speech(cluster, device)  # before the other connection, which replaces this one within 2 s
        async with suspended(server):
            again = await stack.enter_async_context(Device(other_server.ws, listener.token))
            await again.start(greeting=False)
            await restore_quota(cluster)
            for speech_id in TEXTS:
                began = await again.wait_for_frame("speech.started")
                assert began["of"]["id"] == speech_id
                await again.wait_for(began["id"])
                await again.send({"type": "ack", "id": began["id"]})
        assert await device.wait_closed() == 4001
        await again.assert_nothing_pending()
    assert count(STARTED, device) == {}
    assert set(count(STARTED, again).values()) == {1}
    assert len(count(STARTED, again)) == len(TEXTS)


async def test_held_speech_is_spoken_once_after_the_database_was_suspended(cluster: Cluster) -> None:
    listener, (server,) = await wards(cluster, 1)
    async with Device(server.ws, listener.token) as device:
        await hold_speech(cluster, device)
        cluster.postgres.pause()
        try:
            cluster.sandbox.settings(characters_used=0)
            await asyncio.sleep(SUSPENDED_S)
        finally:
            cluster.postgres.resume()
        for speech_id in TEXTS:
            await device.wait_for(speech_id)
        await asyncio.sleep(2)
        await device.assert_nothing_pending()
    assert count(STARTED, device) == count(TERMINAL_TYPES, device) == ONCE
