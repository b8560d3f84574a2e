"""The objects that the speech pipeline needs: clients, cache, recorder, limiter and others.

Each process has one set.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tts.cache.phrase_cache import PhraseCache
from tts.cache.single_flight import SingleFlight
from tts.recorder import Recorder
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.concurrency import ConcurrencyLimiter
from tts.resilience.error_reporter import ErrorReporter
from tts.resilience.quota_gate import QuotaGate
from tts.resilience.speech_gateway import SpeechGateway
from tts.synthesis.hedging import HedgePolicy
from voicecare.providers.elevenlabs.client import SpeechClient
from voicecare.providers.espeak.client import OfflineSynthesizer


@dataclass(frozen=True, slots=True)
class SpeechDependencies:
    """The parts of a process that the speech pipeline uses. `tts.runtime` creates them, once for each process.

    `spawn` runs work in the background. `first_byte_s`, `stall_s` and `busy_wait_s` are seconds, from the settings
    FIRST_CHUNK_TIMEOUT_S, STALL_TIMEOUT_S and BUSY_WAIT_S.
    """

    client: SpeechClient
    gateway: SpeechGateway
    offline_voice: OfflineSynthesizer
    circuit: CircuitBreaker
    quota: QuotaGate
    limiter: ConcurrencyLimiter
    error_reporter: ErrorReporter
    phrase_cache: PhraseCache
    single_flight: SingleFlight
    recorder: Recorder
    hedging: HedgePolicy
    spawn: Callable[[Coroutine[Any, Any, Any]], None]
    first_byte_s: float
    stall_s: float
    busy_wait_s: float
    zero_retention: bool
