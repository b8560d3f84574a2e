"""What Celery does that is of more than one app."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from tts import conversations, journal
from usage import ledger, reconciliation


@shared_task(name="voicecare.reconcile")
def reconcile() -> None:
    journal.adopt(settings.DATA_DIR / journal.FOLDER, ledger.book)
    reconciliation.reconcile(timezone.now(), conversations.add_late)
