"""Connections that the path has forgotten cost one patient one retry, and nobody else anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.e2e.tcp_proxy import Ending, ForgetfulProxy, forgetful_proxy
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from usage.models import Incident, ProviderState, UsageEvent
from voicecare.providers.elevenlabs.client import MAX_PRECONNECTS

CONNECTIONS = 12
ENDINGS: list[Ending] = ["drop", "reset", "half close"]


@pytest.fixture
async def proxy(sandbox: SandboxProcess) -> AsyncIterator[ForgetfulProxy]:
    async with forgetful_proxy(sandbox.url) as proxy:
        yield proxy


async def speak_at_the_same_time(server: ServerProcess, members: list[Member]) -> None:
    """Each member speaks one sentence on a connection of its own to the provider."""
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(server.ws, member.token)) for member in members]
        for device in devices:
            await device.start(greeting=False)
        spoken = await asyncio.gather(
            *(device.speak(f"Sentence number {n} is for one of the patients.") for n, device in enumerate(devices))
        )
        assert {speech.terminal["source"] for speech in spoken} == {"live"}
        for device in devices:
            await device.end()


async def failed_kinds() -> list[str]:
    return await in_database(
        lambda: list(UsageEvent.objects.exclude(outcome="completed").values_list("kind", flat=True))
    )


async def is_recorded(count: int) -> None:
    await eventually(
        lambda: in_database(UsageEvent.objects.filter(outcome="completed").count), wanted=lambda n: n >= count
    )


@pytest.mark.parametrize("ending", ENDINGS)
async def test_twelve_dead_connections_cost_one_patient_at_most_one_retry(
    ending: Ending,
    own_server: Callable[..., ServerProcess],
    proxy: ForgetfulProxy,
    sandbox: SandboxProcess,
    member: Callable[..., Member],
) -> None:
    sandbox.settings(concurrency=CONNECTIONS, first_byte_ms=300)  # long enough for all to overlap
    members = [await in_database(member, f"Patient {n}") for n in range(CONNECTIONS)]
    server = await asyncio.to_thread(own_server, ELEVENLABS_BASE_URL=proxy.url)
    await speak_at_the_same_time(server, members)
    assert proxy.forget(ending) > CONNECTIONS // 2  # on a busy machine some requests share a connection
    sandbox.settings(first_byte_ms=20)
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(server.ws, member.token)) for member in members[:4]]
        for device in devices:
            await device.send({"type": "conversation.start", "greeting": False})
            await device.wait_for_frame("conversation.started")
        spoken = [await device.speak("This is said after the path has forgotten all of that.") for device in devices]
        for device in devices:
            await device.end()
    assert [speech.terminal["source"] for speech in spoken] == ["live"] * 4
    await is_recorded(CONNECTIONS + 4)
    assert len(await failed_kinds()) <= 1
    assert set(await failed_kinds()) <= {"live"}
    assert not await in_database(Incident.objects.exists)
    assert not await in_database(ProviderState.objects.filter(circuit="open").exists)


@pytest.mark.parametrize("ending", ["drop", "reset"])
async def test_each_probe_uses_a_new_connection(
    ending: Ending,
    own_server: Callable[..., ServerProcess],
    proxy: ForgetfulProxy,
    sandbox: SandboxProcess,
    alice: Member,
) -> None:
    """All connections die while the circuit is open. The first probe after the outage closes it."""
    server = await asyncio.to_thread(own_server, ELEVENLABS_BASE_URL=proxy.url)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak("This is said before the outage begins.")).terminal["source"] == "live"
        sandbox.fault(kind="error", preset="service_unavailable")
        assert (await device.speak("This is said when the outage has begun.")).terminal["source"] == "offline"
        await eventually(lambda: server.gauge("voicecare_circuit_open"))
        proxy.forget(ending)
        sandbox.clear_faults()
        await eventually(lambda: server.gauge("voicecare_circuit_open"), 6, wanted=lambda is_open: not is_open)
        assert (await device.speak("This is said when it is over again.")).terminal["source"] == "live"


async def test_devices_that_start_together_open_few_connections(
    own_server: Callable[..., ServerProcess],
    proxy: ForgetfulProxy,
    member: Callable[..., Member],
) -> None:
    members = [await in_database(member, f"Patient {n}") for n in range(40)]
    server = await asyncio.to_thread(own_server, ELEVENLABS_BASE_URL=proxy.url)
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(Device(server.ws, member.token)) for member in members]
        await asyncio.gather(*(device.start(greeting=False) for device in devices))
        await eventually(lambda: proxy.open_count)
        assert proxy.accepted <= MAX_PRECONNECTS + 2  # the server also reads the account
