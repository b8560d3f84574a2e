"""Patients, devices and voices over REST: visibility, validation, and the effect of changes on the rows."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from pytest_django import Settings

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from tests.roles import give_permissions
from voicecare.patients.authentication import authenticate_device
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db
UNKNOWN_ID = uuid.UUID(int=5)


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    """A clinician in the care team of Alice. Bob belongs to another team."""
    return clinician("carol", alice.patient)


@pytest.fixture
def boss(alice: Member, bob: Member) -> Clinician:
    return clinician("boss", in_role="Administrator", is_staff=True)


def names(page: dict[str, Any]) -> list[str]:
    return [row["name"] for row in page["results"]]


def clone_of(member: Member, **fields: Any) -> Voice:
    return Voice.objects.create(
        name="Daughter", provider_id=f"clone-{uuid.uuid4()}", source="cloned", patient=member.patient, **fields
    )


# Visibility


def test_clinicians_see_their_own_patients_and_administrators_see_all(carol: Clinician, boss: Clinician):
    assert names(carol.get("patients/")) == ["Alice Archer"]
    assert names(boss.get("patients/")) == ["Alice Archer", "Bob Baker"]


def test_a_patient_with_a_large_team_is_listed_once(carol: Clinician, alice: Member):
    clinician("dave", alice.patient)
    assert names(carol.get("patients/")) == ["Alice Archer"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "patients/{patient}/"),
        ("PATCH", "patients/{patient}/"),
        ("GET", "patients/{patient}/devices/"),
        ("POST", "patients/{patient}/devices/"),
        ("DELETE", "devices/{device}/"),
        ("POST", "devices/{device}/rotate/"),
    ],
)
def test_the_patients_and_devices_of_another_team_are_not_found(carol: Clinician, bob: Member, method: str, path: str):
    def answer(patient: uuid.UUID, device: uuid.UUID) -> tuple[int, dict[str, str]]:
        response = carol.call(method, path.format(patient=patient, device=device), {"name": "Mine now"})
        return response.status_code, response.json()

    before = [Patient.objects.filter(pk=bob.patient.pk).values().get(), list(bob.patient.devices.values())]
    theirs = answer(bob.patient.pk, bob.device.pk)
    assert theirs == answer(UNKNOWN_ID, UNKNOWN_ID)
    assert (theirs[0], theirs[1]["code"]) == (404, "not_found")
    assert [Patient.objects.filter(pk=bob.patient.pk).values().get(), list(bob.patient.devices.values())] == before


@pytest.mark.parametrize("path", ["patients/", "voices/", "patients/{}/devices/"])
def test_the_number_of_queries_does_not_grow_with_the_list(boss: Clinician, alice: Member, path: str):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            boss.get(path.format(alice.patient.pk))
        return len(captured)

    queries()  # the first request writes when the token was last used
    before = queries()
    for i in range(10):
        Patient.objects.create(name=f"P{i}", companion_name="C", voice=clone_of(alice))
        Device.objects.issue(alice.patient, f"D{i}")
    assert queries() == before <= 9  # two read the permissions, two the token


# Patients


def test_a_patient_is_created_read_and_changed(carol: Clinician, alice: Member):
    created = carol.call("POST", "patients/", {"name": "Zoe Zimmer", "companion_name": "Clara", "speech_rate": 0.85})
    assert created.status_code == 201
    patient = created.json()
    assert patient == {
        "id": patient["id"],
        "name": "Zoe Zimmer",
        "preferred_name": "",
        "external_id": None,
        "companion_name": "Clara",
        "language": "en",
        "voice": None,
        "backup_voice": None,
        "backup_policy": "switch",
        "speech_rate": 0.85,
        "monthly_character_budget": None,
        "clinic": None,
        "archived": False,
        "created_at": patient["created_at"],
    }
    assert patient["created_at"].endswith("Z")
    change = {
        "preferred_name": "Zo",
        "external_id": "MRN 7",
        "language": "de-AT",
        "voice": str(alice.patient.voice_id),
        "backup_voice": str(Voice.objects.default().pk),
        "backup_policy": "own_voice_only",
        "speech_rate": 1.2,
        "monthly_character_budget": 0,
        "archived": True,
    }
    changed = carol.call("PATCH", f"patients/{patient['id']}/", change)
    assert (changed.status_code, changed.json()) == (200, {**patient, **change})
    assert carol.get(f"patients/{patient['id']}/") == changed.json()
    assert Patient.objects.get(pk=patient["id"]).team.get() == carol.user


@pytest.mark.parametrize("language", ["fil", "nb", "zh-Hant", "pt-BR", "EN-GB", "km"])
def test_a_language_of_the_list_is_kept_as_it_was_sent(carol: Clinician, alice: Member, language: str):
    changed = carol.call("PATCH", f"patients/{alice.patient.pk}/", {"language": language})
    assert (changed.status_code, changed.json()["language"]) == (200, language)
    assert carol.get(f"patients/{alice.patient.pk}/")["language"] == language


@pytest.mark.parametrize("language", ["German", "xx", "en_GB"])
def test_a_language_from_earlier_times_stays_readable_and_may_be_sent_back(
    carol: Clinician, alice: Member, language: str
):
    Patient.objects.filter(pk=alice.patient.pk).update(language=language)
    path = f"patients/{alice.patient.pk}/"
    patient = carol.get(path)
    assert patient["language"] == language
    assert carol.call("PATCH", path, {"language": language, "name": "Alice"}).status_code == 200
    assert carol.call("PATCH", path, {"language": "de"}).json()["language"] == "de"
    refused = carol.call("PATCH", path, {"language": language})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "language")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "  "),
        ("name", "x" * 101),
        ("name", None),
        ("name", "a\0b"),
        ("name", "\ud800"),
        ("name", ["x"]),
        ("companion_name", ""),
        ("companion_name", {}),
        ("preferred_name", "x" * 101),
        ("external_id", ""),
        ("external_id", "x" * 65),
        ("external_id", "a\0b"),
        ("language", ""),
        ("language", "english"),
        ("language", "e"),
        ("language", "German"),
        ("language", "xx"),
        ("language", "en_GB"),
        ("language", 7),
        ("speech_rate", 0.69),
        ("speech_rate", 1.21),
        ("speech_rate", 0.755),
        ("speech_rate", "fast"),
        ("speech_rate", None),
        ("speech_rate", True),
        ("speech_rate", "NaN"),
        ("speech_rate", "1e999"),
        ("monthly_character_budget", -1),
        ("monthly_character_budget", 2**31),
        ("monthly_character_budget", 1.5),
        ("monthly_character_budget", "x"),
        ("voice", "x"),
        ("voice", 7),
        ("voice", str(UNKNOWN_ID)),
        ("voice", "\ud800"),
        ("voice", []),
        ("backup_voice", "x"),
        ("backup_voice", str(UNKNOWN_ID)),
        ("backup_policy", "other"),
        ("backup_policy", ""),
        ("backup_policy", None),
        ("backup_policy", []),
        ("archived", "perhaps"),
        ("archived", None),
        ("archived", {}),
    ],
)
def test_an_invalid_field_of_a_patient_is_refused(carol: Clinician, alice: Member, field: str, value: object):
    before = Patient.objects.filter(pk=alice.patient.pk).values().get()
    for method, path, rest in [
        ("PATCH", f"patients/{alice.patient.pk}/", {}),
        ("POST", "patients/", {"name": "N", "companion_name": "C"}),
    ]:
        response = carol.call(method, path, {**rest, field: value})
        assert (response.status_code, next(iter(response.json()))) == (400, field)
    assert Patient.objects.filter(pk=alice.patient.pk).values().get() == before
    assert Patient.objects.count() == 2


def test_the_id_and_the_erasure_time_cannot_be_changed(carol: Clinician, alice: Member):
    answer = carol.call(
        "PATCH", f"patients/{alice.patient.pk}/", {"id": str(UNKNOWN_ID), "erased_at": "2026-01-01"}
    ).json()
    assert answer["id"] == str(alice.patient.pk)
    assert Patient.objects.get(pk=alice.patient.pk).erased_at is None


def test_a_change_writes_only_what_was_sent(carol: Clinician, alice: Member):
    path = f"patients/{alice.patient.pk}/"
    with CaptureQueriesContext(connection) as captured:
        carol.call("PATCH", path, {"preferred_name": "Al"})
    (update,) = [query["sql"] for query in captured if query["sql"].startswith('UPDATE "patients_patient"')]
    assert '"preferred_name"' in update
    assert '"voice_id"' not in update
    assert carol.call("PATCH", path, {}).status_code == 200


def test_archiving_refuses_the_devices_and_keeps_the_first_archive_time(carol: Clinician, alice: Member):
    path = f"patients/{alice.patient.pk}/"
    assert carol.call("PATCH", path, {"archived": True}).json()["archived"] is True
    since = Patient.objects.get(pk=alice.patient.pk).archived_at
    assert authenticate_device(alice.token) is None
    carol.call("PATCH", path, {"archived": True})
    assert Patient.objects.get(pk=alice.patient.pk).archived_at == since
    assert carol.call("PATCH", path, {"archived": False}).json()["archived"] is False
    assert authenticate_device(alice.token) is not None


@pytest.mark.parametrize("field", ["voice", "backup_voice"])
def test_a_patient_may_have_a_stock_voice_or_their_own_usable_clone(
    field: str, carol: Clinician, alice: Member, bob: Member
):
    def status_for(voice: Voice) -> int:
        return carol.call("PATCH", f"patients/{alice.patient.pk}/", {field: str(voice.pk)}).status_code

    gone = Voice.objects.create(name="Gone", provider_id="gone", state="gone")
    assert status_for(Voice.objects.default()) == 200
    assert status_for(clone_of(alice)) == 200
    assert [status_for(clone_of(bob)), status_for(gone), status_for(clone_of(alice, state="withdrawn"))] == [
        400,
        400,
        400,
    ]


@pytest.mark.parametrize("field", ["voice", "backup_voice"])
def test_another_patients_clone_is_refused_like_an_unknown_voice(
    field: str, carol: Clinician, alice: Member, bob: Member
):
    def refusal(voice: uuid.UUID) -> str:
        response = carol.call("PATCH", f"patients/{alice.patient.pk}/", {field: str(voice)})
        return json.dumps(response.json()).replace(str(voice), "that voice")

    assert refusal(clone_of(bob).pk) == refusal(UNKNOWN_ID)


def test_only_the_own_voice_needs_a_voice(carol: Clinician, alice: Member, bob: Member):
    def answer(**change: object) -> tuple[int, list[str]]:
        response = carol.call("PATCH", f"patients/{alice.patient.pk}/", change)
        return response.status_code, list(response.json())[:1] if response.status_code == 400 else []

    assert answer(voice=None, backup_policy="own_voice_only") == (400, ["backup_policy"])
    assert answer(backup_policy="own_voice_only") == (200, [])
    assert answer(voice=None) == (400, ["backup_policy"])
    assert answer(voice=None, backup_policy="switch") == (200, [])
    assert answer(backup_policy="own_voice_only") == (400, ["backup_policy"])
    Patient.objects.filter(pk=alice.patient.pk).update(backup_policy="own_voice_only")  # its voice was withdrawn
    assert answer(preferred_name="Al") == (200, [])
    created = carol.call("POST", "patients/", {"name": "N", "companion_name": "C", "backup_policy": "own_voice_only"})
    assert (created.status_code, created.json()["errors"][0]["field"]) == (400, "backup_policy")


def test_erasing_hides_the_patient_and_revokes_their_devices(carol: Clinician, boss: Clinician, alice: Member):
    path = f"patients/{alice.patient.pk}/"
    answer = boss.call("DELETE", path)
    alice.patient.refresh_from_db()
    alice.device.refresh_from_db()
    assert (answer.status_code, parse_datetime(answer.json()["erases_at"])) == (202, alice.patient.erases_at)
    assert timedelta(days=6.9) < alice.patient.erases_at - timezone.now() < timedelta(days=7)
    assert alice.patient.erased_at is None
    assert alice.device.revoked_at is not None
    assert [caller.call("GET", path).status_code for caller in (carol, boss)] == [404, 404]
    assert boss.call("DELETE", path).status_code == 404
    assert names(boss.get("patients/")) == ["Bob Baker"]


def test_the_care_team_needs_a_permission_to_erase_a_patient(carol: Clinician, alice: Member, bob: Member):
    ward = clinician("ward", alice.patient, in_role="Clinician")
    give_permissions(ward.user, "patients.erase_patient")
    for patient in (alice.patient, bob.patient):
        answer = carol.call("DELETE", f"patients/{patient.pk}/")
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert "patients.erase_patient" in answer.json()["detail"]
    assert Patient.objects.remaining().count() == 2
    assert ward.call("DELETE", f"patients/{bob.patient.pk}/").status_code == 404
    assert ward.call("DELETE", f"patients/{alice.patient.pk}/").status_code == 202


def test_without_a_grace_period_the_erasure_begins_immediately(boss: Clinician, alice: Member, settings: Settings):
    settings.ERASURE_GRACE_DAYS = 0
    assert boss.call("DELETE", f"patients/{alice.patient.pk}/").status_code == 202
    alice.patient.refresh_from_db()
    assert alice.patient.erased_at is not None
    assert alice.patient.erases_at <= alice.patient.erased_at


def test_put_is_not_allowed_for_a_patient(carol: Clinician, alice: Member):
    assert carol.call("PUT", f"patients/{alice.patient.pk}/", {"name": "x"}).status_code == 405


# Devices


def test_a_devices_token_is_shown_once(carol: Clinician, alice: Member):
    path = f"patients/{alice.patient.pk}/devices/"
    created = carol.call("POST", path, {"name": "Bathroom"})
    assert created.status_code == 201
    assert set(created.json()) == {"id", "name", "token"}
    assert str(authenticate_device(created.json()["token"]).pk) == created.json()["id"]
    listed = carol.get(path)["results"]
    assert [row["name"] for row in listed] == ["Bathroom", "bedside"]
    assert "token" not in json.dumps(listed)


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 101}, {"name": None}, {"name": "a\0"}, {"name": []}])
def test_a_device_without_a_valid_name_is_refused(carol: Clinician, alice: Member, body: dict[str, Any]):
    response = carol.call("POST", f"patients/{alice.patient.pk}/devices/", body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "name")
    assert alice.patient.devices.count() == 1


def test_a_revoked_device_stays_revoked(carol: Clinician, alice: Member):
    path = f"devices/{alice.device.pk}/"
    response = carol.call("DELETE", path)
    assert (response.status_code, response.content, authenticate_device(alice.token)) == (204, b"", None)
    since = Device.objects.get(pk=alice.device.pk).revoked_at
    assert carol.call("DELETE", path).status_code == 204
    assert Device.objects.get(pk=alice.device.pk).revoked_at == since
    refused = carol.call("POST", f"{path}rotate/")
    assert (refused.status_code, refused.json()["code"]) == (409, "revoked")
    assert authenticate_device(alice.token) is None


def test_a_new_token_replaces_the_old_token_and_its_connection(carol: Clinician, alice: Member):
    response = carol.call("POST", f"devices/{alice.device.pk}/rotate/")
    assert response.status_code == 200
    assert (response.json()["id"], response.json()["name"]) == (str(alice.device.pk), "bedside")
    assert authenticate_device(alice.token) is None
    assert authenticate_device(response.json()["token"]) == alice.device
    assert Device.objects.get(pk=alice.device.pk).epoch == alice.device.epoch + 1


# Voices


def test_voices_are_the_stock_voices_and_the_clones_of_visible_patients(
    carol: Clinician, boss: Clinician, alice: Member, bob: Member
):
    ours, theirs = clone_of(alice, state="withdrawn"), clone_of(bob)
    stock = {str(voice.pk) for voice in Voice.objects.filter(source="stock")}
    assert {row["id"] for row in carol.get("voices/")["results"]} == {*stock, str(ours.pk)}
    assert {row["id"] for row in boss.get("voices/")["results"]} == {*stock, str(ours.pk), str(theirs.pk)}
    (row,) = [row for row in carol.get("voices/")["results"] if row["id"] == str(ours.pk)]
    assert row == {
        "id": str(ours.pk),
        "name": "Daughter",
        "source": "cloned",
        "provider_id": ours.provider_id,
        "state": "withdrawn",
    }


def test_the_clone_of_an_erased_patient_is_not_listed(boss: Clinician, alice: Member):
    clone = clone_of(alice)
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert str(clone.pk) not in [row["id"] for row in boss.get("voices/")["results"]]


def test_clinicians_see_their_team_administrators_see_all_and_visitors_see_no_patient(alice: Member, bob: Member):
    carol, boss = clinician("carol", alice.patient), clinician("boss", in_role="Administrator", is_staff=True)
    Patient.objects.filter(pk=bob.patient.pk).update(archived_at=timezone.now())
    seen = [Patient.objects.visible_to(who).count() for who in (carol.user, boss.user, AnonymousUser())]
    assert seen == [1, 2, 0]
