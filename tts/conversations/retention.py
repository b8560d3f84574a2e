"""Data retention: clears utterance texts after TEXT_RETENTION_DAYS and deletes all data of erased patients."""

import uuid
from collections.abc import Iterable
from datetime import timedelta

import structlog
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model, ProtectedError, QuerySet
from django.db.models.functions import Now

from tts.models import Clip, Conversation, LexiconEntry, Utterance
from tts.outbox.leases import PENDING
from usage.ledger import text_digests
from usage.provider_history import deletion
from voicecare.core.batches import process_each
from voicecare.patients import erasure
from voicecare.patients.models import Device, Patient, Voice
from voicecare.webhooks import events

BATCH_SIZE = 1000  # rows per statement, so that other writers do not wait long
# After this time no connection of an erased patient is left, and no row is still to be written.
SETTLE_TIME = timedelta(hours=1)

log = structlog.get_logger(__name__)


def prune_texts() -> int:
    """Clear texts that are older than TEXT_RETENTION_DAYS, and return how many. Queued speech keeps its text."""
    old = Now() - timedelta(days=settings.TEXT_RETENTION_DAYS)
    return _clear_texts(Utterance.objects.filter(received_at__lte=old).exclude(PENDING).order_by("received_at"))


def erase_patients() -> int:
    """Begin and continue erasures, and return how many patients were deleted completely. Idempotent. Raises RowsFailed.

    An erasure begins at the end of its grace period.
    Names and texts are cleared immediately. Utterances, conversations and devices are deleted SETTLE_TIME after the
    erasure has begun. The patient's row is deleted last, when no other row refers to it. The usage ledger stays,
    because it contains neither names nor texts.
    """
    erasure.begin_due_erasures()
    erased = Patient.objects.filter(erased_at__isnull=False).values_list("pk", flat=True)
    return process_each("patients.erase", list(erased), _continue_erasure)


def _continue_erasure(patient_id: uuid.UUID) -> bool:
    """Do all steps of this patient's erasure that are possible now.

    Return whether the patient was deleted completely.
    """
    _clear_texts(Utterance.objects.filter(patient=patient_id).order_by())
    text_digests.clear_patient_digests(patient_id)
    events.forget_patient(patient_id)  # each time: a transaction that began before the erasure may write an event
    erased = Patient.objects.filter(pk=patient_id)
    if (patient := erased.exclude(name="").first()) is not None:
        _anonymize(patient)
    is_talking = Conversation.objects.unfinished().filter(patient=patient_id).exists()
    is_settled = erased.filter(erased_at__lte=Now() - SETTLE_TIME).exists()
    has_clips = Clip.objects.filter(patient=patient_id).exists()  # the row of a clip stays until its audio is deleted
    if is_talking or not is_settled or has_clips:
        return False
    Utterance.objects.filter(patient=patient_id).delete()
    Conversation.objects.filter(patient=patient_id).delete()
    Device.objects.filter(patient=patient_id).delete()
    try:
        erased.delete()
    except ProtectedError:  # for example a voice clone that the provider has not deleted yet
        return False
    log.info("patient.erased")
    return True


def _clear_texts(utterances: QuerySet[Utterance]) -> int:
    emptied = 0
    while keys := list(utterances.exclude(text="").values_list("pk", flat=True)[:BATCH_SIZE]):
        emptied += Utterance.objects.filter(pk__in=keys).update(text="")
    if emptied:
        log.info("texts.cleared", count=emptied)
    return emptied


@transaction.atomic
def _anonymize(patient: Patient) -> None:
    """Clear the names, the pronunciations and the external id of a patient.

    Let their requests be deleted from the provider's history. Also clear the change log of the admin, which repeats the
    names of rows.
    """
    theirs: dict[type[Model], Iterable[uuid.UUID | int]] = {
        Patient: [patient.pk],
        Device: patient.devices.values_list("pk", flat=True),
        Voice: patient.own_voices.values_list("pk", flat=True),
        LexiconEntry: patient.lexicon_entries.values_list("pk", flat=True),
    }
    for model, keys in theirs.items():
        entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model))
        entries.filter(object_id__in=[str(key) for key in keys]).update(object_repr="", change_message="")
    patient.lexicon_entries.all().delete()
    deletion.delete_for_patient(patient.pk)
    Patient.objects.filter(pk=patient.pk).update(name="", preferred_name="", companion_name="", external_id=None)
