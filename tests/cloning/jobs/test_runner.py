"""Clone jobs against the sandbox: exactly one voice is created, and the row says what happened and why."""

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
from voicecare.webhooks.models import WebhookEndpoint, WebhookEvent

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]
ADD = "^/v1/voices/add$"
LIST = "^/v2/voices$"
SUBSCRIPTION = "^/v1/user/subscription$"


def run_once(job: CloneJob) -> CloneJob:
    runner.run(job.pk)
    job.refresh_from_db()
    return job


def make_due(job: CloneJob) -> CloneJob:
    """Moves the next attempt and the end of the lease into the past."""
    past = timezone.now() - timedelta(seconds=1)
    CloneJob.objects.filter(pk=job.pk, next_attempt_at__isnull=False).update(next_attempt_at=past)
    CloneJob.objects.filter(pk=job.pk, lease_until__isnull=False).update(lease_until=past)
    return job


def delay_s(job: CloneJob) -> float:
    assert job.next_attempt_at is not None
    return (job.next_attempt_at - timezone.now()).total_seconds()


# Success


def test_a_recording_becomes_the_patients_voice(job: Make, provider: SandboxProcess, alice: Member):
    clone = run_once(job(remove_background_noise=True))
    (provider_voice,) = at_provider.clones(provider)
    assert (clone.status, clone.error, clone.lease_until, clone.attempts) == ("ready", None, None, 1)
    assert clone.ended_at is not None
    voice = clone.voice
    assert (voice.provider_id, voice.name, voice.source) == (provider_voice["voice_id"], "Anna", "cloned")
    assert (voice.patient, voice.revision, voice.is_usable) == (alice.patient, 1, True)
    assert Patient.objects.get(pk=alice.patient.pk).voice == voice
    assert clone.previous_voice.provider_id == OTHER_VOICE


def test_a_clone_that_waits_for_a_choice_is_not_heard_before_it(job: Make, provider: SandboxProcess, alice: Member):
    used = run_once(job())
    clone = run_once(job(use_when_ready=False))
    assert (clone.status, clone.voice.is_usable) == ("ready", True)
    assert list(CloneJob.objects.undecided()) == [clone]
    assert Patient.objects.get(pk=alice.patient.pk).voice == used.voice
    activation.use(clone)
    activation.use(clone)
    assert Patient.objects.get(pk=alice.patient.pk).voice == clone.voice
    clone.refresh_from_db()
    assert (clone.previous_voice, CloneJob.objects.undecided().count()) == (used.voice, 0)


@pytest.mark.parametrize("fields", [{}, {"status": "failed", "error_code": "x"}])
def test_a_clone_without_a_usable_voice_cannot_be_used(job: Make, alice: Member, fields: dict[str, str]):
    clone = job(use_when_ready=False, **fields)
    before = Patient.objects.get(pk=alice.patient.pk).voice
    with pytest.raises(activation.VoiceNotUsable):
        activation.use(clone)
    assert Patient.objects.get(pk=alice.patient.pk).voice == before


def test_no_names_are_sent_to_the_provider_or_the_storage(job: Make, provider: SandboxProcess, sample_folder: Path):
    clone = run_once(job())
    (provider_voice,) = at_provider.clones(provider)
    assert provider_voice["name"] == f"vc-{clone.pk}"
    assert provider_voice["samples"][0]["file_name"] == f"vc-{clone.pk}.mp3"
    provider_text = str(provider_voice).casefold()
    assert not [name for name in ("alice", "archer", "anna") if name in provider_text]
    assert [path.name for path in sample_folder.iterdir()] == [str(clone.pk)]


def test_a_recording_is_readable_by_its_owner_only(job: Make, sample_folder: Path):
    path = sample_folder / job().sample
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_ended_job_is_not_run_again(job: Make, provider: SandboxProcess):
    clone = run_once(job())
    run_once(make_due(clone))
    runner.sweep(runner.run)
    assert (clone.attempts, len(at_provider.ids(provider))) == (1, 1)


