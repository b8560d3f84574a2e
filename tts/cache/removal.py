"""What may be heard no more leaves the phrase cache, wherever it is kept."""

from django.conf import settings
from django.db.models import Q, QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import behind
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice


def remove(cache: PhraseCache) -> int:
    """Removes the sound of erased patients, of withdrawn voices, and what is out of date; returns how many clips.

    Idempotent. What a store does not give up keeps its row and is found again.
    """
    return cache.forget(forbidden()) + cache.forget(outdated(cache))


def forbidden() -> QuerySet[Clip]:
    """Greetings of erased patients, the voices of their relatives, and every voice whose consent was withdrawn."""
    erased = Q(patient__erased_at__isnull=False) | Q(voice__patient__erased_at__isnull=False)
    return Clip.objects.filter(erased | Q(voice__state=Voice.State.WITHDRAWN))


def outdated(cache: PhraseCache) -> QuerySet[Clip]:
    """What no speech will look up again: of a former revision, another model, other names, a changed phrase."""
    rows = Clip.objects.select_related("voice", "patient").iterator(chunk_size=1000)
    found = [
        clip.pk
        for clip, wish in behind(rows, list(Phrase.objects.all()), settings.ELEVENLABS_MODEL_ID)
        if wish is None or cache.key(wish.rendering, wish.text) != clip.digest
    ]
    return Clip.objects.filter(pk__in=found)
