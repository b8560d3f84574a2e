"""Generates clips before they are needed: one request for each clip that is missing or expires soon.

Only one process generates a clip at a time. `Lease.acquire` sets the expiry time of its row to a few minutes ahead in
one conditional UPDATE, and a row that expires within that time is leased. The audio itself keeps its own expiry time.
Nothing is retried here, because the next round plans again.
"""

import asyncio
import math
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog
from django.conf import settings
from django.db import IntegrityError
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import Audience, ClipSpec, expected_specs, required_clips
from tts.models import Clip, Phrase
from tts.resilience import error_reporter
from tts.resilience.concurrency import ConcurrencyLimiter, SlotTimeout, create_limiter
from tts.resilience.retry_policy import incident_kind
from tts.resilience.speech_gateway import ResponseGuard, SpeechGateway
from tts.text.segmenter import MAX_LENGTH, split
from usage.alerts import incidents
from usage.ledger import events
from usage.ledger.events import Attempt, Kind
from usage.provider_state import circuit, quota
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder
from voicecare.core import metrics
from voicecare.core.database import own_db_thread, run_in_db_thread
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.requests import SpeechRequest
from voicecare.providers.errors import ProviderError, QuotaExceeded, TextRejected, VoiceUnavailable

REFRESH_BEFORE_EXPIRY = timedelta(days=1)
LEASE_TIME = timedelta(minutes=5)
ROUND_LIMIT_S = 10.0  # then the worker can run other tasks
SLOT_WAIT_S = 5.0
FIRST_BYTE_S = STALL_S = 10.0  # no patient waits for this audio

log = structlog.get_logger(__name__)


class OnError(Enum):
    """What to do after a failed request."""

    SKIP_CLIP = auto()
    SKIP_VOICE = auto()
    STOP = auto()


def on_error(error: ProviderError) -> OnError:
    """A rejected text skips only this clip, an unavailable voice skips that voice. Any other error ends the round."""
    match error:
        case TextRejected():
            return OnError.SKIP_CLIP
        case VoiceUnavailable():
            return OnError.SKIP_VOICE
    return OnError.STOP


def missing_clips(audiences: Iterable[Audience], phrases: Sequence[Phrase], cache: PhraseCache) -> dict[str, ClipSpec]:
    """Returns the clips, by key, that are missing or expire within a day.

    `audiences` are patients with the voices and formats that they need.
    """
    specs = {
        cache.key(spec.speech_settings, spec.text): spec
        for spec in required_clips(audiences, phrases, settings.ELEVENLABS_MODEL_ID)
    }
    lasting = Clip.objects.filter(expires_at__gt=timezone.now() + REFRESH_BEFORE_EXPIRY, size__gt=0)
    held = set(lasting.values_list("digest", flat=True))
    return {key: spec for key, spec in specs.items() if key not in held}


def expiring_clips_in_use(phrases: Sequence[Phrase], cache: PhraseCache) -> dict[str, ClipSpec]:
    """Returns the clips, by key, that expire within a day and were played since they were generated.

    Includes clips that no patient needs by plan. Leaves out clips of archived and erased patients.
    """
    now = timezone.now()
    expiring = Clip.objects.filter(
        expires_at__gt=now, expires_at__lte=now + REFRESH_BEFORE_EXPIRY, used_at__gte=F("created_at")
    )
    gone = Q(patient__erased_at__isnull=False) | Q(patient__archived_at__isnull=False)
    playable = expiring.filter(voice__state=Voice.State.USABLE).exclude(gone).select_related("voice", "patient")
    specs = expected_specs(playable, phrases, settings.ELEVENLABS_MODEL_ID)
    return {c.digest: w for c, w in specs if w is not None and cache.key(w.speech_settings, w.text) == c.digest}


def warm(specs: dict[str, ClipSpec], cache: PhraseCache) -> bool:
    """Generates the clips for up to `ROUND_LIMIT_S` and returns whether some are left. Runs its own event loop."""
    return bool(specs) and asyncio.run(_round(specs, cache))


