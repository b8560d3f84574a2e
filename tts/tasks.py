"""Celery tasks for conversations and speech. `voicecare.infrastructure.schedule` runs some of them periodically.

The other ones are enqueued with an id (`voicecare.core.task_queue`). They generate the clips that a patient, voice or
phrase needs. A round of warming that reaches its time limit enqueues itself again, so that other tasks can run in
between.
"""

import time
import uuid

from celery import shared_task
from django.db.models import QuerySet

from tts import retention
from tts.cache import planning, removal, warmer
from tts.conversations import lifecycle
from tts.models import Phrase
from tts.outbox import leases
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Patient


@shared_task(name="tts.end_abandoned_conversations")
def end_abandoned_conversations() -> None:
    lifecycle.end_abandoned()


@shared_task(name="tts.tidy_outbox")
def tidy_outbox() -> None:
    leases.reap_expired()


@shared_task(name="tts.prune_phrases")
def prune_phrases() -> None:
    planning.create_phrase_cache().prune(time.time())


@shared_task(name="tts.remove_audio")
def remove_audio() -> None:
    removal.delete_unplayable_clips(planning.create_phrase_cache())


@shared_task(name="tts.prune_texts")
def prune_texts() -> None:
    retention.prune_texts()


@shared_task(name="tts.erase")
def erase() -> None:
    retention.erase_patients()


@shared_task(name="tts.warm_patient")
def warm_patient(patient_id: str) -> None:
    if _warm(planning.active_patients().filter(pk=uuid.UUID(patient_id))):
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient_id)


@shared_task(name="tts.warm_voice")
def warm_voice(voice_id: str) -> None:
    if _warm(planning.patients_using_voice(uuid.UUID(voice_id))):
        task_queue.enqueue_on_commit(task_names.WARM_VOICE, voice_id)


@shared_task(name="tts.warm_phrase")
def warm_phrase(phrase_id: str) -> None:
    """Generates the clips of one phrase for all active patients. Names and voices differ."""
    phrases = list(Phrase.objects.filter(pk=phrase_id))
    cache = planning.create_phrase_cache()
    if warmer.warm(warmer.missing_clips(planning.load_audiences(planning.active_patients()), phrases, cache), cache):
        task_queue.enqueue_on_commit(task_names.WARM_PHRASE, phrase_id)


@shared_task(name="tts.warm_due")
def warm_due() -> None:
    """Generates all clips that active patients need, and renews other clips that are in use."""
    cache, phrases = planning.create_phrase_cache(), list(Phrase.objects.all())
    needed = warmer.missing_clips(planning.load_audiences(planning.active_patients()), phrases, cache)
    if warmer.warm(needed | warmer.expiring_clips_in_use(phrases, cache), cache):
        task_queue.enqueue_on_commit(task_names.WARM_DUE)


def _warm(patients: QuerySet[Patient]) -> bool:
    cache = planning.create_phrase_cache()
    needed = warmer.missing_clips(planning.load_audiences(patients), list(Phrase.objects.all()), cache)
    return warmer.warm(needed, cache)
