"""Cache coverage for the admin: for each language a table of phrases by voices, with the clips that exist."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import ClipSpec, active_patients, load_audiences, required_clips
from tts.models import Clip, Phrase
from voicecare.patients.models import Voice


@dataclass(slots=True)
class Cell:
    """The clips of one phrase in one voice.

    `needed` counts the clips that active patients need: they differ in speech rate, format and greeting names.
    `cached` counts those of them that exist. The other fields cover all existing clips, also those that no active
    patient needs. `saved` is the number of characters that were not billed: hits times characters.
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
        """The total of two cells. It has no times."""
        return Cell(
            needed=self.needed + other.needed,
            cached=self.cached + other.cached,
            hits=self.hits + other.hits,
            saved=self.saved + other.saved,
        )


Cells = Mapping[tuple[int, object], Cell]


@dataclass(slots=True)
class Table:
    """`rows` are phrases with one cell for each of `voices`. `totals` has the same order."""

    language: str
    voices: list[Voice]
    rows: list[tuple[Phrase, list[Cell]]] = field(default_factory=list)

    @property
    def totals(self) -> list[Cell]:
        return [sum((cells[place] for _, cells in self.rows), Cell()) for place in range(len(self.voices))]


def coverage_tables(cache: PhraseCache) -> list[Table]:
    """Returns one table for each language that has phrases. Always makes six queries."""
    phrases = list(Phrase.objects.all())
    audiences = load_audiences(active_patients())
    specs = required_clips(audiences, phrases, settings.ELEVENLABS_MODEL_ID)
    cells = _cells(specs, phrases, Clip.objects.filter(size__gt=0), cache)
    default = Voice.objects.default()
    tables = []
    for language in sorted({phrase.language for phrase in phrases}):
        # The default voice is a column for every language, because it is the backup voice of all patients.
        used = {audience.voice for audience in audiences if audience.language == language}
        voices = [default, *sorted(used - {default}, key=lambda voice: (voice.name, str(voice.pk)))]
        of_language = (phrase for phrase in phrases if phrase.language == language)
        rows = [(phrase, [cells.get((phrase.pk, voice.pk), Cell()) for voice in voices]) for phrase in of_language]
        tables.append(Table(language, voices, rows))
    return tables


def _cells(specs: Iterable[ClipSpec], phrases: Sequence[Phrase], clips: Iterable[Clip], cache: PhraseCache) -> Cells:
    now = timezone.now()
    cells: dict[tuple[int, object], Cell] = defaultdict(Cell)
    greetings = {phrase.language: phrase.pk for phrase in phrases if phrase.kind == Phrase.Kind.GREETING}
    cached = set()
    for clip in clips:
        phrase = clip.phrase_id or (greetings.get(clip.language) if clip.patient_id else None)
        if phrase is not None:
            cells[phrase, clip.voice_id].add_clip(clip, now)
        if clip.expires_at > now:
            cached.add(clip.digest)
    for spec in specs:
        cell = cells[spec.phrase_id, spec.speech_settings.voice.id]
        cell.needed += 1
        cell.cached += cache.key(spec.speech_settings, spec.text) in cached
    return cells
