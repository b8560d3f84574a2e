"""Sends the audio of one speech to one device, with the frames around it, at the pace of playback."""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tts.devices.transport import DeviceTransport, Frame
from tts.protocol import messages
from tts.queue_reason import QueueReason
from tts.speech import Speech
from tts.synthesis.pacing import Pacer
from tts.synthesis.sink import record_audio
from voicecare.audio.formats import FORMATS

RECHECK_INTERVAL_S = 0.25  # `progress` of the device may correct the estimated playback at any time
MAX_BUFFERED_BYTES = 128 * 1024  # handed to the server and unread, in addition to the buffers of the operating system


class _Chunk(NamedTuple):
    """Audio that becomes one frame, with its source and the name of its voice."""

    audio: bytes
    source: str
    voice: str


class SpeechOutput:
    """The `AudioSink` of one speech for one device. No other speech is sent before the end of this one.

    A device that reads slowly does not delay the provider. Its audio waits here, so that the provider's response is
    read to its end, and the provider's slot is free when the provider has finished. At most one response waits: the
    next segment, and another attempt at the same segment, begin when all of it was sent. So the waiting audio of a
    device is limited by what `ResponseGuard` allows for the longest segment: (30 s + 300 characters x 1 s) x 48,000
    bytes/s = 15.8 MB. 300 spoken characters are about 25 s, which is 0.1 MB to 1.2 MB, depending on the format. An
    interruption drops the audio.
    """

    def __init__(self, transport: DeviceTransport, speech: Speech, format_name: str) -> None:
        self._transport = transport
        self._speech = speech
        self._format = format_name
        self._announced: tuple[str, str] | None = None  # source and voice
        self._notice_sent = False
        self._queued_sent = False
        self._unsent: deque[_Chunk] = deque()
        self._unsent_bytes = 0
        self._bytes_per_second = FORMATS[format_name].bytes_per_second
        self._pacer = Pacer(self._bytes_per_second)

    def unsent_bytes(self) -> int:
        """The number of bytes of audio that wait because the device reads slowly."""
        return self._unsent_bytes

    async def wait_for_capacity(self) -> None:
        """Wait until the device needs another segment (docs/protocol.md, rule 3).

        For the first segment, return immediately.
        """
        await self.wait_for_listener()
        while wait := self._pacer.delay_until_next(time.monotonic()):  # noqa: ASYNC110 - time passes without an event
            await asyncio.sleep(min(wait, RECHECK_INTERVAL_S))
        self._pacer.start_segment()

    def report_playback(self, ms: int) -> None:
        """Note that the device has played `ms` milliseconds of the speech."""
        self._pacer.record_progress(ms, time.monotonic())

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send one chunk as one frame immediately, or keep it while the device has too much unread audio."""
        if not self._unsent and self._may_send():
            await self._send(chunk, source, voice)
        else:
            self._unsent.append(_Chunk(chunk, source, voice))
            self._unsent_bytes += len(chunk)
            await self._send_kept()

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Notify the device, at most once, that this speech waits for a free slot, and until when at most."""
        if not self._queued_sent:
            self._queued_sent = True
            self._speech.queued(QueueReason(reason))
            expires_at = datetime.now(UTC) + timedelta(seconds=expires_in_s)
            await self._transport.send(messages.speech_queued(self._speech.id, reason, expires_at))

    async def flush(self) -> None:
        """Wait until all audio has left this process.

        So a speech that the device does not read does not count as spoken.
        """
        await self.wait_for_listener()
        await self._transport.wait_for_buffer(0)

    async def wait_for_listener(self) -> None:
        """Send all waiting audio, as fast as the device reads. Return when at most MAX_BUFFERED_BYTES are unread."""
        if self._announced is None:  # the first chunk is sent immediately, so nothing waits
            return
        await self._transport.wait_for_buffer(MAX_BUFFERED_BYTES)
        while self._unsent:
            await self._send_kept()
            await self._transport.wait_for_buffer(MAX_BUFFERED_BYTES)

    async def _send_kept(self) -> None:
        while self._unsent and self._may_send():
            chunk = self._unsent.popleft()
            self._unsent_bytes -= len(chunk.audio)
            await self._send(*chunk)

    def _may_send(self) -> bool:
        """Whether at most MAX_BUFFERED_BYTES are unread. The first chunk of a speech may always be sent."""
        return self._announced is None or self._transport.buffered_bytes() <= MAX_BUFFERED_BYTES

    async def _send(self, chunk: bytes, source: str, voice: str) -> None:
        size = len(chunk)
        frames: list[Frame] = [chunk]
        announced = ("live" if source == "cache" else source, voice)
        if announced != self._announced:
            frames = [*self._announce(source, voice), chunk]
            self._announced = announced
        await self._transport.send(*frames, audio_s=size / self._bytes_per_second)
        record_audio(self._speech, size, source)
        self._pacer.record_sent(size, time.monotonic())

    def _announce(self, source: str, voice: str) -> list[Frame]:
        """Return the frames to send before the first audio, or before the first audio from another source or voice."""
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
