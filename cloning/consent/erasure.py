"""Erases the voice clones of a patient: the voices, the recordings, and the names of the people who consented.

A withdrawn job remains as the record that a voice existed and was removed. It names only its witness and the user who
withdrew it.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway import provider_voices
from cloning.models import CloneJob
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

ERASED_NAME = "Erased voice"


def sweep() -> None:
    """Continues the erasure of all erased patients. Idempotent.

    Jobs that are not erased yet protect the row of the patient from deletion.
    """
    for job in CloneJob.objects.of_erased_patients().withdrawable():
        withdrawal.withdraw(job)
    withdrawn = CloneJob.objects.of_erased_patients().filter(status=CloneJob.Status.WITHDRAWN)
    with transaction.atomic():
        Voice.objects.filter(clone_job__in=withdrawn).update(patient=None, name=ERASED_NAME)
        withdrawn.update(patient=None, name="", consent_by="", sample_digest="", report={}, previous_voice=None)


def remove_external_voices() -> None:
    """Removes voices of erased patients that have no clone job: an administrator had assigned them. Idempotent."""
    voices = list(Voice.objects.filter(patient__erased_at__isnull=False, clone_job=None))
    if not voices:
        return
    voice_ids = [voice.pk for voice in voices]
    Patient.objects.filter(voice__in=voice_ids).update(voice=None)
    Voice.objects.filter(pk__in=voice_ids).update(state=Voice.State.WITHDRAWN)
    try:
        with provider_voices.account_client() as client:
            for voice in voices:
                provider_voices.delete_voice(client, voice.provider_id)
            remaining = {voice.voice_id for voice in client.voices()}
    except ProviderError as error:
        provider_voices.report_error(error)
        return
    Voice.objects.filter(pk__in=voice_ids, clips=None).exclude(provider_id__in=remaining).update(
        patient=None, name=ERASED_NAME
    )
