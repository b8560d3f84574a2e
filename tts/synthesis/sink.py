"""The interface that the speech pipeline writes audio to."""

import time
from datetime import UTC, datetime
from typing import Protocol

from tts.speech import Speech
from voicecare.audio.ogg import StreamJoiner
from voicecare.core import metrics


class AudioSink(Protocol):
    """Receives the audio of one speech from the speech pipeline, in order.

    `tts.devices.output` implements it for a device, `tts.api.streaming` for an HTTP response. An implementation calls
    `record_audio` for each chunk that it has sent.
    """

    async def wait_for_capacity(self) -> None:
        """Wait until the listener needs another segment. The pipeline calls this once before each segment.

        This is also the place to wait for a listener that reads slowly, because the speech occupies no provider slot
        then.
        """

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send one chunk, or keep it for a listener that reads slowly.

        Do not wait: the speech may occupy a provider slot. `source` is a value of `Source`, `voice` the name of the
        voice.
        """

    async def wait_for_listener(self) -> None:
        """Wait for a listener that reads slowly.

        The pipeline calls this before it speaks a segment again from its first word.
        """

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Report that the speech waits, for at most `expires_in_s` seconds. Only the first call has an effect."""

    async def flush(self) -> None:
        """Wait until all audio has left this process."""


class JoiningSink:
    """Joins the Ogg streams of all sources of one speech, and passes the joined stream to another sink."""

    def __init__(self, sink: AudioSink) -> None:
        self._sink = sink
        self._joiner = StreamJoiner()
        self._last: tuple[str, str] | None = None  # source and voice of the last audio

    async def wait_for_capacity(self) -> None:
        await self._sink.wait_for_capacity()

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send the audio that this chunk completes, if any."""
        if audio := self._joiner.feed(chunk):
            self._last = source, voice
            await self._sink.send_audio(audio, source, voice)

    async def wait_for_listener(self) -> None:
        await self._sink.wait_for_listener()

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        await self._sink.notify_queued(reason, expires_in_s)

    async def flush(self) -> None:
        """End the joined stream, and wait until all audio has left this process."""
        if self._last is not None:
            await self._sink.send_audio(self._joiner.finish(), *self._last)
        await self._sink.flush()


def record_audio(speech: Speech, size: int, source: str) -> None:
    """Count a chunk that a sink has sent. The first chunk sets the speech's time to first audio."""
    progress = speech.progress
    is_first = not progress.bytes_sent
    now = time.monotonic()
    progress.sent(size, source, now=now, utc_now=datetime.now(UTC))
    if is_first:
        metrics.FIRST_CHUNK_SECONDS.labels(source).observe(now - progress.started_at_monotonic)
        speech.log("speech.started", source=source, request_id=progress.request_id)
