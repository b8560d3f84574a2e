"""Generates clips before they are needed: one request for each clip that is missing or expires soon.

Only one process generates a clip at a time. `Lease.acquire` sets the expiry time of the clip's row to a few minutes
ahead in one conditional UPDATE. A row that expires within these minutes is leased by another process. The stored audio
has its own expiry time, which stays.

Failed requests are not repeated in the same round, because the next round decides again which clips are missing. A clip
whose request has failed has a row with the size 0. The row's expiry time is the time of the last failure. If the
provider has refused the text, it is one day after the time at which the text may be requested again.
"""

import asyncio
import math
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog
from django.conf import settings
from django.db import IntegrityError
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from tts.cache.phrase_cache import PhraseCache
from tts.cache.planning import REFRESH_BEFORE_EXPIRY, ClipSpec, in_generation_order
from tts.models import Clip
from tts.resilience.concurrency import ConcurrencyLimiter, SlotTimeout, create_limiter
from tts.resilience.retry_policy import incident_kind
from tts.resilience.speech_gateway import ResponseGuard, SpeechGateway
from tts.text.segmenter import MAX_LENGTH, split
from usage.alerts import incidents, lost_voices
from usage.ledger import events
from usage.ledger.events import Attempt, Kind
from usage.provider_state import access, circuit, quota
from voicecare.audio.formats import FORMATS
from voicecare.core import metrics
from voicecare.core.database import own_db_thread, run_in_db_thread
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.models import CATALOGUE
from voicecare.providers.elevenlabs.requests import SpeechRequest
from voicecare.providers.errors import AudioTooShort, ProviderError, QuotaExceeded, TextRejected, VoiceUnavailable

LEASE_TIME = timedelta(minutes=5)
RETRY_REFUSED_AFTER = timedelta(days=2)  # a text that is refused or not spoken to its end, which may be billed
ROUND_LIMIT_S = 10.0  # then the worker can run other tasks
SLOT_WAIT_S = 5.0
FIRST_BYTE_S = STALL_S = 10.0  # no patient waits for this audio

log = structlog.get_logger(__name__)


class OnError(Enum):
    """How the warmer continues after a failed request."""

    SKIP_CLIP = auto()
    SKIP_VOICE = auto()
    STOP = auto()


def on_error(error: ProviderError) -> OnError:
    """Return how the warmer continues after this error.

    A text that is rejected or not spoken to its end skips only its clip. An unavailable voice skips all clips of this
    voice. Any other error ends the round.
    """
    match error:
        case TextRejected() | AudioTooShort():
            return OnError.SKIP_CLIP
        case VoiceUnavailable():
            return OnError.SKIP_VOICE
    return OnError.STOP


def warm(specs: dict[str, ClipSpec], cache: PhraseCache) -> bool:
    """Generate the clips for up to ROUND_LIMIT_S and return whether some are left. Runs its own event loop."""
    return bool(specs) and asyncio.run(_round(in_generation_order(specs), cache))


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
    """The right of this process to generate a clip.

    `created_at` and `expires_at` are the values that its row had before.
    """

    digest: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def acquire(cls, digest: str, spec: ClipSpec) -> "Lease | None":
        """Lease the clip. Return None if another process is generating it or has generated it.

        A new clip gets a row without audio.
        """
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
        """Give up the lease after a failure.

        If the audio that was stored before is still valid, the row gets the expiry time of that audio again.
        """
        if self.expires_at > timezone.now():
            self._row.update(expires_at=self.expires_at)
        else:
            self._row.update(size=0, expires_at=Now())

    def block(self) -> None:
        """Give up the lease after the provider has refused the text.

        No process requests the text again for RETRY_REFUSED_AFTER. Audio that was stored before is played until it
        expires.
        """
        self._row.update(size=0, expires_at=Now() + REFRESH_BEFORE_EXPIRY + RETRY_REFUSED_AFTER)

    @property
    def _row(self) -> QuerySet[Clip]:
        """The row of the leased clip. Empty if the clip has been generated in the meantime."""
        return Clip.objects.filter(digest=self.digest, created_at=self.created_at)

    def is_filled(self) -> bool:
        return Clip.objects.filter(digest=self.digest, created_at__gt=self.created_at, size__gt=0).exists()