def test_the_sweep_runs_pending_jobs(job: Make, provider: SandboxProcess):
    clones = [job(), job()]
    runner.sweep(runner.run)
    assert set(CloneJob.objects.values_list("status", flat=True)) == {"ready"}
    assert sorted(voice["name"] for voice in at_provider.clones(provider)) == sorted(
        clone.provider_name for clone in clones
    )


def test_several_workers_make_one_voice(job: Make, provider: SandboxProcess):
    clone = job()
    provider.fault(kind="stall_headers", seconds=0.1, match={"path": ADD})
    ready = threading.Barrier(4)

    def work() -> None:
        try:
            ready.wait(5)
            runner.run(clone.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    clone.refresh_from_db()
    assert (clone.status, clone.attempts, len(at_provider.ids(provider))) == ("ready", 1, 1)


def test_an_existing_voice_row_is_reused(job: Make, provider: SandboxProcess, alice: Member):
    clone = job()
    read = Voice.objects.create(provider_id=at_provider.add(provider, clone.provider_name), name=clone.provider_name)
    assert run_once(clone).voice == read
    read.refresh_from_db()
    assert (read.name, read.source, read.patient) == ("Anna", "cloned", alice.patient)


# Exactly one voice


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
def test_a_voice_whose_response_was_lost_is_found_by_the_next_attempt(job: Make, provider: SandboxProcess, fault: dict):
    provider.fault(**fault, first=1, match={"path": ADD})
    clone = run_once(job())
    assert (clone.status, len(at_provider.ids(provider))) == ("pending", 1)
    assert clone.error["code"]
    clone = run_once(make_due(clone))
    assert (clone.status, clone.error, clone.attempts) == ("ready", None, 2)
    assert at_provider.ids(provider) == [clone.voice.provider_id]


def test_the_oldest_of_several_voices_is_kept(job: Make, provider: SandboxProcess):
    clone = job()
    voice_ids = {at_provider.add(provider, clone.provider_name) for _ in range(3)}
    clone = run_once(clone)
    assert at_provider.ids(provider) == [clone.voice.provider_id]
    assert clone.voice.provider_id in voice_ids


def test_no_voice_is_created_if_the_list_cannot_be_read(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="internal_error", match={"path": LIST})
    clone = run_once(job())
    assert (clone.status, clone.error["code"], at_provider.ids(provider)) == ("pending", "internal_error", [])


def test_the_job_of_a_dead_worker_continues_after_its_lease(job: Make, provider: SandboxProcess):
    clone = job(status="uploading", attempts=1, lease_until=timezone.now() + timedelta(seconds=60))
    at_provider.add(provider, clone.provider_name)
    assert run_once(clone).status == "uploading"
    runner.sweep(runner.run)
    assert run_once(clone).status == "uploading"
    make_due(clone)
    runner.sweep(runner.run)
    clone.refresh_from_db()
    assert (clone.status, at_provider.ids(provider)) == ("ready", [clone.voice.provider_id])


def test_a_worker_with_an_expired_lease_changes_nothing(job: Make, provider: SandboxProcess):
    """While it waits for the provider, another worker takes the job and creates the voice."""
    clone = job()
    provider.fault(kind="stall_headers", seconds=0.6, first=1, match={"path": LIST})
    slow = threading.Thread(target=_run_in_thread, args=[clone])
    slow.start()
    _until(lambda: CloneJob.objects.get(pk=clone.pk).status == "uploading")
    run_once(make_due(clone))
    slow.join()
    clone.refresh_from_db()
    assert (clone.status, clone.attempts, at_provider.ids(provider)) == ("ready", 2, [clone.voice.provider_id])


def _run_in_thread(job: CloneJob) -> None:
    try:
        runner.run(job.pk)
    finally:
        connection.close()


def _until(true: Callable[[], bool], seconds: float = 5) -> None:
    delay = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        delay.wait(0.01)
    raise TimeoutError


# Retryable and permanent errors


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
def test_a_permanent_error_fails_immediately_with_advice(preset: str, words: str, job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset=preset, match={"path": ADD})
    clone = run_once(job())
    assert (clone.status, clone.next_attempt_at, clone.attempts) == ("failed", None, 1)
    assert words in clone.error["message"]
    assert clone.ended_at is not None
    assert clone.sample


def test_a_redirect_is_not_blamed_on_the_recording(job: Make, provider: SandboxProcess):
    provider.fault(kind="redirect", location="http://127.0.0.1:9/", match={"path": ADD})
    clone = run_once(job())
    assert clone.error["code"] == "redirect"
    assert "address of the provider" in clone.error["message"]


def test_a_busy_provider_is_called_busy(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="rate_limit_exceeded", first=1, match={"path": ADD})
    assert "busy" in run_once(job()).error["message"]


def test_a_refused_key_opens_an_incident(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="invalid_api_key", match={"path": LIST})
    run_once(job())
    assert Incident.objects.get().kind == "access"


@pytest.mark.parametrize("preset", ["system_busy", "rate_limit_exceeded", "service_unavailable", "bad_gateway_html"])
def test_a_retryable_error_is_retried_with_growing_delays(preset: str, job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset=preset, match={"path": ADD})
    clone, delays = job(), []
    for _ in range(3):
        clone = run_once(make_due(clone))
        assert clone.status == "pending"
        delays.append(delay_s(clone))
    for delay, expected_s in zip(delays, (5, 15, 60), strict=True):
        assert expected_s * 0.7 < delay < expected_s * 1.3
    clone = run_once(make_due(clone))
    assert (clone.status, clone.attempts) == ("failed", 4)
    assert "Nothing is wrong with the recording" in clone.error["message"]


def test_a_job_is_not_retried_before_its_delay(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="system_busy", first=1, match={"path": ADD})
    clone = run_once(run_once(job()))
    assert (clone.status, clone.attempts) == ("pending", 1)


def test_a_job_is_retried_if_the_provider_is_unreachable(job: Make, settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:9"
    clone = run_once(job())
    assert (clone.status, clone.error["code"]) == ("pending", "unreachable")


def test_a_job_whose_workers_all_die_fails(job: Make):
    over = timezone.now() - timedelta(seconds=1)
    clone = job(status="uploading", attempts=4, lease_until=over)
    runner.sweep(runner.run)
    clone.refresh_from_db()
    assert (clone.status, clone.error["code"]) == ("failed", "interrupted")


def test_a_job_without_its_recording_fails(job: Make, provider: SandboxProcess):
    clone = run_once(job(sample="gone"))
    assert (clone.status, clone.error["code"]) == ("failed", "sample_gone")


def test_a_job_is_retried_if_the_storage_fails(job: Make, provider: SandboxProcess, sample_folder: Path):
    clone = job()
    (sample_folder / clone.sample).unlink()
    (sample_folder / clone.sample).mkdir()  # a folder cannot be opened as a file
    clone = run_once(clone)
    assert (clone.status, clone.error["code"], at_provider.ids(provider)) == ("pending", "storage_unavailable", [])


# Plan limits


@pytest.mark.parametrize(
    ("sandbox_settings", "code"),
    [
        ({"voice_limit": 0}, "voice_limit_reached"),
        ({"voice_add_edits_limit": 0}, "voice_add_edit_limit_reached"),
        ({"can_clone": False}, "can_not_use_instant_voice_cloning"),
    ],
)
def test_a_plan_limit_is_detected_before_the_upload(
    sandbox_settings: dict, code: str, job: Make, provider: SandboxProcess
):
    provider.settings(**sandbox_settings)
    provider.fault(kind="refuse", match={"path": ADD})
    clone = run_once(job())
    assert (clone.status, clone.error["code"]) == ("failed", code)
    assert provider.faults()[0]["seen"] == 0


def test_the_voice_is_created_if_the_subscription_cannot_be_read(job: Make, provider: SandboxProcess):
    provider.fault(kind="error", preset="missing_permissions", match={"path": SUBSCRIPTION})
    assert run_once(job()).status == "ready"


def test_an_incident_opens_before_the_voice_slots_are_used_up(job: Make, provider: SandboxProcess):
    provider.settings(voice_limit=3)
    run_once(job())
    assert not Incident.objects.exists()
    run_once(job())
    run_once(job())
    assert Incident.objects.get().kind == "voice_slots"
    provider.settings(voice_limit=30)
    run_once(job())
    assert Incident.objects.get().resolved_at is not None


# Retry


def test_a_failed_job_can_be_retried(job: Make, provider: SandboxProcess):
    provider.settings(voice_limit=0)
    clone = run_once(job())
    provider.settings(voice_limit=5)
    retried = runner.retry(clone)
    assert (retried.status, retried.error, retried.ended_at) == ("pending", None, None)
    assert run_once(retried).status == "ready"


def test_a_retried_job_has_all_attempts_again(job: Make, provider: SandboxProcess):
    clone = job(status="failed", attempts=4, error_code="busy")
    runner.retry(clone)
    provider.fault(kind="error", preset="system_busy", match={"path": ADD})
    clone = run_once(clone)
    assert (clone.status, clone.attempts) == ("pending", 5)
    assert 3.5 < delay_s(clone) < 6.5


@pytest.mark.parametrize(
    "fields", [{}, {"status": "failed", "error_code": "busy", "sample": ""}, {"status": "withdrawing"}]
)
def test_a_job_that_is_not_failed_or_has_no_recording_is_not_retryable(fields: dict, job: Make):
    clone = job(**fields)
    assert not clone.is_retryable
    with pytest.raises(runner.NotRetryable):
        runner.retry(clone)


def test_a_job_is_not_retryable_while_its_recording_is_in_progress(job: Make):
    job(sample_digest="d")
    with pytest.raises(runner.NotRetryable):
        runner.retry(job(sample_digest="d", status="failed", error_code="busy"))


def test_a_lost_voice_is_created_again_in_the_same_row(job: Make, provider: SandboxProcess, alice: Member):
    clone = run_once(job())
    lost_id = clone.voice.provider_id
    at_provider.remove(provider, lost_id)
    Voice.objects.filter(pk=clone.voice_id).update(state="gone")
    clone.refresh_from_db()
    assert clone.is_retryable
    retried = run_once(runner.retry(clone))
    assert (retried.status, retried.voice_id, retried.voice.revision, retried.voice.is_usable) == (
        "ready",
        clone.voice_id,
        2,
        True,
    )
    assert at_provider.ids(provider) == [retried.voice.provider_id] != [lost_id]
    assert Patient.objects.get(pk=alice.patient.pk).voice_id == clone.voice_id
    assert retried.previous_voice.provider_id == OTHER_VOICE


def test_a_changed_voice_is_deleted_when_it_is_created_again(job: Make, provider: SandboxProcess):
    clone = run_once(job())
    at_provider.rename(provider, clone.voice.provider_id, "somebody else")
    Voice.objects.filter(pk=clone.voice_id).update(state="gone")
    retried = run_once(runner.retry(clone))
    assert at_provider.ids(provider) == [retried.voice.provider_id]
    assert at_provider.clones(provider)[0]["name"] == clone.provider_name


# Activation


def test_the_patient_can_revert_to_the_previous_voice(job: Make, provider: SandboxProcess, alice: Member):
    clone = run_once(job())
    assert activation.revert_to_previous_voice(clone)
    assert Patient.objects.get(pk=alice.patient.pk).voice.provider_id == OTHER_VOICE
    assert not activation.revert_to_previous_voice(clone)


def test_a_lost_previous_voice_is_replaced_by_the_default_voice(job: Make, provider: SandboxProcess, alice: Member):
    clone = run_once(job())
    Voice.objects.filter(provider_id=OTHER_VOICE).update(state="gone")
    clone.refresh_from_db()
    assert activation.revert_to_previous_voice(clone)
    assert Patient.objects.get(pk=alice.patient.pk).voice is None


def test_the_previous_clone_is_kept_until_a_third_is_ready(job: Make, provider: SandboxProcess, alice: Member):
    first, second = run_once(job()), run_once(job())
    assert sorted(at_provider.ids(provider)) == sorted([first.voice.provider_id, second.voice.provider_id])
    third = run_once(job())
    first.refresh_from_db()
    assert (first.status, first.replaced, first.voice.state) == ("withdrawing", True, "withdrawn")
    withdrawal.sweep()
    assert sorted(at_provider.ids(provider)) == sorted([second.voice.provider_id, third.voice.provider_id])
    assert activation.revert_to_previous_voice(third)
    assert Patient.objects.get(pk=alice.patient.pk).voice == second.voice


def test_a_clone_that_is_the_backup_voice_is_kept(job: Make, provider: SandboxProcess, alice: Member):
    first = run_once(job())
    Patient.objects.filter(pk=alice.patient.pk).update(backup_voice=first.voice)
    run_once(job())
    run_once(job())
    first.refresh_from_db()
    assert (first.status, first.voice.state) == ("ready", "usable")


def test_another_patients_clones_are_not_replaced(job: Make, provider: SandboxProcess, bob: Member):
    run_once(job(patient=bob.patient))
    for _ in range(3):
        run_once(job())
    assert CloneJob.objects.get(patient=bob.patient).status == "ready"


# Verification


@pytest.fixture
def verification_required(settings: Settings):
    """A provider that requires a verification of the voice."""
    settings.ELEVENLABS_BASE_URL = base = "https://provider.test"
    with responses.RequestsMock() as mock:
        mock.get(f"{base}/v2/voices", json={"voices": [], "has_more": False})
        mock.get(f"{base}/v1/user/subscription", status=401, json={"detail": {"status": "missing_permissions"}})
        mock.post(f"{base}/v1/voices/add", json={"voice_id": "v", "requires_verification": True})
        yield


def test_an_unverified_voice_is_not_used_until_it_is_verified(job: Make, verification_required: None, alice: Member):
    clone = run_once(job())
    assert (clone.status, clone.requires_verification) == ("ready", True)
    assert clone.error["code"] == "verification_required"
    assert Patient.objects.get(pk=alice.patient.pk).voice.provider_id == OTHER_VOICE
    runner.complete_verification(clone)
    clone.refresh_from_db()
    assert (clone.requires_verification, clone.error) == (False, None)
    assert Patient.objects.get(pk=alice.patient.pk).voice == clone.voice


# Withdrawal during an attempt


def test_a_withdrawal_waits_for_a_running_upload_and_then_removes_everything(job: Make, provider: SandboxProcess):
    clone = job()
    provider.fault(kind="stall_headers", seconds=0.5, first=1, match={"path": ADD})
    uploading = threading.Thread(target=_run_in_thread, args=[clone])
    uploading.start()
    _until(lambda: bool(at_provider.ids(provider)))
    withdrawal.withdraw(clone)
    withdrawal.run(clone.pk)  # the uploading worker owns the lease
    clone.refresh_from_db()
    assert clone.status == "withdrawing"
    uploading.join()
    withdrawal.run(clone.pk)
    clone.refresh_from_db()
    assert (clone.status, clone.voice, at_provider.ids(provider)) == ("withdrawn", None, [])


def test_an_erased_patient_gets_no_voice(job: Make, provider: SandboxProcess, alice: Member):
    clone = job()
    Patient.objects.filter(pk=alice.patient.pk).update(erased_at=Now(), voice=None)
    run_once(clone)
    assert Patient.objects.get(pk=alice.patient.pk).voice is None


# Events for integrators


def test_the_end_of_a_job_is_an_event(job: Make, provider: SandboxProcess, alice: Member):
    WebhookEndpoint.objects.create(url="https://records.example.org/")
    ready = run_once(job())
    provider.fault(kind="error", preset="invalid_api_key", match={"path": ADD})
    failed = run_once(job(sample_digest="another"))
    found = {event.type: event for event in WebhookEvent.objects.all()}
    assert (ready.status, failed.status, set(found)) == ("ready", "failed", {"clone.ready", "clone.failed"})
    assert found["clone.ready"].data["voice"] == str(ready.voice_id)
    assert (found["clone.failed"].object_id, found["clone.failed"].data["code"]) == (failed.pk, failed.error_code)
    assert found["clone.failed"].data["patient"] == str(alice.patient.pk)
    assert failed.name not in str([event.data for event in found.values()])
