"""Deletes recordings some time after their voice was created or their job failed."""

from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from cloning.models import CloneJob, sample_storage

ORPHAN_AGE = timedelta(hours=1)  # the row of a younger recording may not be written yet

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def prune() -> int:
    """Deletes recordings of jobs that ended more than CLONE_SAMPLE_RETENTION_DAYS ago. Returns their number.

    Idempotent. The row is updated first, so that a concurrent retry finds no recording.
    """
    retention = timedelta(days=settings.CLONE_SAMPLE_RETENTION_DAYS)
    expired = CloneJob.objects.filter(status__in=[Status.READY, Status.FAILED], ended_at__lte=Now() - retention)
    expired = expired.exclude(sample="").filter(Q(requires_verification=False) | Q(status=Status.FAILED))
    pruned = 0
    for job_id, name in expired.values_list("pk", "sample"):
        if expired.filter(pk=job_id).update(sample=""):
            sample_storage().delete(name)
            pruned += 1
    return pruned


def prune_orphans() -> int:
    """Deletes recordings without a row and returns their number. Their process died before it wrote the row."""
    try:
        names = sample_storage().listdir("")[1]
    except FileNotFoundError:  # no recording was ever stored
        return 0
    referenced = set(CloneJob.objects.exclude(sample="").values_list("sample", flat=True))
    cutoff = timezone.now() - ORPHAN_AGE
    orphans = [name for name in names if name not in referenced and sample_storage().get_modified_time(name) < cutoff]
    for name in orphans:
        sample_storage().delete(name)
    log.info("cloning.orphan_samples_deleted", count=len(orphans))
    return len(orphans)