class DatabaseLedger:
    """Writes each attempt to the ledger before its request and after its end.

    If the process dies in between, the outcome of the attempt stays unknown, until reconciliation resolves it.
    """

    async def record_start(self, attempt: Attempt) -> None:
        await run_in_db_thread(events.record_attempts, [attempt])

    async def record_answer(self, attempt: Attempt) -> None:
        """Do nothing, so that the audio does not wait for the database."""

    async def record_end(self, attempt: Attempt) -> None:
        await run_in_db_thread(events.record_attempts, [attempt])


class CacheWarmer:
    """Generates one clip at a time, in a concurrency slot for background work."""

    def __init__(self, cache: PhraseCache, slots: ConcurrencyLimiter) -> None:
        self._cache = cache
        self._slots = slots
        self._client = SpeechClient(settings.ELEVENLABS_BASE_URL, credentials.api_key())
        self._gateway = SpeechGateway(self._client, DatabaseLedger(), limiter=slots, models=CATALOGUE)

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()
        await self._slots.close()

    async def warm_all(self, specs: dict[str, ClipSpec]) -> bool:
        """Generate these clips, by key. Return True if the time limit ended the round before all clips were tried."""
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
            audio = await self._synthesize(spec)
            await self._cache.store(spec.speech_settings, spec.text, audio, spec.patient_id, written=spec.written)
            filled = await run_in_db_thread(lease.is_filled)
        except SlotTimeout:
            log.info("warming.slot_unavailable")
            filled = False
        except ProviderError as error:
            await run_in_db_thread(_report_error, error, spec)
            verdict = on_error(error)
            await run_in_db_thread(lease.block if verdict is OnError.SKIP_CLIP else lease.release)
            return verdict
        if not filled:  # no slot, or the store or database failed: the next clip would be billed and lost
            await run_in_db_thread(lease.release)
        return None if filled else OnError.STOP

    async def _synthesize(self, spec: ClipSpec) -> bytes:
        """Return the complete audio of the clip. Raises ProviderError or SlotTimeout."""
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
            async with self._gateway.stream(
                request,
                attempt,
                slot=self._slots.acquire(spec.patient_id, background=True, wait_s=SLOT_WAIT_S),
                first_byte_s=FIRST_BYTE_S,
                stall_s=STALL_S,
                guard=ResponseGuard(request.text, audio_format.bytes_per_second, max_silence_s=math.inf),
            ) as chunks:
                async for chunk in chunks:
                    audio += chunk
        return bytes(audio)


def _build_requests(spec: ClipSpec) -> list[SpeechRequest]:
    """Return one request for a short text, or one for each segment of a long text, as live speech does."""
    short = len(spec.text) <= MAX_LENGTH
    texts = [spec.text] if short else split(spec.text, spec.speech_settings.language, frozenset())
    neighbours = zip(texts, [None, *texts[:-1]], [*texts[1:], None], strict=True)
    retention = settings.ELEVENLABS_ZERO_RETENTION
    return [
        spec.speech_settings.build_request(text, before, next_, zero_retention=retention)
        for text, before, next_ in neighbours
    ]


def _report_error(error: ProviderError, spec: ClipSpec) -> None:
    """Count and log the error, and update the quota's state or open an incident if the error requires it."""
    metrics.PROVIDER_ERRORS.labels(type(error).__name__, Kind.WARM.value).inc()
    log.warning("warming.request_failed", error=type(error).__name__, particulars=error.support_details)
    kind = incident_kind(error)
    if isinstance(error, QuotaExceeded):
        quota.mark_exhausted(len(spec.text), error.support_details)
    elif kind == incidents.Kind.VOICE:
        lost_voices.check_refused(spec.speech_settings.voice.id, error)
    elif kind == incidents.Kind.ACCESS:
        access.report_refused(error)
    elif kind is not None:
        incidents.open_incident(incidents.Kind(kind), "", error.support_details)
