"""Sends the audio of one speech to one device, with the frames around it, at the pace of playback."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from tts.devices.transport import DeviceTransport, Frame
from tts.protocol import messages
from tts.speech import Speech
from tts.states import QueueReason
from tts.synthesis.pacing import Pacer
from tts.synthesis.sink import record_audio
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder

RECHECK_INTERVAL_S = 0.25  # `progress` of the device may correct the estimated playback at any time
FLUSH_CHECK_INTERVAL_S = 0.01
MAX_BUFFERED_BYTES = 128 * 1024  # unread by the device, in addition to the buffers of the operating system


class SpeechOutput:
    """The `AudioSink` of one speech for one device. No other speech is sent before its terminal message."""

    def __init__(self, transport: DeviceTransport, speech: Speech, format_name: str) -> None:
        self._transport = transport
        self._speech = speech
        self._format = format_name
        self._announced: tuple[str, str] | None = None  # source and voice
        self._notice_sent = False
        self._queued_sent = False
        self._padder = FramePadder(FORMATS[format_name])
        self._pending_chunk = b""  # parsed after the next one was sent, so that parsing delays no audio
        self._pacer = Pacer(FORMATS[format_name].bytes_per_second)

    async def wait_for_capacity(self) -> None:
        """Wait until the device needs another segment (docs/protocol.md, rule 3). The first one does not wait."""
        while wait := self._pacer.delay_until_next(time.monotonic()):
            await _pause(wait)
        self._pacer.start_segment()

    def report_playback(self, ms: int) -> None:
        """The device has played this many milliseconds of the speech."""
        self._pacer.record_progress(ms, time.monotonic())

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send one chunk as one frame immediately. Then wait while the device has too much unread audio."""
        announced = ("live" if source == "cache" else source, voice)
        if announced == self._announced:
            await self._transport.send(chunk)
        else:
            await self._transport.send(*self._announce(source, voice), chunk)
            self._announced = announced
        record_audio(self._speech, len(chunk), source)
        self._padder.feed(self._pending_chunk)
        self._pending_chunk = chunk
        self._pacer.record_sent(len(chunk), time.monotonic())
        while self._transport.buffered_bytes() > MAX_BUFFERED_BYTES:
            await _pause(RECHECK_INTERVAL_S)

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Notify the device, once, that this speech waits for a free slot, and until when at most."""
        if not self._queued_sent:
            self._queued_sent = True
            self._speech.queued(QueueReason(reason))
            expires_at = datetime.now(UTC) + timedelta(seconds=expires_in_s)
            await self._transport.send(messages.speech_queued(self._speech.id, reason, expires_at))

    async def flush(self) -> None:
        """Wait until all audio has left this process. Unread speech of a stuck device does not count as spoken."""
        while self._transport.buffered_bytes():
            await _pause(FLUSH_CHECK_INTERVAL_S)

    async def pad_partial_frame(self) -> None:
        """Pad a truncated audio frame or sample with zero bytes, so that the next chunk can be decoded."""
        self._padder.feed(self._pending_chunk)
        self._pending_chunk = b""
        padding = self._padder.padding()
        if padding:
            await self._transport.send(padding)
            self._speech.progress.padded(len(padding))
            self._pacer.record_sent(len(padding), time.monotonic())

    def _announce(self, source: str, voice: str) -> list[Frame]:
        """Return the frames that precede the first audio, or the first audio of another source or voice."""
        frame: dict[str, object] = {"id": self._speech.id, "source": source, "voice": voice}
        if self._announced is not None:
            frames: list[Frame] = [{"type": "speech.switched", **frame}]
        else:
            if self._speech.claim is not None and self._speech.claim.original is not None:
                frame["of"] = self._speech.claim.original
            frames = [{"type": "speech.started", **frame, "format": self._format}]
        if source in ("backup", "offline") and not self._notice_sent:
            self._notice_sent = True
            frames.append(messages.BACKUP_VOICE_NOTICE)
        return frames


async def _pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, RECHECK_INTERVAL_S))
