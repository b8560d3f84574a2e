"""Decides which clips the phrase cache should hold. The warmer generates them, and the coverage page counts them.

`required_clips` and `expected_specs` are pure functions over rows.
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
)  # generated in this order


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The specification of one clip: a text and how it sounds. `patient_id` is set for a greeting."""

    speech_settings: SpeechSettings
    text: str
    phrase_id: int
    patient_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """A patient, the voice of their next conversation, and the audio formats of their devices."""

    patient: Patient
    voice: Voice
    formats: tuple[str, ...]

    @property
    def language(self) -> str:
        """The language of the phrases for this patient: "de" for a patient whose language is "de-AT"."""
        return self.patient.language.partition("-")[0].lower()


def create_phrase_cache() -> PhraseCache:
    """Returns a cache without memory for Celery and the admin, which play no audio."""
    return PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S, memory_bytes=0)


def active_patients() -> QuerySet[Patient]:
    """Patients who are neither archived nor erased."""
    return Patient.objects.filter(archived_at=None, erased_at=None)


def patients_using_voice(voice_id: uuid.UUID) -> QuerySet[Patient]:
    """Active patients whose next conversation starts with this voice."""
    if Voice.objects.default().pk == voice_id:
        return active_patients().filter(Q(voice=voice_id) | Q(voice=None) | ~Q(voice__state=Voice.State.USABLE))
    return active_patients().filter(voice=voice_id, voice__state=Voice.State.USABLE)


def load_audiences(patients: QuerySet[Patient]) -> list[Audience]:
    """Loads voices and formats of these patients with three queries."""
    default = Voice.objects.default()
    audiences = []
    for patient in patients.select_related("voice").prefetch_related("devices").order_by("pk"):
        # The same rule as `tts.conversations.lifecycle.resolve_voice`, but without a query for each patient.
        voice = patient.voice if patient.voice is not None and patient.voice.is_usable else default
        formats = {device.format for device in patient.devices.all() if device.revoked_at is None and device.format}
        audiences.append(Audience(patient, voice, tuple(sorted(formats)) or DEVICE_FORMATS[:1]))
    return audiences


def required_clips(audiences: Iterable[Audience], phrases: Sequence[Phrase], model: str) -> list[ClipSpec]:
    """Returns all clips of these phrases that the audiences need, without duplicates, ordered by `KIND_PRIORITY`."""
    specs: dict[ClipSpec, str] = {}
    for audience in audiences:
        patient, voice = audience.patient, VoiceRef.from_voice(audience.voice)
        spoken = [phrase for phrase in phrases if phrase.language == audience.language]
        for audio_format in audience.formats:
            speech_settings = SpeechSettings(voice, model, audience.language, float(patient.speech_rate), audio_format)
            specs.update((clip_spec(phrase, speech_settings, patient), phrase.kind) for phrase in spoken)
    return sorted(specs, key=lambda spec: KIND_PRIORITY.index(specs[spec]))


def clip_spec(phrase: Phrase, speech_settings: SpeechSettings, patient: Patient) -> ClipSpec:
    """Returns the clip of this phrase for this patient. Only a greeting is specific to the patient."""
    if phrase.kind == Phrase.Kind.GREETING:
        return ClipSpec(speech_settings, render_greeting(phrase.text, patient), phrase.pk, patient.pk)
    return ClipSpec(speech_settings, phrase.text, phrase.pk)


def expected_specs(
    clips: Iterable[Clip], phrases: Sequence[Phrase], model: str
) -> Iterator[tuple[Clip, ClipSpec | None]]:
    """For each cached clip, yields the clip spec that would be generated today, or None if the phrase was deleted.

    If the spec has another digest than the clip, the clip is stale: the voice's revision, the names or the text of the
    phrase have changed. The clips need their voice and patient loaded.
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
