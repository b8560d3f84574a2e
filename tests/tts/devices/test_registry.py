"""The registry keeps one socket for each device, and closes those of revoked, archived or replaced ones."""

import asyncio
import json
import threading
from asyncio import SelectorEventLoop
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone
from prometheus_client import REGISTRY
from pytest_django import Settings

from tests.conftest import OTHER_VOICE, Member
from tests.e2e.database import missing_table
from tests.e2e.rows import in_database
from tests.tts.examples import speech as example
from tests.tts.outbox.connections import PAST, expire, submit
from tests.waiting import eventually
from tts.conversations import lifecycle
from tts.devices import registry as registry_module
from tts.devices.connection import Connection
from tts.devices.registry import ConnectionRegistry
from tts.devices.transport import DeviceTransport
from tts.models import Conversation, Utterance
from tts.outbox import leases
from tts.outbox.claim import Claim
from tts.protocol import messages
from tts.resilience.quota_gate import QuotaGate
from voicecare.core.database import MAX_THREADS, run_in_db_thread
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)  # the registry uses its own thread


class Client:
    """The device's end of a connection. It keeps its frames and the code with which it was closed."""

    def __init__(self, member: Member, epoch: int) -> None:
        self.closed: int | None = None
        self.frames: list[str] = []
        self.was_closed = asyncio.Event()
        self.spawned: list[Coroutine[Any, Any, Any]] = []
        self.dependencies: Any = SimpleNamespace(spawn=self.spawned.append)
        transport = DeviceTransport(self.receive)
        self.connection = Connection(transport, self.dependencies, member.device.id, epoch, member.patient.id)

    async def receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            self.closed = message["code"]
            self.was_closed.set()
        elif message["type"] == "websocket.send":
            self.frames.append(message["text"])


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


def test_a_renewal_renews_the_heartbeat_of_open_conversations(
    registry: ConnectionRegistry, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry_module, "HEARTBEAT_INTERVAL_S", 0.0)
    talking, silent = connect(registry, alice), connect(registry, bob)
    opened = lifecycle.start(alice.device.id, None)
    talking.connection.session.start_conversation(opened)
    long_ago = timezone.now() - timezone.timedelta(minutes=20)
    Conversation.objects.update(seen_at=long_ago, started_at=long_ago)
    run(registry.renew())
    assert Conversation.objects.get(pk=opened.context.conversation_id).seen_at > long_ago
    assert silent.closed is None


def test_a_late_renewal_checks_what_is_playing_in_the_background(
    registry: ConnectionRegistry, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
):
    playing, silent = connect(registry, alice), connect(registry, bob)
    playing.connection.session.queue.start(example())
    run(registry.renew())
    assert (playing.spawned, silent.spawned) == ([], [])
    monkeypatch.setattr(leases, "LEASE_S", 0)
    run(registry.renew())
    (check,) = playing.spawned
    check.close()
    assert silent.spawned == []


# The cost of a sweep


class CountingLoop(SelectorEventLoop):
    """An event loop that counts the work that is given to it."""

    tasks = timers = threads = 0

    def create_task(self, *arguments: Any, **keywords: Any) -> Any:
        self.tasks += 1
        return super().create_task(*arguments, **keywords)

    def call_at(self, *arguments: Any, **keywords: Any) -> Any:
        self.timers += 1
        return super().call_at(*arguments, **keywords)

    def run_in_executor(self, *arguments: Any, **keywords: Any) -> Any:
        self.threads += 1
        return super().run_in_executor(*arguments, **keywords)


def work_of_a_sweep(registry: ConnectionRegistry) -> tuple[int, int, int]:
    """Return the number of tasks, timers and calls in a database thread that one sweep takes."""
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(registry.sweep())
        loop = runner.get_loop()
        return loop.tasks, loop.timers, loop.threads


def test_a_sweep_takes_no_more_tasks_timers_or_queries_for_more_connections(
    registry: ConnectionRegistry, alice: Member
):
    connect(registry, alice)
    work = work_of_a_sweep(registry)
    devices = [
        Device(patient=alice.patient, name=f"Device {number}", token_prefix=f"{number:08x}", epoch=1)
        for number in range(100)
    ]
    for device in Device.objects.bulk_create(devices):
        client = Client(Member(alice.patient, device, ""), device.epoch)
        run(registry.register(client.connection))
    assert len(registry.connections) == 101
    assert work_of_a_sweep(registry) == work


def test_a_stuck_device_whose_voice_was_withdrawn_does_not_stop_the_sweep(registry: ConnectionRegistry, alice: Member):
    client = connect(registry, alice, Stuck)
    client.connection.session.start_conversation(lifecycle.start(alice.device.id, None))
    Voice.objects.update(state=Voice.State.WITHDRAWN)
    run(asyncio.wait_for(registry.sweep(), 20))
    (reset,) = client.spawned
    reset.close()


