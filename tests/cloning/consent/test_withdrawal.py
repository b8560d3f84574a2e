"""A withdrawal removes all data of a voice clone and keeps the record of the consent."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.utils import timezone
from pytest_django import Settings

from cloning.consent import withdrawal
from cloning.jobs import runner
from cloning.models import CloneJob
from tests.cloning import at_provider
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from tts.models import Clip, Phrase
from usage.alerts import incidents, lost_voices
from usage.models import Incident
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]


@pytest.fixture
def ready(job: Make, provider: SandboxProcess) -> CloneJob:
    clone = job()
    runner.run(clone.pk)
    clone.refresh_from_db()
    return clone


def run_once(job: CloneJob) -> CloneJob:
    CloneJob.objects.filter(pk=job.pk).update(next_attempt_at=None)
    withdrawal.run(job.pk)
    job.refresh_from_db()
    return job


def clip(voice: Voice) -> Clip:
    return Clip.objects.create(
        digest="d",
        voice=voice,
        phrase=Phrase.objects.create(text="I see."),
        language="en",
        speed=1.0,
        format="mp3_44100_128",
        characters=6,
        size=5,
        expires_at=timezone.now() + timedelta(days=1),
    )


def test_a_withdrawn_voice_is_not_used_from_then_on(ready: CloneJob, alice: Member, bob: Member):
    Patient.objects.filter(pk=bob.patient.pk).update(voice=ready.voice, backup_voice=ready.voice)
    clinician = User.objects.create_user("nora")
    withdrawn = withdrawal.withdraw(ready, by=clinician)
    assert (withdrawn.status, withdrawn.voice.state, withdrawn.withdrawn_by) == ("withdrawing", "withdrawn", clinician)
    assert set(Patient.objects.values_list("voice", "backup_voice")) == {(None, None)}


def test_voice_and_recording_are_removed_and_the_record_is_kept(
    ready: CloneJob, provider: SandboxProcess, sample_folder: Path
):
    withdrawn = run_once(withdrawal.withdraw(ready))
    assert (withdrawn.status, withdrawn.sample, withdrawn.error) == ("withdrawn", "", None)
    assert withdrawn.withdrawn_at is not None
    assert (at_provider.ids(provider), list(sample_folder.iterdir())) == ([], [])
    assert (withdrawn.consent_by, withdrawn.consent_wording, withdrawn.patient is not None) == (
        "Anna Archer",
        "2026-11",
        True,
    )
    assert withdrawn.voice.state == "withdrawn"


@pytest.mark.parametrize("fields", [{}, {"status": "failed", "error_code": "busy"}])
def test_a_job_without_a_voice_can_be_withdrawn(fields: dict, job: Make, provider: SandboxProcess):
    clone = job(**fields)
    at_provider.add(provider, clone.provider_name)  # created by an attempt whose response was lost
    withdrawn = run_once(withdrawal.withdraw(clone))
    assert (withdrawn.status, at_provider.ids(provider)) == ("withdrawn", [])


def test_a_withdrawal_is_idempotent(ready: CloneJob):
    first = withdrawal.withdraw(ready, by=User.objects.create_user("nora"))
    again = withdrawal.withdraw(first)
    assert (again.status, again.withdrawn_by) == ("withdrawing", first.withdrawn_by)
    withdrawn = run_once(again)
    at = withdrawn.withdrawn_at
    withdrawn = run_once(withdrawal.withdraw(withdrawn))
    assert (withdrawn.status, withdrawn.withdrawn_at) == ("withdrawn", at)


def test_voices_of_others_are_kept(ready: CloneJob, provider: SandboxProcess):
    other = at_provider.add(provider, "vc-of another server")
    run_once(withdrawal.withdraw(ready))
    assert at_provider.ids(provider) == [other]
    assert Voice.objects.get(provider_id=OTHER_VOICE).is_usable


def test_a_withdrawal_is_repeated_until_the_provider_answers(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="error", preset="service_unavailable", match={"path": "^/v"})
    for _ in range(6):
        waiting = run_once(withdrawal.withdraw(ready))
        assert (waiting.status, waiting.error["code"], waiting.lease_until) == (
            "withdrawing",
            "service_unavailable",
            None,
        )
        assert waiting.next_attempt_at is not None
    provider.clear_faults()
    assert run_once(waiting).status == "withdrawn"
    assert at_provider.ids(provider) == []


def test_a_refused_key_opens_an_incident(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="error", preset="invalid_api_key", match={"path": "^/v"})
    run_once(withdrawal.withdraw(ready))
    assert Incident.objects.get().kind == "access"


def test_a_withdrawal_continues_while_the_voice_exists_at_the_provider(ready: CloneJob, provider: SandboxProcess):
    provider.fault(
        kind="error", preset="voice_access_denied", match={"method": "DELETE", "path": "^/v1/voices/"}, first=1
    )
    waiting = run_once(withdrawal.withdraw(ready))
    assert (waiting.status, waiting.error["code"], len(at_provider.ids(provider))) == ("withdrawing", "voice_left", 1)
    assert run_once(waiting).status == "withdrawn"


def test_a_deletion_whose_response_was_lost_is_detected(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="cut", after_bytes=0, first=1, match={"method": "DELETE", "path": "^/v1/voices/"})
    waiting = run_once(withdrawal.withdraw(ready))
    assert waiting.status == "withdrawing"
    assert run_once(waiting).status == "withdrawn"


def test_a_withdrawal_continues_while_the_key_belongs_to_another_workspace(ready: CloneJob, provider: SandboxProcess):
    at_provider.remove(provider, ready.voice.provider_id)
    incidents.open_incident(incidents.Kind.ACCESS, lost_voices.OTHER_WORKSPACE)
    waiting = run_once(withdrawal.withdraw(ready))
    assert (waiting.status, waiting.error_code) == ("withdrawing", "voice_left")
    incidents.resolve_incident(incidents.Kind.ACCESS, lost_voices.OTHER_WORKSPACE)
    assert run_once(waiting).status == "withdrawn"


def test_a_withdrawal_continues_while_the_recording_exists(ready: CloneJob, sample_folder: Path):
    path = sample_folder / ready.sample
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    waiting = run_once(withdrawal.withdraw(ready))
    assert (waiting.status, waiting.error["code"]) == ("withdrawing", "sample_left")
    (path / "in the way").rmdir()
    path.rmdir()
    assert run_once(waiting).status == "withdrawn"


class NonDeletingStorage(FileSystemStorage):
    """A storage whose delete does nothing."""

    def delete(self, name: str) -> None:
        pass


def test_a_deletion_of_the_recording_is_checked(ready: CloneJob, settings: Settings):
    kept = {**settings.STORAGES["samples"], "BACKEND": f"{__name__}.NonDeletingStorage"}
    settings.STORAGES = {**settings.STORAGES, "samples": kept}
    waiting = run_once(withdrawal.withdraw(ready))
    assert (waiting.status, waiting.error["code"]) == ("withdrawing", "sample_left")


def test_a_withdrawal_continues_while_cached_speech_exists(ready: CloneJob):
    kept = clip(ready.voice)
    waiting = run_once(withdrawal.withdraw(ready))
    assert (waiting.status, waiting.error["code"]) == ("withdrawing", "sound_left")
    kept.delete()
    assert run_once(waiting).status == "withdrawn"


def test_the_sweep_runs_withdrawals_that_are_due_and_not_leased(ready: CloneJob, provider: SandboxProcess):
    withdrawal.withdraw(ready)
    later = timezone.now() + timedelta(seconds=30)
    for blocked in ({"lease_until": later}, {"next_attempt_at": later}):
        CloneJob.objects.update(**{"lease_until": None, "next_attempt_at": None, **blocked})
        withdrawal.sweep()
        assert CloneJob.objects.get().status == "withdrawing"
    CloneJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt_at=None)
    withdrawal.sweep()
    assert CloneJob.objects.get().status == "withdrawn"
