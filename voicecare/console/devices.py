"""The devices that the pages of the console are: one for each page that is open, with a token for minutes.

The page keeps its device while it is open. A device whose browser has vanished expires.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest

from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.models import Device, Patient

SESSION_KEY = "console_devices"
MAX_IN_SESSION = 50  # the latest ones; others have expired
KEPT = timedelta(days=30)  # after its end, so that the list of conversations says where they took place


@dataclass(frozen=True)
class ConsoleDevice:
    """A device and its token, which cannot be read again."""

    id: uuid.UUID
    token: str


@transaction.atomic
def issue(request: HttpRequest, patient: Patient, audio_format: str, *, takes_messages: bool) -> ConsoleDevice:
    """Creates the device of a page. Raises Patient.DoesNotExist if the patient is to be erased."""
    name = f"Device console of {request.user.get_username()}"[: Device._meta.get_field("name").max_length]
    device, token = Device.objects.issue_console(patient, name, takes_messages=takes_messages, format=audio_format)
    record(request, Action.ADD, device, {"takes_messages": [None, takes_messages]})
    request.session[SESSION_KEY] = [*request.session.get(SESSION_KEY, [])[1 - MAX_IN_SESSION :], str(device.pk)]
    return ConsoleDevice(device.pk, token)


def revoke_of_session(request: HttpRequest) -> None:
    """Ends the devices of all pages of this session, at a logout. Their connections are closed within 2 s."""
    for device in Device.objects.consoles().filter(pk__in=request.session.get(SESSION_KEY, []), revoked_at=None):
        revoke(request, device)


@transaction.atomic
def revoke(request: HttpRequest, device: Device) -> None:
    """Ends the device of a page. Its connection is closed within 2 s. Idempotent."""
    if Device.objects.filter(pk=device.pk, revoked_at=None).update(revoked_at=Now()):
        record(request, Action.REVOKE, device)


def delete_old() -> None:
    """Deletes the devices of pages that were left long ago."""
    Device.objects.consoles().filter(console_until__lt=Now() - KEPT).delete()
