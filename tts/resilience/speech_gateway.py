"""The gateway to the provider: all speech requests go through it, for live speech, cache warming and the probe."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Protocol, Self

from tts.recorder import Recorder
from tts.resilience.concurrency import ConcurrencyLimiter
from tts.resilience.quota_gate import QuotaGate
from usage.ledger.events import Attempt, Kind, Outcome
from voicecare.core import metrics
from voicecare.providers.elevenlabs.client import SpeechClient, SpeechResponse
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest
from voicecare.providers.errors import BadRequest, ProviderError, QuotaExceeded, Stalled

MAX_AUDIO_S = 30.0
MAX_AUDIO_S_PER_CHARACTER = 1.0
"""No spoken text is longer than both together. A longer stream never ends, and the patient must not hear all of it."""
ENDLESS = "The speech provider sends more audio than the text can need."

MAX_TOTAL_SILENCE_S = 10.0  # of all gaps in one segment together; each of them may be too short for a stall
TRICKLE = "The speech provider sends audio far more slowly than it plays."


class AttemptLedger(Protocol):
    """Books an attempt three times."""

    async def record_start(self, attempt: Attempt) -> None:
        """Before the request. If this process dies, the attempt is known and its outcome is unknown."""

    async def record_answer(self, attempt: Attempt) -> None:
        """When the response headers have arrived. From then on the attempt is billed."""

    async def record_end(self, attempt: Attempt) -> None:
        """When the attempt has succeeded, failed or been cancelled."""


class RecorderLedger:
    """Passes attempts to the recorder of this process, which writes them in the background."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def record_start(self, attempt: Attempt) -> None:
        self._recorder.record(attempt)

    async def record_answer(self, attempt: Attempt) -> None:
        self._recorder.record(attempt)

    async def record_end(self, attempt: Attempt) -> None:
        self._recorder.record(attempt)


class ResponseGuard:
    """Detects implausible responses: streams that are much longer than the text could be, and streams that are slower
    than real time. Pure.
    """

    def __init__(self, characters: int, bytes_per_second: float, *, max_silence_s: float = MAX_TOTAL_SILENCE_S) -> None:
        self._max_silence_s = max_silence_s
        self._rate = bytes_per_second
        self._remaining_bytes = bytes_per_second * (MAX_AUDIO_S + characters * MAX_AUDIO_S_PER_CHARACTER)
        self._buffered_s = 0.0  # sent and not played yet
        self._silence_s = 0.0

    def on_chunk(self, size: int, waited_s: float) -> None:
        """Check a chunk of `size` bytes that arrived after `waited_s` seconds. The listener plays during that time.

        Raises Stalled for a stream that is too slow and BadRequest for one that is too long.
        """
        self._silence_s += max(waited_s - self._buffered_s, 0.0)
        self._buffered_s = max(self._buffered_s - waited_s, 0.0) + size / self._rate
        self._remaining_bytes -= size
        if self._remaining_bytes < 0:
            raise BadRequest(ENDLESS, code="endless_audio", status=200)
        if self._silence_s > self._max_silence_s:
            raise Stalled(TRICKLE, code="trickle", status=200)


class AudioStream:
    """The audio of one response, chunk by chunk. Reading raises ProviderError."""

    def __init__(self, response: SpeechResponse, guard: ResponseGuard | None, requested_at: float) -> None:
        self._response = response
        self._guard = guard
        self._requested_at = requested_at

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        began = time.perf_counter()
        chunk = await anext(self._response)
        if self._guard is not None:
            self._guard.on_chunk(len(chunk), time.perf_counter() - began)
        return chunk

    def elapsed_ms(self) -> float:
        """Milliseconds since the request."""
        return round((time.perf_counter() - self._requested_at) * 1000, 2)


class SpeechGateway:
    """Sends speech requests with one client and books them in one ledger.

    `limiter` is given the concurrency limit that the provider reports. `quota` is checked before each request and
    given the price of each response. It is None if the caller checks the quota itself.
    """

    def __init__(
        self,
        client: SpeechClient,
        ledger: AttemptLedger,
        *,
        limiter: ConcurrencyLimiter | None = None,
        quota: QuotaGate | None = None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._limiter = limiter
        self._quota = quota

    @asynccontextmanager
    async def stream(
        self,
        request: SpeechRequest,
        attempt: Attempt,
        *,
        first_byte_s: float,
        stall_s: float,
        slot: AbstractAsyncContextManager[None] | None = None,
        guard: ResponseGuard | None = None,
        on_error: Callable[[ProviderError], None] | None = None,
    ) -> AsyncIterator[AudioStream]:
        """Wait for the slot, book the attempt, send the request and return the audio of the response.

        Raises ProviderError, after a call of `on_error`, and everything that entering `slot` raises. Raises
        QuotaExceeded if the quota ran out while the caller waited for the slot; then nothing was sent or booked. On
        cancellation the response is closed and what the provider bills is booked.
        """
        async with slot or nullcontext():
            if self._quota is not None and self._quota.is_exhausted:
                raise QuotaExceeded
            attempt.started_at = datetime.now(UTC)
            await self._ledger.record_start(attempt)
            requested_at = time.perf_counter()
            try:
                async with self._client.speak(request, first_byte_s=first_byte_s, stall_s=stall_s) as response:
                    await self._record_answer(attempt, response.metadata)
                    yield AudioStream(response, guard, requested_at)
            except ProviderError as error:
                error.request_id = error.request_id or attempt.request_id or None
                attempt.mark_failed(error)
                if on_error is not None:
                    on_error(error)
                raise
            except asyncio.CancelledError:
                attempt.outcome = (Outcome.CANCELLED if attempt.characters else Outcome.UNKNOWN).value
                raise
            finally:
                await self._ledger.record_end(attempt)

    async def _record_answer(self, attempt: Attempt, metadata: ResponseMetadata) -> None:
        attempt.mark_answered(metadata.request_id, metadata.character_cost)
        await self._ledger.record_answer(attempt)
        if self._quota is not None:
            self._quota.on_billed(attempt.requested_characters, metadata.character_cost)
        if attempt.kind != Kind.PROBE.value:
            metrics.PROVIDER_CHARACTERS.inc(attempt.characters)
        limit = metadata.concurrent_limit
        if self._limiter is not None and limit is not None and limit != self._limiter.limit:
            self._limiter.set_limit(limit)
