"""Deletes recordings when they are no longer needed: some days after their voice was created or their job failed."""

import uuid
from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from cloning.models import CloneJob, sample_storage
from voicecare.core.batches import process_each

ORPHAN_AGE = timedelta(hours=1)  # the row of a younger recording may not be written yet

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def prune() -> int:
    """Deletes recordings of jobs that ended more than CLONE_SAMPLE_RETENTION_DAYS ago, and returns their number.

    Idempotent. The row of the job is updated before the file is deleted, so that a concurrent retry finds no recording.
    Raises RowsFailed, after all others were processed, if a recording could not be deleted.
    """
    retention = timedelta(days=settings.CLONE_SAMPLE_RETENTION_DAYS)
    expired = CloneJob.objects.filter(status__in=[Status.READY, Status.FAILED], ended_at__lte=Now() - retention)
    expired = expired.exclude(sample="").filter(Q(requires_verification=False) | Q(status=Status.FAILED))

    def prune_sample(row: tuple[uuid.UUID, str]) -> bool:
        job_id, name = row
        if not expired.filter(pk=job_id).update(sample=""):
            return False
        sample_storage().delete(name)
        return True

    return process_each("samples.prune", expired.values_list("pk", "sample"), prune_sample)


def prune_orphans() -> int:
    """Deletes recordings to which no job refers, and returns their number.

    They are left behind if a process dies after it has stored a recording and before it has written the row of the job.
    """
    try:
        names = sample_storage().listdir("")[1]
    except FileNotFoundError:  # no recording was ever stored
        return 0
    referenced = set(CloneJob.objects.exclude(sample="").values_list("sample", flat=True))
    cutoff = timezone.now() - ORPHAN_AGE
    orphans = [name for name in names if name not in referenced and sample_storage().get_modified_time(name) < cutoff]
    process_each("samples.prune_orphans", orphans, sample_storage().delete)
    log.info("cloning.orphan_samples_deleted", count=len(orphans))
    return len(orphans)
