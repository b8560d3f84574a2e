"""Celery tasks that use more than one app."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from tts.conversations import lifecycle
from usage.ledger import events, journal
from usage.reconciliation import reconciler


@shared_task(name="voicecare.reconcile")
def reconcile() -> None:
    """Recover usage from the journal of this machine, then compare the ledger with the provider's figures."""
    journal.recover(settings.DATA_DIR / journal.FOLDER, events.record_attempts)
    reconciler.reconcile(timezone.now(), lifecycle.add_reconciled_characters)