async def _round(specs: dict[str, ClipSpec], cache: PhraseCache) -> bool:
    async with own_db_thread("warming"):
        warmer = CacheWarmer(cache, create_limiter(settings.REDIS_URL))
        await warmer.open()
        try:
            return await warmer.warm_all(specs)
        finally:
            await warmer.close()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of this process to generate a clip. `created_at` and `expires_at` are the earlier values of its row."""

    digest: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def acquire(cls, digest: str, spec: ClipSpec) -> "Lease | None":
        """Returns None if another process generates the clip or has done so. A new clip gets a row without audio."""
        long_ago = timezone.now() - REFRESH_BEFORE_EXPIRY  # expired, even if this clock and the database's differ
        placeholder = Clip(
            digest=digest,
            voice_id=spec.speech_settings.voice.id,
            phrase_id=None if spec.patient_id else spec.phrase_id,
            patient_id=spec.patient_id,
            language=spec.speech_settings.language,
            speed=spec.speech_settings.speed,
            format=spec.speech_settings.format,
            characters=len(spec.text),
            size=0,
            created_at=long_ago,
            expires_at=long_ago,
        )
        try:
            Clip.objects.bulk_create([placeholder], ignore_conflicts=True)
        except IntegrityError:  # its voice, phrase or patient has just been deleted
            return None
        row = Clip.objects.filter(digest=digest)
        former = row.values_list("created_at", "expires_at").first()
        soon = Now() + LEASE_TIME
        free = Q(expires_at__lte=Now()) | Q(expires_at__gt=soon, expires_at__lte=Now() + REFRESH_BEFORE_EXPIRY)
        if former is None or not row.filter(free).update(expires_at=soon):
            return None
        return cls(digest, *former)

    def release(self) -> None:
        """Restores the expiry time of the row after a failure."""
        Clip.objects.filter(digest=self.digest, created_at=self.created_at).update(expires_at=self.expires_at)

    def is_filled(self) -> bool:
        return Clip.objects.filter(digest=self.digest, created_at__gt=self.created_at, size__gt=0).exists()


class DatabaseLedger:
    """Records an attempt before the request and after its end. A process that dies leaves an unknown attempt."""

    async def record_start(self, attempt: Attempt) -> None:
        await run_in_db_thread(events.record_attempts, [attempt])

    async def record_answer(self, attempt: Attempt) -> None:
        """Does nothing, so that the audio does not wait for the database."""

    async def record_end(self, attempt: Attempt) -> None:
        await run_in_db_thread(events.record_attempts, [attempt])


class CacheWarmer:
    """Requests one clip at a time, in a concurrency slot for background work."""

    def __init__(self, cache: PhraseCache, slots: ConcurrencyLimiter) -> None:
        self._cache = cache
        self._slots = slots
        self._client = SpeechClient(settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox")
        self._gateway = SpeechGateway(self._client, DatabaseLedger(), limiter=slots)

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()
        await self._slots.close()

    async def warm_all(self, specs: dict[str, ClipSpec]) -> bool:
        """Returns True if the time limit ended the round before all clips were tried."""
        began = time.monotonic()
        refused: set[uuid.UUID] = set()
        for digest, spec in specs.items():
            if time.monotonic() - began > ROUND_LIMIT_S:
                return True
            if spec.speech_settings.voice.id in refused:
                continue
            provider = await run_in_db_thread(circuit.read_status)
            if provider.concurrency_limit is not None:
                self._slots.set_limit(provider.concurrency_limit)
            if provider.quota_exhausted or provider.circuit_open:
                return False
            match await self._warm_clip(digest, spec):
                case OnError.SKIP_VOICE:
                    refused.add(spec.speech_settings.voice.id)
                case OnError.STOP:
                    return False
        return False

    async def _warm_clip(self, digest: str, spec: ClipSpec) -> OnError | None:
        lease = await run_in_db_thread(Lease.acquire, digest, spec)
        if lease is None:
            return None
        try:
            await self._cache.store(spec.speech_settings, spec.text, await self._synthesize(spec), spec.patient_id)
            filled = await run_in_db_thread(lease.is_filled)
        except SlotTimeout:
            log.info("warming.slot_unavailable")
            filled = False
        except ProviderError as error:
            await run_in_db_thread(_report_error, error, spec)
            await run_in_db_thread(lease.release)
            return on_error(error)
        if not filled:  # no slot, or the store or database failed: the next clip would be billed and lost
            await run_in_db_thread(lease.release)
        return None if filled else OnError.STOP

    async def _synthesize(self, spec: ClipSpec) -> bytes:
        """Returns the complete audio of the clip. Raises ProviderError or SlotTimeout."""
        source_id, audio = uuid.uuid4(), bytearray()
        audio_format = FORMATS[spec.speech_settings.format]
        for index, request in enumerate(_build_requests(spec)):
            attempt = Attempt(
                source_id=source_id,
                segment=index,
                attempt=1,
                kind=Kind.WARM.value,
                requested_characters=len(request.text),
                patient_id=spec.patient_id,
                voice_id=spec.speech_settings.voice.id,
                model=spec.speech_settings.model,
            )
            padder = FramePadder(audio_format)
            async with self._gateway.stream(
                request,
                attempt,
                slot=self._slots.acquire(spec.patient_id, background=True, wait_s=SLOT_WAIT_S),
                first_byte_s=FIRST_BYTE_S,
                stall_s=STALL_S,
                guard=ResponseGuard(len(request.text), audio_format.bytes_per_second, max_silence_s=math.inf),
            ) as chunks:
                async for chunk in chunks:
                    audio += chunk
                    padder.feed(chunk)
            audio += padder.padding()
        return bytes(audio)


def _build_requests(spec: ClipSpec) -> list[SpeechRequest]:
    """Returns one request for a short text, or one for each segment of a long text, as for live speech."""
    short = len(spec.text) <= MAX_LENGTH
    texts = [spec.text] if short else split(spec.text, spec.speech_settings.language, frozenset())
    neighbours = zip(texts, [None, *texts[:-1]], [*texts[1:], None], strict=True)
    retention = settings.ELEVENLABS_ZERO_RETENTION
    return [
        spec.speech_settings.build_request(text, before, next_, zero_retention=retention)
        for text, before, next_ in neighbours
    ]


def _report_error(error: ProviderError, spec: ClipSpec) -> None:
    """Counts and logs the error, and updates the quota state or opens an incident."""
    metrics.PROVIDER_ERRORS.labels(type(error).__name__, Kind.WARM.value).inc()
    log.warning("warming.request_failed", error=type(error).__name__, particulars=error.support_details)
    kind = incident_kind(error)
    if isinstance(error, QuotaExceeded):
        quota.mark_exhausted(len(spec.text), error.support_details)
    elif kind is not None:
        key = str(spec.speech_settings.voice.id) if kind == "voice" else ""
        error_reporter.record_incident(incidents.Kind(kind), key, error.support_details)
