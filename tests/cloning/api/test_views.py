"""The REST API of voice clones: uploads, refusals, access, retry, withdrawal, and the sync of stock voices."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from cloning.api.views import FORM_OVERHEAD_BYTES
from cloning.models import CloneJob, sample_storage
from cloning.samples import inspection
from cloning.samples.acceptance import MAX_BYTES
from tests.clinicians import Clinician, clinician
from tests.cloning import at_provider
from tests.cloning.samples import recordings
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from voicecare.infrastructure import storages
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db
UNKNOWN_ID = uuid.UUID(int=5)
FORM = "multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def recording() -> bytes:
    return recordings.encoded(recordings.speech(62), "libmp3lame")


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    """A clinician in the care team of Alice, and not in that of Bob."""
    return clinician("carol", alice.patient)


def upload(caller: Clinician, patient: object, sample: bytes, *, file: str = "anna.mp3", **changes: Any) -> Any:
    form = {"name": "Anna", "consent": "true", "consent_by": "Anna Archer", **changes}
    sent = {key: value for key, value in form.items() if value is not None}
    headers = {"Authorization": f"Bearer {caller.token}"}
    sent["sample"] = SimpleUploadedFile(file, sample, "application/octet-stream")
    return Client().post(f"/api/v1/patients/{patient}/clones/", sent, headers=headers)


def stored_names() -> list[str]:
    try:
        return sample_storage().listdir("")[1]
    except FileNotFoundError:
        return []


def part(name: str, value: bytes) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


# Upload


def test_a_recording_with_consent_is_accepted(carol: Clinician, alice: Member, recording: bytes):
    response = upload(
        carol, alice.patient.pk, recording, file="holiday.wav", remove_background_noise="true", use_when_ready="false"
    )
    job = CloneJob.objects.get()
    assert (response.status_code, response.json()) == (202, {"id": str(job.pk), "status": "pending"})
    assert (job.patient, job.name, job.witness, job.consent_by) == (alice.patient, "Anna", carol.user, "Anna Archer")
    assert (job.remove_background_noise, job.use_when_ready, job.content_type) == (True, False, "audio/mpeg")
    with job.open_sample() as kept:
        assert kept.read() == recording
    shown = carol.get(f"clones/{job.pk}/")
    assert shown == carol.get(f"patients/{alice.patient.pk}/clones/")["results"][0]
    report = shown.pop("report")
    assert shown == {
        "id": str(job.pk),
        "patient": str(alice.patient.pk),
        "name": "Anna",
        "status": "pending",
        "voice": None,
        "preview": None,
        "error": None,
        "requires_verification": False,
        "consent_by": "Anna Archer",
        "consented_at": shown["consented_at"],
        "created_at": shown["created_at"],
        "ended_at": None,
        "withdrawn_at": None,
    }
    assert set(report) == {
        "duration_s",
        "codec",
        "sample_rate_hz",
        "channels",
        "snr_db",
        "speech_ratio",
        "clipping_ratio",
        "loudness_dbfs",
        "noise_removal_helps",
        "repairs",
        "warnings",
    }
    assert 61 < report["duration_s"] < 63


def test_a_double_click_makes_one_job(carol: Clinician, alice: Member, recording: bytes):
    answers = [upload(carol, alice.patient.pk, recording).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert (CloneJob.objects.count(), len(stored_names())) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_uploads_at_the_same_time_make_one_job(carol: Clinician, alice: Member, recording: bytes):
    def send(_: int) -> Any:
        try:
            return upload(carol, alice.patient.pk, recording)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(send, range(3)))
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (CloneJob.objects.count(), len(stored_names())) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"consent": "false"}, "no_consent"),
        ({"consent": None}, "no_consent"),
        ({"consent": "perhaps"}, ["consent"]),
        ({"consent_by": None}, ["consent_by"]),
        ({"consent_by": "  "}, ["consent_by"]),
        ({"consent_by": "x" * 201}, ["consent_by"]),
        ({"name": None}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": "x" * 101}, ["name"]),
        ({"name": "a\0b"}, ["name"]),
        ({"remove_background_noise": "perhaps"}, ["remove_background_noise"]),
    ],
)
def test_an_invalid_form_is_refused(
    carol: Clinician, alice: Member, changes: dict[str, Any], expected: str | list[str]
):
    response = upload(carol, alice.patient.pk, b"ID3", **changes)
    assert response.status_code == 400
    assert (
        response.json()["code"] == expected
        if isinstance(expected, str)
        else [error["field"] for error in response.json()["errors"]] == expected
    )
    assert (CloneJob.objects.count(), stored_names()) == (0, [])


@pytest.mark.parametrize(
    ("sample", "codes"),
    [
        (b"", {"corrupt_audio"}),
        (b"PK\x03\x04" + bytes(2000), {"unsupported_format"}),
        (b"<html>" + b" " * 2000, {"unsupported_format"}),
        (b"RIFF" + bytes(40), {"corrupt_audio", "unsupported_format"}),
    ],
)
def test_a_file_without_a_recording_is_refused(carol: Clinician, alice: Member, sample: bytes, codes: set[str]):
    response = upload(carol, alice.patient.pk, sample)
    assert response.status_code == 400
    assert response.json()["code"] in codes
    assert len(response.json()["detail"]) > 20
    assert (CloneJob.objects.count(), stored_names()) == (0, [])


def test_a_short_recording_is_refused(carol: Clinician, alice: Member):
    short = recordings.encoded(recordings.speech(20), "libmp3lame")
    response = upload(carol, alice.patient.pk, short)
    assert (response.status_code, response.json()["code"]) == (400, "too_short")
    assert (CloneJob.objects.count(), stored_names()) == (0, [])


def test_a_failure_of_the_inspection_is_not_blamed_on_the_recording(
    carol: Clinician, alice: Member, recording: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inspection, "_TIMEOUT_S", 0.01)
    response = upload(carol, alice.patient.pk, recording)
    assert (response.status_code, response.json()["code"]) == (503, "inspection_failed")
    assert (CloneJob.objects.count(), stored_names()) == (0, [])


def test_a_recording_that_cannot_be_stored_can_be_sent_again(
    carol: Clinician, alice: Member, recording: bytes, settings: Settings, tmp_path: Path
):
    stores, file = settings.STORAGES, tmp_path / "file"
    file.touch()
    settings.STORAGES = {**stores, "samples": storages.private_file_storage(file)}
    response = upload(carol, alice.patient.pk, recording)
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert not CloneJob.objects.exists()
    settings.STORAGES = stores
    assert upload(carol, alice.patient.pk, recording).status_code == 202


def test_a_file_over_the_size_limit_is_refused(carol: Clinician, alice: Member):
    response = upload(carol, alice.patient.pk, b"ID3" + bytes(MAX_BYTES))
    assert (response.status_code, response.json()["code"]) == (400, "too_large")


def test_a_large_body_is_refused_by_its_content_length(carol: Clinician, alice: Member):
    """The body has only one byte, so the length alone is checked."""
    headers = {"Authorization": f"Bearer {carol.token}"}
    response = Client().generic(
        "POST",
        f"/api/v1/patients/{alice.patient.pk}/clones/",
        b"-",
        "multipart/form-data; boundary=x",
        headers=headers,
        CONTENT_LENGTH=str(MAX_BYTES + FORM_OVERHEAD_BYTES + 1),
    )
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FORM),
        (b"--x\r\n", FORM),
        (b"garbage", FORM),
        (b"-", "multipart/form-data"),
        (part("sample", b"no file") + b"--x--", FORM),
        (part("a", b"b") * 1500 + b"--x--", FORM),
    ],
    ids=["empty", "begun", "garbage", "no boundary", "no file", "too many fields"],
)
def test_a_malformed_form_is_refused(carol: Clinician, alice: Member, body: bytes, kind: str):
    headers = {"Authorization": f"Bearer {carol.token}"}
    path = f"/api/v1/patients/{alice.patient.pk}/clones/"
    response = Client().generic("POST", path, body, kind, headers=headers)
    assert response.status_code == 400, response.content
    assert CloneJob.objects.count() == 0


def test_a_json_body_is_refused(carol: Clinician, alice: Member):
    response = carol.call("POST", f"patients/{alice.patient.pk}/clones/", {"name": "Anna"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


# Access


def test_clones_of_other_teams_are_not_found(
    carol: Clinician, bob: Member, job: Callable[..., CloneJob], recording: bytes
):
    other_job = job(patient=bob.patient)
    answers = [
        upload(carol, bob.patient.pk, recording),
        *(
            carol.call(method, path)
            for method, path in [
                ("GET", f"patients/{bob.patient.pk}/clones/"),
                ("GET", f"clones/{other_job.pk}/"),
                ("DELETE", f"clones/{other_job.pk}/"),
                ("POST", f"clones/{other_job.pk}/retry/"),
                ("GET", f"clones/{UNKNOWN_ID}/"),
            ]
        ),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 6
    other_job.refresh_from_db()
    assert (other_job.status, CloneJob.objects.count()) == ("pending", 1)


def test_administrators_see_all_clones_except_those_of_erased_patients(
    carol: Clinician, alice: Member, job: Callable[..., CloneJob]
):
    boss, clone = clinician("boss", in_role="Administrator", is_staff=True), job()
    assert boss.get(f"clones/{clone.pk}/")["id"] == str(clone.pk)
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now())
    assert {caller.call("GET", f"clones/{clone.pk}/").status_code for caller in (boss, carol)} == {404}


def test_the_list_is_paginated_newest_first(carol: Clinician, alice: Member, job: Callable[..., CloneJob]):
    jobs = [job() for _ in range(3)]
    page = carol.get(f"patients/{alice.patient.pk}/clones/?page_size=2")
    assert [row["id"] for row in page["results"]] == [str(jobs[2].pk), str(jobs[1].pk)]
    assert page["count"] == 3


# Status, retry and withdrawal


def test_a_voice_that_is_ready_has_a_preview(carol: Clinician, alice: Member, job: Callable[..., CloneJob]):
    voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    shown = carol.get(f"clones/{job(status='ready', voice=voice).pk}/")
    assert (shown["voice"], shown["preview"]) == (str(voice.pk), f"/api/v1/voices/{voice.pk}/preview/")
    voice.state = "gone"
    voice.save()
    assert carol.get(f"clones/{shown['id']}/")["preview"] is None


def test_a_failed_clone_shows_its_error_and_can_be_retried(carol: Clinician, job: Callable[..., CloneJob]):
    failed = job(status="failed", error_code="voice_limit_reached", error_message="There is no room.")
    path = f"clones/{failed.pk}/"
    assert carol.get(path)["error"] == {"code": "voice_limit_reached", "message": "There is no room."}
    retried = carol.call("POST", f"{path}retry/")
    assert (retried.status_code, retried.json()) == (202, {"id": str(failed.pk), "status": "pending"})
    assert carol.get(path)["error"] is None
    refused = carol.call("POST", f"{path}retry/")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_retryable")


def test_a_withdrawal_starts_immediately_and_can_be_repeated(
    carol: Clinician, alice: Member, job: Callable[..., CloneJob]
):
    voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    Patient.objects.filter(pk=alice.patient.pk).update(voice=voice)
    clone = job(status="ready", voice=voice)
    for _ in range(2):
        response = carol.call("DELETE", f"clones/{clone.pk}/")
        assert (response.status_code, response.json()) == (202, {"id": str(clone.pk), "status": "withdrawing"})
    assert Patient.objects.get(pk=alice.patient.pk).voice is None
    clone.refresh_from_db()
    assert clone.withdrawn_by == carol.user


# Stock voices


@pytest.fixture
def boss(provider: SandboxProcess) -> Clinician:
    return clinician("boss", in_role="Administrator", is_staff=True)


def test_only_administrators_may_sync_voices(carol: Clinician):
    response = carol.call("POST", "voices/sync/")
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


@pytest.mark.django_db(transaction=True)
def test_the_stock_voices_of_the_provider_become_rows(boss: Clinician, provider: SandboxProcess, alice: Member):
    Voice.objects.create(name="Long gone", provider_id="long-gone")
    at_provider.add(provider, "somebody's relative")
    response = boss.call("POST", "voices/sync/")
    assert response.status_code == 200
    stock = Voice.objects.filter(source="stock", state="usable")
    result = response.json()
    assert (result["added"], result["gone"]) == (stock.count() - 2, 1)
    assert result["changed"] == 2  # the two existing rows had names that tests have chosen
    assert not Voice.objects.filter(name="somebody's relative").exists()
    assert Voice.objects.get(provider_id="long-gone").state == "gone"
    assert Voice.objects.get(provider_id=OTHER_VOICE).name == "Sarah"
    assert boss.call("POST", "voices/sync/").json() == {"added": 0, "changed": 0, "gone": 0}


@pytest.mark.django_db(transaction=True)
def test_a_voice_that_is_available_again_is_usable(boss: Clinician, alice: Member):
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state="gone")
    assert boss.call("POST", "voices/sync/").json()["gone"] == 0
    assert Voice.objects.get(provider_id=OTHER_VOICE).is_usable


def test_nothing_changes_if_the_list_cannot_be_read(boss: Clinician, provider: SandboxProcess, settings: Settings):
    provider.fault(kind="error", preset="internal_error", match={"path": "^/v2/voices$"})
    before = list(Voice.objects.values())
    response = boss.call("POST", "voices/sync/")
    assert response.status_code == 503
    assert set(response.json()) == {"detail", "code"}
    assert list(Voice.objects.values()) == before
