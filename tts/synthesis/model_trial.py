"""Has models speak the same sentence, for administrators who choose one. Every request is billed.

The requests are those of live speech: the same format, and a connection that is open already. They wait behind all
patients for a concurrency slot.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import structlog
from django.conf import settings

from tts.cache.warmer import DatabaseLedger
from tts.conversations.voice import SpeechSettings, VoiceRef
from tts.resilience.concurrency import ConcurrencyLimiter, SlotTimeout, create_limiter
from tts.resilience.speech_gateway import ResponseGuard, SpeechGateway
from usage.ledger.events import Attempt, Kind
from usage.provider_state import circuit
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.core import metrics
from voicecare.core.database import own_db_thread, run_in_db_thread
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.elevenlabs.models import CATALOGUE
from voicecare.providers.errors import ProviderError

TEXT, LANGUAGE = "Good morning. Did you sleep well? I am here if you need me.", "en"
REPETITIONS = 3  # requests of each model, of which the median counts
SLOT_WAIT_S = 2.0
REQUEST_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 20.0  # a person waits for all requests

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ModelTrial:
    """What the requests of one model have shown.

    `waits_ms` are the milliseconds from each request to its first audio. `audio` is the sentence, as MP3. It is empty
    without a complete response. `failure` says in words why requests are missing, or is empty.
    """

    model_id: str
    waits_ms: list[float] = field(default_factory=list)
    characters: int = 0
    credits: int = 0
    audio: bytes = b""
    failure: str = ""

    @property
    def median_ms(self) -> float | None:
        return median(self.waits_ms) if self.waits_ms else None


def reason_against(status: circuit.ProviderStatus) -> str:
    """Return in words why no model can be tried now, or an empty text."""
    if status.quota_exhausted:
        return "The credits of the provider are used up."
    return "The provider does not work at the moment." if status.circuit_open else ""


def try_models(voice: VoiceRef, model_ids: Sequence[str]) -> list[ModelTrial]:
    """Have each model speak TEXT REPETITIONS times, in turn. Runs its own event loop. Never raises ProviderError."""
    return asyncio.run(_try_in_turn(voice, model_ids))


async def _try_in_turn(voice: VoiceRef, model_ids: Sequence[str]) -> list[ModelTrial]:
    trials = [ModelTrial(model_id) for model_id in model_ids]
    client = SpeechClient(settings.ELEVENLABS_BASE_URL, credentials.api_key())
    slots = create_limiter(settings.REDIS_URL)
    async with own_db_thread("model-trial"):
        status = await run_in_db_thread(circuit.read_status)
        if status.concurrency_limit is not None:
            slots.set_limit(status.concurrency_limit)
        await client.open()
        try:
            await client.preconnect()
            gateway = SpeechGateway(client, DatabaseLedger(), limiter=slots, models=CATALOGUE)
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                for repetition in range(REPETITIONS):
                    for trial in trials:
                        if not trial.failure:
                            await _try_once(trial, voice, repetition, gateway, slots)
        except TimeoutError:
            for trial in trials:
                if len(trial.waits_ms) < REPETITIONS:
                    trial.failure = trial.failure or f"Not all requests ended within {TOTAL_TIMEOUT_S:.0f} seconds."
        finally:
            await client.close()
            await slots.close()
    return trials


async def _try_once(
    trial: ModelTrial, voice: VoiceRef, repetition: int, gateway: SpeechGateway, slots: ConcurrencyLimiter
) -> None:
    """Send one request, and add what it shows to the trial."""
    speech_settings = SpeechSettings(voice, trial.model_id, LANGUAGE, 1.0, DEVICE_FORMATS[0])
    attempt = Attempt(
        source_id=uuid.uuid4(),
        segment=0,
        attempt=1,
        kind=Kind.TRIAL.value,
        requested_characters=len(TEXT),
        voice_id=voice.id,
        model=trial.model_id,
    )
    audio = bytearray()
    try:
        async with gateway.stream(
            speech_settings.build_request(TEXT, None, None, zero_retention=settings.ELEVENLABS_ZERO_RETENTION),
            attempt,
            slot=slots.acquire(None, background=True, wait_s=SLOT_WAIT_S),
            first_byte_s=REQUEST_TIMEOUT_S,
            stall_s=REQUEST_TIMEOUT_S,
            guard=ResponseGuard(TEXT, FORMATS[speech_settings.format].bytes_per_second),
        ) as chunks:
            async for chunk in chunks:
                if not audio:
                    attempt.first_byte_ms = chunks.elapsed_ms()
                audio += chunk
    except SlotTimeout:
        trial.failure = f"Patients are using all requests that the plan allows. None was free in {SLOT_WAIT_S:.0f} s."
    except ProviderError as error:
        metrics.PROVIDER_ERRORS.labels(type(error).__name__, Kind.TRIAL.value).inc()
        log.warning("model_trial.request_failed", model=trial.model_id, particulars=error.support_details)
        trial.failure = f"{error.message} ({error.support_details})"
    finally:
        trial.characters += attempt.characters
        trial.credits += attempt.credits
    if not trial.failure and attempt.first_byte_ms is not None:
        trial.waits_ms.append(attempt.first_byte_ms)
        trial.audio = bytes(audio)
