"""The gateway to the provider: all speech requests go through it, for live speech, cache warming and the probe."""

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Protocol, Self

import structlog

from tts.recorder import Recorder
from tts.resilience.concurrency import ConcurrencyLimiter
from tts.resilience.quota_gate import QuotaGate
from usage.ledger.events import Attempt, Kind, Outcome
from voicecare.audio.formats import FORMATS, AudioFormat
from voicecare.audio.framing import whole_frames
from voicecare.audio.received import ReceivedAudio, WrongFormat
from voicecare.core import metrics
from voicecare.providers.elevenlabs.client import SpeechClient, SpeechResponse
from voicecare.providers.elevenlabs.models import ModelCatalogue
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest
from voicecare.providers.errors import (
    AudioTooShort,
    BadRequest,
    Cause,
    NotAudio,
    ProviderError,
    QuotaExceeded,
    Stalled,
)

MAX_AUDIO_S = 30.0
MAX_AUDIO_S_PER_CHARACTER = 1.0
"""No spoken text is longer than both together. A longer stream never ends, and the patient must not hear all of it."""
ENDLESS = "The speech provider sends more audio than the text can need."

MIN_AUDIO_S_PER_LETTER = 0.025
"""The fastest speakers need more than 0.03 s for a letter. A digit takes longer, and so does a letter that stands for a
syllable or a word. A repeated letter ("Nooooo") counts once. Spaces, punctuation and emoji do not count, nor does text
in <> or [], which the provider may take as an instruction."""
_INSTRUCTION = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
_LETTER = re.compile(r"([^\W_])\1*", re.IGNORECASE)

MAX_TOTAL_SILENCE_S = 10.0  # of all gaps in one segment together; each of them may be too short for a stall
_LEARNABLE = (Cause.LANGUAGE, Cause.CONTEXT, Cause.MODEL)
TRICKLE = "The speech provider sends audio far more slowly than it plays."

log = structlog.get_logger(__name__)


class AttemptLedger(Protocol):
    """Records an attempt in the ledger three times."""

    async def record_start(self, attempt: Attempt) -> None:
        """Called before the request is sent. If this process dies, the attempt is known, and its outcome is unknown."""

    async def record_answer(self, attempt: Attempt) -> None:
        """Called when the response headers have arrived. From then on the provider bills the attempt."""

    async def record_end(self, attempt: Attempt) -> None:
        """Called when the attempt has succeeded, failed or been cancelled."""


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
    """Detects implausible responses. Pure.

    The audio of such a response is much longer or shorter than the speech of the text can be, or it arrives more slowly
    than it plays.
    """

    def __init__(self, text: str, bytes_per_second: float, *, max_silence_s: float = MAX_TOTAL_SILENCE_S) -> None:
        self._text = text
        self._max_silence_s = max_silence_s
        self._rate = bytes_per_second
        self._max_bytes = bytes_per_second * (MAX_AUDIO_S + len(text) * MAX_AUDIO_S_PER_CHARACTER)
        self._received_bytes = 0
        self._buffered_s = 0.0  # sent and not played yet
        self._silence_s = 0.0

    def on_chunk(self, size: int, waited_s: float) -> None:
        """Check a chunk of `size` bytes that arrived after `waited_s` seconds, during which the listener played.

        Raises Stalled for a stream that is too slow and BadRequest for one that is too long.
        """
        self._silence_s += max(waited_s - self._buffered_s, 0.0)
        self._buffered_s = max(self._buffered_s - waited_s, 0.0) + size / self._rate
        self._received_bytes += size
        if self._received_bytes > self._max_bytes:
            raise BadRequest(ENDLESS, code="endless_audio", status=200)
        if self._silence_s > self._max_silence_s:
            raise Stalled(TRICKLE, code="trickle", status=200)

    def on_end(self) -> None:
        """Check the length of the whole stream, which has ended. Raises AudioTooShort."""
        letters = len(_LETTER.findall(_INSTRUCTION.sub(" ", self._text)))
        if self._received_bytes < letters * MIN_AUDIO_S_PER_LETTER * self._rate:
            raise AudioTooShort(status=200)


