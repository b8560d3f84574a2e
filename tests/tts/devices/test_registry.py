"""The registry keeps one socket for each device, and closes those of revoked, archived or replaced ones."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client import REGISTRY

from tests.conftest import Member
from tts.conversations import lifecycle
from tts.devices.connection import Connection
from tts.devices.registry import HEARTBEAT_EVERY_SWEEPS, ConnectionRegistry
from tts.devices.transport import DeviceTransport
from tts.models import Conversation
from tts.resilience.quota_gate import QuotaGate
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db(transaction=True)  # the registry uses its own thread


class Client:
    """The device's end of a connection. It keeps the code with which it was closed."""

    def __init__(self, member: Member, epoch: int) -> None:
        self.closed: int | None = None
        self.was_closed = asyncio.Event()
        self.connection = Connection(DeviceTransport(self.receive), None, member.device.id, epoch, member.patient.id)

    async def receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            self.closed = message["code"]
            self.was_closed.set()


class Stuck(Client):
    """Its server never returns from `send`."""

    async def receive(self, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()


class Broken(Client):
    """Its server raises, as some do for a socket that has closed."""

    async def receive(self, message: dict[str, Any]) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.close'")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def connect(registry: ConnectionRegistry, member: Member, make: type[Client] = Client) -> Client:
    client = make(member, member.device.register_connection())
    run(registry.register(client.connection))
    return client


def connected() -> float | None:
    return REGISTRY.get_sample_value("voicecare_devices_connected")


@pytest.fixture
def registry() -> ConnectionRegistry:
    return ConnectionRegistry(QuotaGate(lambda work: work.close()))


def test_valid_connections_stay_open(registry: ConnectionRegistry, alice: Member, bob: Member):
    clients = [connect(registry, alice), connect(registry, bob)]
    run(registry.sweep())
    assert [client.closed for client in clients] == [None, None]
    assert registry.connections == [client.connection for client in clients]
    assert connected() == 2


def test_a_second_connection_of_a_device_replaces_the_first_immediately(registry: ConnectionRegistry, alice: Member):
    first, second = connect(registry, alice), connect(registry, alice)
    assert (first.closed, second.closed) == (4001, None)
    assert registry.connections == [second.connection]


def test_the_later_of_two_connections_stays_if_they_register_in_reverse_order(
    registry: ConnectionRegistry, alice: Member
):
    early = Client(alice, alice.device.register_connection())
    late = connect(registry, alice)
    run(registry.register(early.connection))
    assert (early.closed, late.closed) == (4001, None)
    assert registry.connections == [late.connection]


def test_a_connection_in_another_process_replaces_the_one_here(
    registry: ConnectionRegistry, alice: Member, bob: Member
):
    ours, others = connect(registry, alice), connect(registry, bob)
    alice.device.register_connection()
    run(registry.sweep())
    assert (ours.closed, others.closed) == (4001, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda member: Device.objects.filter(pk=member.device.pk).update(revoked_at=timezone.now()),
        lambda member: Patient.objects.filter(pk=member.patient.pk).update(archived_at=timezone.now()),
        lambda member: Patient.objects.filter(pk=member.patient.pk).update(erased_at=timezone.now()),
        lambda member: Device.objects.filter(pk=member.device.pk).delete(),
    ],
    ids=["device revoked", "patient archived", "patient erased", "device deleted"],
)
def test_a_revoked_device_is_disconnected(registry: ConnectionRegistry, alice: Member, bob: Member, change):
    client, other = connect(registry, alice), connect(registry, bob)
    change(alice)
    run(registry.sweep())
    assert (client.closed, other.closed) == (4003, None)


def test_a_device_that_was_revoked_and_replaced_is_closed_as_revoked(registry: ConnectionRegistry, alice: Member):
    client = connect(registry, alice)
    alice.device.register_connection()
    Device.objects.update(revoked_at=timezone.now())
    run(registry.sweep())
    assert client.closed == 4003


@pytest.mark.parametrize("former", [Stuck, Broken])
def test_a_socket_that_cannot_be_closed_does_not_keep_others_open(
    registry: ConnectionRegistry, alice: Member, bob: Member, former: type[Client]
):
    async def scenario() -> None:
        sweep = asyncio.create_task(registry.sweep())
        try:
            await asyncio.wait_for(other.was_closed.wait(), 2)
        finally:
            sweep.cancel()
            await asyncio.gather(sweep, return_exceptions=True)

    connect(registry, alice, former)
    other = connect(registry, bob)
    Device.objects.update(revoked_at=timezone.now())
    run(scenario())
    assert other.closed == 4003


def test_a_connection_can_be_unregistered_twice(registry: ConnectionRegistry, alice: Member):
    client = connect(registry, alice)
    registry.unregister(client.connection)
    registry.unregister(client.connection)
    assert (registry.connections, connected()) == ([], 0)


def test_unregistering_a_replaced_connection_keeps_its_successor(registry: ConnectionRegistry, alice: Member):
    first, second = connect(registry, alice), connect(registry, alice)
    registry.unregister(first.connection)
    assert registry.connections == [second.connection]


def test_a_sweep_without_connections_makes_no_query(registry: ConnectionRegistry):
    run(registry.sweep())
    assert registry.connections == []


def test_a_sweep_renews_the_heartbeat_of_open_conversations(registry: ConnectionRegistry, alice: Member, bob: Member):
    talking, silent = connect(registry, alice), connect(registry, bob)
    opened = lifecycle.start(alice.device.id, None)
    talking.connection.session.start_conversation(opened)
    long_ago = timezone.now() - timezone.timedelta(minutes=20)
    Conversation.objects.update(seen_at=long_ago, started_at=long_ago)

    async def scenario() -> None:
        for _ in range(HEARTBEAT_EVERY_SWEEPS):
            await registry.sweep()

    run(scenario())
    assert Conversation.objects.get(pk=opened.context.conversation_id).seen_at > long_ago
    assert silent.closed is None
