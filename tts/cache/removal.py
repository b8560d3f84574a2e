"""Deletes clips that may not be played or will not be looked up again, from the store and from memory."""

from django.conf import settings
from django.db.models import QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import expected_specs
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice


def delete_unplayable_clips(cache: PhraseCache) -> int:
    """Delete revoked clips (`delete_revoked_clips`) and stale clips (`stale_clips`). Return how many were deleted.

    Reads the rows of all clips. Idempotent. A clip that the store failed to delete keeps its row, so the next call can
    find it.
    """
    return delete_revoked_clips(cache) + cache.delete(stale_clips(cache))


def delete_revoked_clips(cache: PhraseCache) -> int:
    """Delete the clips of erased patients and withdrawn voices. Return how many were deleted.

    Idempotent, like `delete_unplayable_clips`. Reads the rows of no other clips, because each of its queries uses an
    index. For a single query with OR, the database would read all rows.
    """
    greetings = Clip.objects.filter(patient__erased_at__isnull=False)
    in_voices_of_relatives = Clip.objects.filter(voice__patient__erased_at__isnull=False)
    in_withdrawn_voices = Clip.objects.filter(voice__state=Voice.State.WITHDRAWN)
    return sum(map(cache.delete, (greetings, in_voices_of_relatives, in_withdrawn_voices)))


def stale_clips(cache: PhraseCache) -> QuerySet[Clip]:
    """Return the clips that no speech will look up again.

    The revision of the voice, the model, the names, the lexicon or the phrase have changed.
    """
    rows = Clip.objects.select_related("voice", "patient").iterator(chunk_size=1000)
    found = [
        clip.pk
        for clip, specs in expected_specs(rows, list(Phrase.objects.all()), settings.ELEVENLABS_MODEL_ID)
        if clip.digest not in {cache.key(spec.speech_settings, spec.text) for spec in specs}
    ]
    return Clip.objects.filter(pk__in=found)
