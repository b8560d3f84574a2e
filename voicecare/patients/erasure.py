"""Starts the erasure of a patient. Each app later removes its own data of erased patients in a periodic task."""

import uuid

from django.db import transaction
from django.utils import timezone

from voicecare.patients.models import Device, Patient


@transaction.atomic
def start_erasure(patient_id: uuid.UUID) -> bool:
    """Hide the patient from all users and revoke their devices. Returns False if the erasure had already started."""
    now = timezone.now()
    Device.objects.filter(patient=patient_id, revoked_at=None).update(revoked_at=now)
    return bool(Patient.objects.filter(pk=patient_id, erased_at=None).update(erased_at=now))
