"""How long it is kept what was said to whom: texts for TEXT_RETENTION_DAYS, and of an erased patient nothing at all."""

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

BATCH_SIZE = 1000  # rows in one statement: no writer waits long
# From then on nothing of theirs is on its way any more, neither a connection that ends nor rows that are written late.
SETTLE_TIME = timedelta(hours=1)

log = structlog.get_logger(__name__)


def prune_texts() -> int:
    """Empties the texts that are out of time; returns how many. What still waits to be said keeps its text."""
    old = timezone.now() - timedelta(days=settings.TEXT_RETENTION_DAYS)
    return _clear_texts(Utterance.objects.filter(received_at__lte=old).exclude(PENDING))


def erase_patients() -> int:
    """Goes on wherever it stands; returns how many patients there are no more. Idempotent.

    At once: names and texts. When all has come to rest: what was said, conversations, devices. The patient's row goes
    last, by itself, as soon as no application holds a row of theirs (its foreign keys say so). What remains is money,
    without a name or a text.
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
    """Also in the history that the admin keeps of every row, under the name that it had."""
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
    """Whether nothing is left of them."""
    if Clip.objects.filter(patient=patient).exists():  # a row stays as long as its sound does
        return False
    Utterance.objects.filter(patient=patient).delete()
    Conversation.objects.filter(patient=patient).delete()
    Device.objects.filter(patient=patient).delete()
    try:
        Patient.objects.filter(pk=patient).delete()
    except ProtectedError:  # a copied voice, whose removal takes its own time
        return False
    log.info("patient.erased")
    return True
