"""One request to the provider for a segment of a speech, and the way of its audio to the listener."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tts.cache.single_flight import Flight
from tts.resilience.speech_gateway import AudioStream, ResponseGuard
from tts.speech import Speech
from tts.synthesis.dependencies import SpeechDependencies
from tts.synthesis.sink import AudioSink
from tts.text.stream import Segment
from usage.ledger.events import Attempt
from voicecare.audio.formats import FORMATS
from voicecare.providers.elevenlabs.requests import SpeechRequest
from voicecare.providers.errors import ProviderError


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """A request that is sent when the block of `open` is entered. `relay` must be called in the same task.

    `source` and `voice` describe its audio to the listener. `flight` gets the audio, too.
    """

    speech: Speech
    segment: Segment
    request: SpeechRequest
    attempt: Attempt
    source: str
    voice: str
    sink: AudioSink
    flight: Flight | None
    dependencies: SpeechDependencies

    @asynccontextmanager
    async def open(
        self,
        slot: AbstractAsyncContextManager[None],
        first_byte_s: float,
        on_error: Callable[[ProviderError], None] | None = None,
    ) -> AsyncIterator[AudioStream]:
        """Send the request, and count its characters when its response begins.

        `first_byte_s` is the time limit for the first byte, in seconds. Raises ProviderError, after a call of
        `on_error`, and SlotTimeout.
        """
        async with self.dependencies.gateway.stream(
            self.request,
            self.attempt,
            slot=slot,
            first_byte_s=first_byte_s,
            stall_s=self.dependencies.stall_s,
            guard=ResponseGuard(self.segment.text, FORMATS[self.request.output_format].bytes_per_second),
            on_error=on_error,
        ) as audio:
            self.speech.progress.billed(self.attempt.characters, self.attempt.request_id)
            yield audio

    async def relay(self, audio: AudioStream, first_chunk: bytes) -> None:
        """Send the audio to the listener and to the flight. `first_chunk` was read before. Raises ProviderError."""
        is_first = not self.speech.progress.bytes_sent
        self.attempt.first_byte_ms = audio.elapsed_ms()
        try:
            chunk = first_chunk
            while chunk:
                await self.sink.send_audio(chunk, self.source, self.voice)
                if self.flight is not None:
                    self.flight.add(chunk)
                chunk = await anext(audio, b"")
        finally:
            self.dependencies.hedging.on_answered(self.attempt.model, self.attempt.first_byte_ms / 1000)
            if is_first:
                self.attempt.first_chunk_ms = self.speech.progress.response_ms
