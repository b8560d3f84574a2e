"""`Idempotency-Key`: the calls that create something do it once. tests/tts/api/test_views.py has the call `speak`."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from cloning.models import CloneJob
from tests.clinicians import Clinician, clinician
from tests.cloning.samples import recordings
from tests.conftest import Member
from tts.models import Utterance
from voicecare import tasks
from voicecare.accounts.models import IdempotentCall
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db
KEY = "order of Mrs. Ellis"
PATIENT = {"name": "Zoe Zimmer", "companion_name": "Clara", "external_id": "MRN-7"}


@pytest.fixture(scope="module")
def recording() -> bytes:
    return recordings.encoded(recordings.speech(62), "libmp3lame")


@pytest.fixture
def carol(alice: Member) -> Clinician:
    return clinician("carol", alice.patient)


def create_patient(caller: Clinician, body: object = PATIENT, key: str = KEY) -> Any:
    return caller.call("POST", "patients/", body, Idempotency_Key=key)


def add_device(caller: Clinician, patient: Patient, body: object = None, key: str = KEY) -> Any:
    return caller.call("POST", f"patients/{patient.pk}/devices/", body or {"name": "Bed"}, Idempotency_Key=key)


def upload(caller: Clinician, patient: Patient, sample: bytes, key: str = KEY, **changes: str) -> Any:
    form = {"name": "Anna", "consent": "true", "consent_by": "Anna Archer", **changes}
    form["sample"] = SimpleUploadedFile("anna.mp3", sample, "audio/mpeg")  # type: ignore[assignment]
    headers = {"Authorization": f"Bearer {caller.token}", "Idempotency-Key": key}
    return Client().post(f"/api/v1/patients/{patient.pk}/clones/", form, headers=headers)


def count(model: type[Model]) -> int:
    return model._default_manager.count()


# Patients


def test_a_patient_is_created_once(carol: Clinician):
    first = create_patient(carol)
    again = create_patient(carol)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert Patient.objects.filter(name="Zoe Zimmer").count() == 1
    assert AuditEntry.objects.filter(action="add", object_id=first.json()["id"]).count() == 1


def test_the_order_of_the_fields_does_not_matter(carol: Clinician):
    first = create_patient(carol)
    assert create_patient(carol, dict(reversed(PATIENT.items()))).json() == first.json()


def test_another_body_is_a_conflict(carol: Clinician):
    create_patient(carol)
    refused = create_patient(carol, {**PATIENT, "external_id": "MRN-8"})
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert not Patient.objects.filter(external_id="MRN-8").exists()


def test_a_refused_call_leaves_its_key_free(carol: Clinician):
    assert create_patient(carol, {**PATIENT, "name": ""}).status_code == 400
    assert count(IdempotentCall) == 0
    assert create_patient(carol).status_code == 201


def test_each_user_and_each_call_has_its_own_keys(carol: Clinician, alice: Member):
    dave = clinician("dave", alice.patient)
    create_patient(carol)
    assert create_patient(dave, {**PATIENT, "external_id": None}).status_code == 201
    assert add_device(carol, alice.patient).status_code == 201
    text = carol.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Lunch."}, Idempotency_Key=KEY)
    assert text.status_code == 202


def test_without_a_key_every_call_creates_a_row(carol: Clinician):
    body = {"name": "Zoe Zimmer", "companion_name": "Clara"}
    assert len({carol.call("POST", "patients/", body).json()["id"] for _ in range(2)}) == 2
    assert count(IdempotentCall) == 0


def test_a_patient_who_is_not_visible_any_more_is_not_shown(carol: Clinician):
    made = Patient.objects.get(pk=create_patient(carol).json()["id"])
    made.team.clear()
    assert create_patient(carol).status_code == 404
    assert Patient.objects.filter(name="Zoe Zimmer").count() == 1


@pytest.mark.parametrize("key", ["", "   ", "x" * 256, "ümlaut", "tab\there"])
def test_an_invalid_key_is_refused_by_every_call(carol: Clinician, alice: Member, recording: bytes, key: str):
    rotate = carol.call("POST", f"devices/{alice.device.pk}/rotate/", Idempotency_Key=key)
    before = count(Patient)
    answers = [
        create_patient(carol, key=key),
        add_device(carol, alice.patient, key=key),
        upload(carol, alice.patient, recording, key=key),
        rotate,
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(400, "bad_idempotency_key")}
    assert (count(Patient), count(Device), count(CloneJob)) == (before, 1, 0)


# Secrets


def test_the_token_of_a_device_is_shown_once(carol: Clinician, alice: Member):
    first = add_device(carol, alice.patient)
    again = add_device(carol, alice.patient)
    assert (first.status_code, again.status_code) == (201, 409)
    assert (again.json()["code"], again.json()["id"]) == ("secret_already_shown", first.json()["id"])
    assert alice.patient.devices.count() == 2
    assert first.json()["token"] not in again.content.decode()


def test_a_token_is_rotated_once(carol: Clinician, alice: Member):
    path = f"devices/{alice.device.pk}/rotate/"
    first = carol.call("POST", path, Idempotency_Key=KEY)
    alice.device.refresh_from_db()
    prefix = alice.device.token_prefix
    again = carol.call("POST", path, Idempotency_Key=KEY)
    alice.device.refresh_from_db()
    assert (first.status_code, again.status_code, again.json()["code"]) == (200, 409, "secret_already_shown")
    assert alice.device.token_prefix == prefix
    assert carol.call("POST", path, Idempotency_Key="another").status_code == 200


def test_neither_the_key_nor_a_secret_nor_a_name_is_stored(carol: Clinician, alice: Member):
    create_patient(carol)
    token = add_device(carol, alice.patient).json()["token"]
    stored = str(list(IdempotentCall.objects.values()))
    assert count(IdempotentCall) == 2
    assert not [secret for secret in (KEY, token, token.partition(".")[2], "Zoe", "MRN-7") if secret in stored]


# Voice clones


def test_a_clone_is_created_once(carol: Clinician, alice: Member, recording: bytes):
    first = upload(carol, alice.patient, recording)
    CloneJob.objects.update(created_at=timezone.now() - timedelta(hours=1), status="failed", error_code="interrupted")
    again = upload(carol, alice.patient, recording)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == {"id": first.json()["id"], "status": "failed"}
    assert count(CloneJob) == 1
    assert upload(carol, alice.patient, recording, key="another").json()["id"] != first.json()["id"]


@pytest.mark.parametrize("change", ["recording", "name"])
def test_another_recording_or_name_is_a_conflict(carol: Clinician, alice: Member, recording: bytes, change: str):
    upload(carol, alice.patient, recording)
    sample, fields = (recording + b"\0", {}) if change == "recording" else (recording, {"name": "Berta"})
    refused = upload(carol, alice.patient, sample, **fields)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert count(CloneJob) == 1


# Expiry


@pytest.mark.parametrize(("age", "is_kept"), [(timedelta(hours=23), True), (timedelta(hours=25), False)])
def test_keys_expire_after_a_day(carol: Clinician, alice: Member, age: timedelta, is_kept: bool):
    device = add_device(carol, alice.patient)
    path, text = f"patients/{alice.patient.pk}/speak/", {"text": "Lunch."}
    spoken = carol.call("POST", path, text, Idempotency_Key=KEY).json()["id"]
    IdempotentCall.objects.update(made_at=timezone.now() - age)
    Utterance.objects.update(received_at=timezone.now() - age)
    tasks.prune_idempotency_keys()
    again = add_device(carol, alice.patient)
    assert (again.status_code == 409, again.json()["id"] == device.json()["id"]) == (is_kept, is_kept)
    assert (carol.call("POST", path, text, Idempotency_Key=KEY).json()["id"] == spoken) is is_kept


def test_the_rows_of_a_deleted_user_are_deleted(carol: Clinician):
    create_patient(carol)
    carol.user.delete()
    assert count(IdempotentCall) == 0
