"""Handing one speech's sound to one device: the frames around it, its pace, and what is still on the way."""

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

RECHECK_INTERVAL_S = 0.25  # a device's `progress` may correct the estimate while we wait
FLUSH_CHECK_INTERVAL_S = 0.01
MAX_BUFFERED_BYTES = 128 * 1024  # what a device may leave unread in this process, beside what the system holds for it


class SpeechOutput:
    """One speech to one device. Between `speech.started` and the terminal message nothing else is heard."""

    def __init__(self, socket: DeviceTransport, speech: Speech, format_name: str) -> None:
        self._transport = socket
        self._speech = speech
        self._format = format_name
        self._voice: tuple[str, str] | None = None
        self._notice_sent = False
        self._queued_sent = False
        self._padder = FramePadder(FORMATS[format_name])
        self._pending_chunk = b""  # the latest chunk: walking through it must not hold up its own departure
        self._pacer = Pacer(FORMATS[format_name].bytes_per_second)

    async def wait_for_capacity(self) -> None:
        """Waits until the device wants another segment: rule 3 of the contract, section 2. The first passes at once."""
        while wait := self._pacer.delay_until_next(time.monotonic()):
            await _pause(wait)
        self._pacer.start_segment()

    def report_playback(self, ms: int) -> None:
        self._pacer.record_progress(ms, time.monotonic())

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """One read of sound becomes one frame, at once; then it may wait until a device that reads slowly has read."""
        spoken_as = ("live" if source == "cache" else source, voice)
        if spoken_as == self._voice:
            await self._transport.send(chunk)
        else:
            await self._transport.send(*self._announce(source, voice), chunk)
            self._voice = spoken_as
        record_audio(self._speech, len(chunk), source)
        self._padder.feed(self._pending_chunk)
        self._pending_chunk = chunk
        self._pacer.record_sent(len(chunk), time.monotonic())
        while self._transport.buffered_bytes() > MAX_BUFFERED_BYTES:
            await _pause(RECHECK_INTERVAL_S)

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Tells the device, once, that this speech waits in line and until when at most."""
        if not self._queued_sent:
            self._queued_sent = True
            self._speech.queued(QueueReason(reason))
            expires_at = datetime.now(UTC) + timedelta(seconds=expires_in_s)
            await self._transport.send(messages.speech_queued(self._speech.id, reason, expires_at))

    async def flush(self) -> None:
        """Returns when all was taken from this process: a speech that a stuck device never read is not spoken."""
        while self._transport.buffered_bytes():
            await _pause(FLUSH_CHECK_INTERVAL_S)

    async def pad_partial_frame(self) -> None:
        """Fills a frame or sample that broke off with zero bytes, so that whatever follows decodes."""
        self._padder.feed(self._pending_chunk)
        self._pending_chunk = b""
        missing = self._padder.padding()
        if missing:
            await self._transport.send(missing)
            self._speech.progress.padded(len(missing))
            self._pacer.record_sent(len(missing), time.monotonic())

    def _announce(self, source: str, voice: str) -> list[Frame]:
        """What the device reads before the first sound, and where its source changes."""
        frame: dict[str, object] = {"id": self._speech.id, "source": source, "voice": voice}
        if self._voice is not None:
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
