"""The part that cloning has in erasing a patient: their copied voices, the recordings, and who had consented.

What remains is a withdrawn job that names nobody but its witness: that there was a voice, and that it is gone.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway import provider_voices
from cloning.models import CloneJob
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

ERASED_NAME = "Erased voice"


def sweep() -> None:
    """Goes on wherever it stands. Idempotent; the patient's row is held by what is not done yet."""
    for job in CloneJob.objects.of_the_erased().withdrawable():
        withdrawal.withdraw(job)
    done = CloneJob.objects.of_the_erased().filter(status=CloneJob.Status.WITHDRAWN)
    with transaction.atomic():
        Voice.objects.filter(clone_job__in=done).update(patient=None, name=ERASED_NAME)
        done.update(patient=None, name="", consent_by="", sample_digest="", report={}, former_voice=None)


def remove_given_voices() -> None:
    """Voices that were not made here, but given to the patient by an administrator. Idempotent."""
    voices = list(Voice.objects.filter(patient__erased_at__isnull=False, clone_job=None))
    if not voices:
        return
    keys = [voice.pk for voice in voices]
    Patient.objects.filter(voice__in=keys).update(voice=None)
    Voice.objects.filter(pk__in=keys).update(state=Voice.State.WITHDRAWN)
    try:
        with provider_voices.account() as client:
            for voice in voices:
                provider_voices.remove(client, voice.provider_id)
            left = {voice.voice_id for voice in client.voices()}
    except ProviderError as error:
        provider_voices.report(error)
        return
    Voice.objects.filter(pk__in=keys, clips=None).exclude(provider_id__in=left).update(patient=None, name=ERASED_NAME)
