"""Pronunciations over REST: who may do what, what is refused, filters, repeated calls, the audit trail."""

import json
from functools import partial
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tts.conversations.lexicon import load_lexicon
from tts.models import LexiconEntry
from tts.text.spoken_form import Pronunciation
from voicecare.audit.models import AuditEntry
from voicecare.core import task_names
from voicecare.patients.models import Clinic

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(db: None) -> Clinician:
    return clinician("boss", in_role="Administrator", is_staff=True)


@pytest.fixture
def carol(alice: Member) -> Clinician:
    """A clinician in the care team of Alice, not of Bob."""
    return clinician("carol", alice.patient, in_role="Clinician")


def add(caller: Clinician, key: str = "", **fields: Any) -> Any:
    headers = {"Idempotency_Key": key} if key else {}
    return caller.call(
        "POST", "pronunciations/", {"written": "Metformin", "spoken": "met for min", **fields}, **headers
    )


def written(caller: Clinician, query: str = "") -> list[str]:
    return [row["written"] for row in caller.get(f"pronunciations/{query}")["results"]]


def said(text: str, member: Member) -> str:
    return Pronunciation("en", load_lexicon("en", member.patient)).plain(text)


def codes(response: Any) -> list[tuple[str, str]]:
    assert response.status_code == 400, response.content
    return [(error["field"], error["code"]) for error in response.json()["errors"]]


def test_an_entry_is_added_changed_and_deleted(boss: Clinician, alice: Member):
    response = add(boss, patient=str(alice.patient.pk), written=" Siobhan  Archer ", spoken="Shivawn Archer", note="A")
    body = response.json()
    assert response.status_code == 201
    expected = {"written": "Siobhan Archer", "spoken": "Shivawn Archer", "match_case": False, "language": ""}
    assert {name: body[name] for name in expected} == expected
    assert (body["patient"], body["clinic"], body["note"]) == (str(alice.patient.pk), None, "A")
    path = f"pronunciations/{body['id']}/"
    assert boss.get(path) == body
    assert said("Siobhan Archer", alice) == "Shivawn Archer"

    changed = boss.call("PATCH", path, {"spoken": "Shuvawn"}).json()
    assert {**changed, "changed_at": ""} == {**body, "spoken": "Shuvawn", "changed_at": ""}
    assert changed["changed_at"] > body["changed_at"]
    assert said("Siobhan Archer", alice) == "Shuvawn"

    assert boss.call("DELETE", path).status_code == 204
    assert boss.call("GET", path).status_code == 404
    assert said("Siobhan Archer", alice) == "Siobhan Archer"


def test_a_change_of_an_entry_of_everybody_is_heard_by_the_next_conversation(boss: Clinician, alice: Member):
    path = f"pronunciations/{add(boss).json()['id']}/"
    assert said("Metformin", alice) == "met for min"
    boss.call("PATCH", path, {"spoken": "met formin"})
    assert said("Metformin", alice) == "met formin"


def test_every_change_renews_the_audio_of_cached_phrases(
    boss: Clinician, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
):
    def tasks(method: str, path: str, body: dict[str, str]) -> list[str]:
        with django_capture_on_commit_callbacks() as callbacks:
            assert boss.call(method, path, body).status_code < 300
        return sorted(call.args[0][0] for call in callbacks if isinstance(call, partial))

    renewal = sorted([task_names.WARM_DUE, task_names.REMOVE_AUDIO])
    assert tasks("POST", "pronunciations/", {"written": "Metformin", "spoken": "met for min"}) == renewal
    path = f"pronunciations/{LexiconEntry.objects.get().pk}/"
    assert tasks("PATCH", path, {"spoken": "met formin"}) == renewal
    assert tasks("DELETE", path, {}) == renewal


def test_an_entry_may_contain_itself(boss: Clinician, alice: Member):
    assert add(boss, written="Ann", spoken="Ann Ann").status_code == 201
    assert said("Ann", alice) == "Ann Ann"


