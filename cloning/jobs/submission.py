"""A recording comes in: judged, stored, and written down as a job, or refused with nothing left of it."""

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
"""What comes so soon after the same recording is a double click, or a client that has lost the answer."""


def submit(
    *,
    patient: Patient,
    name: str,
    sample: File,
    consent_by: str,
    witness: User | None,
    remove_background_noise: bool = False,
) -> CloneJob:
    """A new job, or the one of the same patient and recording that is unfinished, or ready and came within
    DEDUPLICATION_WINDOW.

    Judges the recording, which takes seconds: call it in a thread that may block, outside of a transaction. Raises
    ConsentMissing for a blank `consent_by`, SampleRefused for the recording; then nothing is stored. `witness` is the
    user who uploads it; None for an operator at the command line.
    """
    if not consent_by.strip():
        raise ConsentMissing("Say who has consented: without the consent of the person who speaks, nothing is stored.")
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
    """The recording as a file of its own, and its digest."""
    digest, size = hashlib.sha256(), 0
    with NamedTemporaryFile(prefix="voicecare-sample-") as copy:
        for chunk in sample.chunks():
            size += len(chunk)
            digest.update(chunk)
            copy.write(chunk)
            if size > MAX_BYTES:  # the judge refuses it by its size, whatever else comes
                break
        copy.flush()
        yield Path(copy.name), digest.hexdigest()


def _store(job: CloneJob, path: Path, since: datetime) -> CloneJob:
    """The object first, then its row: what is left of a process that dies in between, `prune_orphans` removes."""
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
    """The job, or the one that was judged beside it and came first; that one may be a voice by now."""
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
