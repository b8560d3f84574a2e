"""Which changes of state emit which events, for which endpoints."""

import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from tests.conftest import Member
from tests.tts import test_recorder as recording
from tests.tts.outbox.connections import PAST, connect, expire, queue, submit
from tts.conversations import retention
from tts.models import Utterance
from tts.outbox import deferred, leases, store
from tts.states import UtteranceState
from usage.alerts import lost_voices
from voicecare.patients.models import Clinic, Patient, Voice
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType, WebhookDelivery, WebhookEndpoint, WebhookEvent

pytestmark = pytest.mark.django_db(transaction=True)

HEARD, EXPIRED, FAILED = "utterance.heard", "utterance.expired", "utterance.failed"


def endpoint(**columns: Any) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(**{"url": "https://records.example.org/", **columns})


def emitted() -> list[tuple[str, uuid.UUID]]:
    return list(WebhookEvent.objects.order_by("occurred_at").values_list("type", "object_id"))


def emit(member: Member, event_type: EventType = EventType.DEVICE_OFFLINE) -> None:
    key = member.device.pk
    events.emit(event_type, [Subject(key, member.patient.pk, {"id": key})])


# Utterances


def test_a_delivery_that_is_acknowledged_is_heard_once(alice: Member):
    endpoint()
    row, socket = submit(alice.patient), connect(alice)
    claim = socket.claim()
    socket.finish(claim)
    assert emitted() == []
    for _ in range(3):
        assert store.acknowledge(row.pk, alice.patient.pk)
    assert emitted() == [(HEARD, row.pk)]
    row.refresh_from_db()
    data = WebhookEvent.objects.get().data
    assert set(data) == {
        *("id", "patient", "external_id", "conversation", "origin", "status", "code"),
        *("created_at", "expires_at", "spoken_at", "heard_at"),
    }
    assert (data["id"], data["status"], data["origin"]) == (str(row.pk), "heard", "server")
    assert data["heard_at"][:19] == row.heard_at.isoformat()[:19]
    assert "tea" not in str(data)


def test_a_delivery_that_fails_after_its_acknowledgement_is_heard(alice: Member):
    endpoint()
    row, socket = submit(alice.patient), connect(alice)
    claim = socket.claim()
    store.acknowledge(row.pk, alice.patient.pk)
    socket.finish(claim, state="failed", code="no_voice")
    assert emitted() == [(HEARD, row.pk)]


def test_a_delivery_that_fails_says_why(alice: Member):
    endpoint()
    row, socket = submit(alice.patient), connect(alice)
    socket.finish(socket.claim(), state="failed", code="no_voice")
    assert emitted() == [(FAILED, row.pk)]
    assert WebhookEvent.objects.get().data["code"] == "no_voice"


def test_a_row_that_expires_in_the_queue(alice: Member):
    endpoint()
    row, waiting = submit(alice.patient), submit(alice.patient)
    expire(row)
    leases.reap_expired()
    leases.reap_expired()
    assert emitted() == [(EXPIRED, row.pk)]
    assert Utterance.objects.get(pk=waiting.pk).state == "waiting"


def test_deferred_speech_that_has_expired_when_it_is_taken(alice: Member):
    endpoint()
    socket = connect(alice, talking=True)
    row = queue(socket, alice.patient, owner=socket.owner, expires_at=PAST)
    assert deferred.take(row.pk, socket.device, socket.owner, 0) == deferred.Fate.EXPIRED
    assert emitted() == [(EXPIRED, row.pk)]


def test_speech_of_a_device_that_fails_or_expires_is_recorded_with_its_event(alice: Member):
    endpoint()
    conversation = recording.new_conversation(alice)
    speeches = [recording.speech(conversation, f"s{number}") for number in range(3)]
    recording.record(*speeches)
    assert emitted() == []
    ends = (UtteranceState.FAILED, UtteranceState.EXPIRED, UtteranceState.INTERRUPTED)
    for speech, state in zip(speeches, ends, strict=True):
        speech.progress.state = state
    recording.record(*speeches)
    recording.record(*speeches)
    assert Counter(emitted()) == {(FAILED, speeches[0].utterance_id): 1, (EXPIRED, speeches[1].utterance_id): 1}


