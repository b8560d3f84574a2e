"""Recordings are kept for a while after they have been made into a voice, or have failed to be, and no longer."""

from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from cloning.models import CloneJob, samples

ORPHAN_AGE = timedelta(hours=1)  # younger ones may be on their way into a row

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def prune() -> int:
    """Deletes what is out of time (CLONE_SAMPLE_RETENTION_DAYS); returns how many. Idempotent.

    The row lets go of it first: a retry that comes between finds none.
    """
    kept = timedelta(days=settings.CLONE_SAMPLE_RETENTION_DAYS)
    old = CloneJob.objects.filter(status__in=[Status.READY, Status.FAILED], ended_at__lte=Now() - kept)
    old = old.exclude(sample="").filter(Q(requires_verification=False) | Q(status=Status.FAILED))
    pruned = 0
    for key, name in old.values_list("pk", "sample"):
        if old.filter(pk=key).update(sample=""):
            samples().delete(name)
            pruned += 1
    return pruned


def prune_orphans() -> int:
    """Deletes recordings without a row: their process died between the two. Returns how many."""
    try:
        names = samples().listdir("")[1]
    except FileNotFoundError:  # none was ever kept
        return 0
    known = set(CloneJob.objects.exclude(sample="").values_list("sample", flat=True))
    old = timezone.now() - ORPHAN_AGE
    orphans = [name for name in names if name not in known and samples().get_modified_time(name) < old]
    for name in orphans:
        samples().delete(name)
    log.info("cloning.orphans_pruned", count=len(orphans))
    return len(orphans)
