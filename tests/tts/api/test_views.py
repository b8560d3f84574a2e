"""Queueing text over REST, and reading utterances and conversations."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tts.models import Conversation, Utterance
from tts.states import UtteranceState
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db
TEXT = "Lunch is ready."


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    """A clinician in Alice's care team. Bob belongs to another team."""
    return clinician("carol", alice.patient)


def speak(caller: Clinician, member: Member, body: object, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency_Key": key}
    return caller.call("POST", f"patients/{member.patient.pk}/speak/", body, **headers)


def conversation_of(member: Member, **fields: Any) -> Conversation:
    return Conversation.objects.create(
        patient=member.patient,
        device=member.device,
        voice=Voice.objects.default(),
        voice_source="default",
        format="mp3_44100_128",
        **fields,
    )


def utterance_of(member: Member, **fields: Any) -> Utterance:
    return Utterance.objects.create(**{"patient": member.patient, "origin": "server", "text": TEXT, **fields})


# Queueing a text


def test_a_text_waits_for_the_device(carol: Clinician, alice: Member):
    response = speak(carol, alice, {"text": TEXT})
    row = Utterance.objects.get()
    assert (response.status_code, response.json()) == (202, {"id": str(row.pk), "status": "waiting"})
    assert (row.origin, row.text, row.patient, row.author) == ("server", TEXT, alice.patient, carol.user)
    assert timedelta(seconds=890) < row.expires_at - timezone.now() <= timedelta(seconds=900)
    shown = carol.get(f"utterances/{row.pk}/")
    assert shown == {
        "id": str(row.pk),
        "patient": str(alice.patient.pk),
        "conversation": None,
        "status": "waiting",
        "code": "",
        "created_at": shown["created_at"],
        "expires_at": shown["expires_at"],
        "spoken_at": None,
        "heard_at": None,
        "played_ms": None,
    }
    Utterance.objects.update(played_ms=1500)
    assert carol.get(f"utterances/{row.pk}/")["played_ms"] == 1500


@pytest.mark.parametrize("seconds", [1, 604_800])
def test_a_text_expires_after_the_given_time(carol: Clinician, alice: Member, seconds: int):
    assert speak(carol, alice, {"text": TEXT, "expires_in_s": seconds}).status_code == 202
    left = (Utterance.objects.get().expires_at - timezone.now()).total_seconds()
    assert seconds - 5 < left <= seconds


@pytest.mark.parametrize("text", ["a", "ü" * 5000, "  two  spaces ", "zwei\nZeilen", "👵🏽", "١٢٣"])
def test_a_text_is_stored_unchanged(carol: Clinician, alice: Member, text: str):
    assert speak(carol, alice, {"text": text}).status_code == 202
    assert Utterance.objects.get().text == text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": "x" * 5001}, "text"),
        ({"text": None}, "text"),
        ({"text": ["x"]}, "text"),
        ({"text": True}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"text": "\ud83d"}, "text"),
        ({"text": TEXT, "expires_in_s": 0}, "expires_in_s"),
        ({"text": TEXT, "expires_in_s": -5}, "expires_in_s"),
        ({"text": TEXT, "expires_in_s": 604_801}, "expires_in_s"),
        *[({"text": TEXT, "expires_in_s": it}, "expires_in_s") for it in (31_536_000, 10**400, 1.5, "x", None, [1])],
    ],
)
def test_an_invalid_text_is_refused(carol: Clinician, alice: Member, body: dict[str, Any], field: str):
    response = speak(carol, alice, body, key="k")
    assert (response.status_code, next(iter(response.json()))) == (400, field)
    assert not Utterance.objects.exists()


@pytest.mark.parametrize("what", ["another team's", "archived", "erased", "nobody"])
def test_other_or_archived_patients_are_not_found(carol: Clinician, alice: Member, bob: Member, what: str):
    if what in ("archived", "erased"):
        Patient.objects.filter(pk=alice.patient.pk).update(**{f"{what}_at": timezone.now()})
    key = {"another team's": bob.patient.pk, "nobody": uuid.UUID(int=5)}.get(what, alice.patient.pk)
    response = carol.call("POST", f"patients/{key}/speak/", {"text": TEXT})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert not Utterance.objects.exists()


def test_administrators_may_speak_to_every_patient(alice: Member):
    assert speak(clinician("boss", in_role="Administrator", is_staff=True), alice, {"text": TEXT}).status_code == 202


# Idempotency