def test_a_thousand_utterances_have_exactly_their_events(alice: Member, bob: Member):
    everybody, of_bob = endpoint(), endpoint(clinic=Clinic.objects.create(name="Ward 3"))
    Patient.objects.filter(pk=bob.patient.pk).update(clinic=of_bob.clinic)
    ends = ("heard", "expired", "failed", "interrupted", "waiting")
    rows = [
        Utterance(
            patient=(alice, bob)[number % 2].patient,
            text="Your tea is ready.",
            origin="server",
            state="spoken" if ends[number % 5] == "heard" else "waiting",
            attempts=1,
            expires_at=PAST if ends[number % 5] == "expired" else None,
        )
        for number in range(1000)
    ]
    Utterance.objects.bulk_create(rows)
    by_end = {end: [row for number, row in enumerate(rows) if ends[number % 5] == end] for end in ends}
    for row in by_end["heard"]:
        store.acknowledge(row.pk, row.patient_id)
        store.acknowledge(row.pk, row.patient_id)
    for row in by_end["failed"]:
        Utterance.objects.filter(pk=row.pk).update(owner="o", state="speaking")
        claim = store.Claim(row.pk, "o", 1, row.patient_id, row.text, "server", "", None, None, None, False)
        fields = {"source": "", "queue_reason": "", "characters": 0, "bytes_sent": 0, "first_chunk_ms": None}
        for _ in range(2):
            store.finish(claim, state="failed", code="x", spoken_at=None, conversation_id=None, **fields)
    for row in by_end["interrupted"]:
        store.cancel(row.pk, row.patient_id)
    leases.reap_expired()
    leases.reap_expired()
    wanted = {(f"utterance.{end}", row.pk) for end in ("heard", "expired", "failed") for row in by_end[end]}
    assert Counter(emitted()) == dict.fromkeys(wanted, 1)
    assert everybody.deliveries.count() == len(wanted) == 600
    assert of_bob.deliveries.count() == 300
    assert set(of_bob.deliveries.values_list("event__patient", flat=True)) == {bob.patient.pk}


# Voices


def test_a_lost_voice_is_an_event_each_time(alice: Member):
    endpoint()
    voice = Voice.objects.get(pk=alice.patient.voice_id)
    lost_voices.mark_gone([voice], "It is gone.")
    lost_voices.mark_gone([voice], "It is gone.")
    assert emitted() == [("voice.gone", voice.pk)]
    data = {"id": str(voice.pk), "source": "stock", "state": "gone", "patient": None, "external_id": None}
    assert WebhookEvent.objects.get().data == data
    lost_voices.restore(voice)
    lost_voices.mark_gone([voice], "It is gone.")
    assert emitted() == [("voice.gone", voice.pk)] * 2


# Who gets an event


def test_only_endpoints_that_want_the_event_get_it(alice: Member):
    all_types, some, other = endpoint(), endpoint(events=["device.offline"]), endpoint(events=[HEARD])
    disabled = endpoint(enabled=False)
    emit(alice)
    counts = [row.deliveries.count() for row in (all_types, some, other, disabled)]
    assert counts == [1, 1, 0, 0]


def test_an_endpoint_of_a_clinic_gets_events_about_its_patients_only(alice: Member, bob: Member):
    ward, other = Clinic.objects.create(name="Ward 3"), Clinic.objects.create(name="Ward 4")
    of_ward, of_other = endpoint(clinic=ward), endpoint(clinic=other)
    Patient.objects.filter(pk=alice.patient.pk).update(clinic=ward)
    emit(alice)
    emit(bob)  # without a clinic
    assert [of_ward.deliveries.count(), of_other.deliveries.count()] == [1, 0]
    assert WebhookEvent.objects.count() == 1


def test_without_an_endpoint_nothing_is_written_and_one_query_is_made(
    alice: Member, django_assert_num_queries: DjangoAssertNumQueries
):
    def subjects() -> Any:
        raise AssertionError
        yield

    with django_assert_num_queries(1):
        events.emit(EventType.UTTERANCE_HEARD, subjects())


def test_an_event_is_written_only_if_the_change_is(alice: Member):
    endpoint()
    with transaction.atomic():
        emit(alice)
        transaction.set_rollback(True)
    assert emitted() == []


# Erasure and retention


def test_there_are_no_events_about_a_patient_who_is_to_be_erased(alice: Member):
    endpoint()
    Patient.objects.update(erases_at=timezone.now() + timedelta(days=1))
    emit(alice)
    assert emitted() == []


def test_an_erasure_deletes_the_events_about_the_patient(alice: Member, bob: Member):
    endpoint()
    emit(alice)
    emit(bob)
    Patient.objects.filter(pk=alice.patient.pk).update(erases_at=PAST, erased_at=timezone.now())
    retention.erase_patients()
    assert emitted() == [("device.offline", bob.device.pk)]
    assert WebhookDelivery.objects.count() == 1


def test_old_events_are_deleted(alice: Member, bob: Member, settings: Settings):
    settings.WEBHOOK_RETENTION_DAYS = 30
    endpoint()
    emit(alice)
    WebhookEvent.objects.update(occurred_at=timezone.now() - timedelta(days=31))
    emit(bob)
    assert events.prune() == 1
    assert emitted() == [("device.offline", bob.device.pk)]
