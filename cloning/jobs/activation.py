"""Gives a new voice clone to its patient, and can revert to the previous voice.

Conversations that are open keep their voice. The previous clone stays at the provider until a third one is ready.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway.provider_voices import ProviderVoice
from cloning.models import CloneJob
from usage.alerts import incidents
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient, Voice


def upsert_voice(job: CloneJob, provider_voice: ProviderVoice) -> Voice:
    """Creates or updates the row of the voice.

    A voice that was created again keeps its row. Its revision is incremented, so that cached audio of the lost voice is
    never played.
    """
    if job.voice is None:
        # The row can already exist: reading the provider's list may have created it a moment ago.
        fields = {"name": job.name, "source": Voice.Source.CLONED, "patient_id": job.patient_id}
        return Voice.objects.update_or_create(provider_id=provider_voice.provider_id, defaults=fields)[0]
    voice = job.voice
    if provider_voice.requires_verification:  # it cannot be used yet; `activate` assigns it again
        Patient.objects.filter(voice=voice).update(voice=None)
    voice.provider_id, voice.state, voice.revision = provider_voice.provider_id, Voice.State.USABLE, voice.revision + 1
    voice.save(update_fields=["provider_id", "state", "revision"])
    incidents.resolve_incident(incidents.Kind.VOICE, str(voice.pk))
    return voice


def activate(job: CloneJob) -> None:
    """Makes this the voice of the patient's next conversation. Called in the transaction that makes the job ready."""
    patient = Patient.objects.select_for_update(of=("self",)).filter(clones=job, erased_at=None).first()
    if patient is None or job.voice_id is None:
        return
    if patient.voice_id != job.voice_id:
        CloneJob.objects.filter(pk=job.pk).update(previous_voice=patient.voice_id)
        Patient.objects.filter(pk=patient.pk).update(voice=job.voice_id)
        ready = CloneJob.objects.filter(patient=patient, status=CloneJob.Status.READY)
        for replaced in ready.exclude(voice__in={job.voice_id, patient.voice_id} - {None}):
            withdrawal.withdraw_replaced(replaced)
    task_queue.enqueue_on_commit(task_names.WARM_VOICE, job.voice_id)


@transaction.atomic
def revert_to_previous_voice(job: CloneJob) -> bool:
    """Gives the patient the voice that this clone has replaced, from the next conversation on.

    If the previous voice is not usable, the patient gets the default voice. Returns False and changes nothing if this
    clone is not the current voice of the patient.
    """
    previous = job.previous_voice if job.previous_voice and job.previous_voice.is_usable else None
    changed = Patient.objects.filter(clones=job, voice=job.voice_id, voice__isnull=False).update(voice=previous)
    if changed:
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, job.patient_id)
    return bool(changed)
