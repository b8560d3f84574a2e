"""Deletes entries of the audit trail that are older than AUDIT_RETENTION_DAYS."""

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from voicecare.audit.models import AuditEntry

BATCH_SIZE = 1000  # rows per transaction

log = structlog.get_logger(__name__)


def prune_audit() -> int:
    """Deletes old entries, and returns how many. With AUDIT_RETENTION_DAYS=0 entries are kept forever."""
    if not settings.AUDIT_RETENTION_DAYS:
        return 0
    old = AuditEntry.objects.filter(at__lt=Now() - timedelta(days=settings.AUDIT_RETENTION_DAYS)).order_by("at")
    deleted = 0
    while keys := list(old.values_list("pk", flat=True)[:BATCH_SIZE]):
        deleted += _delete(keys)
    if deleted:
        log.info("audit.pruned", count=deleted)
    return deleted


@transaction.atomic
def _delete(keys: list[int]) -> int:
    """Deletes these entries with a plain queryset, because that of AuditEntry refuses to."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # for the trigger of the migration; it ends with the transaction
            cursor.execute("SELECT set_config('voicecare.audit_retention', 'on', true)")
    return QuerySet(AuditEntry).filter(pk__in=keys).delete()[0]
