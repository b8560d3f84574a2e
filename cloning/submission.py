"""A recording comes in: judged, stored, and written down as a job, or refused with nothing left of it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.contrib.auth.models import User
from django.core.files import File
from django.db import IntegrityError, transaction

from cloning import judging
from cloning.consent import WORDING_VERSION, ConsentMissing
from cloning.models import CloneJob, samples
from cloning.samples import CONTENT_TYPES, MAX_BYTES
from voicecare import hints
from voicecare.patients.models import Patient


def submit(
    *, patient: Patient, name: str, sample: File, consent_by: str, witness: User | None,
    remove_background_noise: bool = False,
) -> CloneJob:  # fmt: skip
    """A new job, or the unfinished one of the same patient and recording: a double click makes one voice.

    Judges the recording, which takes seconds: call it in a thread that may block, outside of a transaction. Raises
    ConsentMissing for a blank `consent_by`, SampleRefused for the recording; then nothing is stored. `witness` is the
    user who uploads it; None for an operator at the command line.
    """
    if not consent_by.strip():
        raise ConsentMissing("Say who has consented: without the consent of the person who speaks, nothing is stored.")
    with _copied(sample) as (path, digest):
        before = _unfinished(patient, digest)
        if before is not None:
            return before
        report = judging.judge(path)
        job = CloneJob(
            patient=patient, name=name, sample_digest=digest, content_type=CONTENT_TYPES[report.codec],
            report=report.as_json(), remove_background_noise=remove_background_noise,
            consent_by=consent_by.strip(), consent_wording=WORDING_VERSION, witness=witness,
        )  # fmt: skip
        return _kept(job, patient, path)


@contextmanager
def _copied(sample: File) -> Iterator[tuple[Path, str]]:
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


def _unfinished(patient: Patient, digest: str) -> CloneJob | None:
    return CloneJob.objects.unfinished().filter(patient=patient, sample_digest=digest).first()


def _kept(job: CloneJob, patient: Patient, path: Path) -> CloneJob:
    """The object first, then its row: what is left of a process that dies in between, `prune_orphans` removes."""
    with path.open("rb") as recording:
        job.sample = samples().save(str(job.pk), File(recording))
    try:
        with transaction.atomic():
            job.save(force_insert=True)
            hints.send("cloning.run", job.pk)
    except BaseException as error:
        samples().delete(job.sample)
        first = _unfinished(patient, job.sample_digest) if isinstance(error, IntegrityError) else None
        if first is None:
            raise
        return first
    return job
