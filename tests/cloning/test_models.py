"""The constraints and properties of clone jobs."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from cloning.models import CloneJob
from tests.conftest import Member
from voicecare.patients.models import Voice

pytestmark = pytest.mark.django_db

Make = Callable[..., CloneJob]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "lost"},
        {"status": "ready"},
        {"status": "uploading"},
        {"status": "failed"},
        {"status": "withdrawn"},
        {"consent_by": ""},
        {"patient": None},
    ],
    ids=str,
)
def test_the_database_refuses_an_invalid_job(fields: dict, job: Make):
    with pytest.raises(IntegrityError), transaction.atomic():
        job(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "uploading", "lease_until": NOW},
        {"status": "failed", "error_code": "busy"},
        {"status": "withdrawn", "sample": ""},
        {"status": "withdrawn", "sample": "", "consent_by": "", "patient": None},
    ],
    ids=str,
)
def test_the_database_accepts_a_valid_job(fields: dict, job: Make):
    assert job(**fields)


@pytest.mark.parametrize("unfinished", ["pending", "uploading"])
def test_a_recording_has_only_one_unfinished_job_per_patient(unfinished: str, job: Make, bob: Member):
    job(sample_digest="d", status=unfinished, lease_until=NOW)
    job(sample_digest="d", patient=bob.patient)
    job(sample_digest="d", status="failed", error_code="busy")
    with pytest.raises(IntegrityError), transaction.atomic():
        job(sample_digest="d")


def test_a_patient_with_a_clone_job_cannot_be_deleted(job: Make, alice: Member):
    job()
    alice.device.delete()
    with pytest.raises(ProtectedError):
        alice.patient.delete()


@pytest.mark.parametrize("field", ["witness", "withdrawn_by"])
def test_a_user_who_witnessed_or_withdrew_a_consent_cannot_be_deleted(field: str, job: Make):
    nora = User.objects.create_user("nora")
    job(**{field: nora})
    with pytest.raises(ProtectedError):
        nora.delete()


def test_the_name_at_the_provider_contains_the_id_of_the_job_only(job: Make):
    made = job(name="Anna")
    assert made.provider_name == f"vc-{made.pk}"
    assert "Anna" not in str(made)


def test_an_error_has_a_code_and_a_message(job: Make):
    assert job().error is None
    made = job(status="failed", error_code="busy", error_message="Wait.")
    assert made.error == {"code": "busy", "message": "Wait."}


@pytest.mark.parametrize(("sample", "words"), [("kept", "Retry"), ("", "Upload a recording again")])
def test_a_lost_voice_is_an_error_with_advice(sample: str, words: str, job: Make):
    voice = Voice.objects.create(provider_id="v", name="V", source="cloned", state="gone")
    error = job(status="ready", voice=voice, sample=sample).error
    assert error["code"] == "voice_gone"
    assert words in error["message"]


@pytest.mark.parametrize(
    ("fields", "state", "expected"),
    [
        ({"status": "failed", "error_code": "busy"}, None, True),
        ({"status": "failed", "error_code": "busy", "sample": ""}, None, False),
        ({"status": "ready"}, "gone", True),
        ({"status": "ready", "sample": ""}, "gone", False),
        ({"status": "ready"}, "usable", False),
        ({"status": "pending"}, None, False),
    ],
)
def test_which_jobs_are_retryable(fields: dict, state: str | None, expected: bool, job: Make):
    voice = state and Voice.objects.create(provider_id="v", name="V", source="cloned", state=state)
    assert job(voice=voice or None, **fields).is_retryable is expected


def test_a_recording_is_opened_from_its_storage(job: Make):
    with job().open_sample() as file:
        assert file.read().startswith(b"ID3")
    with pytest.raises(FileNotFoundError):
        job(sample="gone").open_sample()
