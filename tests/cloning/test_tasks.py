"""The Celery tasks of voice clones, and real workers that are killed during an attempt."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from django.utils import timezone
from pytest_django import Settings

from cloning import tasks
from cloning.jobs import attempts
from cloning.models import CloneJob
from tests import waiting
from tests.cloning import at_provider
from tests.conftest import Member, database_url
from tests.processes import child_processes
from tests.sandbox import SandboxProcess
from tests.server import ROOT
from voicecare.celery import app
from voicecare.infrastructure.schedule import SCHEDULE
from voicecare.patients import erasure
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., CloneJob]
KILLS = 20
ADD = {"path": "^/v1/voices/add$"}


def test_the_tasks_run_and_withdraw_a_job(job: Make, provider: SandboxProcess):
    clone = job()
    tasks.run(str(clone.pk))
    assert CloneJob.objects.get().status == "ready"
    CloneJob.objects.update(status="withdrawing")
    tasks.withdraw(str(clone.pk))
    assert CloneJob.objects.get().status == "withdrawn"


def test_the_sweep_runs_jobs_and_erases_patients(
    job: Make, provider: SandboxProcess, alice: Member, bob: Member, settings: Settings
):
    settings.ERASURE_GRACE_DAYS = 0
    job()
    job(patient=bob.patient)
    erasure.start_erasure(alice.patient.pk)
    tasks.sweep()
    tasks.sweep()
    assert set(CloneJob.objects.values_list("patient", "status")) == {(None, "withdrawn"), (bob.patient.pk, "ready")}
    assert len(at_provider.ids(provider)) == 1


def test_the_tasks_check_voices_and_delete_recordings(job: Make, provider: SandboxProcess, settings: Settings):
    settings.CLONE_SAMPLE_RETENTION_DAYS = 0
    clone = job()
    tasks.run(str(clone.pk))
    at_provider.remove(provider, at_provider.ids(provider)[0])
    tasks.check_voices()
    assert Voice.objects.get(clone_job=clone).state == "gone"
    tasks.prune_samples()
    assert CloneJob.objects.get().sample == ""


def test_an_unanswered_request_does_not_hold_up_other_clones(job: Make, provider: SandboxProcess, bob: Member):
    provider.fault(kind="stall_headers", seconds=15, first=1, match=ADD)
    unanswered, other = job(), job(patient=bob.patient)
    tasks.run(str(unanswered.pk))
    tasks.run(str(other.pk))
    assert dict(CloneJob.objects.values_list("pk", "status")) == {unanswered.pk: "uploading", other.pk: "ready"}
    waiting.until(lambda: CloneJob.objects.get(pk=unanswered.pk).status == "ready", 60)


def test_the_sweep_starts_other_clones_while_one_is_unanswered(job: Make, provider: SandboxProcess, bob: Member):
    provider.fault(kind="stall_headers", seconds=15, first=1, match=ADD)
    unanswered, other = job(), job(patient=bob.patient)
    tasks.sweep()
    assert CloneJob.objects.get(pk=other.pk).status == "ready"
    waiting.until(lambda: CloneJob.objects.get(pk=unanswered.pk).status == "ready", 60)


def test_beat_has_the_voices_read_within_a_minute_of_the_first_start_and_daily(
    provider: SandboxProcess, settings: Settings
):
    """The tasks of beat's schedule, on a database without voices and on one that has them."""
    settings.DEFAULT_VOICE_ID = ""
    readers = {
        entry["task"]: entry["schedule"]
        for entry in SCHEDULE.values()
        if entry["task"] in ("cloning.read_first_voices", "cloning.check_voices")
    }
    assert readers["cloning.read_first_voices"] <= 60
    assert readers["cloning.check_voices"] <= timedelta(days=1).total_seconds()
    app.tasks["cloning.read_first_voices"]()
    first = Voice.objects.count()
    assert first > 1
    assert Voice.objects.default() is not None
    added = provider.add_voice("Greta")["voice_id"]
    app.tasks["cloning.check_voices"]()
    assert Voice.objects.get(provider_id=added).name == "Greta"
    assert Voice.objects.count() == first + 1


# Stopped and killed workers


def test_a_stopping_process_leaves_a_long_attempt_to_its_lease(
    job: Make, provider: SandboxProcess, monkeypatch: pytest.MonkeyPatch
):
    """Until the process has stopped, it runs no periodic tasks."""
    provider.fault(kind="stall_headers", seconds=15, first=1, match=ADD)
    monkeypatch.setattr(attempts, "_executor", ThreadPoolExecutor(1))  # it accepts no attempt afterwards
    monkeypatch.setattr(attempts, "STOP_TIMEOUT_S", 0.5)
    clone = job()
    tasks.run(str(clone.pk))
    attempts.wait_for_attempts()
    assert status(clone) == "uploading"
    waiting.until(lambda: status(clone) == "ready", 60)  # its thread must not write during another test