def test_a_retry_gets_the_same_answer_and_is_spoken_once(carol: Clinician, alice: Member):
    first = speak(carol, alice, {"text": TEXT}, key="order-1")
    Utterance.objects.update(state="heard")
    again = speak(carol, alice, {"text": TEXT, "expires_in_s": 900}, key="order-1")
    assert (again.status_code, again.json()) == (202, first.json())
    assert Utterance.objects.count() == 1
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("body", [{"text": "Dinner is ready."}, {"text": TEXT, "expires_in_s": 60}])
def test_a_key_with_another_body_is_a_conflict(carol: Clinician, alice: Member, body: dict[str, Any]):
    speak(carol, alice, {"text": TEXT}, key="order-1")
    response = speak(carol, alice, body, key="order-1")
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_conflict")
    assert Utterance.objects.count() == 1


def test_a_key_for_another_patient_is_a_conflict(alice: Member, bob: Member):
    carol = clinician("carol", alice.patient, bob.patient)
    speak(carol, alice, {"text": TEXT}, key="order-1")
    assert speak(carol, bob, {"text": TEXT}, key="order-1").status_code == 409


def test_each_user_has_separate_keys(carol: Clinician, alice: Member):
    dave = clinician("dave", alice.patient)
    answers = [speak(caller, alice, {"text": TEXT}, key="order-1") for caller in (carol, dave)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] != answers[1].json()["id"]


def test_without_a_key_every_call_is_a_new_text(carol: Clinician, alice: Member):
    assert len({speak(carol, alice, {"text": TEXT}).json()["id"] for _ in range(2)}) == 2


@pytest.mark.parametrize("key", ["", "   ", "x" * 256, "x" * 10_240, "ümlaut", "tab\there", "\x7f"])
def test_an_invalid_key_is_refused(carol: Clinician, alice: Member, key: str):
    response = speak(carol, alice, {"text": TEXT}, key=key)
    assert (response.status_code, response.json()["code"]) == (400, "bad_idempotency_key")
    assert not Utterance.objects.exists()


@pytest.mark.parametrize("key", ["x", "x" * 255, "a key with spaces", '"quoted"', str(uuid.UUID(int=7))])
def test_a_key_may_be_anything_printable(carol: Clinician, alice: Member, key: str):
    assert speak(carol, alice, {"text": TEXT}, key=key).status_code == 202
    assert Utterance.objects.get().idempotency_key == key


# Status


@pytest.mark.parametrize("state", list(UtteranceState))
def test_each_state_is_shown(carol: Clinician, alice: Member, state: str):
    row = utterance_of(alice, state=state, expires_at=timezone.now() + timedelta(minutes=1))
    assert carol.get(f"utterances/{row.pk}/")["status"] == state


@pytest.mark.parametrize(
    ("state", "shown"),
    [("waiting", "expired"), ("queued", "expired"), ("speaking", "speaking"), ("spoken", "spoken"), ("heard", "heard")],
)
def test_an_overdue_text_is_shown_as_expired_before_the_sweep(carol: Clinician, alice: Member, state: str, shown: str):
    row = utterance_of(alice, state=state, expires_at=timezone.now() - timedelta(seconds=1))
    answer = carol.get(f"utterances/{row.pk}/")
    assert (answer["status"], answer["code"]) == (shown, "expired" if shown == "expired" else "")


def test_the_reason_of_a_failure_is_shown(carol: Clinician, alice: Member):
    row = utterance_of(alice, state="failed", code="no_voice")
    assert carol.get(f"utterances/{row.pk}/")["code"] == "no_voice"


def test_speech_of_a_device_is_shown_without_its_text(carol: Clinician, alice: Member):
    row = utterance_of(
        alice, state="spoken", origin="device", client_speech_id="s1", conversation=conversation_of(alice)
    )
    answer = carol.call("GET", f"utterances/{row.pk}/")
    assert (answer.status_code, answer.json()["conversation"]) == (200, str(row.conversation_id))
    assert TEXT not in answer.content.decode()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_utterances_of_another_team_are_not_found(carol: Clinician, bob: Member, method: str):
    row = utterance_of(bob, state="spoken")
    assert carol.call(method, f"utterances/{row.pk}/").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_utterances_are_read_only(carol: Clinician, alice: Member, method: str):
    row = utterance_of(alice, state="spoken")
    assert carol.call(method, f"utterances/{row.pk}/", {"status": "heard"}).status_code == 405


# Conversations


