"""Cache coverage for the admin: a table for each language, with a row for each phrase and a column for each voice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, QuerySet
from django.utils import timezone

from tts.cache.missing import Needs
from tts.models import Clip, Phrase
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Patient, Voice


@dataclass(slots=True)
class Cell:
    """The clips of one phrase in one voice.

    `needed` counts the clips that active patients need. These clips differ in speech rate, format and greeting names.
    `cached` counts the needed clips that exist. The other fields cover all existing clips, also those that no active
    patient needs. `created_at` and `expires_at` are the earliest times of valid clips. `saved` is the number of
    characters that were not billed: hits times characters.
    """

    needed: int = 0
    cached: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None
    hits: int = 0
    saved: int = 0

    @property
    def state(self) -> str:
        if self.needed == 0:
            return "unneeded"
        return "full" if self.cached == self.needed else "part" if self.cached else "none"

    def add_clip(self, clip: Clip, now: datetime) -> None:
        self.hits += clip.hits
        self.saved += clip.hits * clip.characters
        if clip.expires_at > now:
            self.created_at = min(self.created_at or clip.created_at, clip.created_at)
            self.expires_at = min(self.expires_at or clip.expires_at, clip.expires_at)

    def __add__(self, other: "Cell") -> "Cell":
        """Return a cell with the sums of the four numbers. Its times are None, because clips differ in them."""
        return Cell(
            needed=self.needed + other.needed,
            cached=self.cached + other.cached,
            hits=self.hits + other.hits,
            saved=self.saved + other.saved,
        )


Cells = Mapping[tuple[int, object], Cell]


@dataclass(slots=True)
class Table:
    """The coverage of one language. Each row is a phrase with its cells, in the order of `voices`.

    `totals` has one cell for each voice, in the same order. `is_spoken` means that an active patient has this language.
    """

    language: str
    is_spoken: bool
    voices: list[Voice]
    rows: list[tuple[Phrase, list[Cell]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return languages.LANGUAGES.get(self.language, self.language)

    @property
    def total(self) -> Cell:
        return sum(self.totals, Cell())

    @property
    def totals(self) -> list[Cell]:
        return [sum((cells[place] for _, cells in self.rows), Cell()) for place in range(len(self.voices))]


def coverage_tables(needs: Needs, defaults: DefaultVoices) -> list[Table]:
    """Return one table for each language that has phrases. Makes one query."""
    phrases, audiences = needs.phrases, needs.audiences
    cells = _cells(needs, Clip.objects.filter(size__gt=0))
    tables = []
    spoken = {audience.language for audience in audiences}
    for language in sorted({phrase.language for phrase in phrases}):
        # The default voice is a column for every language, because it is the backup voice of all patients.
        default = defaults.for_language(language)
        used = {audience.voice for audience in audiences if audience.language == language} - {default}
        voices = [default] if default is not None else []
        voices += sorted(used, key=lambda voice: (voice.name, str(voice.pk)))
        of_language = (phrase for phrase in phrases if phrase.language == language)
        rows = [(phrase, [cells.get((phrase.pk, voice.pk), Cell()) for voice in voices]) for phrase in of_language]
        tables.append(Table(language, language in spoken, voices, rows))
    return tables


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


def _cells(needs: Needs, clips: Iterable[Clip]) -> Cells:
    now = timezone.now()
    cells: dict[tuple[int, object], Cell] = defaultdict(Cell)
    greetings = {phrase.language: phrase.pk for phrase in needs.phrases if phrase.kind == Phrase.Kind.GREETING}
    cached = set()
    for clip in clips:
        phrase = clip.phrase_id or (greetings.get(clip.language) if clip.patient_id else None)
        if phrase is not None:
            cells[phrase, clip.voice_id].add_clip(clip, now)
        if clip.expires_at > now:
            cached.add(clip.digest)
    for key, spec in needs.specs.items():
        cell = cells[spec.phrase_id, spec.speech_settings.voice.id]
        cell.needed += 1
        cell.cached += key in cached
    return cells