def test_a_written_form_is_no_regular_expression(boss: Clinician, alice: Member):
    assert add(boss, written="a.b", spoken="point").status_code == 201
    assert said("axb a.b", alice) == "axb point"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"written": "(a"}, ("written", "no_word")),
        ({"written": "a[b]"}, ("written", "markup")),
        ({"written": ""}, ("written", "blank")),
        ({"written": "a" * 61}, ("written", "max_length")),
        ({"spoken": "..."}, ("spoken", "no_sound")),
        ({"spoken": "[laughs] a"}, ("spoken", "markup")),
        ({"spoken": "a" * 101}, ("spoken", "max_length")),
        ({"spoken": None}, ("spoken", "null")),
        ({"note": "a" * 201}, ("note", "max_length")),
        ({"language": "xx"}, ("language", "unknown_language")),
        ({"language": "de-AT"}, ("language", "unknown_language")),
        ({"written": "METFORMIN"}, ("written", "unique")),
        ({"patient": "00000000-0000-4000-8000-000000000000"}, ("patient", "does_not_exist")),
        ({"clinic": "00000000-0000-4000-8000-000000000000"}, ("clinic", "does_not_exist")),
        ({"match_case": "perhaps"}, ("match_case", "invalid")),
    ],
)
def test_a_wrong_entry_is_refused(boss: Clinician, fields: dict[str, Any], expected: tuple[str, str]):
    LexiconEntry.objects.create(written="Metformin", spoken="x")
    fields = {"written": "Aspirin", **fields}
    assert codes(add(boss, **fields)) == [expected]
    assert LexiconEntry.objects.count() == 1


def test_an_entry_is_for_a_clinic_or_for_a_patient(boss: Clinician, alice: Member):
    north = Clinic.objects.create(name="North")
    both = {"clinic": str(north.pk), "patient": str(alice.patient.pk)}
    assert codes(add(boss, **both)) == [("patient", "clinic_or_patient")]
    path = f"pronunciations/{add(boss, clinic=str(north.pk)).json()['id']}/"
    assert codes(boss.call("PATCH", path, {"patient": str(alice.patient.pk)})) == [("patient", "clinic_or_patient")]
    moved = boss.call("PATCH", path, {"patient": str(alice.patient.pk), "clinic": None}).json()
    assert (moved["patient"], moved["clinic"]) == (str(alice.patient.pk), None)


def test_a_word_has_one_entry_in_each_scope_and_language(boss: Clinician, alice: Member, bob: Member):
    assert add(boss).status_code == 201
    assert add(boss, written="METFORMIN", match_case=True).status_code == 201
    assert add(boss, language="de").status_code == 201
    assert add(boss, patient=str(alice.patient.pk)).status_code == 201
    second = add(boss, patient=str(bob.patient.pk)).json()
    assert codes(add(boss, patient=str(bob.patient.pk))) == [("written", "unique")]
    path = f"pronunciations/{second['id']}/"
    assert codes(boss.call("PATCH", path, {"patient": str(alice.patient.pk)})) == [("written", "unique")]
    assert boss.call("PATCH", path, {"written": "Metformin", "note": "the same"}).status_code == 200


def test_a_clinician_writes_those_of_their_patients_only(carol: Clinician, alice: Member, bob: Member):
    refused = add(carol)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert codes(add(carol, patient=str(bob.patient.pk))) == [("patient", "does_not_exist")]
    created = add(carol, patient=str(alice.patient.pk))
    assert created.status_code == 201
    own = f"pronunciations/{created.json()['id']}/"
    assert carol.call("PATCH", own, {"spoken": "met formin"}).status_code == 200
    assert carol.call("PATCH", own, {"patient": None}).status_code == 403
    assert codes(carol.call("PATCH", own, {"patient": str(bob.patient.pk)})) == [("patient", "does_not_exist")]

    everybody = LexiconEntry.objects.create(written="Everyone", spoken="x")
    of_bob = LexiconEntry.objects.create(written="Of Bob", spoken="x", patient=bob.patient)
    assert written(carol) == ["Everyone", "Metformin"]
    for entry, status in ((everybody, 403), (of_bob, 404)):
        path = f"pronunciations/{entry.pk}/"
        assert carol.call("PATCH", path, {"patient": str(alice.patient.pk)}).status_code == status
        assert carol.call("DELETE", path).status_code == status
    assert carol.call("GET", f"pronunciations/{everybody.pk}/").status_code == 200
    assert carol.call("GET", f"pronunciations/{of_bob.pk}/").status_code == 404
    assert carol.call("DELETE", own).status_code == 204
    assert LexiconEntry.objects.count() == 2