def test_a_conversation_shows_its_characters(carol: Clinician, alice: Member):
    row = conversation_of(alice, tts_characters_used=42)
    shown = carol.get(f"conversations/{row.pk}/")
    voice = Voice.objects.default()
    assert shown == {
        "id": str(row.pk),
        "patient": str(alice.patient.pk),
        "device": str(alice.device.pk),
        "voice": {"id": str(voice.pk), "name": voice.name},
        "voice_source": "default",
        "format": "mp3_44100_128",
        "initiated": "device",
        "tts_characters_used": 42,
        "started_at": shown["started_at"],
        "ended_at": None,
    }
    assert carol.get("conversations/")["results"] == [shown]


def test_conversations_of_another_team_are_not_found(carol: Clinician, bob: Member):
    row = conversation_of(bob)
    assert carol.get("conversations/")["results"] == []
    paths = [f"conversations/{row.pk}/", f"conversations/{row.pk}/utterances/"]
    assert [carol.call("GET", path).status_code for path in paths] == [404, 404]


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("", [3, 2, 1]),
        ("from=2026-03-02", [3, 2]),
        ("to=2026-03-02", [2, 1]),
        ("from=2026-03-02&to=2026-03-02", [2]),
        ("from=2026-03-02T12:00:00Z", [3, 2]),
        ("from=2026-03-02T12:00:01Z", [3]),
        ("to=2026-03-02T12:00:00Z", [2, 1]),
        ("to=2026-03-02T11:59:59Z", [1]),
        ("from=2026-03-02T13:00:00%2B01:00", [3, 2]),
        ("from=2026-03-04", []),
    ],
)
def test_conversations_are_filtered_by_time(carol: Clinician, alice: Member, query: str, days: list[int]):
    for day in (1, 2, 3):
        conversation_of(alice, started_at=datetime(2026, 3, day, 12, tzinfo=UTC))
    found = carol.get(f"conversations/?{query}")["results"]
    assert [datetime.fromisoformat(row["started_at"]).day for row in found] == days


def test_conversations_are_filtered_by_patient(alice: Member, bob: Member):
    carol = clinician("carol", alice.patient, bob.patient)
    conversation_of(alice), conversation_of(bob)
    found = carol.get(f"conversations/?patient={bob.patient.pk}")["results"]
    assert [row["patient"] for row in found] == [str(bob.patient.pk)]
    assert carol.get(f"conversations/?patient={uuid.UUID(int=5)}")["results"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patient", "x"),
        ("patient", "%00"),
        ("from", "x"),
        ("to", "2026-13-01"),
        ("from", "2026-02-30T00:00:00Z"),
        ("to", "9999-12-31"),
        ("from", "0001-01-01T00:00:00%2B14:00"),
        ("to", ""),
        ("from", "%00"),
        ("from", "9" * 3000),
    ],
)
def test_an_invalid_filter_is_refused(carol: Clinician, name: str, value: str):
    response = carol.call("GET", f"conversations/?{name}={value}")
    assert (response.status_code, next(iter(response.json()))) == (400, name)


def test_utterances_of_a_conversation_have_their_websocket_ids(carol: Clinician, alice: Member):
    conversation = conversation_of(alice)
    fields = {"conversation": conversation, "state": "spoken"}
    utterance_of(alice, origin="greeting", client_speech_id="greeting", **fields)
    utterance_of(alice, origin="device", client_speech_id="s1", source="live", characters=15, **fields)
    server = utterance_of(alice, **fields)
    answer = carol.call("GET", f"conversations/{conversation.pk}/utterances/")
    rows = answer.json()["results"]
    assert [row["client_id"] for row in rows] == ["greeting", "s1", f"srv-{server.pk}"]
    assert (rows[1]["origin"], rows[1]["source"], rows[1]["characters"]) == ("device", "live", 15)
    assert TEXT not in answer.content.decode()


@pytest.mark.parametrize("path", ["conversations/", "conversations/{}/utterances/"])
def test_the_number_of_queries_does_not_grow_with_the_list(carol: Clinician, alice: Member, path: str):
    conversation = conversation_of(alice)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            carol.get(path.format(conversation.pk))
        return len(captured)

    utterance_of(alice, state="spoken", conversation=conversation)
    queries()  # the first request writes when the token was last used
    before = queries()
    for _ in range(10):
        utterance_of(alice, state="spoken", conversation=conversation_of(alice))
        utterance_of(alice, state="spoken", conversation=conversation)
    assert queries() == before <= 10  # two read the permissions, two the token
