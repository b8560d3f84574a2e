"""Nothing of a withdrawn voice is left, wherever it was; and that it was, and who had consented, stays known."""

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
from usage.models import Incident
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]


@pytest.fixture
def ready(job: Make, provider: SandboxProcess) -> CloneJob:
    made = job()
    runner.run(made.pk)
    made.refresh_from_db()
    return made


def carried_out(job: CloneJob) -> CloneJob:
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


def test_from_that_moment_on_nobody_is_spoken_to_in_it(ready: CloneJob, alice: Member, bob: Member):
    Patient.objects.filter(pk=bob.patient.pk).update(voice=ready.voice)
    clinician = User.objects.create_user("nora")
    gone = withdrawal.withdraw(ready, by=clinician)
    assert (gone.status, gone.voice.state, gone.withdrawn_by) == ("withdrawing", "withdrawn", clinician)
    assert set(Patient.objects.values_list("voice", flat=True)) == {None}


def test_voice_recording_and_use_are_removed_and_the_record_stays(
    ready: CloneJob, provider: SandboxProcess, sample_folder: Path
):
    gone = carried_out(withdrawal.withdraw(ready))
    assert (gone.status, gone.sample, gone.error) == ("withdrawn", "", None)
    assert gone.withdrawn_at is not None
    assert (at_provider.ids(provider), list(sample_folder.iterdir())) == ([], [])
    assert (gone.consent_by, gone.consent_wording, gone.patient is not None) == ("Anna Archer", "2026-11", True)
    assert gone.voice.state == "withdrawn"


@pytest.mark.parametrize("fields", [{}, {"status": "failed", "error_code": "busy"}])
def test_one_that_never_became_a_voice_is_withdrawn_too(fields: dict, job: Make, provider: SandboxProcess):
    made = job(**fields)
    at_provider.add(provider, made.provider_name)  # by an attempt whose answer was not seen
    gone = carried_out(withdrawal.withdraw(made))
    assert (gone.status, at_provider.ids(provider)) == ("withdrawn", [])


def test_it_is_idempotent(ready: CloneJob):
    first = withdrawal.withdraw(ready, by=User.objects.create_user("nora"))
    again = withdrawal.withdraw(first)
    assert (again.status, again.withdrawn_by) == ("withdrawing", first.withdrawn_by)
    gone = carried_out(again)
    at = gone.withdrawn_at
    gone = carried_out(withdrawal.withdraw(gone))
    assert (gone.status, gone.withdrawn_at) == ("withdrawn", at)


def test_others_voices_stay(ready: CloneJob, provider: SandboxProcess):
    other = at_provider.add(provider, "vc-of another server")
    carried_out(withdrawal.withdraw(ready))
    assert at_provider.ids(provider) == [other]
    assert Voice.objects.get(provider_id=OTHER_VOICE).is_usable


def test_a_provider_that_does_not_answer_is_asked_until_it_does(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="error", preset="service_unavailable", match={"path": "^/v"})
    for _ in range(6):
        waits = carried_out(withdrawal.withdraw(ready))
        assert (waits.status, waits.error["code"], waits.lease_until) == ("withdrawing", "service_unavailable", None)
        assert waits.next_attempt_at is not None
    provider.clear_faults()
    assert carried_out(waits).status == "withdrawn"
    assert at_provider.ids(provider) == []


def test_a_refused_key_is_an_incident(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="error", preset="invalid_api_key", match={"path": "^/v"})
    carried_out(withdrawal.withdraw(ready))
    assert Incident.objects.get().kind == "access"


def test_a_voice_that_the_provider_does_not_give_up_is_not_withdrawn(ready: CloneJob, provider: SandboxProcess):
    provider.fault(
        kind="error", preset="voice_access_denied", match={"method": "DELETE", "path": "^/v1/voices/"}, first=1
    )
    waits = carried_out(withdrawal.withdraw(ready))
    assert (waits.status, waits.error["code"], len(at_provider.ids(provider))) == ("withdrawing", "voice_left", 1)
    assert carried_out(waits).status == "withdrawn"


def test_a_deletion_whose_answer_was_lost_is_seen(ready: CloneJob, provider: SandboxProcess):
    provider.fault(kind="cut", after_bytes=0, first=1, match={"method": "DELETE", "path": "^/v1/voices/"})
    waits = carried_out(withdrawal.withdraw(ready))
    assert waits.status == "withdrawing"
    assert carried_out(waits).status == "withdrawn"


def test_a_recording_that_the_storage_does_not_give_up_is_not_withdrawn(ready: CloneJob, sample_folder: Path):
    path = sample_folder / ready.sample
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    waits = carried_out(withdrawal.withdraw(ready))
    assert (waits.status, waits.error["code"]) == ("withdrawing", "sample_left")
    (path / "in the way").rmdir()
    path.rmdir()
    assert carried_out(waits).status == "withdrawn"


class Keeping(FileSystemStorage):
    """Says that it has deleted, and has not."""

    def delete(self, name: str) -> None:
        pass


def test_a_deletion_is_believed_only_when_it_was_looked_for(ready: CloneJob, settings: Settings):
    kept = {**settings.STORAGES["samples"], "BACKEND": f"{__name__}.Keeping"}
    settings.STORAGES = {**settings.STORAGES, "samples": kept}
    waits = carried_out(withdrawal.withdraw(ready))
    assert (waits.status, waits.error["code"]) == ("withdrawing", "sample_left")


def test_sound_that_is_still_kept_is_not_withdrawn(ready: CloneJob):
    kept = clip(ready.voice)
    waits = carried_out(withdrawal.withdraw(ready))
    assert (waits.status, waits.error["code"]) == ("withdrawing", "sound_left")
    kept.delete()
    assert carried_out(waits).status == "withdrawn"


def test_the_sweep_goes_on_with_what_is_due_and_free(ready: CloneJob, provider: SandboxProcess):
    withdrawal.withdraw(ready)
    later = timezone.now() + timedelta(seconds=30)
    for held in ({"lease_until": later}, {"next_attempt_at": later}):
        CloneJob.objects.update(**{"lease_until": None, "next_attempt_at": None, **held})
        withdrawal.sweep()
        assert CloneJob.objects.get().status == "withdrawing"
    CloneJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt_at=None)
    withdrawal.sweep()
    assert CloneJob.objects.get().status == "withdrawn"