def test_an_auditor_only_reads(alice: Member):
    entry = LexiconEntry.objects.create(written="Everyone", spoken="x")
    auditor = clinician("auditor", in_role="Auditor")
    path = f"pronunciations/{entry.pk}/"
    assert auditor.get(path)["written"] == "Everyone"
    assert add(auditor, patient=str(alice.patient.pk)).status_code == 403
    for method in ("PATCH", "DELETE"):
        assert auditor.call(method, path, {}).status_code == 403
    assert Client().get(f"/api/v1/{path}").status_code == 401


def test_filters(boss: Clinician, alice: Member, bob: Member):
    north = Clinic.objects.create(name="North")
    rows: list[dict[str, Any]] = [
        {"written": "Aspirin", "spoken": "as pirin", "note": "a medicine"},
        {"written": "Biontech", "clinic": north, "language": "de"},
        {"written": "Cillian", "spoken": "Killian", "patient": alice.patient},
        {"written": "Dun Laoghaire", "patient": bob.patient, "language": "en"},
    ]
    for row in rows:
        LexiconEntry.objects.create(**{"spoken": "x", **row})
    assert written(boss) == [row["written"] for row in rows]
    assert written(boss, "?scope=everybody") == ["Aspirin"]
    assert written(boss, "?scope=clinic") == ["Biontech"]
    assert written(boss, "?scope=patient") == ["Cillian", "Dun Laoghaire"]
    assert written(boss, f"?patient={alice.patient.pk}") == ["Cillian"]
    assert written(boss, f"?clinic={north.pk}") == ["Biontech"]
    assert written(boss, "?language=de") == ["Biontech"]
    assert written(boss, "?language=") == ["Aspirin", "Cillian"]
    assert written(boss, "?search=killian") == ["Cillian"]
    assert written(boss, "?search=laoghaire+dun") == ["Dun Laoghaire"]
    assert written(boss, "?search=medicine") == ["Aspirin"]
    assert boss.get("pronunciations/?page_size=3")["count"] == 4
    for query, code in (
        ("patients=x", "unknown_parameter"),
        ("scope=x", "invalid_choice"),
        ("patient=x", "invalid"),
        ("clinic=x", "invalid"),
    ):
        assert codes(boss.call("GET", f"pronunciations/?{query}")) == [(query.partition("=")[0], code)]


def test_a_repeated_call_adds_one_entry(boss: Clinician, carol: Clinician, alice: Member):
    first = add(boss, "once", patient=str(alice.patient.pk))
    again = add(boss, "once", patient=str(alice.patient.pk))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    other = add(boss, "once", spoken="other")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert LexiconEntry.objects.count() == 1
    assert AuditEntry.objects.count() == 1
    assert codes(add(carol, "of carol", written="(")) == [("written", "no_word")]  # a refused call leaves its key free
    assert add(carol, "of carol", written="Aspirin", patient=str(alice.patient.pk)).status_code == 201


def test_every_change_leaves_an_entry_in_the_audit_trail_without_a_word(boss: Clinician, alice: Member):
    key = add(boss, patient=str(alice.patient.pk), note="Her daughter").json()["id"]
    boss.call("PATCH", f"pronunciations/{key}/", {"spoken": "met formin", "match_case": True})
    boss.call("DELETE", f"pronunciations/{key}/")
    entries = list(AuditEntry.objects.order_by("pk"))
    assert [entry.action for entry in entries] == ["add", "change", "delete"]
    assert {(entry.object_type, entry.object_id, entry.patient_id) for entry in entries} == {
        ("tts.lexiconentry", str(key), alice.patient.pk)
    }
    assert entries[1].changes == {"spoken": None, "match_case": [False, True]}
    for word in ("etformin", "met for", "daughter"):
        assert word not in json.dumps([entry.changes for entry in entries])


def test_an_unknown_number_is_not_found(boss: Clinician):
    for number in (0, 1, 2**63, 10**40):
        for method in ("GET", "PATCH", "DELETE"):
            assert boss.call(method, f"pronunciations/{number}/", {}).status_code == 404


def test_entries_of_a_patient_who_is_to_be_erased_are_hidden(boss: Clinician, alice: Member):
    key = add(boss, patient=str(alice.patient.pk)).json()["id"]
    assert boss.call("DELETE", f"patients/{alice.patient.pk}/").status_code == 202
    assert written(boss) == []
    assert boss.call("DELETE", f"pronunciations/{key}/").status_code == 404
    assert codes(add(boss, patient=str(alice.patient.pk))) == [("patient", "does_not_exist")]
