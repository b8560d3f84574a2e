"""The device that `manage.py talk --patient NAME` is: for one conversation, like a page of the device console."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.core.management.base import CommandError
from django.db import transaction
from django.db.models.functions import Now

from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.models import Device, Patient

NAME = "talk (command line)"
LONGEST = timedelta(hours=1)
SHOWN_NAMES = 10


@contextmanager
def issued(name: str) -> Iterator[str]:
    """Yield the token of a new device of the active patient with this name, and revoke it at the end.

    Messages to the patient are not delivered to it. Raises CommandError if no patient has the name, or several have it.
    """
    patient = _find_patient(name)
    with transaction.atomic():
        device, token = Device.objects.issue(patient, NAME, console_until=Now() + LONGEST, takes_messages=False)
        record(None, Action.ADD, device)
    try:
        yield token
    finally:
        with transaction.atomic():
            Device.objects.filter(pk=device.pk).update(revoked_at=Now())
            record(None, Action.REVOKE, device)


def _find_patient(name: str) -> Patient:
    """Return the patient with exactly this name, or else the only one with all of these words in a name."""
    if not name.strip():
        raise CommandError("--patient needs a name.")
    found = Patient.objects.active().named(name).order_by("name", "pk")
    exact = [patient for patient in found if name.casefold() in (patient.name.casefold(), patient.external_id)]
    match exact or list(found[: SHOWN_NAMES + 1]):
        case []:
            raise CommandError(f'No active patient is named "{name}".')
        case [patient]:
            return patient
        case several:
            names = ", ".join(f"{patient.name} ({patient.pk})" for patient in several[:SHOWN_NAMES])
            more = " and others" if len(several) > SHOWN_NAMES else ""
            raise CommandError(
                f'Several patients are named "{name}": {names}{more}. Give the whole name or external id.'
            )
