"""Celery tasks for conversations and speech. `voicecare.infrastructure.schedule` runs some of them periodically.

The other tasks get an id as their argument (`voicecare.core.task_queue`). They generate the clips that a patient, voice
or phrase needs. A warming task that reaches its time limit enqueues itself again, so that other tasks can run in
between.
"""

import time
import uuid

from celery import shared_task

from tts.cache import missing, planning, removal, warmer
from tts.conversations import lifecycle, retention
from tts.models import Phrase
from tts.outbox import leases
from usage.alerts.periodic_tasks import PeriodicTask
from usage.ledger import text_digests
from usage.provider_state import circuit
from voicecare.core import task_names, task_queue


@shared_task(name="tts.end_abandoned_conversations", base=PeriodicTask)
def end_abandoned_conversations() -> None:
    lifecycle.end_abandoned()


@shared_task(name="tts.tidy_outbox", base=PeriodicTask)
def tidy_outbox() -> None:
    leases.reap_expired()


@shared_task(name="tts.prune_phrases", base=PeriodicTask)
def prune_phrases() -> None:
    planning.create_phrase_cache().prune(time.time())


@shared_task(name="tts.remove_audio", base=PeriodicTask)
def remove_audio() -> None:
    """Delete all clips that may not be played or will not be looked up again.

    Enqueued when there may be such a clip.
    """
    removal.delete_unplayable_clips(planning.create_phrase_cache())


@shared_task(name="tts.remove_revoked_audio", base=PeriodicTask)
def remove_revoked_audio() -> None:
    """Delete the clips of erased patients and withdrawn voices only. Reads few rows, so it may run often."""
    removal.delete_revoked_clips(planning.create_phrase_cache())


@shared_task(name="tts.prune_texts", base=PeriodicTask)
def prune_texts() -> None:
    retention.prune_texts()
    text_digests.clear_old_digests()


@shared_task(name="tts.erase", base=PeriodicTask)
def erase() -> None:
    retention.erase_patients()


@shared_task(name="tts.warm_patient")
def warm_patient(patient_id: str) -> None:
    if _warm(planning.load_audiences(planning.active_patients().filter(pk=uuid.UUID(patient_id)))):
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient_id)


@shared_task(name="tts.warm_voice")
def warm_voice(voice_id: str) -> None:
    audiences = planning.load_audiences(planning.active_patients())
    if _warm([audience for audience in audiences if str(audience.voice.pk) == voice_id]):
        task_queue.enqueue_on_commit(task_names.WARM_VOICE, voice_id)


@shared_task(name="tts.warm_phrase")
def warm_phrase(phrase_id: str) -> None:
    """Generate the clips of one phrase for all active patients, whose names and voices differ."""
    phrases = list(Phrase.objects.filter(pk=phrase_id))
    cache = planning.create_phrase_cache()
    if warmer.warm(planning.missing_clips(planning.load_audiences(planning.active_patients()), phrases, cache), cache):
        task_queue.enqueue_on_commit(task_names.WARM_PHRASE, phrase_id)


@shared_task(name="tts.warm_due", base=PeriodicTask)
def warm_due() -> None:
    """Generate all clips that active patients need, and renew other clips that are in use."""
    cache, phrases = planning.create_phrase_cache(), list(Phrase.objects.all())
    needed = planning.missing_clips(planning.load_audiences(planning.active_patients()), phrases, cache)
    if warmer.warm(needed | planning.expiring_clips_in_use(phrases, cache), cache):
        task_queue.enqueue_on_commit(task_names.WARM_DUE)


@shared_task(name="tts.warm_missing")
def warm_missing() -> None:
    """Generate the clips that active patients need and that are not cached. An administrator has asked for it."""
    cache = planning.create_phrase_cache()
    report = missing.report_missing(missing.load_needs(cache), circuit.read_status())
    if warmer.warm(report.requestable, cache):
        task_queue.enqueue_on_commit(task_names.WARM_MISSING)


def _warm(audiences: list[planning.Audience]) -> bool:
    cache = planning.create_phrase_cache()
    needed = planning.missing_clips(audiences, list(Phrase.objects.all()), cache)
    return warmer.warm(needed, cache)
