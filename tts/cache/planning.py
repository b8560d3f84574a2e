"""Which clips the phrase cache is to hold: warming makes them, the coverage view counts them. `plan` and `behind` are
pure functions over rows.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db.models import Q, QuerySet

from tts.cache.phrase_cache import PhraseCache
from tts.cache.stores import create_store
from tts.conversations.lifecycle import render_greeting
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Clip, Phrase
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.patients.models import Patient, Voice

KIND_PRIORITY = (
    Phrase.Kind.GREETING,
    Phrase.Kind.HOLD_MESSAGE,
    Phrase.Kind.COMMON,
)  # what is missed most is made first


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """One clip: this text, sounding like this. `phrase` is where the text is from, `patient` whose greeting it is."""

    speech_settings: SpeechSettings
    text: str
    phrase_id: int
    patient_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """A patient, the voice that their next conversation starts with, and the formats of their devices."""

    patient: Patient
    voice: Voice
    formats: tuple[str, ...]

    @property
    def language(self) -> str:
        """As phrases have it: a patient's "de-AT" is served by "de"."""
        return self.patient.language.partition("-")[0].lower()


def create_phrase_cache() -> PhraseCache:
    """For Celery and the admin, where nothing is played: nothing is kept in memory."""
    return PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S, memory_bytes=0)


def active_patients() -> QuerySet[Patient]:
    """Who may be spoken to."""
    return Patient.objects.filter(archived_at=None, erased_at=None)


def patients_using_voice(voice_id: uuid.UUID) -> QuerySet[Patient]:
    """The current patients whose next conversation starts in this voice."""
    if Voice.objects.default().pk == voice_id:
        return active_patients().filter(Q(voice=voice_id) | Q(voice=None) | ~Q(voice__state=Voice.State.USABLE))
    return active_patients().filter(voice=voice_id, voice__state=Voice.State.USABLE)


def load_audiences(patients: QuerySet[Patient]) -> list[Audience]:
    """Three queries, however many they are."""
    default = Voice.objects.default()
    audiences = []
    for patient in patients.select_related("voice").prefetch_related("devices").order_by("pk"):
        # As `tts.conversations.lifecycle.resolve_voice`, without a query for each patient.
        voice = patient.voice if patient.voice is not None and patient.voice.is_usable else default
        formats = {device.format for device in patient.devices.all() if device.revoked_at is None and device.format}
        audiences.append(Audience(patient, voice, tuple(sorted(formats)) or DEVICE_FORMATS[:1]))
    return audiences


def required_clips(audiences: Iterable[Audience], phrases: Sequence[Phrase], model: str) -> list[ClipSpec]:
    """Every clip that they need of these phrases, each once, the greetings first."""
    specs: dict[ClipSpec, str] = {}
    for audience in audiences:
        patient, voice = audience.patient, VoiceRef.from_voice(audience.voice)
        spoken = [phrase for phrase in phrases if phrase.language == audience.language]
        for audio_format in audience.formats:
            speech_settings = SpeechSettings(voice, model, audience.language, float(patient.speech_rate), audio_format)
            specs.update((clip_spec(phrase, speech_settings, patient), phrase.kind) for phrase in spoken)
    return sorted(specs, key=lambda spec: KIND_PRIORITY.index(specs[spec]))


def clip_spec(phrase: Phrase, speech_settings: SpeechSettings, patient: Patient) -> ClipSpec:
    """What this phrase is for this patient: a greeting holds the names, anything else is said to many."""
    if phrase.kind == Phrase.Kind.GREETING:
        return ClipSpec(speech_settings, render_greeting(phrase.text, patient), phrase.pk, patient.pk)
    return ClipSpec(speech_settings, phrase.text, phrase.pk)


def expected_specs(
    clips: Iterable[Clip], phrases: Sequence[Phrase], model: str
) -> Iterator[tuple[Clip, ClipSpec | None]]:
    """For each clip (with its voice and patient) the spec that would be made for its row today; None if there is none.

    A clip whose digest is not that spec's is out of date: the voice's revision, the names or the phrase have changed.
    """
    by_id = {phrase.pk: phrase for phrase in phrases}
    greetings = {phrase.language: phrase for phrase in phrases if phrase.kind == Phrase.Kind.GREETING}
    for clip in clips:
        speech_settings = SpeechSettings(VoiceRef.from_voice(clip.voice), model, clip.language, clip.speed, clip.format)
        phrase = by_id.get(clip.phrase_id or 0) if clip.patient is None else greetings.get(clip.language)
        if phrase is None:
            yield clip, None
        elif clip.patient is not None:
            yield clip, clip_spec(phrase, speech_settings, clip.patient)
        else:
            yield clip, ClipSpec(speech_settings, phrase.text, phrase.pk)
