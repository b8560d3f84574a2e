"""Decides which clips the phrase cache should hold. The warmer generates them, and the coverage page counts them.

`required_clips` and `expected_specs` are pure functions over rows that were loaded before.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db.models import F, Prefetch, Q, QuerySet
from django.utils import timezone

from tts.cache.phrase_cache import PhraseCache
from tts.cache.stores import create_store
from tts.conversations.lexicon import LexiconBook
from tts.conversations.lifecycle import render_greeting
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.models import Clip, Phrase
from tts.text.lexicon import Lexicon
from tts.text.speakable import is_speakable
from tts.text.spoken_form import Pronunciation
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Device, Patient, Voice
from voicecare.patients.models.patient import PatientQuerySet

SUCCESSOR_WARM_TIME = timedelta(days=3)  # before the end of a voice, clips of its successor are generated

REFRESH_BEFORE_EXPIRY = timedelta(days=1)
KIND_PRIORITY = (
    Phrase.Kind.GREETING,
    Phrase.Kind.HOLD_MESSAGE,
    Phrase.Kind.COMMON,
)  # generated in this order


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The specification of one clip: the spoken text of a phrase and how it sounds.

    `written` is the phrase as it is written. `patient_id` is None unless it is a greeting.
    """

    speech_settings: SpeechSettings
    text: str
    written: str
    phrase_id: int
    patient_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """A patient, the voice of their next conversation, and the audio formats of their devices.

    A patient is also an audience of the backup voice that was chosen for them, and of the successor of a voice that
    will end in a few days. Neither holds for a patient who hears only their own voice.
    """

    patient: Patient
    voice: Voice
    formats: tuple[str, ...]
    lexicon: Lexicon = field(default_factory=Lexicon)

    @property
    def language(self) -> str:
        """The language of the phrases for this patient, without region: "de" if the patient's language is "de-AT"."""
        return languages.code_of(self.patient.language)


def create_phrase_cache() -> PhraseCache:
    """Return a phrase cache that keeps no audio in memory, for Celery tasks and the admin, which play none."""
    return PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S, memory_bytes=0)


def active_patients() -> PatientQuerySet:
    """Return the patients who can be spoken to: not archived, and not to be erased."""
    return Patient.objects.active()


def load_audiences(patients: QuerySet[Patient], defaults: DefaultVoices | None = None) -> list[Audience]:
    """Load the voices, formats and lexicons of these patients with at most five queries, two of them for `defaults`.

    A patient for whom the provider has no usable voice is left out.
    """
    defaults = defaults or DefaultVoices()
    audiences, book = [], LexiconBook()
    with_voices = patients.select_related("voice__successor", "backup_voice__successor")
    for patient in with_voices.prefetch_related(Prefetch("devices", Device.objects.bedside())).order_by("pk"):
        formats = {device.format for device in patient.devices.all() if device.revoked_at is None and device.format}
        lexicon = book.lexicon(languages.code_of(patient.language), patient)
        for needed in _voices_needed(patient, defaults):
            audiences.append(Audience(patient, needed, tuple(sorted(formats)) or DEVICE_FORMATS[:1], lexicon))
    return audiences


def _voices_needed(patient: Patient, defaults: DefaultVoices) -> list[Voice]:
    """The usable voices in which clips for this patient are generated, without duplicates."""
    voice = defaults.for_patient(patient)
    needed = [voice]
    if voice is not None and not patient.hears_own_voice_only:
        ends_soon = voice.ends_at is not None and voice.ends_at <= timezone.now() + SUCCESSOR_WARM_TIME
        needed += [voice.successor if ends_soon else None, patient.backup_voice and defaults.backup_for(patient)]
    return [one for one in dict.fromkeys(needed) if one is not None and one.is_usable]


def required_clips(audiences: Iterable[Audience], phrases: Sequence[Phrase], model: str) -> list[ClipSpec]:
    """Return all clips of these phrases that the audiences need, without duplicates, ordered by KIND_PRIORITY.

    A text without a letter or digit is never spoken, so it has no clip.
    """
    specs: dict[ClipSpec, str] = {}
    for audience in audiences:
        patient, voice = audience.patient, VoiceRef.from_voice(audience.voice)
        spoken = [phrase for phrase in phrases if phrase.language == audience.language]
        for audio_format in audience.formats:
            speech_settings = SpeechSettings(voice, model, audience.language, float(patient.speech_rate), audio_format)
            clips = ((clip_spec(phrase, speech_settings, patient, audience.lexicon), phrase.kind) for phrase in spoken)
            specs.update((spec, kind) for spec, kind in clips if is_speakable(spec.text))
    return sorted(specs, key=lambda spec: KIND_PRIORITY.index(specs[spec]))


