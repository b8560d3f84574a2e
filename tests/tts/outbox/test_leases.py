"""Leases of connections: taken over, renewed, released and reaped."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone
from structlog.testing import capture_logs

from tests.conftest import Member
from tests.tts.outbox.connections import PAST, connect, expire, queue, second_device, state_of, submit
from tts import tasks
from tts.models import Utterance
from tts.outbox import leases, store
from voicecare.core.batches import RowsFailed
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db


def online(device: uuid.UUID) -> bool:
    until = Device.objects.values_list("online_until", flat=True).get(pk=device)
    return until is not None and until > timezone.now()


def held_for_s(row: Utterance) -> float:
    until = Utterance.objects.values_list("lease_until", flat=True).get(pk=row.pk)
    return (until - timezone.now()).total_seconds()


def test_pending_is_the_condition_of_the_index():
    index = next(index for index in Utterance._meta.indexes if index.name == "utterance_outbox")
    assert index.condition == leases.PENDING


def test_owner_names_fit_into_the_column_and_sort_by_age():
    devices = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), *(uuid.uuid4() for _ in range(50))]
    owners = [leases.owner_name(device, epoch) for device in devices for epoch in (0, 1, 9, 10, 999_999_999)]
    assert {len(owner) for owner in owners} == {36}
    assert len(set(owners)) == len(owners)
    for device in devices:
        epochs = [3, 20, 100, 99_999]
        assert sorted(leases.owner_name(device, epoch) for epoch in epochs) == [
            leases.owner_name(device, epoch) for epoch in epochs
        ]
        assert [leases.owner_epoch(leases.owner_name(device, epoch)) for epoch in epochs] == epochs


@pytest.mark.parametrize("state", ["speaking", "spoken", "queued"])
def test_a_device_that_reconnects_after_a_crash_does_not_wait_for_its_lease(alice: Member, state: str):
    crashed = connect(alice)
    row = submit(alice.patient)
    crashed.claim()
    Utterance.objects.update(state=state)
    back = connect(alice)
    assert state_of(row) == ("queued" if state == "queued" else "waiting")
    assert back.claim().id == row.pk


def test_a_late_takeover_does_not_release_rows_of_a_later_connection(alice: Member):
    former, latter = connect(alice), connect(alice)
    submit(alice.patient)
    claim = latter.claim()
    leases.take_over(former.device, former.owner)
    assert store.confirm(claim)


def test_a_takeover_does_not_release_rows_of_another_device(alice: Member, bob: Member):
    sockets = [connect(bob), connect(alice)]
    submit(alice.patient)
    submit(bob.patient)
    claims = [socket.claim() for socket in sockets]
    kitchen = connect(alice, second_device(alice))
    kitchen.disconnect()
    assert all(store.confirm(claim) for claim in claims)


def test_renewal_keeps_the_rows_of_a_connection(alice: Member, bob: Member):
    here, there = connect(alice), connect(bob)
    mine, others = submit(alice.patient), submit(bob.patient)
    for socket in (here, there):
        socket.claim()
        socket.lapse()
    here.renew()
    assert held_for_s(mine) > leases.LEASE_S - 2
    assert held_for_s(others) < 0
    assert (online(here.device), online(there.device)) == (True, False)


def test_a_device_is_offline_after_its_connection_unless_it_has_reconnected(alice: Member):
    former, latter = connect(alice), connect(alice)
    former.disconnect()
    assert online(latter.device)
    latter.disconnect()
    assert not online(latter.device)


def test_all_rows_of_a_connection_wait_again_when_it_ends(alice: Member):
    socket = connect(alice)
    rows = [submit(alice.patient) for _ in range(3)]
    store.finish(socket.claim(), **spoken())
    socket.claim()
    socket.disconnect()
    assert [state_of(row) for row in rows] == ["waiting"] * 3
    assert set(Utterance.objects.values_list("owner", "lease_until")) == {("", None)}


def spoken() -> dict[str, object]:
    measures = {"characters": 1, "bytes_sent": 1, "first_chunk_ms": 1.0, "spoken_at": timezone.now()}
    return {"state": "spoken", "source": "live", "code": "", "queue_reason": "", "conversation_id": None, **measures}


def test_reaping_keeps_rows_with_a_lease(alice: Member, bob: Member):
    socket = connect(alice)
    speaking, waiting, others = submit(alice.patient), submit(alice.patient), submit(bob.patient)
    socket.claim()
    for row in (speaking, waiting):
        expire(row)
    Patient.objects.filter(pk=bob.patient.pk).update(archived_at=timezone.now())
    tasks.tidy_outbox()
    assert [state_of(row) for row in (speaking, waiting, others)] == ["speaking", "expired", "interrupted"]
    Utterance.objects.filter(pk=speaking.pk).update(lease_until=PAST)
    tasks.tidy_outbox()
    assert state_of(speaking) == "expired"
    assert set(Utterance.objects.values_list("state", "code")) == {("expired", "expired"), ("interrupted", "")}


def test_the_end_of_each_reaped_row_is_logged_without_its_text(alice: Member, bob: Member):
    socket = connect(alice, talking=True)
    rows = [submit(alice.patient), queue(socket, alice.patient), submit(bob.patient)]
    for row in rows[:2]:
        expire(row)
    Patient.objects.filter(pk=bob.patient.pk).update(archived_at=timezone.now())
    with capture_logs() as logs:
        leases.reap_expired()
    ends = {entry["utterance_id"]: entry for entry in logs if entry["event"] == "speech.finished"}
    assert {key: (end["outcome"], end["reason"], end["conversation_id"]) for key, end in ends.items()} == {
        str(rows[0].pk): ("expired", "expired", None),
        str(rows[1].pk): ("expired", "expired", str(socket.conversation)),
        str(rows[2].pk): ("interrupted", "", None),
    }
    assert all(end["ms"] >= 0 and "text" not in end for end in ends.values())


@pytest.mark.django_db(transaction=True)  # the database refuses an update, which would end the test's transaction
def test_speech_expires_even_if_other_rows_cannot_be_reaped(alice: Member, bob: Member):
    expired, refused = submit(alice.patient), submit(bob.patient)
    expire(expired)
    Patient.objects.filter(pk=bob.patient.pk).update(archived_at=timezone.now())

    def execute(run: Callable[..., Any], sql: str, params: Any, *arguments: Any) -> Any:
        if sql.startswith("UPDATE") and {refused.pk, refused.pk.hex} & set(params):
            raise IntegrityError("refused")
        return run(sql, params, *arguments)

    with capture_logs() as logs, connection.execute_wrapper(execute), pytest.raises(RowsFailed):
        leases.reap_expired()
    assert [state_of(row) for row in (expired, refused)] == ["expired", "waiting"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["row.failed", "step.failed"]


@pytest.mark.parametrize("state", ["heard", "failed", "expired", "interrupted"])
def test_reaping_keeps_ended_rows(alice: Member, state: str):
    socket = connect(alice)
    row = submit(alice.patient)
    Utterance.objects.update(state=state, owner=socket.owner, lease_until=PAST, expires_at=PAST)
    connect(alice)
    socket.renew()
    socket.disconnect()
    tasks.tidy_outbox()
    row.refresh_from_db()
    assert (row.state, row.owner, row.lease_until) == (state, socket.owner, PAST)
