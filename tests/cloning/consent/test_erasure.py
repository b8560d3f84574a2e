"""Erasure removes all voice clones of a patient. Then the row of the patient can be deleted."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from cloning.consent import erasure, withdrawal
from cloning.jobs import runner
from cloning.models import CloneJob
from tests.cloning import at_provider
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tts.conversations import lifecycle
from tts.conversations.retention import erase_patients
from voicecare.patients import erasure as patients
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]


@pytest.fixture(autouse=True)
def no_grace_period(settings: Settings) -> None:
    settings.ERASURE_GRACE_DAYS = 0


def run_sweeps() -> None:
    CloneJob.objects.update(next_attempt_at=None)
    erasure.sweep()
    withdrawal.sweep()
    erasure.sweep()


@pytest.fixture
def everything(job: Make, provider: SandboxProcess, alice: Member, bob: Member) -> CloneJob:
    """Alice has clones in every state, and Bob has a ready clone. Returns the ready clone of Alice."""
    witness = User.objects.create_user("nora")
    ready, bobs_job, withdrawn = job(witness=witness, report={"codec": "mp3"}), job(patient=bob.patient), job()
    withdrawal.withdraw(withdrawn)
    runner.sweep(runner.run)
    withdrawal.sweep()
    job()
    job(status="failed", error_code="busy")
    job(status="uploading", attempts=1, lease_until=timezone.now() - timedelta(seconds=1))
    assert CloneJob.objects.get(pk=bobs_job.pk).status == CloneJob.objects.get(pk=ready.pk).status == "ready"
    assert CloneJob.objects.get(pk=withdrawn.pk).status == "withdrawn"
    return CloneJob.objects.get(pk=ready.pk)


def test_all_data_of_the_erased_patient_is_removed_and_other_data_is_kept(
    everything: CloneJob, provider: SandboxProcess, alice: Member, bob: Member, sample_folder: Path
):
    patients.start_erasure(alice.patient.pk)
    run_sweeps()
    (bobs_job,) = CloneJob.objects.exclude(patient=None)
    assert bobs_job.patient == bob.patient
    assert at_provider.ids(provider) == [bobs_job.voice.provider_id]
    assert [path.name for path in sample_folder.iterdir()] == [bobs_job.sample]
    erased_jobs = CloneJob.objects.filter(patient=None)
    assert set(erased_jobs.values_list("status", "name", "consent_by", "sample_digest", "sample")) == {
        ("withdrawn", *[""] * 4)
    }
    assert erased_jobs.count() == 5
    erased_ready_job = erased_jobs.get(pk=everything.pk)
    assert (erased_ready_job.report, erased_ready_job.witness.username, erased_ready_job.consent_wording) == (
        {},
        "nora",
        "2026-11",
    )
    assert (erased_ready_job.voice.name, erased_ready_job.voice.patient, erased_ready_job.voice.state) == (
        erasure.ERASED_NAME,
        None,
        "withdrawn",
    )


def test_the_patients_row_can_be_deleted_only_after_the_erasure(
    everything: CloneJob, provider: SandboxProcess, alice: Member
):
    patients.start_erasure(alice.patient.pk)
    Device.objects.filter(patient=alice.patient).delete()
    provider.fault(kind="error", preset="service_unavailable", match={"path": "^/v"})
    run_sweeps()
    with pytest.raises(Exception, match="protected"):
        Patient.objects.get(pk=alice.patient.pk).delete()
    provider.clear_faults()
    run_sweeps()
    Patient.objects.get(pk=alice.patient.pk).delete()


def test_a_voice_without_a_clone_job_is_removed_too(provider: SandboxProcess, alice: Member):
    provider_id = at_provider.add(provider, "by hand")
    voice = Voice.objects.create(provider_id=provider_id, name="Anna", source="cloned", patient=alice.patient)
    Patient.objects.filter(pk=alice.patient.pk).update(voice=voice)
    patients.start_erasure(alice.patient.pk)
    provider.fault(
        kind="error", preset="voice_access_denied", match={"method": "DELETE", "path": "^/v1/voices/"}, first=1
    )
    erasure.remove_external_voices()
    voice.refresh_from_db()
    assert (voice.patient, voice.state) == (alice.patient, "withdrawn")
    erasure.remove_external_voices()
    voice.refresh_from_db()
    assert (voice.patient, voice.name, at_provider.ids(provider)) == (None, erasure.ERASED_NAME, [])
    assert Patient.objects.get(pk=alice.patient.pk).voice is None


def test_no_request_is_sent_if_no_patient_is_erased(job: Make, alice: Member, settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:9"
    job()
    erasure.sweep()
    erasure.remove_external_voices()
    assert CloneJob.objects.get().status == "pending"


def test_the_erasure_of_all_apps_leaves_no_data_of_the_patient(
    everything: CloneJob, provider: SandboxProcess, alice: Member, bob: Member
):
    lifecycle.end(lifecycle.start(alice.device.pk, None).context.conversation_id)
    patients.start_erasure(alice.patient.pk)
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now() - timedelta(hours=2))
    erase_patients()
    assert Patient.objects.get(pk=alice.patient.pk).name == ""
    run_sweeps()
    erase_patients()
    assert list(Patient.objects.all()) == [bob.patient]
    assert list(Device.objects.all()) == [bob.device]
    assert not Voice.objects.filter(state="usable", source="cloned").exclude(patient=bob.patient).exists()
