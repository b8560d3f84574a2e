"""The interface that the speech pipeline writes audio to."""

import time
from datetime import UTC, datetime
from typing import Protocol

from tts.speech import Speech
from voicecare.core import metrics


class AudioSink(Protocol):
    """Takes the audio of one speech, in order.

    `tts.devices.output` implements it for a device, `tts.api.streaming` for an HTTP response. An implementation calls
    `record_audio` for each chunk that it has sent.
    """

    async def wait_for_capacity(self) -> None:
        """Wait until the listener needs another segment. The pipeline calls this once before each segment."""

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send one chunk. Wait if the listener reads too slowly.

        `source` is a value of `Source`, `voice` the name of the voice.
        """

    async def pad_partial_frame(self) -> None:
        """Pad a truncated audio frame or sample with zero bytes, so that the next chunk can be decoded."""

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Report that the speech waits, for at most `expires_in_s` seconds. Only the first call has an effect."""

    async def flush(self) -> None:
        """Wait until all audio has left this process."""


def record_audio(speech: Speech, size: int, source: str) -> None:
    """Count a chunk that a sink has sent. The first chunk sets the speech's time to first audio."""
    progress = speech.progress
    is_first = not progress.bytes_sent
    now = time.monotonic()
    progress.sent(size, source, now=now, utc_now=datetime.now(UTC))
    if is_first:
        metrics.FIRST_CHUNK_SECONDS.labels(source).observe(now - progress.started_at_monotonic)
        speech.log("speech.started", source=source, request_id=progress.request_id)
