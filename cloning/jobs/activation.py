"""Whose voice a patient hears: a clone that is ready becomes their choice, and one call goes back to the former one.

Running conversations keep the voice they began with. The former clone is kept at the provider until there is a third.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway.provider_voices import ProviderVoice
from cloning.models import CloneJob
from usage.alerts import incidents
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient, Voice


def upsert_voice(job: CloneJob, provider_voice: ProviderVoice) -> Voice:
    """Its row. A voice that was made anew keeps its row, with the next revision: nobody hears sound of the lost one."""
    if job.voice is None:
        # The reading of the provider's list may have made the row a moment ago.
        fields = {"name": job.name, "source": Voice.Source.CLONED, "patient_id": job.patient_id}
        return Voice.objects.update_or_create(provider_id=provider_voice.provider_id, defaults=fields)[0]
    voice = job.voice
    if provider_voice.requires_verification:  # not heard before it may speak; `activate` gives it back
        Patient.objects.filter(voice=voice).update(voice=None)
    voice.provider_id, voice.state, voice.revision = provider_voice.provider_id, Voice.State.USABLE, voice.revision + 1
    voice.save(update_fields=["provider_id", "state", "revision"])
    incidents.resolve_incident(incidents.Kind.VOICE, str(voice.pk))
    return voice


def activate(job: CloneJob) -> None:
    """The patient's next conversation speaks in it. Inside the transaction that makes it ready."""
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
    """The patient's next conversation has the voice that this one replaced, or the default one if that is not usable.
    False, and nothing is changed, if they do not have this one any more.
    """
    previous = job.previous_voice if job.previous_voice and job.previous_voice.usable else None
    changed = Patient.objects.filter(clones=job, voice=job.voice_id, voice__isnull=False).update(voice=previous)
    if changed:
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, job.patient_id)
    return bool(changed)
