"""Erases the voice clones of an erased patient: the voices, the recordings, and the names of the people who consented.

The row of each clone job remains, as the record that a voice existed and was removed. The only people that it still
names are the witness and the user who withdrew the consent.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway import provider_voices
from cloning.models import CloneJob
from voicecare.core.batches import process_each, run_steps
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

ERASED_NAME = "Erased voice"


def sweep() -> None:
    """Withdraws the clone jobs of erased patients, and clears the personal fields of those that are already withdrawn.

    Idempotent. A periodic task calls this until nothing is left. The row of the patient cannot be deleted before,
    because the jobs refer to it. Raises the first error, after all jobs were processed.
    """
    erased = CloneJob.objects.of_erased_patients()
    run_steps(
        lambda: process_each("clones.withdraw_erased", erased.withdrawable(), withdrawal.withdraw),
        lambda: process_each("clones.erase", erased.filter(status=CloneJob.Status.WITHDRAWN), _erase),
    )


@transaction.atomic
def _erase(job: CloneJob) -> None:
    Voice.objects.filter(clone_job=job.pk).update(patient=None, name=ERASED_NAME)
    withdrawn = CloneJob.objects.filter(pk=job.pk, status=CloneJob.Status.WITHDRAWN)
    withdrawn.update(patient=None, name="", consent_by="", sample_digest="", report={}, previous_voice=None)


def remove_external_voices() -> None:
    """Deletes the voices of erased patients that were not created by a clone job of this server. Idempotent.

    An administrator had created such a voice at the provider and assigned it to the patient. An error of the provider
    is logged, and the next call tries again.
    """
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
