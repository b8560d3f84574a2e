"""From a recording to a voice, against the sandbox: one voice there, whatever goes wrong; the row says what and why."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import responses
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import Settings

from cloning.consent import withdrawal
from cloning.jobs import activation, runner
from cloning.models import CloneJob
from tests.cloning import at_provider
from tests.conftest import OTHER_VOICE, Member
from tests.sandbox import SandboxProcess
from usage.models import Incident
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]
ADD = "^/v1/voices/add$"
LIST = "^/v2/voices$"
SUBSCRIPTION = "^/v1/user/subscription$"


def ran(job: CloneJob) -> CloneJob:
    runner.run(job.pk)
    job.refresh_from_db()
    return job


def due(job: CloneJob) -> CloneJob:
    """The pause before its next attempt, or the lease of its last one, is over."""
    past = timezone.now() - timedelta(seconds=1)
    CloneJob.objects.filter(pk=job.pk, next_attempt_at__isnull=False).update(next_attempt_at=past)
    CloneJob.objects.filter(pk=job.pk, lease_until__isnull=False).update(lease_until=past)
    return job


def pause_s(job: CloneJob) -> float:
    assert job.next_attempt_at is not None
    return (job.next_attempt_at - timezone.now()).total_seconds()


# It works


def test_a_recording_becomes_the_patients_voice(job: Make, provider: SandboxProcess, alice: Member):
    made = ran(job(remove_background_noise=True))
    (there,) = at_provider.clones(provider)
    assert (made.status, made.error, made.lease_until, made.attempts) == ("ready", None, None, 1)
    assert made.ended_at is not None
    voice = made.voice
    assert (voice.provider_id, voice.name, voice.source) == (there["voice_id"], "Anna", "cloned")
    assert (voice.patient, voice.revision, voice.is_usable) == (alice.patient, 1, True)
    assert Patient.objects.get(pk=alice.patient.pk).voice == voice
    assert made.previous_voice.provider_id == OTHER_VOICE


def test_nobodys_name_is_at_the_provider_or_in_the_storage(job: Make, provider: SandboxProcess, sample_folder: Path):
    made = ran(job())
    (there,) = at_provider.clones(provider)
    assert there["name"] == f"vc-{made.pk}"
    assert there["samples"][0]["file_name"] == f"vc-{made.pk}.mp3"
    said = str(there).casefold()
    assert not [name for name in ("alice", "archer", "anna") if name in said]
    assert [path.name for path in sample_folder.iterdir()] == [str(made.pk)]


def test_the_recording_is_its_owners_alone_to_read(job: Make, sample_folder: Path):
    path = sample_folder / job().sample
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_job_that_has_ended_is_not_run_again(job: Make, provider: SandboxProcess):
    made = ran(job())
    ran(due(made))
    runner.sweep()
    assert (made.attempts, len(at_provider.ids(provider))) == (1, 1)


def test_the_sweep_runs_what_no_hint_has_told(job: Make, provider: SandboxProcess):
    made = [job(), job()]
    runner.sweep()
    assert set(CloneJob.objects.values_list("status", flat=True)) == {"ready"}
    assert sorted(voice["name"] for voice in at_provider.clones(provider)) == sorted(m.provider_name for m in made)


def test_of_many_workers_one_makes_it(job: Make, provider: SandboxProcess):
    made = job()
    provider.fault(kind="stall_headers", seconds=0.1, match={"path": ADD})
    ready = threading.Barrier(4)

    def work() -> None:
        try:
            ready.wait(5)
            runner.run(made.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    made.refresh_from_db()
    assert (made.status, made.attempts, len(at_provider.ids(provider))) == ("ready", 1, 1)


def test_a_row_that_the_reading_of_the_list_has_made_is_taken_over(job: Make, provider: SandboxProcess, alice: Member):
    made = job()
    read = Voice.objects.create(provider_id=at_provider.add(provider, made.provider_name), name=made.provider_name)
    assert ran(made).voice == read
    read.refresh_from_db()
    assert (read.name, read.source, read.patient) == ("Anna", "cloned", alice.patient)


# One voice, whatever is seen of it


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "cut", "after_bytes": 0},
        {"kind": "cut_reset", "after_bytes": 5},
        {"kind": "garbage"},
        {"kind": "empty"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_voice_whose_answer_was_lost_is_found_and_not_made_twice(job: Make, provider: SandboxProcess, fault: dict):
    provider.fault(**fault, first=1, match={"path": ADD})
    made = ran(job())
    assert (made.status, len(at_provider.ids(provider))) == ("pending", 1)
    assert made.error["code"]
    made = ran(due(made))
    assert (made.status, made.error, made.attempts) == ("ready", None, 2)
    assert at_provider.ids(provider) == [made.voice.provider_id]


def test_of_several_copies_the_oldest_is_kept(job: Make, provider: SandboxProcess):
    made = job()
    copies = {at_provider.add(provider, made.provider_name) for _ in range(3)}
    made = ran(made)
    assert at_provider.ids(provider) == [made.voice.provider_id]
    assert made.voice.provider_id in copies


def test_a_list_that_cannot_be_read_makes_nothing(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="internal_error", match={"path": LIST})
    made = ran(job())
    assert (made.status, made.error["code"], at_provider.ids(provider)) == ("pending", "internal_error", [])


def test_a_dead_workers_job_waits_for_its_lease_and_goes_on(job: Make, provider: SandboxProcess):
    made = job(status="uploading", attempts=1, lease_until=timezone.now() + timedelta(seconds=60))
    at_provider.add(provider, made.provider_name)
    assert ran(made).status == "uploading"
    runner.sweep()
    assert ran(made).status == "uploading"
    due(made)
    runner.sweep()
    made.refresh_from_db()
    assert (made.status, at_provider.ids(provider)) == ("ready", [made.voice.provider_id])


def test_a_worker_whose_lease_was_over_changes_nothing(job: Make, provider: SandboxProcess):
    """It is slow at the provider; meanwhile another one has taken the job and made the voice."""
    made = job()
    provider.fault(kind="stall_headers", seconds=0.6, first=1, match={"path": LIST})
    slow = threading.Thread(target=_run_in_thread, args=[made])
    slow.start()
    _until(lambda: CloneJob.objects.get(pk=made.pk).status == "uploading")
    ran(due(made))
    slow.join()
    made.refresh_from_db()
    assert (made.status, made.attempts, at_provider.ids(provider)) == ("ready", 2, [made.voice.provider_id])


def _run_in_thread(job: CloneJob) -> None:
    try:
        runner.run(job.pk)
    finally:
        connection.close()


def _until(true: Callable[[], bool], seconds: float = 5) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        pause.wait(0.01)
    raise TimeoutError


# What heals and what does not


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("voice_limit_reached", "no room for another voice"),
        ("voice_add_edit_limit_reached", "no more new voices"),
        ("can_not_use_instant_voice_cloning", "does not include voice clones"),
        ("invalid_audio", "Record it again"),
        ("insufficient_credits", "credits are used up"),
        ("unprocessable", "refuses the recording"),
        ("invalid_api_key", "key or plan"),
        ("missing_permissions", "key or plan"),
    ],
)
def test_what_cannot_heal_fails_at_once_in_words(preset: str, words: str, job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset=preset, match={"path": ADD})
    made = ran(job())
    assert (made.status, made.next_attempt_at, made.attempts) == ("failed", None, 1)
    assert words in made.error["message"]
    assert made.ended_at is not None
    assert made.sample


def test_a_refused_key_is_an_incident(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="invalid_api_key", match={"path": LIST})
    ran(job())
    assert Incident.objects.get().kind == "access"


@pytest.mark.parametrize("preset", ["system_busy", "rate_limit_exceeded", "service_unavailable", "bad_gateway_html"])
def test_what_can_heal_is_tried_again_after_growing_pauses(preset: str, job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset=preset, match={"path": ADD})
    made, pauses = job(), []
    for _ in range(3):
        made = ran(due(made))
        assert made.status == "pending"
        pauses.append(pause_s(made))
    for pause, about in zip(pauses, (5, 15, 60), strict=True):
        assert about * 0.7 < pause < about * 1.3
    made = ran(due(made))
    assert (made.status, made.attempts) == ("failed", 4)
    assert "Nothing is wrong with the recording" in made.error["message"]


def test_it_is_not_tried_before_its_time(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="system_busy", first=1, match={"path": ADD})
    made = ran(ran(job()))
    assert (made.status, made.attempts) == ("pending", 1)


def test_an_unreachable_provider_is_waited_for(job: Make, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:9"
    made = ran(job())
    assert (made.status, made.error["code"]) == ("pending", "unreachable")


def test_a_worker_that_dies_every_time_ends_as_failed(job: Make):
    over = timezone.now() - timedelta(seconds=1)
    made = job(status="uploading", attempts=4, lease_until=over)
    runner.sweep()
    made.refresh_from_db()
    assert (made.status, made.error["code"]) == ("failed", "interrupted")


def test_a_recording_that_is_gone_fails(job: Make, provider: SandboxProcess):
    made = ran(job(sample="gone"))
    assert (made.status, made.error["code"]) == ("failed", "sample_gone")


def test_a_storage_that_does_not_answer_is_waited_for(job: Make, provider: SandboxProcess, sample_folder: Path):
    made = job()
    (sample_folder / made.sample).unlink()
    (sample_folder / made.sample).mkdir()  # opens for nobody
    made = ran(made)
    assert (made.status, made.error["code"], at_provider.ids(provider)) == ("pending", "storage_unavailable", [])


# Slots


@pytest.mark.parametrize(
    ("knobs", "code"),
    [
        ({"voice_limit": 0}, "voice_limit_reached"),
        ({"voice_add_edits_limit": 0}, "voice_add_edit_limit_reached"),
        ({"can_clone": False}, "can_not_use_instant_voice_cloning"),
    ],
)
def test_what_the_plan_does_not_allow_is_known_before_the_upload(
    knobs: dict, code: str, job: Make, provider: SandboxProcess
):
    provider.settings(**knobs)
    provider.fault(kind="refuse", match={"path": ADD})
    made = ran(job())
    assert (made.status, made.error["code"]) == ("failed", code)
    assert provider.faults()[0]["seen"] == 0


def test_the_voice_is_made_where_the_subscription_cannot_be_read(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="missing_permissions", match={"path": SUBSCRIPTION})
    assert ran(job()).status == "ready"


def test_administrators_are_told_before_the_slots_are_used_up(job: Make, provider: SandboxProcess):
    provider.settings(voice_limit=3)
    ran(job())
    assert not Incident.objects.exists()
    ran(job())
    ran(job())
    assert Incident.objects.get().kind == "voice_slots"
    provider.settings(voice_limit=30)
    ran(job())
    assert Incident.objects.get().resolved_at is not None


# Retry by hand, and voices made anew


def test_a_failed_one_is_tried_again_by_hand(job: Make, provider: SandboxProcess):
    provider.settings(voice_limit=0)
    made = ran(job())
    provider.settings(voice_limit=5)
    again = runner.retry(made)
    assert (again.status, again.error, again.ended_at) == ("pending", None, None)
    assert ran(again).status == "ready"


def test_a_retry_has_all_its_attempts(job: Make, provider: SandboxProcess):
    made = job(status="failed", attempts=4, error_code="busy")
    runner.retry(made)
    provider.fault(kind="error", preset="system_busy", match={"path": ADD})
    made = ran(made)
    assert (made.status, made.attempts) == ("pending", 5)
    assert 3.5 < pause_s(made) < 6.5


@pytest.mark.parametrize(
    "fields", [{}, {"status": "failed", "error_code": "busy", "sample": ""}, {"status": "withdrawing"}]
)
def test_what_has_not_failed_or_has_no_recording_is_not_retried(fields: dict, job: Make):
    made = job(**fields)
    assert not made.is_retryable
    with pytest.raises(runner.NotRetryable):
        runner.retry(made)


def test_the_same_recording_that_is_being_made_is_not_retried_besides(job: Make):
    job(sample_digest="d")
    with pytest.raises(runner.NotRetryable):
        runner.retry(job(sample_digest="d", status="failed", error_code="busy"))


def test_a_lost_voice_is_made_anew_in_its_own_row(job: Make, provider: SandboxProcess, alice: Member):
    made = ran(job())
    lost = made.voice.provider_id
    at_provider.remove(provider, lost)
    Voice.objects.filter(pk=made.voice_id).update(state="gone")
    made.refresh_from_db()
    assert made.is_retryable
    again = ran(runner.retry(made))
    voice = again.voice
    assert (again.status, again.voice_id, voice.revision, voice.is_usable) == ("ready", made.voice_id, 2, True)
    assert at_provider.ids(provider) == [again.voice.provider_id] != [lost]
    assert Patient.objects.get(pk=alice.patient.pk).voice_id == made.voice_id
    assert again.previous_voice.provider_id == OTHER_VOICE


def test_a_changed_voice_is_removed_when_it_is_made_anew(job: Make, provider: SandboxProcess):
    made = ran(job())
    at_provider.rename(provider, made.voice.provider_id, "somebody else")
    Voice.objects.filter(pk=made.voice_id).update(state="gone")
    again = ran(runner.retry(made))
    assert at_provider.ids(provider) == [again.voice.provider_id]
    assert at_provider.clones(provider)[0]["name"] == made.provider_name


# Whose voice speaks


def test_one_call_goes_back_to_the_former_voice(job: Make, provider: SandboxProcess, alice: Member):
    made = ran(job())
    assert activation.revert_to_previous_voice(made)
    assert Patient.objects.get(pk=alice.patient.pk).voice.provider_id == OTHER_VOICE
    assert not activation.revert_to_previous_voice(made)


def test_a_former_voice_that_is_gone_is_the_default_one(job: Make, provider: SandboxProcess, alice: Member):
    made = ran(job())
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state="gone")
    made.refresh_from_db()
    assert activation.revert_to_previous_voice(made)
    assert Patient.objects.get(pk=alice.patient.pk).voice is None


def test_the_former_clone_is_kept_until_there_is_a_third(job: Make, provider: SandboxProcess, alice: Member):
    first, second = ran(job()), ran(job())
    assert sorted(at_provider.ids(provider)) == sorted([first.voice.provider_id, second.voice.provider_id])
    third = ran(job())
    first.refresh_from_db()
    assert (first.status, first.replaced, first.voice.state) == ("withdrawing", True, "withdrawn")
    withdrawal.sweep()
    assert sorted(at_provider.ids(provider)) == sorted([second.voice.provider_id, third.voice.provider_id])
    assert activation.revert_to_previous_voice(third)
    assert Patient.objects.get(pk=alice.patient.pk).voice == second.voice


def test_another_patients_clones_are_not_replaced(job: Make, provider: SandboxProcess, bob: Member):
    ran(job(patient=bob.patient))
    for _ in range(3):
        ran(job())
    assert CloneJob.objects.get(patient=bob.patient).status == "ready"


# Verification


@pytest.fixture
def verifying(settings: Settings):
    """A provider that wants the voice verified."""
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    with responses.RequestsMock() as mock:
        mock.get(f"{base}/v2/voices", json={"voices": [], "has_more": False})
        mock.get(f"{base}/v1/user/subscription", status=401, json={"detail": {"status": "missing_permissions"}})
        mock.post(f"{base}/v1/voices/add", json={"voice_id": "v", "requires_verification": True})
        yield


def test_a_voice_that_is_to_be_verified_is_shown_and_not_heard(job: Make, verifying: None, alice: Member):
    made = ran(job())
    assert (made.status, made.requires_verification) == ("ready", True)
    assert made.error["code"] == "verification_required"
    assert Patient.objects.get(pk=alice.patient.pk).voice.provider_id == OTHER_VOICE
    runner.complete_verification(made)
    made.refresh_from_db()
    assert (made.requires_verification, made.error) == (False, None)
    assert Patient.objects.get(pk=alice.patient.pk).voice == made.voice


# Withdrawn meanwhile


def test_a_withdrawal_waits_for_the_upload_under_way_and_then_nothing_is_left(job: Make, provider: SandboxProcess):
    made = job()
    provider.fault(kind="stall_headers", seconds=0.5, first=1, match={"path": ADD})
    uploading = threading.Thread(target=_run_in_thread, args=[made])
    uploading.start()
    _until(lambda: bool(at_provider.ids(provider)))
    withdrawal.withdraw(made)
    withdrawal.run(made.pk)  # the lease is the uploading worker's
    made.refresh_from_db()
    assert made.status == "withdrawing"
    uploading.join()
    withdrawal.run(made.pk)
    made.refresh_from_db()
    assert (made.status, made.voice, at_provider.ids(provider)) == ("withdrawn", None, [])


def test_an_erased_patient_gets_no_voice(job: Make, provider: SandboxProcess, alice: Member):
    made = job()
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=Now(), voice=None)
    ran(made)
    assert Patient.objects.get(pk=alice.patient.pk).voice is None
