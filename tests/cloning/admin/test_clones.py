"""The admin of voice clones: upload, playback, retry, withdrawal, and permissions."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from cloning.models import CloneJob, sample_storage
from tests.cloning.conftest import RECORDING
from tests.cloning.samples import recordings
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db
Make = Callable[..., CloneJob]
LIST = "/admin/cloning/clonejob/"


@pytest.fixture(scope="module")
def recording() -> bytes:
    return recordings.encoded(recordings.speech(62), "libmp3lame")


def staff_client(*permissions: str) -> Client:
    user = User.objects.create_user("-".join(["staff", *permissions]), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=(*permissions, "view_all_patients")))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def boss(admin_client: Client) -> Client:
    return admin_client


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    text: str = response.content.decode()
    return text


def act(client: Client, action: str, *jobs: CloneJob, **more: str) -> Any:
    chosen = [str(job.pk) for job in jobs]
    return client.post(LIST, {"action": action, "_selected_action": chosen, "index": "0", **more}, follow=True)


@pytest.fixture
def ready(job: Make, alice: Member) -> CloneJob:
    voice = Voice.objects.create(name="Anna", provider_id="anna", source="cloned", patient=alice.patient)
    Patient.objects.filter(pk=alice.patient.pk).update(voice=voice)
    return job(status="ready", voice=voice, previous_voice=alice.patient.voice)


# Status


def test_the_list_shows_errors_and_warnings(boss: Client, job: Make):
    job(status="failed", error_code="x", error_message="There is no room for it.")
    job(report={"warnings": ["There is a hum."]})
    text = page(boss, LIST)
    assert "There is no room for it." in text
    assert "There is a hum." in text


def test_a_lost_voice_is_shown_on_its_page_and_in_the_list(boss: Client, ready: CloneJob):
    Voice.objects.filter(pk=ready.voice_id).update(state="gone")
    for path in (LIST, f"{LIST}{ready.pk}/change/"):
        assert "has lost or changed this voice" in page(boss, path)


def test_the_number_of_queries_does_not_depend_on_the_length_of_the_list(
    boss: Client, job: Make, member: Callable[..., Member]
):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(boss, LIST)
        return len(captured)

    job()
    before = queries()
    for number in range(5):
        job(patient=member(f"Patient {number}").patient)
    assert queries() == before


def test_the_list_begins_with_the_status_and_links_the_patient(boss: Client, ready: CloneJob):
    shown = page(boss, LIST)
    assert '<span class="badge badge-good">Ready</span>' in shown
    assert f'<a href="/admin/patients/patient/{ready.patient_id}/change/">' in shown


def test_a_clone_can_be_viewed_and_not_edited(boss: Client, ready: CloneJob):
    report = {
        "duration_s": 72.4,
        "codec": "mp3",
        "sample_rate_hz": 44100,
        "channels": 1,
        "snr_db": 31.2,
        "speech_ratio": 0.87,
        "clipping_ratio": 0.0,
        "loudness_dbfs": -21.4,
        "warnings": ["There is a hum."],
    }
    CloneJob.objects.filter(pk=ready.pk).update(report=report)
    text = page(boss, f"{LIST}{ready.pk}/change/")
    for text_shown in ("mp3, 44,100 Hz, mono", "72 s", "87%", "31 dB", "There is a hum.", "Revert to previous voice"):
        assert text_shown in text, text_shown
    assert "Left as it is" in text
    assert "icon-no" not in text  # a red cross looks like an error
    assert "Internals" in text
    assert 'name="name"' not in text
    assert boss.post(f"{LIST}{ready.pk}/change/", {"name": "Other"}).status_code == 403
    assert boss.post(f"{LIST}{ready.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_clone_without_a_report_can_be_viewed(boss: Client, job: Make):
    assert "Deleted." in page(boss, f"{LIST}{job(sample='').pk}/change/")


# Playback


def sample_of(job: CloneJob) -> str:
    return reverse("admin:cloning_clonejob_sample", args=[job.pk])


@pytest.mark.parametrize(
    ("range_header", "status", "expected_part", "content_range"),
    [
        ("", 200, slice(None), None),
        ("bytes=0-", 206, slice(None), "bytes 0-14/15"),
        ("bytes=4-6", 206, slice(4, 7), "bytes 4-6/15"),
        ("bytes=10-999", 206, slice(10, 15), "bytes 10-14/15"),
        ("bytes=-3", 206, slice(12, 15), "bytes 12-14/15"),
        ("bytes=-99", 206, slice(None), "bytes 0-14/15"),
        ("bytes=15-", 416, slice(0), "bytes */15"),
        ("bytes=-0", 416, slice(0), "bytes */15"),
        ("bytes=5-2", 200, slice(None), None),
        ("bytes=0-1,4-5", 200, slice(None), None),
        ("lines=1-2", 200, slice(None), None),
        ("bytes=-", 200, slice(None), None),
    ],
)
def test_a_player_can_seek_in_the_recording(
    boss: Client, job: Make, range_header: str, status: int, expected_part: slice, content_range: str
):
    assert len(RECORDING) == 15
    response = boss.get(sample_of(job()), headers={"Range": range_header} if range_header else {})
    assert (response.status_code, response.content) == (status, RECORDING[expected_part])
    assert response.headers.get("Content-Range") == content_range
    if status != 416:
        assert (response.headers["Content-Type"], response.headers["Accept-Ranges"]) == ("audio/mpeg", "bytes")
        assert "no-store" in response.headers["Cache-Control"]


def test_a_missing_recording_is_not_found(boss: Client, job: Make):
    lost = job()
    sample_storage().delete(lost.sample)
    assert [boss.get(sample_of(it)).status_code for it in (job(sample=""), lost)] == [404, 404]


def test_playback_needs_permission(job: Make, ready: CloneJob):
    clone = job()
    assert staff_client("view_clonejob").get(sample_of(clone)).status_code == 200
    assert staff_client("view_patient").get(sample_of(clone)).status_code == 403
    assert Client().get(sample_of(clone)).status_code == 302
    preview = reverse("admin-voice-preview", args=[ready.voice_id])
    assert Client().get(preview).status_code == 302
    carol = Client()
    carol.force_login(User.objects.create_user("carol"))
    assert [carol.get(path).status_code for path in (preview, sample_of(clone))] == [302, 302]


# Upload


def upload(client: Client, patient: Patient, sample: bytes, /, **changes: str) -> Any:
    form = {"patient": str(patient.pk), "name": "Anna", "consent": "on", "consent_by": "Anna Archer", **changes}
    return client.post(f"{LIST}add/", {**form, "sample": SimpleUploadedFile("anna.mp3", sample)})


def test_a_recording_is_uploaded(boss: Client, alice: Member, recording: bytes):
    assert "I may withdraw" in page(boss, f"{LIST}add/")
    response = upload(boss, alice.patient, recording)
    job = CloneJob.objects.get()
    assert (response.status_code, response.headers["Location"]) == (302, f"{LIST}{job.pk}/change/")
    assert (job.patient, job.witness, job.status) == (alice.patient, User.objects.get(is_superuser=True), "pending")


def test_a_refusal_is_shown_at_the_field(boss: Client, alice: Member):
    response = upload(boss, alice.patient, b"")
    assert response.status_code == 200
    assert len(response.context["form"].errors["sample"][0]) > 20
    assert not CloneJob.objects.exists()


@pytest.mark.parametrize("missing", ["consent", "consent_by", "name", "patient"])
def test_nothing_is_stored_if_a_field_is_missing(boss: Client, alice: Member, recording: bytes, missing: str):
    response = upload(boss, alice.patient, recording, **{missing: ""})
    assert list(response.context["form"].errors) == [missing]
    assert not CloneJob.objects.exists()


def test_the_usage_of_the_plan_is_shown_on_the_upload_page(boss: Client, provider: SandboxProcess):
    provider.settings(voice_limit=7)
    assert "0 of the 7 voices of the plan are in use." in page(boss, f"{LIST}add/")


def test_the_upload_page_works_without_the_provider(boss: Client, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:9"
    assert "At the speech provider" not in page(boss, f"{LIST}add/")


def test_an_upload_needs_permission(alice: Member):
    assert staff_client("view_clonejob").get(f"{LIST}add/").status_code == 403


# Actions


def test_a_withdrawal_needs_a_confirmation(boss: Client, ready: CloneJob):
    confirmation = act(boss, "withdraw", ready)
    assert "Yes, withdraw" in confirmation.content.decode()
    ready.refresh_from_db()
    assert ready.status == "ready"
    assert "1 voice clone is being removed." in act(boss, "withdraw", ready, confirmed="yes").content.decode()
    ready.refresh_from_db()
    assert (ready.status, ready.withdrawn_by) == ("withdrawing", User.objects.get(is_superuser=True))


def test_a_failed_clone_is_retried_and_a_running_one_is_not(boss: Client, job: Make):
    failed, running = job(status="failed", error_code="x"), job()
    shown = act(boss, "retry", failed, running).content.decode()
    assert "the clone is in progress again" in shown
    assert "There is nothing to retry" in shown
    failed.refresh_from_db()
    assert failed.status == "pending"


def test_the_patient_gets_the_previous_voice_back(boss: Client, ready: CloneJob):
    act(boss, "revert", ready)
    assert Patient.objects.get(pk=ready.patient_id).voice == ready.previous_voice
    assert "is not the current voice of its patient" in act(boss, "revert", ready).content.decode()


def test_actions_need_permission(ready: CloneJob):
    act(staff_client("view_clonejob"), "withdraw", ready, confirmed="yes")
    ready.refresh_from_db()
    assert ready.status == "ready"
    assert "Withdraw …" not in page(staff_client("view_clonejob", "view_voice"), f"{LIST}{ready.pk}/change/")
