"""Accepts a recording: inspects it, stores it and creates its clone job. No data of a refused recording is stored."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from tempfile import TemporaryFile
from typing import IO

import structlog
from django.contrib.auth.models import User
from django.core.files import File
from django.db import IntegrityError, transaction
from django.utils import timezone

from cloning.consent.wording import WORDING_VERSION, ConsentMissing
from cloning.models import CloneJob, sample_storage
from cloning.samples import inspection
from cloning.samples.acceptance import MAX_BYTES, Report
from voicecare.core import task_names, task_queue
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient

DEDUPLICATION_WINDOW = timedelta(seconds=60)
"""The same recording within this time is a double click, or a client that has lost the response."""

_NOT_STORED = "This server cannot store the recording now. Nothing was kept. Send it again in a few minutes."

log = structlog.get_logger(__name__)


class RecordingNotStored(VoicecareError):
    """The storage of recordings failed. REST status 503."""

    code = "storage_unavailable"
    retryable = True


def submit(
    *,
    patient: Patient,
    name: str,
    sample: File,
    consent_by: str,
    witness: User | None,
    on_submit: Callable[[CloneJob], object],
    remove_background_noise: bool = False,
    use_when_ready: bool = True,
) -> CloneJob:
    """Returns a new clone job for the recording, or an existing job of the same patient and recording.

    An existing job is returned if it is unfinished, or if it is ready and was created within DEDUPLICATION_WINDOW. The
    stored file is the one that the provider gets. It can differ from the uploaded file (`samples.conversion`).
    `witness` is the user who uploads the recording, or None for an operator at the command line. `on_submit` is called
    with the job, in the transaction that inserts it. With `use_when_ready`, the patient hears the voice as soon as it
    is ready. Otherwise when `activation.use` is called.

    Raises ConsentMissing if `consent_by` is blank, SampleRefused for an unsuitable recording, InspectionFailed if the
    recording could not be inspected, and RecordingNotStored if the storage fails. After an error nothing is stored.

    Blocks for some seconds, because it inspects the recording. Call it in a thread, outside of a transaction.
    """
    if not consent_by.strip():
        raise ConsentMissing(
            "Enter who has consented. Without the consent of the person who speaks, nothing is stored."
        )
    since = timezone.now() - DEDUPLICATION_WINDOW
    with _temporary_copy(sample) as (copy, digest):
        duplicate = CloneJob.objects.duplicates_of(patient.pk, digest, since).first()
        if duplicate is not None:
            on_submit(duplicate)
            return duplicate
        inspected = inspection.inspect_sample(copy)
        if inspected.replacement:
            copy.seek(0)
            copy.truncate()
            copy.write(inspected.replacement)
        job = CloneJob(
            patient=patient,
            name=name,
            sample_digest=digest,
            content_type=inspected.media_type,
            report=inspected.report.as_json(),
            remove_background_noise=remove_background_noise,
            use_when_ready=use_when_ready,
            consent_by=consent_by.strip(),
            consent_wording=WORDING_VERSION,
            witness=witness,
        )
        return _store(job, copy, since, on_submit)


def check(sample: File) -> Report:
    """Inspects a recording as `submit` does, and returns its report. Nothing is stored.

    Raises SampleRefused and InspectionFailed. Blocks for some seconds. Call it in a thread.
    """
    with _temporary_copy(sample) as (copy, _):
        return inspection.inspect_sample(copy).report


@contextmanager
def _temporary_copy(sample: File) -> Iterator[tuple[IO[bytes], str]]:
    """Copies the recording to a temporary file.

    Yields the file and the SHA-256 digest of the recording as hexadecimal digits. The file has no name, so the
    operating system deletes it with this process, even if the process is killed.
    """
    digest, size = hashlib.sha256(), 0
    with TemporaryFile() as copy:
        for chunk in sample.chunks():
            size += len(chunk)
            digest.update(chunk)
            copy.write(chunk)
            if size > MAX_BYTES:  # the inspection refuses the file for its size, so the rest is not needed
                break
        yield copy, digest.hexdigest()


def _store(job: CloneJob, recording: IO[bytes], since: datetime, on_submit: Callable[[CloneJob], object]) -> CloneJob:
    """Stores the recording, then inserts the job. Returns the inserted job.

    If another request has inserted a job for the same recording, returns that job, and deletes the recording. The
    recording is also deleted after an error. If the process dies between the two steps, `retention.prune_orphans`
    deletes it.
    """
    duplicates = CloneJob.objects.duplicates_of(job.patient_id, job.sample_digest, since)
    try:
        job.sample = sample_storage().save(str(job.pk), File(recording, name=str(job.pk)))
    except Exception as error:  # libraries of storages raise exceptions of many types
        log.warning("cloning.storage_unavailable", job=str(job.pk), error=type(error).__name__)
        raise RecordingNotStored(_NOT_STORED) from error
    is_inserted = False
    try:
        with transaction.atomic():
            duplicate = duplicates.first()
            if duplicate is None:
                job.save(force_insert=True)
                task_queue.enqueue_on_commit(task_names.RUN_CLONE_JOB, job.pk)
            on_submit(duplicate or job)
        is_inserted = duplicate is None
    except IntegrityError:
        duplicate = duplicates.first()
        if duplicate is None:
            raise
        on_submit(duplicate)
    finally:  # also after SystemExit: without a row, nothing else refers to the recording
        if not is_inserted:
            sample_storage().delete(job.sample)
    return duplicate or job
