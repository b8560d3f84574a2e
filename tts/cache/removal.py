"""Deletes clips that may not or will not be played again, in the store and in the memory of all processes."""

from django.conf import settings
from django.db.models import Q, QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import expected_specs
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice


def delete_unplayable_clips(cache: PhraseCache) -> int:
    """Deletes revoked and stale clips and returns how many.

    Idempotent. A clip that the store failed to delete keeps its row, so the next call finds it.
    """
    return cache.delete(revoked_clips()) + cache.delete(stale_clips(cache))


def revoked_clips() -> QuerySet[Clip]:
    """Greetings of erased patients, clips in the voices of their relatives, and clips in withdrawn voices."""
    erased = Q(patient__erased_at__isnull=False) | Q(voice__patient__erased_at__isnull=False)
    return Clip.objects.filter(erased | Q(voice__state=Voice.State.WITHDRAWN))


def stale_clips(cache: PhraseCache) -> QuerySet[Clip]:
    """Clips that no speech will look up again, because the voice revision, model, names or phrase have changed."""
    rows = Clip.objects.select_related("voice", "patient").iterator(chunk_size=1000)
    found = [
        clip.pk
        for clip, spec in expected_specs(rows, list(Phrase.objects.all()), settings.ELEVENLABS_MODEL_ID)
        if spec is None or cache.key(spec.speech_settings, spec.text) != clip.digest
    ]
    return Clip.objects.filter(pk__in=found)
