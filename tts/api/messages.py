"""Messages that a person sends to a patient, over REST, in the admin or in the console, and their audit trail."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest
from rest_framework.request import Request

from tts.models import Utterance
from tts.outbox import store
from voicecare.audit.models import Action, AuditEntry
from voicecare.audit.recording import record
from voicecare.patients.models import Patient


@transaction.atomic
def send(
    request: HttpRequest | Request, patient: Patient, *, text: str, expires_in_s: float, idempotency_key: str = ""
) -> Utterance:
    """Have a text spoken to the patient. Return its row, which is the first one if the request is a repeated one.

    `text` and `expires_in_s` must be valid (`SpeakSerializer`). Raises IdempotencyConflict.
    """
    wanted: dict[str, Any] = {"text": text, "expires_in_s": expires_in_s, "idempotency_key": idempotency_key}
    message = store.submit(patient.pk, **wanted, author=cast(User, request.user))
    # The unique key lets a repeated request wait for the first one, so the entry of the first one is visible here.
    if not idempotency_key or not AuditEntry.objects.filter(object_id=message.pk, action=Action.SPEAK).exists():
        record(request, Action.SPEAK, message)
    return message


@transaction.atomic
def cancel(request: HttpRequest, message: Utterance) -> bool:
    """Cancel a message that waits. Return False if it does not wait: it plays, was played, or has ended."""
    is_cancelled = store.withdraw(message.pk, message.patient_id)
    if is_cancelled:
        record(request, Action.CANCEL, message)
    return is_cancelled
