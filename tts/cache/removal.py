"""What may be heard no more leaves the phrase cache, wherever it is kept."""

from django.conf import settings
from django.db.models import Q, QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import expected_specs
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice


def delete_unplayable_clips(cache: PhraseCache) -> int:
    """Removes the sound of erased patients, of withdrawn voices, and what is out of date; returns how many clips.

    Idempotent. What a store does not give up keeps its row and is found again.
    """
    return cache.delete(revoked_clips()) + cache.delete(stale_clips(cache))


def revoked_clips() -> QuerySet[Clip]:
    """Greetings of erased patients, the voices of their relatives, and every voice whose consent was withdrawn."""
    erased = Q(patient__erased_at__isnull=False) | Q(voice__patient__erased_at__isnull=False)
    return Clip.objects.filter(erased | Q(voice__state=Voice.State.WITHDRAWN))


def stale_clips(cache: PhraseCache) -> QuerySet[Clip]:
    """What no speech will look up again: of a former revision, another model, other names, a changed phrase."""
    rows = Clip.objects.select_related("voice", "patient").iterator(chunk_size=1000)
    found = [
        clip.pk
        for clip, spec in expected_specs(rows, list(Phrase.objects.all()), settings.ELEVENLABS_MODEL_ID)
        if spec is None or cache.key(spec.speech_settings, spec.text) != clip.digest
    ]
    return Clip.objects.filter(pk__in=found)
