"""Accepts a recording: inspects and stores it, and creates its clone job. Nothing is kept of a refused recording."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.contrib.auth.models import User
from django.core.files import File
from django.db import IntegrityError, transaction
from django.utils import timezone

from cloning.consent.wording import WORDING_VERSION, ConsentMissing
from cloning.models import CloneJob, sample_storage
from cloning.samples import inspection
from cloning.samples.acceptance import CONTENT_TYPES, MAX_BYTES
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient

DEDUPLICATION_WINDOW = timedelta(seconds=60)
"""The same recording within this time is a double click, or a client that has lost the response."""


def submit(
    *,
    patient: Patient,
    name: str,
    sample: File,
    consent_by: str,
    witness: User | None,
    remove_background_noise: bool = False,
) -> CloneJob:
    """Returns a new clone job, or an existing job of the same patient and recording.

    An existing job is returned if it is unfinished, or if it is ready and was created within DEDUPLICATION_WINDOW.
    `witness` is the user who uploads the recording, or None for an operator at the command line. Raises ConsentMissing
    if `consent_by` is blank, and SampleRefused for an unsuitable recording. Then nothing is stored.

    Blocks for some seconds, because it inspects the recording. Call it in a thread, outside of a transaction.
    """
    if not consent_by.strip():
        raise ConsentMissing(
            "Enter who has consented. Without the consent of the person who speaks, nothing is stored."
        )
    since = timezone.now() - DEDUPLICATION_WINDOW
    with _temporary_copy(sample) as (path, digest):
        duplicate = CloneJob.objects.duplicates_of(patient.pk, digest, since).first()
        if duplicate is not None:
            return duplicate
        report = inspection.inspect_sample(path)
        job = CloneJob(
            patient=patient,
            name=name,
            sample_digest=digest,
            content_type=CONTENT_TYPES[report.codec],
            report=report.as_json(),
            remove_background_noise=remove_background_noise,
            consent_by=consent_by.strip(),
            consent_wording=WORDING_VERSION,
            witness=witness,
        )
        return _store(job, path, since)


@contextmanager
def _temporary_copy(sample: File) -> Iterator[tuple[Path, str]]:
    """Copies the recording to a temporary file. Yields its path and its SHA-256 digest."""
    digest, size = hashlib.sha256(), 0
    with NamedTemporaryFile(prefix="voicecare-sample-") as copy:
        for chunk in sample.chunks():
            size += len(chunk)
            digest.update(chunk)
            copy.write(chunk)
            if size > MAX_BYTES:  # the inspection refuses the file for its size, so the rest is not needed
                break
        copy.flush()
        yield Path(copy.name), digest.hexdigest()


def _store(job: CloneJob, path: Path, since: datetime) -> CloneJob:
    """Stores the recording, then the row. Returns the new job, or a duplicate that was stored earlier.

    If the process dies between the two steps, `retention.prune_orphans` deletes the recording.
    """
    with path.open("rb") as recording:
        job.sample = sample_storage().save(str(job.pk), File(recording))
    try:
        stored = _insert_or_get(job, since)
    except BaseException:
        sample_storage().delete(job.sample)
        raise
    if stored != job:
        sample_storage().delete(job.sample)
    return stored


def _insert_or_get(job: CloneJob, since: datetime) -> CloneJob:
    """Inserts the job, or returns a duplicate that was inserted during the inspection. It may already be ready."""
    duplicates = CloneJob.objects.duplicates_of(job.patient_id, job.sample_digest, since)
    try:
        with transaction.atomic():
            stored = duplicates.first()
            if stored is None:
                job.save(force_insert=True)
                task_queue.enqueue_on_commit(task_names.RUN_CLONE_JOB, job.pk)
            return stored or job
    except IntegrityError:
        stored = duplicates.first()
        if stored is None:
            raise
        return stored
