"""Of an erased patient's copied voices nothing is left but that they were, and the patient's row can go."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from cloning.consent import erasure, withdrawal
from cloning.jobs import runner
from cloning.models import CloneJob
from tests.cloning import at_provider
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tts.conversations import lifecycle
from tts.retention import erase_patients
from voicecare.patients import erasure as patients
from voicecare.patients.models import Device, Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]


def swept() -> None:
    CloneJob.objects.update(next_attempt_at=None)
    erasure.sweep()
    withdrawal.sweep()
    erasure.sweep()


@pytest.fixture
def everything(job: Make, provider: SandboxProcess, alice: Member, bob: Member) -> CloneJob:
    """Alice has clones in every state, Bob has one that is ready; returned is Alice's ready one."""
    witness = User.objects.create_user("nora")
    ready, his, withdrawn = job(witness=witness, report={"codec": "mp3"}), job(patient=bob.patient), job()
    withdrawal.withdraw(withdrawn)
    runner.sweep()
    withdrawal.sweep()
    job()
    job(status="failed", error_code="busy")
    job(status="uploading", attempts=1, lease_until=timezone.now() - timedelta(seconds=1))
    assert CloneJob.objects.get(pk=his.pk).status == CloneJob.objects.get(pk=ready.pk).status == "ready"
    assert CloneJob.objects.get(pk=withdrawn.pk).status == "withdrawn"
    return CloneJob.objects.get(pk=ready.pk)


def test_all_of_theirs_goes_and_all_of_others_stays(
    everything: CloneJob, provider: SandboxProcess, alice: Member, bob: Member, sample_folder: Path
):
    patients.start_erasure(alice.patient.pk)
    swept()
    (his,) = CloneJob.objects.exclude(patient=None)
    assert his.patient == bob.patient
    assert at_provider.ids(provider) == [his.voice.provider_id]
    assert [path.name for path in sample_folder.iterdir()] == [his.sample]
    gone = CloneJob.objects.filter(patient=None)
    assert set(gone.values_list("status", "name", "consent_by", "sample_digest", "sample")) == {
        ("withdrawn", *[""] * 4)
    }
    assert gone.count() == 5
    kept = gone.get(pk=everything.pk)
    assert (kept.report, kept.witness.username, kept.consent_wording) == ({}, "nora", "2026-11")
    assert (kept.voice.name, kept.voice.patient, kept.voice.state) == (erasure.ERASED_NAME, None, "withdrawn")


def test_the_patients_row_can_go_then_and_not_before(everything: CloneJob, provider: SandboxProcess, alice: Member):
    patients.start_erasure(alice.patient.pk)
    Device.objects.filter(patient=alice.patient).delete()
    provider.fault(kind="error", preset="service_unavailable", match={"path": "^/v"})
    swept()
    with pytest.raises(Exception, match="protected"):
        Patient.objects.get(pk=alice.patient.pk).delete()
    provider.clear_faults()
    swept()
    Patient.objects.get(pk=alice.patient.pk).delete()


def test_a_voice_that_was_not_made_here_is_removed_too(provider: SandboxProcess, alice: Member):
    there = at_provider.add(provider, "by hand")
    voice = Voice.objects.create(provider_id=there, name="Anna", source="cloned", patient=alice.patient)
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


def test_where_nobody_is_erased_nothing_is_asked(job: Make, alice: Member, settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:9"
    job()
    erasure.sweep()
    erasure.remove_external_voices()
    assert CloneJob.objects.get().status == "pending"


def test_with_all_applications_nothing_of_them_is_left(
    everything: CloneJob, provider: SandboxProcess, alice: Member, bob: Member
):
    lifecycle.end(lifecycle.start(alice.device.pk, None).context.conversation_id)
    patients.start_erasure(alice.patient.pk)
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=timezone.now() - timedelta(hours=2))
    erase_patients()
    assert Patient.objects.get(pk=alice.patient.pk).name == ""
    swept()
    erase_patients()
    assert list(Patient.objects.all()) == [bob.patient]
    assert list(Device.objects.all()) == [bob.device]
    assert not Voice.objects.filter(state="usable", source="cloned").exclude(patient=bob.patient).exists()
