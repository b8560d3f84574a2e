"""Many idle devices do not delay those that speak: the garbage collector does not walk through their connections."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp

from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.server import ServerProcess
from voicecare.patients.models import Device as Row

DEVICES = 800
OBSERVED_S = 25  # a sweep runs every second
FULL_COLLECTIONS = 'python_gc_collections_total{generation="2"}'


async def test_idle_devices_cause_no_full_garbage_collection(
    own_server: Callable[..., ServerProcess], alice: Member
) -> None:
    """A full collection stops all speech for 0.1 ms for each connected device."""
    tokens = await in_database(lambda: [Row.objects.issue(alice.patient, f"d{n}")[1] for n in range(DEVICES)])
    server = await asyncio.to_thread(own_server)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        for token in tokens:
            headers = {"Authorization": f"Bearer {token}"}
            await stack.enter_async_context(session.ws_connect(server.ws, headers=headers, protocols=["voicecare.v1"]))
        before = await asyncio.to_thread(server.gauge, FULL_COLLECTIONS)
        await asyncio.sleep(OBSERVED_S)
        assert await asyncio.to_thread(server.gauge, "voicecare_devices_connected") == DEVICES
        assert await asyncio.to_thread(server.gauge, FULL_COLLECTIONS) == before
