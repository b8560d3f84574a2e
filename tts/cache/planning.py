"""Which clips the phrase cache is to hold: warming makes them, the coverage view counts them. `plan` and `behind` are
pure functions over rows.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db.models import Q, QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.stores import store_for
from tts.conversations.lifecycle import greet
from tts.conversations.voice import Rendering, VoiceRef
from tts.models import Clip, Phrase
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.patients.models import Patient, Voice

FIRST = (Phrase.Kind.GREETING, Phrase.Kind.HOLDING, Phrase.Kind.COMMON)  # what is missed most is made first


@dataclass(frozen=True, slots=True)
class Wish:
    """One clip: this text, sounding like this. `phrase` is where the text is from, `patient` whose greeting it is."""

    rendering: Rendering
    text: str
    phrase: int
    patient: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """A patient, the voice that their next conversation starts with, and the formats of their devices."""

    patient: Patient
    voice: Voice
    formats: tuple[str, ...]

    @property
    def language(self) -> str:
        """As phrases have it: a patient's "de-AT" is served by "de"."""
        return self.patient.language.partition("-")[0].lower()


def phrase_cache() -> PhraseCache:
    """For Celery and the admin, where nothing is played: nothing is kept in memory."""
    return PhraseCache(store_for(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S, memory_bytes=0)


def current() -> QuerySet[Patient]:
    """Who may be spoken to."""
    return Patient.objects.filter(archived_at=None, erased_at=None)


def spoken_to_in(voice_id: uuid.UUID) -> QuerySet[Patient]:
    """The current patients whose next conversation starts in this voice."""
    if Voice.objects.default().pk == voice_id:
        return current().filter(Q(voice=voice_id) | Q(voice=None) | ~Q(voice__state=Voice.State.USABLE))
    return current().filter(voice=voice_id, voice__state=Voice.State.USABLE)


def listeners(patients: QuerySet[Patient]) -> list[Listener]:
    """Three queries, however many they are."""
    default = Voice.objects.default()
    rows = patients.select_related("voice").prefetch_related("devices").order_by("pk")
    return [Listener(patient, _voice(patient, default), _formats(patient)) for patient in rows]


def _voice(patient: Patient, default: Voice) -> Voice:
    """As `tts.conversations.lifecycle.resolve_voice`, without a query for each patient."""
    return patient.voice if patient.voice is not None and patient.voice.usable else default


def _formats(patient: Patient) -> tuple[str, ...]:
    asked = {device.format for device in patient.devices.all() if device.revoked_at is None and device.format}
    return tuple(sorted(asked)) or DEVICE_FORMATS[:1]


def plan(heard_by: Iterable[Listener], phrases: Sequence[Phrase], model: str) -> list[Wish]:
    """Every clip that they need of these phrases, each once, the greetings first."""
    wishes = (wish for listener in heard_by for wish in _wishes(listener, phrases, model))
    order = {kind.value: place for place, kind in enumerate(FIRST)}
    kinds = {phrase.pk: order[phrase.kind] for phrase in phrases}
    return sorted(dict.fromkeys(wishes), key=lambda wish: kinds[wish.phrase])


def _wishes(listener: Listener, phrases: Sequence[Phrase], model: str) -> Iterator[Wish]:
    patient, voice, language = listener.patient, VoiceRef.of(listener.voice), listener.language
    for audio_format in listener.formats:
        rendering = Rendering(voice, model, language, float(patient.speech_rate), audio_format)
        yield from (said(phrase, rendering, patient) for phrase in phrases if phrase.language == language)


def said(phrase: Phrase, rendering: Rendering, patient: Patient) -> Wish:
    """What this phrase is for this patient: a greeting holds the names, anything else is said to many."""
    if phrase.kind == Phrase.Kind.GREETING:
        return Wish(rendering, greet(phrase.text, patient), phrase.pk, patient.pk)
    return Wish(rendering, phrase.text, phrase.pk)


def behind(clips: Iterable[Clip], phrases: Sequence[Phrase], model: str) -> Iterator[tuple[Clip, Wish | None]]:
    """For each clip (with its voice and patient) the wish that would be made for its row today; None if there is none.

    A clip whose digest is not that wish's is out of date: the voice's revision, the names or the phrase have changed.
    """
    by_id = {phrase.pk: phrase for phrase in phrases}
    greetings = {phrase.language: phrase for phrase in phrases if phrase.kind == Phrase.Kind.GREETING}
    for clip in clips:
        rendering = Rendering(VoiceRef.of(clip.voice), model, clip.language, clip.speed, clip.format)
        phrase = by_id.get(clip.phrase_id or 0) if clip.patient is None else greetings.get(clip.language)
        if phrase is None:
            yield clip, None
        elif clip.patient is not None:
            yield clip, said(phrase, rendering, clip.patient)
        else:
            yield clip, Wish(rendering, phrase.text, phrase.pk)