class Worker:
    """`celery worker` on the test database, with a broker in `folder`. A pool of one child process runs the tasks."""

    def __init__(self, folder: Path, provider: SandboxProcess, samples: Path) -> None:
        queue, processed, control = (folder / "broker" / name for name in ("queue", "processed", "control"))
        for path in (queue, processed, control):
            path.mkdir(parents=True)
        (folder / "samples").symlink_to(samples)
        self.environment = {
            "DATABASE_URL": database_url(),
            "ELEVENLABS_BASE_URL": provider.url,
            "VOICECARE_DATA_DIR": str(folder),
            "REDIS_URL": "",
            "AWS_STORAGE_BUCKET_NAME": "",
            "PHRASE_STORE": "file",
        }
        options = {"data_folder_in": str(queue), "data_folder_out": str(queue), "control_folder": str(control)}
        self.broker = Celery(broker="folder://", set_as_current=False)
        self.broker.conf.broker_transport_options = {**options, "processed_folder": str(processed)}
        self.log = (folder / "worker.log").open("wb")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-q", "-A", "voicecare", "worker", "--concurrency", "1"]
        self.process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def send_task(self, job: CloneJob) -> None:
        self.broker.send_task("cloning.run", args=[str(job.pk)], ignore_result=True)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Stops the worker as a deployment does. Returns its exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def kill_pool_process(self) -> None:
        """Sends SIGKILL to the pool process and waits until it is dead. The worker then forks the next one."""
        (child,) = child_processes(self.process.pid)
        os.kill(child, signal.SIGKILL)
        until(lambda: not _is_running(child), 5, self)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def worker(tmp_path: Path, provider: SandboxProcess, sample_folder: Path) -> Iterator[Worker]:
    running = Worker(tmp_path, provider, sample_folder)
    yield running
    running.kill()
    running.broker.close()
    running.log.close()


def until(condition: Callable[[], bool], seconds: float, worker: Worker) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(Path(worker.log.name).read_text(errors="replace")[-3000:])
        time.sleep(0.005)


def status(job: CloneJob) -> str:
    return CloneJob.objects.values_list("status", flat=True).get(pk=job.pk)


def test_a_worker_that_stops_waits_for_its_attempts(worker: Worker, job: Make, provider: SandboxProcess):
    """The task ends after 3 s, the attempt some seconds later."""
    provider.fault(kind="stall_headers", seconds=8, first=1, match=ADD)
    clone = job()
    worker.send_task(clone)
    until(lambda: bool(_voices_of_job(provider, clone)), 60, worker)
    assert worker.stop() == 0
    found = CloneJob.objects.get(pk=clone.pk)
    assert (found.status, found.attempts) == ("ready", 1)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the pool's process in /proc, which is Linux")
def test_a_worker_killed_at_any_moment_leaves_one_voice(
    worker: Worker, job: Make, provider: SandboxProcess, alice: Member
):
    """The worker is killed before, during and after each of its slow calls to the provider."""
    moments = random.Random(5)
    seen: list[tuple[str, int]] = []
    for number in range(KILLS):
        _slow_down(provider, before=number % 2 == 0)
        clone = job()
        worker.send_task(clone)
        until(lambda clone=clone: status(clone) != "pending", 30, worker)
        threading.Event().wait(moments.uniform(0, 0.4))
        worker.kill_pool_process()
        seen.append((status(clone), len(_voices_of_job(provider, clone))))
        if seen[-1][0] != "uploading":  # an idle pool process dies with the lock of the pool
            worker.kill()
            worker.start()
        provider.clear_faults()
        # The lease expires.
        CloneJob.objects.filter(lease_until__isnull=False).update(lease_until=timezone.now() - timedelta(seconds=1))
        tasks.sweep()
        found = CloneJob.objects.select_related("voice").get(pk=clone.pk)
        assert (found.status, found.error, found.lease_until) == ("ready", None, None), (number, seen)
        assert _voices_of_job(provider, clone) == [found.voice.provider_id], (number, seen)
        assert Patient.objects.get(pk=alice.patient.pk).voice == found.voice
    assert {("uploading", 0), ("uploading", 1)} <= set(seen)  # the kills were spread as intended


def _slow_down(provider: SandboxProcess, *, before: bool) -> None:
    """Slows down the list of voices, and the response before or after the creation of the voice."""
    provider.fault(kind="stall_first", seconds=0.1, match={"path": "^/v2/voices$"})
    provider.fault(kind="stall_first" if before else "stall_headers", seconds=0.2, match=ADD)


def _voices_of_job(provider: SandboxProcess, job: CloneJob) -> list[str]:
    return [voice["voice_id"] for voice in at_provider.clones(provider) if voice["name"] == job.provider_name]
