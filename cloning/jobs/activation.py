"""Makes a new voice clone the voice of its patient, or makes the previous voice the patient's voice again.

Open conversations keep their voice. The provider keeps the patient's previous clone, too, until a newer clone has
replaced both.
"""

from django.db import transaction

from cloning.consent import withdrawal
from cloning.gateway.provider_voices import ProviderVoice
from cloning.models import CloneJob
from usage.alerts import lost_voices
from voicecare.core import task_names, task_queue
from voicecare.core.errors import VoicecareError
from voicecare.patients.models import Patient, Voice


def upsert_voice(job: CloneJob, provider_voice: ProviderVoice) -> Voice:
    """Creates the database row of the voice that the provider has created for this job, or updates it.

    Returns the voice. If the job already had a voice that was lost, the new voice gets the same row. The revision in
    the row is incremented, so that cached audio of the lost voice is never played.
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
    lost_voices.resolve(voice)
    return voice


class VoiceNotUsable(VoicecareError):
    """The clone has no voice that can be used. REST status 409."""

    code = "voice_not_usable"


@transaction.atomic
def use(job: CloneJob) -> None:
    """Makes the voice of a ready clone the patient's voice, from the next conversation on. Idempotent.

    Raises VoiceNotUsable.
    """
    usable = CloneJob.objects.filter(
        pk=job.pk, status=CloneJob.Status.READY, requires_verification=False, voice__state=Voice.State.USABLE
    )
    if not usable.update(use_when_ready=True):
        raise VoiceNotUsable("This voice cannot be used now. The clone is not ready, or its voice is gone.")
    job.refresh_from_db()
    activate(job)


def activate(job: CloneJob) -> None:
    """Makes the voice of this job the patient's voice, from the next conversation on.

    Does nothing if a person decides about the voice later (`use`).

    Called in the transaction that makes the job ready. All other clones of this patient are withdrawn, except the
    previous voice and the backup voice. Does nothing if the patient is erased.
    """
    if not job.use_when_ready:
        return
    patient = Patient.objects.select_for_update(of=("self",)).filter(clones=job, erased_at=None).first()
    if patient is None or job.voice_id is None:
        return
    if patient.voice_id != job.voice_id:
        CloneJob.objects.filter(pk=job.pk).update(previous_voice=patient.voice_id)
        Patient.objects.filter(pk=patient.pk).update(voice=job.voice_id)
        ready = CloneJob.objects.filter(patient=patient, status=CloneJob.Status.READY)
        kept = {job.voice_id, patient.voice_id, patient.backup_voice_id} - {None}
        for replaced in ready.exclude(voice__in=kept):
            withdrawal.withdraw_replaced(replaced)
    task_queue.enqueue_on_commit(task_names.WARM_VOICE, job.voice_id)


@transaction.atomic
def revert_to_previous_voice(job: CloneJob) -> bool:
    """Makes the voice that this clone has replaced the patient's voice again, from the next conversation on.

    If that previous voice is not usable, the patient gets the default voice. If this clone is not the current voice of
    the patient, nothing is changed and False is returned. Otherwise returns True.
    """
    previous = job.previous_voice if job.previous_voice and job.previous_voice.is_usable else None
    changed = Patient.objects.filter(clones=job, voice=job.voice_id, voice__isnull=False).update(voice=previous)
    if changed:
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, job.patient_id)
    return bool(changed)