class AudioStream:
    """The audio of one response, chunk by chunk. Reading raises ProviderError.

    The chunks can be played directly after those of another response: they begin with sound, without tags, and they end
    with a whole frame or sample. Before an error is raised, the last frame is completed with padding.
    """

    def __init__(
        self, response: SpeechResponse, audio_format: AudioFormat, guard: ResponseGuard | None, requested_at: float
    ) -> None:
        self._response = response
        self._guard = guard
        self._requested_at = requested_at
        self._chunks = whole_frames(self._received(ReceivedAudio(audio_format)), audio_format)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._chunks.aclose()

    async def _received(self, received: ReceivedAudio) -> AsyncGenerator[bytes, None]:
        """Yield the audio of each network read, after the checks. Raises ProviderError."""
        began = time.perf_counter()
        try:
            async for read in self._response:
                chunk = received.feed(read)
                if self._guard is not None:
                    self._guard.on_chunk(len(chunk), time.perf_counter() - began)
                if chunk:
                    yield chunk
                began = time.perf_counter()
            if rest := received.finish():
                yield rest
        except WrongFormat:
            raise NotAudio(code="wrong_format", status=200) from None
        if self._guard is not None:
            self._guard.on_end()

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the request was sent."""
        return round((time.perf_counter() - self._requested_at) * 1000, 2)


class SpeechGateway:
    """Sends speech requests with one client and records their attempts in one ledger.

    `limiter` receives the concurrency limit that the provider reports. `quota` is checked before each request and
    receives the price of each response. It is None if the caller checks the quota itself. `models` knows
    what the provider's models accept.
    """

    def __init__(
        self,
        client: SpeechClient,
        ledger: AttemptLedger,
        *,
        limiter: ConcurrencyLimiter | None = None,
        quota: QuotaGate | None = None,
        models: ModelCatalogue | None = None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._limiter = limiter
        self._quota = quota
        self.models = models or ModelCatalogue()
        self.accepted_at = -math.inf
        """When the provider last accepted a request, in seconds of `time.monotonic`."""

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
        """Wait for the slot, record the attempt, send the request and return the audio of the response.

        Raises ProviderError, after a call of `on_error`, and all errors that entering `slot` raises. Raises
        QuotaExceeded if the quota was exhausted while the caller waited for the slot. In that case, nothing was sent or
        recorded. On cancellation, the response is closed and the billed characters are recorded.
        """
        async with slot or nullcontext():
            if self._quota is not None and self._quota.is_exhausted:
                raise QuotaExceeded
            attempt.started_at = datetime.now(UTC)
            await self._ledger.record_start(attempt)
            requested_at = time.perf_counter()
            try:
                async with self._speak(request, first_byte_s, stall_s) as response:
                    await self._record_answer(attempt, response.metadata)
                    audio = AudioStream(response, FORMATS[request.output_format], guard, requested_at)
                    async with aclosing(audio):
                        yield audio
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

    @asynccontextmanager
    async def _speak(
        self, request: SpeechRequest, first_byte_s: float, stall_s: float
    ) -> AsyncIterator[SpeechResponse]:
        """Send the request as its model accepts it. If the provider refuses a part of it, send it without this part.

        Parts are the language code, the neighbour text, and the endpoint, in whose place the other one is used. The
        refusal is not billed and does not count as a failure of the attempt. Later requests leave the part out.
        """
        fitting = self.models.fit(request)
        async with AsyncExitStack() as stack:
            while True:
                try:
                    response = await stack.enter_async_context(
                        self._client.speak(fitting, first_byte_s=first_byte_s, stall_s=stall_s)
                    )
                    break
                except ProviderError as error:
                    if error.cause not in _LEARNABLE or not self.models.learn(fitting, error):
                        raise
                    log.warning(
                        "speech.part_refused",
                        model=fitting.model_id,
                        part=error.cause.name.lower(),
                        language=fitting.language_code,
                        endpoint=fitting.endpoint.value,
                        code=error.code,
                    )
                    fitting = self.models.fit(request)
            yield response

    async def _record_answer(self, attempt: Attempt, metadata: ResponseMetadata) -> None:
        self.accepted_at = time.monotonic()
        cost = metadata.character_cost
        if cost is None:  # then the price of the model is the best guess
            cost = self.models.get(attempt.model).credits_for(attempt.requested_characters)
        attempt.mark_answered(metadata.request_id, cost, metadata.region)
        await self._ledger.record_answer(attempt)
        if self._quota is not None:
            self._quota.on_billed(attempt.requested_characters, cost)
        if attempt.kind != Kind.PROBE.value:
            metrics.PROVIDER_CHARACTERS.inc(attempt.characters)
        limit = metadata.concurrent_limit
        if self._limiter is not None and limit is not None and limit != self._limiter.limit:
            self._limiter.set_limit(limit)
