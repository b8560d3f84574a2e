"""The erasure of a patient: its start, the grace period in which it can be undone, and its beginning.

`Patient.erases_at` is the end of the grace period. Until then the patient is hidden and nothing is deleted. Then
`begin_due_erasures` sets `erased_at`, and a periodic task of each app removes the data that this app has.
"""

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from voicecare.core import task_names, task_queue
from voicecare.patients.models import Device, Patient


@transaction.atomic
def start_erasure(patient_id: uuid.UUID) -> datetime | None:
    """Hides the patient and revokes their devices, and returns when the data will be removed.

    That is after ERASURE_GRACE_DAYS; with 0 the removal begins now. Returns None if the erasure was started before.
    """
    erases_at = timezone.now() + timedelta(days=settings.ERASURE_GRACE_DAYS)
    if not Patient.objects.remaining().filter(pk=patient_id).update(erases_at=erases_at):
        return None
    # After the update, which waits for a transaction that adds a device (DeviceQuerySet.issue).
    Device.objects.filter(patient=patient_id, revoked_at=None).update(revoked_at=Now())
    begin_due_erasures()
    return erases_at


def undo_erasure(patient_id: uuid.UUID) -> bool:
    """Shows the patient again. Their devices stay revoked. Returns False if there is nothing to undo, or too late."""
    waiting = Patient.objects.filter(pk=patient_id, erased_at=None, erases_at__gt=timezone.now())
    return bool(waiting.update(erases_at=None))


def begin_due_erasures() -> None:
    """Begins the erasures whose grace period has ended. Idempotent."""
    now = timezone.now()
    if Patient.objects.filter(erased_at=None, erases_at__lte=now).update(erased_at=now):
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)
