"""Cache coverage for the admin: for each language a table of its voices and a table of its phrases."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, F, Min, Q, QuerySet, Sum, prefetch_related_objects
from django.utils import timezone

from tts.cache.missing import Needs
from tts.models import Clip, Phrase
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Patient, Voice

MAX_VOICES = 50  # rows of one table; those with the most missing clips come first


@dataclass(slots=True)
class Cached:
    """The clips of one voice, or of one phrase.

    `needed` counts the clips that active patients need. These clips differ in speech rate, format and greeting names.
    `cached` counts the needed clips that exist. The other fields cover all existing clips, also those that no active
    patient needs. `expires_at` is the earliest time at which a valid clip expires. `saved` is the number of characters
    that were not billed: hits times characters.
    """

    needed: int = 0
    cached: int = 0
    expires_at: datetime | None = None
    hits: int = 0
    saved: int = 0

    @property
    def state(self) -> str:
        if self.needed == 0:
            return "unneeded"
        return "full" if self.cached == self.needed else "part" if self.cached else "none"

    @property
    def missing(self) -> int:
        return self.needed - self.cached

    def __add__(self, other: "Cached") -> "Cached":
        """Return the sums of the four numbers, and the earlier of the times."""
        times = [time for time in (self.expires_at, other.expires_at) if time is not None]
        return Cached(
            needed=self.needed + other.needed,
            cached=self.cached + other.cached,
            expires_at=min(times, default=None),
            hits=self.hits + other.hits,
            saved=self.saved + other.saved,
        )


@dataclass(frozen=True, slots=True)
class LanguageCoverage:
    """The coverage of one language. `is_spoken` means that an active patient has this language.

    `voices` has at most MAX_VOICES rows. `other_voices` is the number of the others, and `others` is their sum.
    """

    language: str
    is_spoken: bool
    total: Cached
    voices: list[tuple[Voice, Cached]]
    other_voices: int
    others: Cached
    phrases: list[tuple[Phrase, Cached]]

    @property
    def name(self) -> str:
        return languages.LANGUAGES.get(self.language, self.language)


def coverage_by_language(needs: Needs, defaults: DefaultVoices) -> list[LanguageCoverage]:
    """Return the coverage of each language that has phrases. Makes at most three queries."""
    voices = {(audience.voice, audience.language) for audience in needs.audiences}
    by_voice, by_phrase = _count(needs)
    found = []
    for language in sorted({phrase.language for phrase in needs.phrases}):
        # The default voice has a row for every language, because it is the backup voice of all patients.
        default = defaults.for_language(language)
        used = {voice for voice, spoken in voices if spoken == language}
        used |= set() if default is None else {default}
        rows = [(voice, by_voice[language, voice.pk]) for voice in used]
        rows.sort(key=lambda row: (row[0] != default, -row[1].missing, row[0].name, str(row[0].pk)))
        phrases = [(phrase, by_phrase[phrase.pk]) for phrase in needs.phrases if phrase.language == language]
        found.append(
            LanguageCoverage(
                language=language,
                is_spoken=any(spoken == language for _, spoken in voices),
                total=sum((cached for _, cached in rows), Cached()),
                voices=rows[:MAX_VOICES],
                other_voices=len(rows[MAX_VOICES:]),
                others=sum((cached for _, cached in rows[MAX_VOICES:]), Cached()),
                phrases=phrases,
            )
        )
    prefetch_related_objects([voice for coverage in found for voice, _ in coverage.voices], "patient")
    return found


def _count(needs: Needs) -> tuple[dict[tuple[str, object], Cached], dict[int, Cached]]:
    """Count the clips by language and voice, and by phrase. Makes two queries."""
    greetings = {phrase.language: phrase.pk for phrase in needs.phrases if phrase.kind == Phrase.Kind.GREETING}
    of_phrases = Q(phrase__isnull=False) | Q(patient__isnull=False, language__in=greetings)
    clips = Clip.objects.filter(of_phrases, size__gt=0).order_by()
    figures = {
        "expiry": Min("expires_at", filter=Q(expires_at__gt=timezone.now())),
        "played": Sum("hits"),
        "saved": Sum(F("hits") * F("characters")),
    }
    by_voice: dict[tuple[str, object], Cached] = defaultdict(Cached)
    for language, voice, expires_at, hits, saved in clips.values_list("language", "voice").annotate(**figures):
        by_voice[language, voice] = Cached(expires_at=expires_at, hits=hits, saved=saved)
    by_phrase: dict[int, Cached] = defaultdict(Cached)
    for language, phrase, expires_at, hits, saved in clips.values_list("language", "phrase").annotate(**figures):
        by_phrase[phrase or greetings[language]] += Cached(expires_at=expires_at, hits=hits, saved=saved)
    needed: Counter[tuple[int, int, bool]] = Counter(  # ids of objects: to hash the settings is slow
        (id(spec.speech_settings), spec.phrase_id, key in needs.cached) for key, spec in needs.specs.items()
    )
    sounds = {id(spec.speech_settings): spec.speech_settings for spec in needs.specs.values()}
    for (sound_id, phrase, is_cached), number in needed.items():
        sound = sounds[sound_id]
        for cached in (by_voice[sound.language, sound.voice.id], by_phrase[phrase]):
            cached.needed += number
            cached.cached += number if is_cached else 0
    return by_voice, by_phrase


@dataclass(frozen=True, slots=True)
class LanguageGap:
    """A language in which there is no greeting, although patients have this language.

    `language` is a code without region. `patients` is the number of these patients.
    """

    language: str
    patients: int
    has_phrases: bool

    @property
    def name(self) -> str:
        return f"{languages.LANGUAGES[self.language]} ({self.language})" if self.is_listed else self.language

    @property
    def is_listed(self) -> bool:
        """Whether the admin offers this language for a new phrase.

        A patient may still have a language that was removed.
        """
        return self.language in languages.LANGUAGES

    @property
    def missing(self) -> str:
        return "no greeting" if self.has_phrases else "no phrases"


def languages_without_greeting(patients: QuerySet[Patient]) -> list[LanguageGap]:
    """Return the languages of these patients that have no greeting, the language with the most patients first."""
    counts: Counter[str] = Counter()
    for tag, number in patients.order_by().values_list("language").annotate(Count("pk")):
        counts[languages.code_of(tag)] += number
    kinds = defaultdict(set)
    for language, kind in Phrase.objects.order_by().values_list("language", "kind").distinct():
        kinds[language].add(kind)
    return [
        LanguageGap(language, number, language in kinds)
        for language, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if Phrase.Kind.GREETING not in kinds.get(language, ())
    ]