def talk(registry: ConnectionRegistry, member: Member) -> Client:
    """Connect a device with an open conversation."""
    client = connect(registry, member)
    client.connection.session.start_conversation(lifecycle.start(member.device.id, None))
    return client


def voices_of(client: Client) -> tuple[str, str, str]:
    """Return the names of the voice and the backup voice of the open conversation, and the source of the voice."""
    opened = client.connection.session.conversation
    assert opened is not None
    context = opened.context
    return context.speech_settings.voice.name, context.backup_settings.voice.name, context.voice_source


def test_lost_voices_and_backup_voices_are_replaced_in_all_conversations(
    registry: ConnectionRegistry, alice: Member, bob: Member, settings: Settings
):
    Voice.objects.filter(provider_id=settings.DEFAULT_VOICE_ID).update(name="Rachel")
    Voice.objects.filter(provider_id=OTHER_VOICE).update(name="Sarah")
    Voice.objects.create(provider_id="adam", name="Adam")
    clients = [talk(registry, member) for member in (alice, bob)]
    usual = work_of_a_sweep(registry)
    assert [voices_of(client) for client in clients] == [
        ("Sarah", "Rachel", "selected"),
        ("Rachel", "Rachel", "default"),
    ]
    Voice.objects.filter(name="Rachel").update(refusal=Voice.Refusal.REFUSED)
    assert work_of_a_sweep(registry) == (usual[0], usual[1], usual[2] + 1)
    assert [voices_of(client) for client in clients] == [("Sarah", "Adam", "selected"), ("Adam", "Adam", "default")]
    assert [len(client.spawned) for client in clients] == [0, 1]  # a notice for the second one
    Voice.objects.filter(name="Sarah").update(state=Voice.State.GONE)
    run(registry.sweep())
    assert [voices_of(client) for client in clients] == [("Adam", "Adam", "default"), ("Adam", "Adam", "default")]
    assert set(Conversation.objects.values_list("voice__name", "voice_source")) == {("Adam", "default")}
    assert work_of_a_sweep(registry) == usual
    for client in clients:
        for notice in client.spawned:
            notice.close()


def test_another_voice_is_not_searched_in_each_sweep_if_there_is_none(registry: ConnectionRegistry, bob: Member):
    client = talk(registry, bob)
    usual = work_of_a_sweep(registry)
    Voice.objects.update(refusal=Voice.Refusal.REFUSED)
    assert work_of_a_sweep(registry) == (usual[0], usual[1], usual[2] + 1)
    assert work_of_a_sweep(registry) == usual
    assert voices_of(client)[0] == "Default"
    assert client.spawned == []


def queue_speech(client: Client, member: Member) -> Utterance:
    """Let the device know of a queued speech whose expiry time has passed."""
    row = submit(member.patient)
    claim = Claim(row.pk, "", 1, member.patient.pk, row.text, "server", "", None, row.expires_at, 0.0, was_queued=True)
    client.connection.outbox.mark_queued_notified(claim)
    expire(row)
    return row


def test_expired_speech_of_all_devices_is_found_with_one_query(
    registry: ConnectionRegistry, alice: Member, bob: Member
):
    clients = [connect(registry, alice), connect(registry, bob)]
    tasks, timers, threads = work_of_a_sweep(registry)
    rows = [queue_speech(client, member) for client, member in zip(clients, (alice, bob), strict=True)]
    assert work_of_a_sweep(registry) == (tasks, timers, threads + 1)
    for client, row in zip(clients, rows, strict=True):
        (notice,) = client.spawned
        run(notice)
        (frame,) = client.frames
        assert json.loads(frame) == messages.speech_failed(f"srv-{row.pk}", "expired")
    run(registry.sweep())
    assert [len(client.spawned) for client in clients] == [1, 1]


def test_expired_speech_is_reported_once_the_database_is_back(registry: ConnectionRegistry, alice: Member):
    client = connect(registry, alice)
    queue_speech(client, alice)

    async def scenario() -> None:
        async with missing_table(Utterance._meta.db_table):
            with pytest.raises(DatabaseError):
                await registry.sweep()
        assert client.spawned == []
        await registry.sweep()

    run(scenario())
    (notice,) = client.spawned
    run(notice)


def test_leases_are_renewed_while_all_database_threads_are_busy(
    registry: ConnectionRegistry, alice: Member, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry_module, "RENEW_INTERVAL_S", 0.05)
    connect(registry, alice)
    Device.objects.update(online_until=PAST)
    is_free = threading.Event()

    async def scenario() -> None:
        busy = [asyncio.create_task(run_in_db_thread(is_free.wait, 20)) for _ in range(2 * MAX_THREADS)]
        renewing = asyncio.create_task(registry.keep_alive())
        try:
            await eventually(lambda: in_database(Device.objects.filter(online_until__gt=timezone.now()).exists))
        finally:
            is_free.set()
            renewing.cancel()
            await asyncio.gather(*busy, renewing, return_exceptions=True)

    run(scenario())
