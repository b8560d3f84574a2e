"""What the phrase cache should hold and does not, and why, for the coverage page of the admin."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.db.models import Q, QuerySet, prefetch_related_objects
from django.utils import timezone

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import (
    REFRESH_BEFORE_EXPIRY,
    Audience,
    ClipSpec,
    active_patients,
    load_audiences,
    required_clips,
)
from tts.cache.warmer import LEASE_TIME
from tts.models import Clip, Phrase
from usage.provider_state.circuit import ProviderStatus
from voicecare.patients.models import DefaultVoices, Patient, Voice

IN_PROGRESS = "It is being generated."
REFUSED_TEXT = "The provider refuses this text. It is tried again after two days."
REFUSED_VOICE = "The provider refuses this voice."
FAILED = "The last attempt failed. It is tried again within a quarter of an hour."
EXPIRED = "The audio has expired."
NEW = "It has not been generated yet."
_ORDER = (REFUSED_VOICE, REFUSED_TEXT, FAILED, EXPIRED, NEW, IN_PROGRESS)
_REQUESTABLE = (FAILED, EXPIRED, NEW)
MAX_TEXTS = 3  # examples in a group
MAX_GROUPS = 50  # rows of the table


@dataclass(frozen=True, slots=True)
class Needs:
    """What the cache should hold now: one clip for each key of `specs`.

    `cached` are the keys of the clips that have audio and have not expired. `other_rows` has the size and the expiry
    time of the other rows, by key. `at` is when they were read.
    """

    phrases: Sequence[Phrase]
    audiences: Sequence[Audience]
    specs: Mapping[str, ClipSpec]
    cached: AbstractSet[str]
    other_rows: Mapping[str, tuple[int, datetime]]
    at: datetime


def load_needs(
    cache: PhraseCache, defaults: DefaultVoices | None = None, patients: QuerySet[Patient] | None = None
) -> Needs:
    """Load the needs of all active patients with at most nine queries, two of them for `defaults`.

    `patients` limits them to some patients.
    """
    phrases = list(Phrase.objects.all())
    audiences = load_audiences(active_patients() if patients is None else patients, defaults)
    specs = required_clips(audiences, phrases, settings.ELEVENLABS_MODEL_ID)
    now = timezone.now()
    clips, is_cached = Clip.objects.order_by(), Q(size__gt=0, expires_at__gt=now)
    others = clips.exclude(is_cached).values_list("digest", "size", "expires_at")
    return Needs(
        phrases,
        audiences,
        {cache.key(spec.speech_settings, spec.text): spec for spec in specs},
        set(clips.filter(is_cached).values_list("digest", flat=True)),
        {digest: (size, expires_at) for digest, size, expires_at in others},
        now,
    )


@dataclass(slots=True)
class MissingGroup:
    """Missing clips in one voice for one reason. `texts` are the texts of a few of their phrases."""

    reason: str
    voice: Voice
    clips: int = 0
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MissingReport:
    """How many clips are needed and cached, and why the others are missing.

    `groups` has at most MAX_GROUPS entries. `other_groups` is the number of the others, with `other_clips` clips.
    `requestable` are the missing clips, by key, that the warmer may request now. `blocker` says why it may request
    none, and is empty if the provider can be asked.
    """

    needed: int
    cached: int
    groups: Sequence[MissingGroup]
    other_groups: int
    other_clips: int
    requestable: dict[str, ClipSpec]
    blocker: str

    @property
    def missing(self) -> int:
        return self.needed - self.cached

    @property
    def percent(self) -> int:
        """The share of cached clips, rounded down, so that 100 means all."""
        return 100 * self.cached // self.needed if self.needed else 100


def report_missing(needs: Needs, provider: ProviderStatus) -> MissingReport:
    """Compare the needs with the rows of the clips. Makes at most one query, for the names of patients."""
    voices = {audience.voice.pk: audience.voice for audience in needs.audiences}
    texts = {phrase.pk: phrase.text for phrase in needs.phrases}
    groups: dict[tuple[str, object], MissingGroup] = {}
    requestable: dict[str, ClipSpec] = {}
    blocker = _blocker(provider)
    cached = 0
    for key, spec in needs.specs.items():
        if key in needs.cached:
            cached += 1
            continue
        voice = voices[spec.speech_settings.voice.id]
        reason = _reason(voice, needs.other_rows.get(key), needs.at)
        if reason in _REQUESTABLE and not blocker:
            requestable[key] = spec
        group = groups.setdefault((reason, voice.pk), MissingGroup(reason, voice))
        group.clips += 1
        text = texts[spec.phrase_id]
        if text not in group.texts and len(group.texts) < MAX_TEXTS:
            group.texts.append(text)
    ordered = sorted(groups.values(), key=lambda group: (_ORDER.index(group.reason), -group.clips, group.voice.name))
    shown, others = ordered[:MAX_GROUPS], ordered[MAX_GROUPS:]
    prefetch_related_objects([group.voice for group in shown], "patient")
    other_clips = sum(group.clips for group in others)
    return MissingReport(len(needs.specs), cached, shown, len(others), other_clips, requestable, blocker)


def _reason(voice: Voice, row: tuple[int, datetime] | None, now: datetime) -> str:
    """Why the clip is missing. `row` has the size and the expiry time of its row, if it has one."""
    size, expires_at = row or (0, None)
    if expires_at is not None and now < expires_at <= now + LEASE_TIME:
        return IN_PROGRESS
    if expires_at is not None and expires_at > now + REFRESH_BEFORE_EXPIRY:
        return REFUSED_TEXT
    if voice.refusal:
        return REFUSED_VOICE
    if expires_at is None:
        return NEW
    return EXPIRED if size else FAILED


def _blocker(provider: ProviderStatus) -> str:
    if provider.access_refused:
        return "The provider refuses the API key, so no audio can be generated."
    if provider.quota_exhausted:
        return "The credits of the provider account are used up. Audio is generated when there are credits again."
    if provider.circuit_open:
        return "The provider does not answer. Audio is generated when it does again."
    return ""
