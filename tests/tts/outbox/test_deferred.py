"""Live speech that waits for the quota has one owner: the connection whose number of takeovers the row has."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from tests.conftest import Member
from tests.locks import is_blocking
from tests.tts.outbox.connections import PAST, DeviceConnection, connect, expire, queue, second_device, state_of
from tests.waiting import until
from tts.conversations import lifecycle
from tts.models import Utterance
from tts.outbox import deferred, leases
from tts.outbox.deferred import Fate
from tts.outbox.leases import LEASE

pytestmark = pytest.mark.django_db


def defer(socket: DeviceConnection, member: Member, client_id: str = "a1", **fields: object) -> Utterance:
    """Create a speech that this connection has in memory."""
    return queue(socket, member.patient, client_id, **{"owner": socket.owner, "lease_until": LEASE, **fields})


def take(socket: DeviceConnection, row: Utterance, attempts: int = 0) -> Fate:
    return deferred.take(row.pk, socket.device, socket.owner, attempts)


def test_the_owner_takes_its_speech(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    assert take(here, row) is Fate.OWNED
    assert state_of(row) == "speaking"
    assert here.claim() is None


def test_a_greeting_can_be_deferred_too(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice, "greeting", origin="greeting")
    here.renew()
    here.lapse()
    leases.reap_expired()
    assert take(here, row) is Fate.OWNED


def test_a_take_whose_answer_was_lost_can_be_repeated(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    assert [take(here, row) for _ in range(2)] == [Fate.OWNED] * 2


@pytest.mark.parametrize("reaped", [False, True])
def test_an_expired_lease_is_no_loss_without_another_owner(alice: Member, reaped: bool):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    here.lapse()
    if reaped:
        leases.reap_expired()
    assert take(here, row) is Fate.OWNED


def test_speech_that_another_conversation_has_claimed_ends_here(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    here.lapse()
    there = connect(alice, second_device(alice), talking=True)
    assert there.claim().id == row.pk
    assert take(here, row) is Fate.ENDED
    assert state_of(row) == "speaking"


@pytest.mark.parametrize("seen_before_the_end", [True, False])
def test_speech_of_a_resumed_conversation_moves_even_before_its_lease_expires(alice: Member, seen_before_the_end: bool):
    here, there = connect(alice, talking=True), connect(alice, second_device(alice))
    row = defer(here, alice)
    assert [taken.pk for taken in deferred.reclaim(here.conversation, there.owner)] == [row.pk]
    if not seen_before_the_end:
        assert take(there, row, attempts=1) is Fate.OWNED
        Utterance.objects.update(state="spoken")
    assert take(here, row) is Fate.MOVED


def test_a_replaced_connection_takes_nothing(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    connect(alice)
    assert take(here, row) is Fate.MOVED
    assert state_of(row) == "queued"


@pytest.mark.parametrize("reaped", [False, True])
def test_speech_that_expired_while_the_process_was_suspended_is_not_spoken(alice: Member, reaped: bool):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    expire(row)
    here.lapse()
    if reaped:
        leases.reap_expired()
    assert take(here, row) is Fate.EXPIRED
    assert state_of(row) == "expired"


def test_a_row_that_does_not_exist_has_no_other_owner(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    Utterance.objects.all().delete()
    assert take(here, row) is Fate.OWNED


def test_released_speech_waits_again(alice: Member):
    here = connect(alice, talking=True)
    row = defer(here, alice)
    take(here, row)
    here.disconnect()
    deferred.release(row.pk, 0)
    assert (state_of(row), Utterance.objects.get().owner) == ("queued", "")
    assert connect(alice).claim().id == row.pk


def test_reclaiming_takes_the_speech_of_this_conversation_in_order(alice: Member):
    here, other = connect(alice, talking=True), connect(alice, talking=True)
    rows = [defer(here, alice, name) for name in ("a1", "a2")]
    expire(defer(here, alice, "late"))
    defer(other, alice)
    there = connect(alice, second_device(alice))
    assert [row.pk for row in deferred.reclaim(here.conversation, there.owner)] == [row.pk for row in rows]
    assert set(Utterance.objects.filter(owner=there.owner).values_list("attempts", flat=True)) == {1}


def test_reclaiming_twice_changes_nothing(alice: Member):
    here = connect(alice, talking=True)
    defer(here, alice, owner="", lease_until=None)
    for _ in range(2):
        (row,) = deferred.reclaim(here.conversation, here.owner)
        assert row.attempts == 1


def test_ending_reports_who_must_tell_the_device(alice: Member):
    here = connect(alice, talking=True)
    names = ["own", "unleased", "moved", "claimed", "expired", "interrupted"]
    rows = {name: defer(here, alice, name) for name in names}

    def change(name: str, **fields: object) -> None:
        Utterance.objects.filter(pk=rows[name].pk).update(**fields)

    change("unleased", owner="", lease_until=PAST)
    change("moved", attempts=F("attempts") + 1)
    change("claimed", attempts=F("attempts") + 1, origin="server", state="speaking")
    change("expired", state="expired")
    change("interrupted", state="interrupted")
    fates = deferred.end_all({row.pk: 0 for row in rows.values()})
    assert {name: fates[row.pk].value for name, row in rows.items()} == {
        "own": "ended",
        "unleased": "ended",
        "moved": "moved",
        "claimed": "ended",
        "expired": "expired",
        "interrupted": "ended",
    }
    assert {name: state_of(row) for name, row in rows.items()} == {
        "own": "interrupted",
        "unleased": "interrupted",
        "moved": "queued",
        "claimed": "speaking",
        "expired": "expired",
        "interrupted": "interrupted",
    }


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no row locks")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "lock",
    [
        lambda here, keys: deferred.end_all(dict.fromkeys(keys, 0)),
        lambda here, keys: deferred.overtaken(dict.fromkeys(keys, (0, False))),
        lambda here, keys: deferred.reclaim(here.conversation, leases.owner_name(here.device, 9)),
        lambda here, keys: leases.take_over(here.device, leases.owner_name(here.device, 9)),
        lambda here, keys: here.renew(),
        lambda here, keys: here.disconnect(),
        lambda here, keys: lifecycle.end(here.conversation),
    ],
    ids=["end_all", "overtaken", "reclaim", "take_over", "renew", "release_all", "end"],
)
@pytest.mark.parametrize("step", [1, -1], ids=["by age", "by reverse age"])
def test_rows_are_locked_in_the_order_of_their_ids(
    alice: Member, step: int, lock: Callable[[DeviceConnection, list[uuid.UUID]], object]
):
    """The first row is locked, so the other transaction must wait for it before it locks the last one."""
    here = connect(alice, talking=True)
    now = timezone.now()
    keys = [
        defer(here, alice, f"a{key}", pk=uuid.UUID(int=key), received_at=now + timedelta(seconds=step * key)).pk
        for key in (3, 2, 1)  # the last id is the first in the table
    ]

    def lock_elsewhere() -> None:
        try:
            with transaction.atomic():
                lock(here, keys)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            Utterance.objects.select_for_update().get(pk=keys[-1])
            waiting = other.submit(lock_elsewhere)
            until(is_blocking)
            Utterance.objects.select_for_update(nowait=True).get(pk=keys[0])
        waiting.result()
