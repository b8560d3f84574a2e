"""Data retention: clears utterance texts after TEXT_RETENTION_DAYS and deletes all data of erased patients."""

import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, ProtectedError, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from tts.models import Clip, Conversation, Utterance
from tts.outbox.leases import PENDING
from voicecare.patients.models import Device, Patient, Voice

BATCH_SIZE = 1000  # rows per statement, so that other writers do not wait long
# After this time no connection of an erased patient is left, and no row is still to be written.
SETTLE_TIME = timedelta(hours=1)

log = structlog.get_logger(__name__)


def prune_texts() -> int:
    """Clears texts that are older than TEXT_RETENTION_DAYS and returns how many. Queued speech keeps its text."""
    old = timezone.now() - timedelta(days=settings.TEXT_RETENTION_DAYS)
    return _clear_texts(Utterance.objects.filter(received_at__lte=old).exclude(PENDING))


def erase_patients() -> int:
    """Continues the erasure of patients and returns how many were deleted completely. Idempotent.

    Names and texts are cleared immediately. Utterances, conversations and devices follow when the erasure is
    `SETTLE_TIME` old. The patient's row is deleted last, when no other row refers to it. The usage ledger stays. It
    contains neither names nor texts.
    """
    erased = Patient.objects.filter(erased_at__isnull=False)
    _clear_texts(Utterance.objects.filter(patient__in=erased))
    for patient in erased.exclude(name=""):
        _anonymize(patient)
    talking = Conversation.objects.unfinished().filter(patient=OuterRef("pk"))
    settled = erased.filter(~Exists(talking), erased_at__lte=Now() - SETTLE_TIME)
    return sum(_delete_patient(key) for key in settled.values_list("pk", flat=True))


def _clear_texts(utterances: QuerySet[Utterance]) -> int:
    emptied = 0
    while keys := list(utterances.exclude(text="").values_list("pk", flat=True)[:BATCH_SIZE]):
        emptied += Utterance.objects.filter(pk__in=keys).update(text="")
    if emptied:
        log.info("texts.cleared", count=emptied)
    return emptied


@transaction.atomic
def _anonymize(patient: Patient) -> None:
    """Clears the names of a patient, also in the change log of the admin, which keeps the names of rows."""
    theirs: dict[type[Model], Iterable[uuid.UUID]] = {
        Patient: [patient.pk],
        Device: patient.devices.values_list("pk", flat=True),
        Voice: patient.own_voices.values_list("pk", flat=True),
    }
    for model, keys in theirs.items():
        entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model))
        entries.filter(object_id__in=[str(key) for key in keys]).update(object_repr="", change_message="")
    Patient.objects.filter(pk=patient.pk).update(name="", preferred_name="", companion_name="")


def _delete_patient(patient: uuid.UUID) -> bool:
    """Deletes the rows of a patient. Returns False if some cannot be deleted yet."""
    if Clip.objects.filter(patient=patient).exists():  # the row of a clip stays until its audio is deleted
        return False
    Utterance.objects.filter(patient=patient).delete()
    Conversation.objects.filter(patient=patient).delete()
    Device.objects.filter(patient=patient).delete()
    try:
        Patient.objects.filter(pk=patient).delete()
    except ProtectedError:  # for example a voice clone that the provider has not deleted yet
        return False
    log.info("patient.erased")
    return True
