"""What Celery does that is of more than one app."""

from celery import shared_task
from django.utils import timezone

from tts import conversations
from usage import reconciliation


@shared_task(name="voicecare.reconcile")
def reconcile() -> None:
    reconciliation.reconcile(timezone.now(), conversations.add_late)
