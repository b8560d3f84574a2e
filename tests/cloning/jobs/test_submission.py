"""An uploaded recording becomes one clone job, or nothing is stored."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import connection
from django.utils import timezone

from cloning.consent import wording
from cloning.jobs import runner
from cloning.jobs.submission import DEDUPLICATION_WINDOW, RecordingNotStored, submit
from cloning.models import CloneJob
from cloning.samples.acceptance import MAX_BYTES, SampleRefused
from tests.cloning import at_provider
from tests.cloning.samples.recordings import encoded, speech
from tests.conftest import Member
from tests.processes import child_processes, command_line
from tests.sandbox import SandboxProcess
from tests.waiting import until
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db(transaction=True)

Upload = Callable[..., CloneJob]


@cache
def recording(seconds: float = 61) -> bytes:
    return encoded(speech(seconds, rate=16000), "pcm_s16le", 16000)


@pytest.fixture
def upload(alice: Member) -> Upload:
    def send(sample: File | bytes = b"", **fields: object) -> CloneJob:
        file = ContentFile(sample or recording()) if isinstance(sample, bytes) else sample
        fields = {"patient": alice.patient, "name": "Anna", "consent_by": "Anna Archer", "witness": None, **fields}
        return submit(sample=file, on_submit=lambda job: None, **fields)

    return send


def test_the_copy_that_is_inspected_has_no_name(upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file of a killed process would stay in the temporary folder, where no erasure finds it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[list[Path]] = []

    class Watched(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield from super().chunks(chunk_size)
            seen.append(list(tmp_path.iterdir()))

    assert upload(Watched(recording())).sample
    assert seen == [[]]


def stored_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_job_stores_the_upload_and_the_report(upload: Upload, sample_folder: Path, alice: Member):
    witness = User.objects.create_user("nora")
    job = upload(witness=witness, consent_by="  Anna Archer ", remove_background_noise=True)
    assert (job.patient, job.name, job.witness) == (alice.patient, "Anna", witness)
    assert (job.consent_by, job.consent_wording) == ("Anna Archer", wording.WORDING_VERSION)
    assert (job.status, job.attempts, job.remove_background_noise) == ("pending", 0, True)
    assert job.report["duration_s"] == pytest.approx(61, abs=0.1)
    assert (job.report["codec"], job.content_type) == ("pcm_s16le", "audio/wav")
    with job.open_sample() as file:
        assert file.read() == recording()
    assert stored_names(sample_folder) == [str(job.pk)]


@pytest.mark.parametrize("consent_by", ["", "  \n"])
def test_without_consent_nothing_is_stored(consent_by: str, upload: Upload, sample_folder: Path):
    with pytest.raises(wording.ConsentMissing) as refused:
        upload(consent_by=consent_by)
    assert refused.value.code == "no_consent"
    assert (CloneJob.objects.count(), stored_names(sample_folder)) == (0, [])


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        (b"PK\x03\x04 a zip", "unsupported_format"),
        (ContentFile(b""), "corrupt_audio"),
        (ContentFile(b"RIFF" + bytes(MAX_BYTES)), "too_large"),
    ],
    ids=["zip", "empty", "large"],
)
def test_a_refused_recording_is_not_stored(sample: File | bytes, code: str, upload: Upload, sample_folder: Path):
    with pytest.raises(SampleRefused) as refused:
        upload(sample)
    assert refused.value.code == code
    assert (CloneJob.objects.count(), stored_names(sample_folder)) == (0, [])


def test_reading_of_an_endless_upload_stops_at_the_size_limit(upload: Upload):
    read: list[int] = []

    class Endless(File):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            while True:
                read.append(1_000_000)
                yield bytes(1_000_000)

    with pytest.raises(SampleRefused, match="10 MB"):
        upload(Endless(None, "endless"))
    assert sum(read) <= MAX_BYTES + 1_000_000


def test_a_large_upload_from_a_temporary_file_is_accepted(upload: Upload):
    """Django stores uploads over 2.5 MB on disk."""
    with TemporaryUploadedFile("../../Anna Archer.wav", "text/html", len(recording()), None) as file:
        file.write(recording())
        file.seek(0)
        job = upload(file)
    assert (job.sample, job.content_type) == (str(job.pk), "audio/wav")


def test_a_double_click_makes_one_job(upload: Upload, sample_folder: Path, bob: Member):
    first = upload()
    assert upload(name="Again") == first
    assert upload(patient=bob.patient) != first
    assert sorted(stored_names(sample_folder)) == sorted(
        str(key) for key in CloneJob.objects.values_list("pk", flat=True)
    )


def test_the_same_recording_after_a_failed_job_is_a_new_job(upload: Upload):
    first = upload()
    CloneJob.objects.update(status="failed", error_code="busy")
    assert upload() != first


def test_the_same_recording_soon_after_a_ready_job_returns_that_job(
    upload: Upload, provider: SandboxProcess, sample_folder: Path
):
    first = upload()
    runner.run(first.pk)
    assert upload() == first
    assert (len(at_provider.ids(provider)), stored_names(sample_folder)) == (1, [str(first.pk)])
    CloneJob.objects.update(created_at=timezone.now() - 2 * DEDUPLICATION_WINDOW)
    assert upload() != first


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc, so it needs Linux")
def test_a_job_that_becomes_ready_during_the_inspection_of_its_duplicate_stays_the_only_one(
    upload: Upload, provider: SandboxProcess, sample_folder: Path
):
    """A double click: the first job is ready before the second recording is inspected."""
    recording()
    before = _inspection_workers()
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(_upload_and_close_connection, upload)
        (pid,) = until(lambda: _inspection_workers() - before)
        os.kill(pid, signal.SIGSTOP)
        first = upload()
        runner.run(first.pk)
        os.kill(pid, signal.SIGCONT)
        assert second.result(30) == first
    assert (len(at_provider.ids(provider)), stored_names(sample_folder)) == (1, [str(first.pk)])


def _inspection_workers() -> set[int]:
    return {pid for pid in child_processes() if b"cloning.samples.worker" in command_line(pid)}


def _upload_and_close_connection(upload: Upload) -> CloneJob:
    try:
        return upload()
    finally:
        connection.close()


def test_two_simultaneous_uploads_make_one_job(upload: Upload, sample_folder: Path):
    both = threading.Barrier(2)

    def send() -> CloneJob:
        both.wait(10)
        return _upload_and_close_connection(upload)

    recording()
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(send) for _ in range(2)])
    assert first == second
    assert stored_names(sample_folder) == [str(CloneJob.objects.get().pk)]


def test_no_recording_remains_if_the_row_cannot_be_written(upload: Upload, sample_folder: Path, alice: Member):
    unsaved = Patient(name="Nobody", companion_name="Clara")
    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        upload(patient=unsaved)
    assert (CloneJob.objects.count(), stored_names(sample_folder)) == (0, [])


def test_no_row_remains_if_the_recording_cannot_be_stored(upload: Upload, settings, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"in the way")
    alias = {**settings.STORAGES["samples"], "OPTIONS": {"location": tmp_path / "file" / "folder", "base_url": None}}
    settings.STORAGES = {**settings.STORAGES, "samples": alias}
    with pytest.raises(RecordingNotStored) as refused:
        upload()
    assert (refused.value.code, refused.value.retryable) == ("storage_unavailable", True)
    assert not CloneJob.objects.exists()
