"""One connection executes the commands of its session, also after one of them has failed."""

import asyncio
import json
import threading
import uuid
from functools import partial
from types import SimpleNamespace

import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.tts.devices.test_registry import Broken, Client
from tests.tts.outbox.connections import connect, queue, state_of, submit
from tests.waiting import eventually
from tts.conversations import lifecycle, takeover
from tts.models import Conversation
from tts.outbox import deferred
from tts.recorder import Recorder
from tts.resilience.quota_gate import QuotaGate
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db(transaction=True)  # lookups use their own threads


async def test_after_a_lookup_that_fails_the_next_one_is_processed(alice: Member):
    row = await in_database(submit, alice.patient)
    await in_database((await in_database(connect, alice)).claim)  # so that a device may know it
    client = Broken(alice, await in_database(alice.device.register_connection))
    with capture_logs() as logs:
        await client.connection.receive(json.dumps({"type": "interrupt", "id": f"srv-{uuid.uuid4()}"}))
        await client.connection.receive(json.dumps({"type": "ack", "id": f"srv-{row.pk}"}))
        (lookups,) = client.spawned
        await lookups
    assert await in_database(state_of, row) == "heard"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("connection.lookup_failed", "error")]


def recording_client(member: Member, epoch: int) -> Client:
    """Return a client whose connection also has the services that conversations need."""
    client = Client(member, epoch)
    client.dependencies.recorder = Recorder()
    client.dependencies.client = SimpleNamespace(preconnect=partial(asyncio.sleep, 0))
    client.dependencies.quota = QuotaGate(client.spawned.append)
    return client


async def test_a_voice_that_is_replaced_twice_is_reported_once(alice: Member):
    client = recording_client(alice, await in_database(alice.device.register_connection))
    opened = await in_database(lifecycle.start, alice.device.pk, None)
    client.connection.session.start_conversation(opened)
    await in_database(Voice.objects.update, state=Voice.State.WITHDRAWN)
    conversation = opened.context.conversation_id
    for _ in range(2):
        choices = await in_database(takeover.choose_voices, [conversation])
        client.connection.change_voices(conversation, choices[conversation])
    await asyncio.gather(*client.spawned)
    assert [json.loads(frame)["code"] for frame in client.frames] == ["voice_changed"]


async def test_a_conversation_that_every_sweep_finds_is_detached_by_one_task(alice: Member):
    """The task waits while a conversation starts, which takes long with a slow database."""
    client = recording_client(alice, await in_database(alice.device.register_connection))
    for number in (1, 2):
        opened = await in_database(lifecycle.start, alice.device.pk, None)
        client.connection.session.start_conversation(opened)
        for _ in range(3):
            client.connection.detach_conversation(opened.context.conversation_id)
        (detaching,) = client.spawned
        await detaching
        client.spawned.clear()
        assert [json.loads(frame)["type"] for frame in client.frames] == ["conversation.ended"] * number


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks on rows (DATABASE_URL)")
async def test_a_resume_and_the_recorder_do_not_deadlock(alice: Member):
    """The recorder locks utterances, then their conversation."""
    here = await in_database(partial(connect, alice, talking=True))
    row = await in_database(queue, here, alice.patient)
    client = recording_client(alice, await in_database(alice.device.register_connection))
    client.dependencies.quota.mark_exhausted(10)  # so that the speech of the row waits
    resume = json.dumps({"type": "conversation.start", "resume": str(here.conversation), "greeting": False})
    has_locked, may_go_on = threading.Event(), threading.Event()

    def record() -> None:
        with transaction.atomic():
            deferred.overtaken({row.pk: (0, False)})
            has_locked.set()
            assert may_go_on.wait(20)
            Conversation.objects.add_characters({here.conversation: 5})

    def is_waiting_for_a_lock() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return cursor.fetchone() is not None

    with capture_logs() as logs:
        recording = asyncio.create_task(in_database(record))
        await eventually(has_locked.is_set)
        resuming = asyncio.create_task(client.connection.receive(resume))
        await eventually(lambda: in_database(is_waiting_for_a_lock))
        may_go_on.set()
        await asyncio.gather(recording, resuming)
    assert "connection.open_failed" not in [entry["event"] for entry in logs]
    assert json.loads(client.frames[0])["type"] == "conversation.started"
    await client.connection.drain(20)
    await client.dependencies.recorder.flush()
    for work in client.spawned:
        work.close()