def clip_spec(phrase: Phrase, speech_settings: SpeechSettings, patient: Patient, lexicon: Lexicon) -> ClipSpec:
    """Return the specification of this phrase's clip for this patient.

    Only a greeting belongs to the patient. Another phrase is shared by all patients to whom it is said in the same way.

    No clip has audio tags: every model and every voice can speak its text.
    """
    pronunciation = Pronunciation(speech_settings.language, lexicon)
    if phrase.kind == Phrase.Kind.GREETING:
        greeting = render_greeting(phrase.text, patient)
        return ClipSpec(speech_settings, pronunciation.plain(greeting), greeting, phrase.pk, patient.pk)
    return ClipSpec(speech_settings, pronunciation.plain(phrase.text), phrase.text, phrase.pk)


def expected_specs(
    clips: Iterable[Clip], phrases: Sequence[Phrase], model: str
) -> Iterator[tuple[Clip, list[ClipSpec]]]:
    """Yield each existing clip with the specifications that it may have if it were generated now.

    A phrase has several if it is said to some patients in another way. There is none if the clip's phrase was deleted.
    If all have other keys than the clip, the clip is stale: the voice's revision, the names, the lexicon or the text of
    the phrase have changed. `voice` and `patient` of the clips must be loaded. Makes one query.
    """
    book = LexiconBook()
    said: dict[tuple[int, str], set[str]] = {}
    by_id = {phrase.pk: phrase for phrase in phrases}
    greetings = {phrase.language: phrase for phrase in phrases if phrase.kind == Phrase.Kind.GREETING}
    for clip in clips:
        speech_settings = SpeechSettings(VoiceRef.from_voice(clip.voice), model, clip.language, clip.speed, clip.format)
        phrase = by_id.get(clip.phrase_id or 0) if clip.patient is None else greetings.get(clip.language)
        if phrase is None:
            yield clip, []
        elif clip.patient is not None:
            lexicon = book.lexicon(clip.language, clip.patient)
            yield clip, [clip_spec(phrase, speech_settings, clip.patient, lexicon)]
        else:
            if (phrase.pk, clip.language) not in said:
                said[phrase.pk, clip.language] = book.spoken_forms(phrase.text, clip.language)
            texts = said[phrase.pk, clip.language]
            yield clip, [ClipSpec(speech_settings, text, phrase.text, phrase.pk) for text in texts]


def missing_clips(audiences: Iterable[Audience], phrases: Sequence[Phrase], cache: PhraseCache) -> dict[str, ClipSpec]:
    """Return the clips, by key, that these patients need and that are missing or expire within a day.

    `audiences` are patients with the voices and formats that they need. Leaves out clips whose text the provider has
    refused in the last two days.
    """
    specs = {
        cache.key(spec.speech_settings, spec.text): spec
        for spec in required_clips(audiences, phrases, settings.ELEVENLABS_MODEL_ID)
    }
    lasting = Clip.objects.filter(expires_at__gt=timezone.now() + REFRESH_BEFORE_EXPIRY)
    held = set(lasting.values_list("digest", flat=True))
    return {key: spec for key, spec in specs.items() if key not in held}


def expiring_clips_in_use(phrases: Sequence[Phrase], cache: PhraseCache) -> dict[str, ClipSpec]:
    """Return the clips, by key, that expire within a day and were played since they were generated.

    Includes clips that `required_clips` does not return. Leaves out clips of archived and erased patients.
    """
    now = timezone.now()
    expiring = Clip.objects.filter(
        expires_at__gt=now, expires_at__lte=now + REFRESH_BEFORE_EXPIRY, size__gt=0, used_at__gte=F("created_at")
    )
    spoken_to = Q(patient=None) | Q(patient__in=active_patients())
    playable = expiring.filter(spoken_to, voice__state=Voice.State.USABLE).select_related("voice", "patient")
    specs = expected_specs(playable, phrases, settings.ELEVENLABS_MODEL_ID)
    return {c.digest: w for c, ws in specs for w in ws if cache.key(w.speech_settings, w.text) == c.digest}


def in_generation_order(specs: dict[str, ClipSpec]) -> dict[str, ClipSpec]:
    """Sort clips by the order in which to generate them: new clips, then renewals, then clips that have failed before.

    New clips keep the given order. Renewals are sorted by expiry time, and the clip that failed last comes last. An
    error ends a round of the warmer. So a text that the provider cannot speak must not keep back the others.
    """
    now = timezone.now()
    rows = Clip.objects.filter(expires_at__lte=now + REFRESH_BEFORE_EXPIRY)
    known = {
        digest: (1 if size else 2, expires)
        for digest, size, expires in rows.values_list("digest", "size", "expires_at")
    }
    return dict(sorted(specs.items(), key=lambda item: known.get(item[0], (0, now))))
