"""A recording that comes in becomes one job, or nothing at all."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
from cloning.jobs.submission import DEDUPLICATION_WINDOW, submit
from cloning.models import CloneJob
from cloning.samples.acceptance import MAX_BYTES, SampleRefused
from tests.cloning import at_provider
from tests.cloning.samples.recordings import encoded, speech
from tests.conftest import Member
from tests.sandbox import SandboxProcess
from tests.waiting import until
from voicecare.core.errors import VoicecareError
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
        given = {"patient": alice.patient, "name": "Anna", "consent_by": "Anna Archer", "witness": None, **fields}
        return submit(sample=file, **given)

    return send


def kept(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_job_has_all_that_was_said_and_found(upload: Upload, sample_folder: Path, alice: Member):
    witness = User.objects.create_user("nora")
    job = upload(witness=witness, consent_by="  Anna Archer ", remove_background_noise=True)
    assert (job.patient, job.name, job.witness) == (alice.patient, "Anna", witness)
    assert (job.consent_by, job.consent_wording) == ("Anna Archer", wording.WORDING_VERSION)
    assert (job.status, job.attempts, job.remove_background_noise) == ("pending", 0, True)
    assert job.report["duration_s"] == pytest.approx(61, abs=0.1)
    assert (job.report["codec"], job.content_type) == ("pcm_s16le", "audio/wav")
    with job.open_sample() as file:
        assert file.read() == recording()
    assert kept(sample_folder) == [str(job.pk)]


@pytest.mark.parametrize("nobody", ["", "  \n"])
def test_without_consent_nothing_is_stored(nobody: str, upload: Upload, sample_folder: Path):
    with pytest.raises(wording.ConsentMissing) as refused:
        upload(consent_by=nobody)
    assert refused.value.code == "no_consent"
    assert (CloneJob.objects.count(), kept(sample_folder)) == (0, [])


@pytest.mark.parametrize(
    ("sample", "code"),
    [
        (b"PK\x03\x04 a zip", "unsupported_format"),
        (ContentFile(b""), "corrupt_audio"),
        (ContentFile(b"RIFF" + bytes(MAX_BYTES)), "too_large"),
    ],
    ids=["zip", "empty", "large"],
)
def test_of_a_refused_recording_nothing_is_stored(sample: File | bytes, code: str, upload: Upload, sample_folder: Path):
    with pytest.raises(SampleRefused) as refused:
        upload(sample)
    assert refused.value.code == code
    assert (CloneJob.objects.count(), kept(sample_folder)) == (0, [])


def test_an_endless_upload_is_not_read_to_its_end(upload: Upload):
    read: list[int] = []

    class Endless(File):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            while True:
                read.append(1_000_000)
                yield bytes(1_000_000)

    with pytest.raises(SampleRefused, match="10 MB"):
        upload(Endless(None, "endless"))
    assert sum(read) <= MAX_BYTES + 1_000_000


def test_a_large_upload_comes_from_a_file(upload: Upload):
    """Django keeps uploads of over 2.5 MB on disk."""
    with TemporaryUploadedFile("../../Anna Archer.wav", "text/html", len(recording()), None) as file:
        file.write(recording())
        file.seek(0)
        job = upload(file)
    assert (job.sample, job.content_type) == (str(job.pk), "audio/wav")


def test_a_double_click_makes_one_job(upload: Upload, sample_folder: Path, bob: Member):
    first = upload()
    assert upload(name="Again") == first
    assert upload(patient=bob.patient) != first
    assert sorted(kept(sample_folder)) == sorted(str(key) for key in CloneJob.objects.values_list("pk", flat=True))


def test_after_the_first_has_ended_the_same_recording_is_a_new_job(upload: Upload):
    first = upload()
    CloneJob.objects.update(status="failed", error_code="busy")
    assert upload() != first


def test_what_is_sent_again_at_once_is_the_voice_that_was_made_of_it(
    upload: Upload, provider: SandboxProcess, sample_folder: Path
):
    first = upload()
    runner.run(first.pk)
    assert upload() == first
    assert (len(at_provider.ids(provider)), kept(sample_folder)) == (1, [str(first.pk)])
    CloneJob.objects.update(created_at=timezone.now() - 2 * DEDUPLICATION_WINDOW)
    assert upload() != first


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the judge in /proc, which is Linux")
def test_a_voice_that_is_made_while_its_double_is_judged_stays_the_only_one(
    upload: Upload, provider: SandboxProcess, sample_folder: Path
):
    """A double click, and a worker that is faster than the judge of the second."""
    recording()
    before = _judging()
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(_and_hang_up, upload)
        (pid,) = until(lambda: _judging() - before)
        os.kill(pid, signal.SIGSTOP)
        first = upload()
        runner.run(first.pk)
        os.kill(pid, signal.SIGCONT)
        assert second.result(30) == first
    assert (len(at_provider.ids(provider)), kept(sample_folder)) == (1, [str(first.pk)])


def _judging() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    children = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return {pid for pid in children if b"cloning.samples.worker" in _command(pid)}


def _command(pid: int) -> bytes:
    """Empty for one that has ended meanwhile."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _and_hang_up(upload: Upload) -> CloneJob:
    try:
        return upload()
    finally:
        connection.close()


def test_two_at_the_same_moment_make_one_job(upload: Upload, sample_folder: Path):
    both = threading.Barrier(2)

    def send() -> CloneJob:
        both.wait(10)
        return _and_hang_up(upload)

    recording()
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(send) for _ in range(2)])
    assert first == second
    assert kept(sample_folder) == [str(CloneJob.objects.get().pk)]


def test_where_the_row_cannot_be_written_no_recording_stays(upload: Upload, sample_folder: Path, alice: Member):
    unsaved = Patient(name="Nobody", companion_name="Clara")
    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        upload(patient=unsaved)
    assert (CloneJob.objects.count(), kept(sample_folder)) == (0, [])


def test_where_the_recording_cannot_be_stored_no_row_stays(upload: Upload, settings, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"in the way")
    alias = {**settings.STORAGES["samples"], "OPTIONS": {"location": tmp_path / "file" / "folder", "base_url": None}}
    settings.STORAGES = {**settings.STORAGES, "samples": alias}
    with pytest.raises((OSError, VoicecareError)):
        upload()
    assert not CloneJob.objects.exists()
