"""Decides which clips the phrase cache should hold. The warmer generates them, and the coverage page counts them.

`required_clips` and `expected_specs` are pure functions over rows that were loaded before.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import F, Q, QuerySet
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


class Listener(NamedTuple):
    """A patient for whom a greeting is generated."""

    patient_id: uuid.UUID
    form_of_address: str
    companion_name: str


@dataclass(frozen=True, slots=True)
class Audience:
    """The patients who need the same clips of common phrases, and whose greetings differ in the names only.

    They have one language, speech rate and audio format, and hear one voice: the voice of their next conversation, the
    backup voice that was chosen for them, or the successor of a voice that will end in a few days. `language` has no
    region: it is "de" for patients with "de-AT". Patients whose devices differ in format are in several audiences.
    """

    voice: Voice
    language: str
    speech_rate: float
    format: str
    lexicon: Lexicon
    listeners: Sequence[Listener]


def create_phrase_cache() -> PhraseCache:
    """Return a phrase cache that keeps no audio in memory, for Celery tasks and the admin, which play none."""
    return PhraseCache(create_store(settings), settings.PHRASE_SECRET, settings.PHRASE_TTL_S, memory_bytes=0)


def active_patients() -> PatientQuerySet:
    """Return the patients who can be spoken to: not archived, and not to be erased."""
    return Patient.objects.active()


def load_audiences(patients: QuerySet[Patient], defaults: DefaultVoices | None = None) -> list[Audience]:
    """Load the voices, formats and lexicons of these patients with at most six queries, two of them for `defaults`.

    A patient for whom the provider has no usable voice is left out. Reads columns instead of model instances, because
    the coverage page does this for all patients while a person waits.
    """
    defaults = defaults or DefaultVoices()
    voices, formats, book = _voices_of(patients), _formats_of(patients), LexiconBook()
    alike: dict[tuple[Any, ...], list[Listener]] = defaultdict(list)  # with the same choices, rate and formats
    columns = ("voice", "backup_voice", "backup_policy", "language", "speech_rate")
    names = ("pk", "clinic", "preferred_name", "name", "companion_name")
    for *choices, pk, clinic, preferred_name, name, companion in patients.order_by("pk").values_list(*columns, *names):
        of_devices = formats.get(pk, DEVICE_FORMATS[:1])
        alike[(*choices, of_devices, book.owners(pk, clinic))].append(Listener(pk, preferred_name or name, companion))
    audiences: dict[tuple[Voice, str, float, str, tuple[uuid.UUID, ...]], list[Listener]] = defaultdict(list)
    patient = Patient()  # one for all, because it is slow to create
    for (voice, backup_voice, policy, language, speech_rate, of_devices, owners), listeners in alike.items():
        patient.voice, patient.backup_voice = voices.get(voice), voices.get(backup_voice)
        patient.backup_policy, patient.language = policy, language
        for needed in _voices_needed(patient, defaults):
            for audio_format in of_devices:
                audiences[needed, languages.code_of(language), float(speech_rate), audio_format, owners] += listeners
    return [
        Audience(voice, language, rate, audio_format, book.lexicon_of(language, owners), listeners)
        for (voice, language, rate, audio_format, owners), listeners in audiences.items()
    ]


def _voices_of(patients: QuerySet[Patient]) -> dict[uuid.UUID, Voice]:
    """The voices and backup voices of these patients, without the long texts about them."""
    chosen = Q(pk__in=patients.order_by().values("voice")) | Q(pk__in=patients.order_by().values("backup_voice"))
    fields = ("provider_id", "name", "source", "state", "refusal", "revision", "ends_at", "patient")
    needed = (*fields, "successor", *(f"successor__{field}" for field in fields))
    return {voice.pk: voice for voice in Voice.objects.filter(chosen).select_related("successor").only(*needed)}


def _formats_of(patients: QuerySet[Patient]) -> dict[uuid.UUID, tuple[str, ...]]:
    """The audio formats of the devices of each of these patients, sorted. A patient without a device has no entry."""
    devices = Device.objects.bedside().filter(patient__in=patients.order_by().values("pk"), revoked_at=None)
    formats: dict[uuid.UUID, tuple[str, ...]] = {}
    rows = devices.exclude(format="").order_by("format").values_list("patient", "format").distinct()
    for patient, audio_format in rows:
        formats[patient] = (*formats.get(patient, ()), audio_format)
    return formats


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
    specs: dict[str, list[ClipSpec]] = {kind: [] for kind in KIND_PRIORITY}
    for audience in audiences:
        sound = SpeechSettings(
            VoiceRef.from_voice(audience.voice), model, audience.language, audience.speech_rate, audience.format
        )
        pronunciation = Pronunciation(audience.language, audience.lexicon)
        for phrase in phrases:
            if phrase.language != audience.language:
                continue
            if phrase.kind == Phrase.Kind.GREETING:
                greetings = (greeting_spec(phrase, sound, one, pronunciation) for one in audience.listeners)
                specs[phrase.kind] += greetings
            else:
                specs[phrase.kind].append(phrase_spec(phrase, sound, pronunciation))
    wanted = dict.fromkeys(spec for kind in KIND_PRIORITY for spec in specs[kind])
    return [spec for spec in wanted if is_speakable(spec.text)]


def greeting_spec(
    phrase: Phrase, speech_settings: SpeechSettings, listener: Listener, pronunciation: Pronunciation
) -> ClipSpec:
    """Return the specification of this greeting's clip for this patient. See also `phrase_spec`."""
    greeting = render_greeting(phrase.text, listener.form_of_address, listener.companion_name)
    return ClipSpec(speech_settings, pronunciation.plain(greeting), greeting, phrase.pk, listener.patient_id)


def phrase_spec(phrase: Phrase, speech_settings: SpeechSettings, pronunciation: Pronunciation) -> ClipSpec:
    """Return the specification of a clip that is no greeting. It is shared by all to whom it is said in the same way.

    No clip has audio tags: every model and every voice can speak its text.
    """
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
            listener = Listener(clip.patient.pk, clip.patient.form_of_address, clip.patient.companion_name)
            pronunciation = Pronunciation(clip.language, book.lexicon(clip.language, clip.patient))
            yield clip, [greeting_spec(phrase, speech_settings, listener, pronunciation)]
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
