"""The digests of texts in the ledger: by them repeated texts are counted (`usage.reports.repeated_texts`).

An event keeps its digest for DIGEST_DAYS. The event itself stays in the ledger.
"""

import uuid
from datetime import timedelta

import structlog
from django.db.models import QuerySet
from django.db.models.functions import Now

from usage.models import UsageEvent

DIGEST_DAYS = 31
BATCH_SIZE = 1000  # rows per statement, so that other writers do not wait long

log = structlog.get_logger(__name__)


def recent_events() -> QuerySet[UsageEvent]:
    """Return the events of the last DIGEST_DAYS that have a digest, in no order."""
    return _with_digest().filter(started_at__gt=Now() - timedelta(days=DIGEST_DAYS))


def clear_old_digests() -> int:
    """Clear digests that are older than DIGEST_DAYS, and return how many."""
    return _clear(_with_digest().filter(started_at__lte=Now() - timedelta(days=DIGEST_DAYS)).order_by("started_at"))


def clear_patient_digests(patient_id: uuid.UUID) -> int:
    """Clear the digests of all texts that were spoken to this patient, and return how many."""
    return _clear(_with_digest().filter(patient=patient_id))


def _with_digest() -> QuerySet[UsageEvent]:
    return UsageEvent.objects.exclude(text_digest="").order_by()


def _clear(events: QuerySet[UsageEvent]) -> int:
    cleared = 0
    while keys := list(events.values_list("pk", flat=True)[:BATCH_SIZE]):
        cleared += UsageEvent.objects.filter(pk__in=keys).update(text_digest="")
    if cleared:
        log.info("text_digests.cleared", count=cleared)
    return cleared
