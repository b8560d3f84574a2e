"""Erasing a patient begins here; what each application keeps of them, its own sweep removes later."""

import uuid

from django.db import transaction
from django.utils import timezone

from voicecare.patients.models import Device, Patient


@transaction.atomic
def start_erasure(patient_id: uuid.UUID) -> bool:
    """From now on nobody sees this patient and none of their devices may connect. False if it had begun before."""
    now = timezone.now()
    Device.objects.filter(patient=patient_id, revoked_at=None).update(revoked_at=now)
    return bool(Patient.objects.filter(pk=patient_id, erased_at=None).update(erased_at=now))
