"""The outbox: each row is claimed once, in order, by the right connection, until it is acknowledged or expires."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.crypto import salted_hmac
from structlog.testing import capture_logs

from tests.conftest import Member
from tests.tts.outbox.connections import (
    PAST,
    DeviceConnection,
    connect,
    console,
    expire,
    queue,
    second_device,
    state_of,
    submit,
)
from tts.models import Conversation, Utterance
from tts.outbox import leases, store
from tts.outbox.claim import Claim
from tts.states import UtteranceState
from voicecare.core.errors import IdempotencyConflict
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db

T = TypeVar("T")


@pytest.fixture
def author() -> User:
    return User.objects.create_user("clinician")


# Submitting


def test_a_submission_without_a_connected_device_is_logged_and_has_its_reason_in_the_row(alice: Member):
    with capture_logs() as logs:
        row = submit(alice.patient, "Your tea is ready.")
        connect(alice)
        assert submit(alice.patient).queue_reason == ""
    assert Utterance.objects.get(pk=row.pk).queue_reason == "no_device"
    ids = {"conversation_id": None, "utterance_id": str(row.pk)}
    assert logs == [{"event": "speech.queued", "log_level": "debug", **ids, "reason": "no_device", "ms": 0}]


def test_the_end_of_a_delivery_keeps_the_reason_of_an_earlier_wait(alice: Member):
    row = submit(alice.patient)
    socket = connect(alice)
    socket.finish(socket.claim())
    row.refresh_from_db()
    assert (row.state, row.queue_reason) == ("spoken", "no_device")


def test_the_digest_of_a_request_is_the_same_in_every_release(alice: Member, author: User):
    """A request that an earlier release has stored may be repeated to this one."""
    row = submit(alice.patient, "Your tea is ready.", expires_in_s=60, author=author, idempotency_key="k")
    request = f"{alice.patient.pk} 60 Your tea is ready."
    assert row.request_digest == salted_hmac("tts.outbox", request, algorithm="sha256").hexdigest()


def test_a_submission_waits_and_expires_by_the_databases_clock(alice: Member, author: User):
    row = submit(alice.patient, expires_in_s=60, author=author)
    row.refresh_from_db()
    assert (row.state, row.origin, row.attempts, row.owner, row.author) == ("waiting", "server", 0, "", author)
    assert 55 < (row.expires_at - timezone.now()).total_seconds() <= 60.1


def test_a_repeated_request_returns_the_first_row_in_any_state(alice: Member, author: User):
    first = submit(alice.patient, author=author, idempotency_key="k")
    Utterance.objects.update(state="heard")
    again = submit(alice.patient, author=author, idempotency_key="k")
    assert (again.pk, again.state, Utterance.objects.count()) == (first.pk, "heard", 1)


@pytest.mark.parametrize("change", [{"text": "Something else."}, {"expires_in_s": 901}])
def test_a_different_request_with_the_same_key_is_a_conflict(alice: Member, author: User, change: dict[str, object]):
    submit(alice.patient, author=author, idempotency_key="k")
    with pytest.raises(IdempotencyConflict) as conflict:
        submit(alice.patient, **{"author": author, "idempotency_key": "k", **change})
    assert conflict.value.code == "idempotency_conflict"
    assert Utterance.objects.count() == 1


def test_the_same_key_for_another_patient_is_a_conflict(alice: Member, bob: Member, author: User):
    submit(alice.patient, author=author, idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        submit(bob.patient, author=author, idempotency_key="k")


def test_keys_of_different_authors_do_not_conflict(alice: Member, author: User):
    other = User.objects.create_user("other")
    rows = [submit(alice.patient, author=user, idempotency_key="k") for user in (author, other)]
    assert rows[0].pk != rows[1].pk
    assert (
        submit(alice.patient, author=author).pk != submit(alice.patient, author=author).pk
    )  # without a key, every request is new


def test_an_invalid_key_is_rejected(alice: Member, author: User):
    submit(alice.patient, author=author, idempotency_key="k" * 255)
    for bad in ({"author": author, "idempotency_key": "k" * 256}, {"author": None, "idempotency_key": "k"}):
        with pytest.raises(ValueError, match="idempotency key"):
            submit(alice.patient, **bad)
    assert Utterance.objects.count() == 1


def test_an_integrity_error_without_a_key_is_not_a_conflict():
    def submit_to_nobody() -> None:
        with transaction.atomic():
            store.submit(uuid.uuid4(), "To nobody.", expires_in_s=60, author=None)
            connection.check_constraints()

    with pytest.raises(IntegrityError):
        submit_to_nobody()


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_with_the_same_key_create_one_row(alice: Member, author: User):
    def submitted(key: str) -> set[uuid.UUID]:
        return set(run_concurrently(*[lambda: submit(alice.patient, author=author, idempotency_key=key).pk] * 4))

    for attempt in range(5):
        assert len(submitted(str(attempt))) == 1
    assert Utterance.objects.count() == 5


def run_concurrently(*functions: Callable[[], T]) -> list[T]:
    """Run each function in its own thread with its own database connection."""
    barrier = threading.Barrier(len(functions))

    def run(work: Callable[[], T]) -> T:
        barrier.wait(10)
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


# Every state, every event

STATES = list(UtteranceState)
HELD = ("speaking", "spoken")  # states that a connection owns


def claim_of(row: Utterance) -> Claim:
    return Claim(
        row.pk,
        row.owner,
        row.attempts,
        row.patient_id,
        row.text,
        row.origin,
        row.client_speech_id,
        row.conversation_id,
        None,
        None,
        was_queued=False,
    )


def lapse(socket: DeviceConnection, row: Utterance) -> None:
    socket.lapse()
    leases.reap_expired()


def late(socket: DeviceConnection, row: Utterance) -> None:
    expire(row)
    leases.reap_expired()


EVENTS: dict[str, tuple[Callable[[DeviceConnection, Utterance], object], dict[str, str]]] = {
    "claim": (lambda socket, row: socket.claim(), {"waiting": "speaking", "queued": "speaking"}),
    "start": (lambda socket, row: store.confirm(claim_of(row)), {}),
    "spoken": (lambda socket, row: socket.finish(claim_of(row)), {"speaking": "spoken"}),
    "failed": (lambda socket, row: socket.finish(claim_of(row), state="failed"), {"speaking": "failed"}),
    "stopped": (lambda socket, row: socket.finish(claim_of(row), state="interrupted"), {"speaking": "interrupted"}),
    "put back": (lambda socket, row: store.requeue(claim_of(row), queued=False), {"speaking": "waiting"}),
    "no quota": (lambda socket, row: store.requeue(claim_of(row), queued=True), {"speaking": "queued"}),
    "ack": (
        lambda socket, row: store.acknowledge(row.pk, row.patient_id),
        dict.fromkeys(["waiting", "queued", "speaking", "spoken"], "heard"),
    ),
    "interrupt": (
        lambda socket, row: store.cancel(row.pk, row.patient_id),
        {"waiting": "interrupted", "queued": "interrupted"},
    ),
    "withdrawn": (
        lambda socket, row: store.withdraw(row.pk, row.patient_id),
        {"waiting": "interrupted", "queued": "interrupted"},
    ),
    "renew": (lambda socket, row: socket.renew(), {}),
    "disconnected": (lambda socket, row: socket.disconnect(), {"speaking": "waiting", "spoken": "waiting"}),
    "killed": (lapse, {"speaking": "waiting", "spoken": "waiting"}),
    "late": (late, {"waiting": "expired", "queued": "expired"}),
    "tidy": (lambda socket, row: leases.reap_expired(), {}),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_event_in_every_state(alice: Member, state: str, event: str):
    socket = connect(alice)
    row = submit(alice.patient)
    held = {"owner": socket.owner, "lease_until": timezone.now() + timezone.timedelta(seconds=10)}
    Utterance.objects.update(state=state, attempts=1, **(held if state in HELD else {}))
    row.refresh_from_db()
    act, becomes = EVENTS[event]
    act(socket, row)
    assert state_of(row) == becomes.get(state, state)


def test_finish_reports_whether_the_claim_was_still_valid(alice: Member):
    socket = connect(alice)
    row = submit(alice.patient)
    claim = socket.claim()
    assert (claim.id, claim.attempt, claim.speech_id, claim.original) == (row.pk, 1, f"srv-{row.pk}", None)
    assert 880 < claim.seconds_left <= 900
    assert store.confirm(claim)
    assert socket.finish(claim)
    assert not socket.finish(claim)
    assert not store.confirm(claim)
    assert not store.requeue(claim, queued=False)
    row.refresh_from_db()
    assert (row.source, row.characters, row.bytes_sent, row.first_chunk_ms) == ("live", 10, 1000, 12.5)
    assert row.spoken_at is not None


# Fencing


def test_a_connection_that_lost_its_lease_writes_nothing(alice: Member):
    slow = connect(alice)
    submit(alice.patient)
    lost = slow.claim()
    slow.lapse()
    quick = connect(alice)
    taken = quick.claim()
    assert (taken.id, taken.attempt) == (lost.id, 2)
    assert not store.confirm(lost)
    assert not slow.finish(lost, state="failed")
    assert not store.requeue(lost, queued=False)
    slow.disconnect()
    assert quick.finish(taken)
    assert Utterance.objects.get().attempts == 2


def test_an_earlier_attempt_of_the_same_connection_writes_nothing(alice: Member):
    """It requeued the row and claimed it again. The earlier attempt must change nothing."""
    socket = connect(alice)
    submit(alice.patient)
    former = socket.claim()
    assert store.requeue(former, queued=False)
    latter = socket.claim()
    assert not socket.finish(former)
    assert socket.finish(latter)


def test_an_expired_lease_without_a_new_claim_is_still_valid(alice: Member):
    socket = connect(alice)
    submit(alice.patient)
    claim = socket.claim()
    socket.lapse()
    assert socket.finish(claim)


def test_a_replaced_connection_claims_nothing(alice: Member):
    former, latter = connect(alice), connect(alice)
    submit(alice.patient)
    assert former.claim() is None
    assert latter.claim() is not None


# Acknowledgements


def test_a_delivery_that_was_acknowledged_before_its_first_frame_does_not_start(alice: Member):
    socket = connect(alice)
    row = submit(alice.patient)
    claim = socket.claim()
    assert store.acknowledge(row.pk, alice.patient.pk)
    assert not store.confirm(claim)
    assert socket.claim() is None


def test_an_ack_during_playback_survives_the_end_which_is_written_once(alice: Member):
    socket = connect(alice)
    row = submit(alice.patient)
    claim = socket.claim()
    assert store.acknowledge(row.pk, alice.patient.pk)
    assert socket.finish(claim)
    assert not socket.finish(claim)
    row.refresh_from_db()
    assert (row.state, row.characters, row.heard_at is not None) == ("heard", 10, True)


def test_an_end_that_is_written_twice_counts_once(alice: Member):
    socket = connect(alice)
    row = submit(alice.patient)
    claim = socket.claim()
    socket.finish(claim)
    store.acknowledge(row.pk, alice.patient.pk)
    assert not socket.finish(claim)
    assert Utterance.objects.get().characters == 10


def doubt(socket: DeviceConnection, row: Utterance) -> bool:
    return store.doubt_ack(row.pk, row.patient_id, socket.owner)


def test_a_delivery_that_was_acknowledged_too_early_is_repeated_once_on_the_same_connection(alice: Member):
    socket, row = connect(alice), submit(alice.patient)
    socket.finish(socket.claim())
    assert doubt(socket, row)
    assert state_of(row) == "waiting"
    assert doubt(socket, row)  # of the same delivery: nothing changes
    assert socket.due()
    again = socket.claim()
    assert again.attempt == 2
    socket.finish(again)
    assert not doubt(socket, row)
    assert state_of(row) == "spoken"
    row.refresh_from_db()
    assert row.doubted_attempt == 1


def test_a_doubtful_ack_during_the_delivery_repeats_it_after_its_end(alice: Member):
    socket, row = connect(alice), submit(alice.patient)
    claim = socket.claim()
    assert doubt(socket, row)
    assert state_of(row) == "speaking"
    assert socket.claim() is None
    socket.finish(claim)
    assert state_of(row) == "waiting"
    again = socket.claim()
    socket.finish(again)
    assert state_of(row) == "spoken"


def test_a_later_ack_of_a_doubted_delivery_counts(alice: Member):
    socket, row = connect(alice), submit(alice.patient)
    socket.finish(socket.claim())
    assert doubt(socket, row)
    assert store.acknowledge(row.pk, alice.patient.pk)
    assert state_of(row) == "heard"
    assert socket.claim() is None


def test_an_interrupt_ends_a_doubted_delivery(alice: Member):
    socket, row = connect(alice), submit(alice.patient)
    claim = socket.claim()
    assert doubt(socket, row)
    socket.finish(claim, state="interrupted")
    assert state_of(row) == "interrupted"


def test_an_ack_of_a_repeated_delivery_is_not_doubted(alice: Member):
    """The device may have played it to its end over an earlier connection, so it does not play it again."""
    first, row = connect(alice), submit(alice.patient)
    first.finish(first.claim())
    first.disconnect()
    second = connect(alice)
    second.finish(second.claim())
    assert not doubt(second, row)


@pytest.mark.parametrize("why", ["expired", "other connection", "heard", "interrupted", "live"])
def test_an_ack_that_cannot_be_doubted_changes_nothing(alice: Member, why: str):
    socket = connect(alice, talking=why == "live")
    row = queue(socket, alice.patient) if why == "live" else submit(alice.patient)
    claim = socket.claim()
    socket.finish(claim, **({"state": "interrupted"} if why == "interrupted" else {}))
    if why == "expired":
        expire(row)
    if why == "heard":
        store.acknowledge(row.pk, alice.patient.pk)
    state = state_of(row)
    assert not store.doubt_ack(row.pk, alice.patient.pk, "another" if why == "other connection" else socket.owner)
    row.refresh_from_db()
    assert (row.state, row.doubted_attempt) == (state, None)


def test_an_ack_over_an_earlier_connection_counts(alice: Member):
    """It was played, but the connection ended before the end was written."""
    socket = connect(alice)
    row = submit(alice.patient)
    socket.claim()
    socket.disconnect()
    assert store.acknowledge(row.pk, alice.patient.pk)
    assert connect(alice).claim() is None
    heard_at = Utterance.objects.get().heard_at
    assert store.acknowledge(row.pk, alice.patient.pk)  # twice
    assert Utterance.objects.get().heard_at == heard_at


def test_an_ack_of_an_unknown_delivery_is_rejected(alice: Member, bob: Member):
    socket = connect(alice, talking=True)
    never_given, own = submit(alice.patient), queue(socket, alice.patient, attempts=1)
    given = submit(alice.patient)
    Utterance.objects.filter(pk=given.pk).update(attempts=1)
    for settle in (store.acknowledge, store.cancel, store.is_delivery_of):
        assert not settle(uuid.uuid4(), alice.patient.pk)
        assert not settle(given.pk, bob.patient.pk)
        assert not settle(never_given.pk, alice.patient.pk)
        assert not settle(own.pk, alice.patient.pk)
    assert {state_of(row) for row in (never_given, own, given)} == {"waiting", "queued"}


def test_a_message_that_was_never_delivered_is_withdrawn_once(alice: Member, bob: Member):
    row = submit(alice.patient)
    assert not store.withdraw(row.pk, bob.patient.pk)
    assert not store.withdraw(uuid.uuid4(), alice.patient.pk)
    assert state_of(row) == "waiting"
    assert store.withdraw(row.pk, alice.patient.pk)
    assert state_of(row) == "interrupted"
    assert not store.withdraw(row.pk, alice.patient.pk)
    assert connect(alice).claim() is None


def test_an_expired_message_is_not_withdrawn(alice: Member):
    row = submit(alice.patient)
    expire(row)
    assert not store.withdraw(row.pk, alice.patient.pk)


def test_the_receiver_of_a_message_is_the_device_that_connected_last(alice: Member):
    assert store.receiver(alice.patient.pk) is None
    connect(alice)
    assert store.receiver(alice.patient.pk) == alice.device
    later = second_device(alice)
    connect(alice, later)
    assert store.receiver(alice.patient.pk) == later


def test_an_unacknowledged_delivery_is_repeated_and_each_time_counts(alice: Member):
    row = submit(alice.patient)
    for _ in range(3):
        socket = connect(alice, talking=True)
        assert socket.finish(socket.claim())
        assert socket.claim() is None  # once for each connection
        socket.disconnect()
    row.refresh_from_db()
    assert (row.state, row.attempts, row.characters) == ("waiting", 3, 30)
    assert row.conversation_id == socket.conversation


# Order


def test_rows_are_claimed_in_order_one_at_a_time(alice: Member, bob: Member):
    rows = [submit(alice.patient, f"Number {number}.") for number in range(4)]
    submit(bob.patient)
    socket = connect(alice)
    for row in rows:
        claim = socket.claim()
        assert claim.id == row.pk
        assert socket.claim() is None  # it plays
        assert not socket.due()
        socket.finish(claim)
    assert socket.claim() is None


def test_an_excluded_row_lets_the_next_one_be_claimed(alice: Member):
    first, second = submit(alice.patient), submit(alice.patient)
    assert connect(alice).claim(exclude=(first.pk,)).id == second.pk


def test_the_device_that_connected_last_gets_the_delivery(alice: Member):
    bedside, kitchen = connect(alice), connect(alice, second_device(alice))
    submit(alice.patient)
    assert store.devices_with_work([bedside.device, kitchen.device], quota_exhausted=False, hold_live=False) == {
        kitchen.device
    }
    assert bedside.claim() is None
    kitchen.lapse()  # it crashes without a notice
    assert bedside.due()
    bedside.finish(bedside.claim(), state="failed", spoken_at=None)
    submit(alice.patient)
    kitchen.renew()
    assert kitchen.due()
    Device.objects.filter(pk=kitchen.device).update(revoked_at=timezone.now())
    assert (kitchen.due(), kitchen.claim()) == (False, None)
    assert bedside.claim() is not None


@pytest.mark.parametrize("field", ["archived_at", "erased_at"])
def test_archived_and_erased_patients_and_revoked_devices_get_no_delivery(alice: Member, field: str):
    socket = connect(alice)
    row = submit(alice.patient)
    Patient.objects.filter(pk=alice.patient.pk).update(**{field: timezone.now()})
    assert (socket.due(), socket.claim()) == (False, None)
    leases.reap_expired()
    assert state_of(row) == "interrupted"


def test_expired_rows_are_not_claimed_even_before_they_are_reaped(alice: Member):
    socket = connect(alice)
    expire(submit(alice.patient))
    assert (socket.due(), socket.claim()) == (False, None)
    leases.reap_expired()
    assert Utterance.objects.get().code == "expired"


# The quota


@pytest.mark.parametrize(
    ("origin", "state", "quota_exhausted", "hold_live", "taken"),
    [
        ("server", "waiting", False, False, True),
        ("server", "waiting", True, True, True),  # it may be in the phrase cache
        ("server", "waiting", True, False, True),
        ("server", "queued", False, False, True),
        ("server", "queued", True, True, False),  # it was tried and needs the quota
        ("server", "queued", True, False, False),
        ("device", "queued", False, False, True),
        ("device", "queued", True, True, False),
        ("device", "queued", True, False, True),  # in the offline voice
    ],
)
def test_which_rows_are_claimed_while_the_quota_is_exhausted(
    alice: Member, origin: str, state: str, quota_exhausted: bool, hold_live: bool, taken: bool
):
    socket = connect(alice, talking=True)
    queue(socket, alice.patient, origin=origin, state=state)
    asked = {"quota_exhausted": quota_exhausted, "hold_live": hold_live}
    assert socket.due(**asked) is taken
    assert (socket.claim(**asked) is not None) is taken


def test_a_row_that_needs_the_quota_lets_known_phrases_pass(alice: Member):
    socket = connect(alice)
    first, second = submit(alice.patient), submit(alice.patient)
    assert store.requeue(socket.claim(quota_exhausted=True), queued=True)
    assert socket.claim(quota_exhausted=True).id == second.pk
    Utterance.objects.filter(pk=second.pk).update(state="spoken")
    assert socket.claim().id == first.pk


def test_live_speech_in_its_own_conversation_keeps_the_id_of_the_device(alice: Member):
    socket = connect(alice, talking=True)
    row = queue(socket, alice.patient)
    claim = socket.claim()
    assert (claim.speech_id, claim.original, claim.origin) == ("a1", None, "device")
    assert store.requeue(claim, queued=False)
    assert state_of(row) == "queued"  # `waiting` live speech would be in the memory of a connection
    assert socket.finish(socket.claim())
    socket.disconnect()
    assert state_of(row) == "spoken"  # it is not delivered again
    assert connect(alice).claim() is None


def test_live_speech_in_another_conversation_gets_a_server_id(alice: Member):
    asked_in = connect(alice, talking=True)
    row = queue(asked_in, alice.patient)
    for attempt in (1, 2):
        socket = connect(alice, talking=True)
        claim = socket.claim()
        assert (claim.attempt, claim.origin, claim.speech_id) == (attempt, "server", f"srv-{row.pk}")
        assert claim.original == {"conversation": str(asked_in.conversation), "id": "a1"}
        socket.finish(claim)
        socket.disconnect()
    row.refresh_from_db()
    assert (row.conversation_id, row.client_speech_id) == (asked_in.conversation, "a1")
    assert store.acknowledge(row.pk, alice.patient.pk)


def test_live_speech_also_goes_to_the_device_that_resumed_its_conversation(alice: Member):
    bedside = connect(alice, talking=True)
    connect(alice, second_device(alice))
    row = queue(bedside, alice.patient)
    submit(alice.patient)  # this one goes to the other device
    assert bedside.due()
    assert bedside.claim().id == row.pk
    Conversation.objects.update(ended_at=timezone.now())
    assert not bedside.due()


def test_live_speech_in_the_memory_of_a_connection_is_not_claimed(alice: Member):
    bedside = connect(alice, talking=True)
    row = queue(bedside, alice.patient, owner=bedside.owner, lease_until=timezone.now() + timezone.timedelta(seconds=9))
    kitchen = connect(alice, second_device(alice))
    assert (kitchen.due(), kitchen.claim(), bedside.claim()) == (False, None, None)
    expire(row)
    leases.reap_expired()
    assert state_of(row) == "queued"  # its connection will end it
    bedside.disconnect()
    leases.reap_expired()
    assert state_of(row) == "expired"


# Races


@pytest.mark.django_db(transaction=True)
def test_two_hundred_rows_are_claimed_once_each_in_order(member: Callable[..., Member]):
    everybody = [member(f"Patient {number}") for number in range(10)]
    for number in range(20):
        for one in everybody:
            submit(one.patient, f"Number {number}.")
    sockets = [connect(one) for one in everybody]
    said: list[tuple[uuid.UUID, str]] = []

    def drain() -> None:
        while store.devices_with_work([socket.device for socket in sockets], quota_exhausted=False, hold_live=False):
            for socket in sockets:
                socket.renew()  # otherwise the leases expire, and played rows are delivered again
                claim = socket.claim()
                if claim is not None:
                    said.append((claim.patient_id, claim.text))
                    assert socket.finish(claim)

    run_concurrently(drain, drain)
    assert len(said) == 200
    assert set(Utterance.objects.values_list("state", "attempts")) == {("spoken", 1)}
    for one in everybody:
        assert [text for patient, text in said if patient == one.patient.pk] == [f"Number {n}." for n in range(20)]


@pytest.mark.django_db(transaction=True)
def test_two_rows_of_one_patient_never_play_at_the_same_time(alice: Member):
    """Without a lock, each claim could see no other delivery and take another row."""
    socket = connect(alice)
    for _ in range(20):
        Utterance.objects.all().delete()
        one, other = submit(alice.patient), submit(alice.patient)
        claims = run_concurrently(*(partial(socket.claim, exclude=(row.pk,)) for row in (one, other)))
        assert sum(claim is not None for claim in claims) == 1


@pytest.mark.django_db(transaction=True)
def test_a_row_with_an_ack_and_a_claim_at_the_same_time_ends_as_heard(alice: Member):
    socket = connect(alice)
    for _ in range(20):
        Utterance.objects.all().delete()
        row = submit(alice.patient)
        Utterance.objects.update(attempts=1)
        claim, acknowledged = run_concurrently(socket.claim, partial(store.acknowledge, row.pk, row.patient_id))
        assert acknowledged
        assert state_of(row) == "heard"
        assert claim is None or not store.confirm(claim)


# Cost


def statements(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        work()
    bookkeeping = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    return sum(not query["sql"].startswith(bookkeeping) for query in captured)


def test_many_devices_need_few_statements(member: Callable[..., Member]):
    sockets = [connect(member(f"Patient {number}")) for number in range(10)]
    for patient in Patient.objects.all():
        submit(patient)
    devices = [socket.device for socket in sockets]
    assert statements(lambda: store.devices_with_work(devices, quota_exhausted=True, hold_live=True)) == 1
    assert statements(lambda: store.patients_with_work(quota_exhausted=True, hold_live=True)) == 1
    assert statements(lambda: leases.renew({socket.owner: socket.device for socket in sockets})) == 2
    assert statements(sockets[0].claim) == 3
    assert (
        statements(lambda: store.devices_with_work([], quota_exhausted=False, hold_live=False) or leases.renew({})) == 0
    )


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="EXPLAIN of PostgreSQL (DATABASE_URL)")
def test_the_index_is_used(member: Callable[..., Member]):
    everybody = [member(f"Patient {number}") for number in range(20)]
    sockets = [connect(one) for one in everybody]
    Utterance.objects.bulk_create(
        Utterance(patient=everybody[number % 20].patient, origin="server", text="Said.", state="heard", expires_at=PAST)
        for number in range(20_000)
    )
    for one in everybody[:10]:
        submit(one.patient)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    devices = [socket.device for socket in sockets]
    functions: dict[str, Callable[[], object]] = {
        "waiting": lambda: store.patients_with_work(quota_exhausted=False, hold_live=False),
        "due": lambda: store.devices_with_work(devices, quota_exhausted=False, hold_live=False),
        "claim": sockets[0].claim,
        "renew": lambda: leases.renew({socket.owner: socket.device for socket in sockets}),
        "take_over": lambda: connect(everybody[1]),
        "disconnect": sockets[2].disconnect,
        "tidy": leases.reap_expired,
    }
    for name, function in functions.items():
        with CaptureQueriesContext(connection) as captured:
            function()
        about = [query["sql"] for query in captured if "tts_utterance" in query["sql"]]
        plans = [plan for sql in about if (plan := explained(sql))]
        assert plans, name
        for plan in plans:
            assert "utterance_outbox" in plan or "tts_utterance_pkey" in plan, f"{name}\n{plan}"
            assert "Seq Scan on tts_utterance" not in plan, f"{name}\n{plan}"


def explained(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(line for (line,) in cursor.fetchall())


def test_a_played_row_is_not_repeated_on_the_same_connection(alice: Member):
    here = connect(alice, talking=True)
    row = submit(alice.patient)
    here.finish(here.claim())
    here.lapse()  # the process was suspended, so that the row seems to be free
    assert here.claim() is None
    assert connect(alice).claim().id == row.pk


# The device console


@pytest.mark.parametrize("order", ["device first", "console first"])
def test_a_console_takes_no_message_away_from_the_patient(order: str, alice: Member):
    if order == "device first":
        bedside, page = connect(alice), connect(alice, console(alice), talking=True)
    else:
        page, bedside = connect(alice, console(alice), talking=True), connect(alice)
    row = submit(alice.patient)
    assert (page.due(), bedside.due()) == (False, True)
    assert page.claim() is None
    claim = bedside.claim()
    assert claim is not None
    assert claim.id == row.pk


def test_a_message_waits_while_only_a_console_is_connected(alice: Member):
    page = connect(alice, console(alice), talking=True)
    assert submit(alice.patient).queue_reason == "no_device"
    assert (page.due(), page.claim()) == (False, None)


def test_a_console_that_takes_messages_is_a_device_like_any_other(alice: Member):
    connect(alice)
    page = connect(alice, console(alice, takes_messages=True))
    row = submit(alice.patient)
    assert page.due()
    claim = page.claim()
    assert claim is not None
    assert claim.id == row.pk


def test_what_waits_in_a_console_is_spoken_there_and_on_no_other_device(alice: Member):
    page = connect(alice, console(alice), talking=True)
    row = queue(page, alice.patient)
    bedside = connect(alice)
    other_page = connect(alice, console(alice, takes_messages=True), talking=True)
    for socket in (bedside, other_page):
        assert (socket.due(), socket.claim()) == (False, None)
    assert page.due()
    claim = page.claim()
    assert claim is not None
    assert (claim.id, claim.origin) == (row.pk, "device")


def test_what_waited_in_a_console_is_not_spoken_after_it_was_left(alice: Member):
    page = connect(alice, console(alice), talking=True)
    queue(page, alice.patient)
    page.disconnect()
    Device.objects.filter(pk=page.device).update(revoked_at=timezone.now())
    bedside = connect(alice)
    assert (bedside.due(), bedside.claim()) == (False, None)
