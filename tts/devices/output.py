"""Handing one speech's sound to one device: the frames around it, its pace, and what is still on the way."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from tts.devices.transport import Frame, Socket
from tts.protocol import messages
from tts.speech import Speech
from tts.states import Source
from tts.synthesis.pacing import Pacing
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder
from voicecare.core import metrics

RECHECK_S = 0.25  # a device's `progress` may correct the estimate while we wait
SETTLE_S = 0.01
HELD_BYTES = 128 * 1024  # what a device may leave unread in this process, beside what the system holds for it
CLIP_FRAME_BYTES = 16 * 1024


class Delivery:
    """One speech to one device. Between `speech.started` and the terminal message nothing else is heard."""

    def __init__(self, socket: Socket, speech: Speech, format_name: str) -> None:
        self._socket = socket
        self._speech = speech
        self._format = format_name
        self._voice: tuple[str, str] | None = None
        self._notified = False
        self._told_queued = False
        self._only_cache = True
        self._completer = FramePadder(FORMATS[format_name])
        self._unwalked = b""  # the latest chunk: walking through it must not hold up its own departure
        self._pacing = Pacing(FORMATS[format_name].bytes_per_second)

    async def room(self) -> None:
        """Waits until the device wants another segment: rule 3 of the contract, section 2. The first passes at once."""
        while wait := self._pacing.wait(time.monotonic()):
            await _pause(wait)
        self._pacing.segment_begins()

    def heard(self, ms: int) -> None:
        self._pacing.progress(ms, time.monotonic())

    async def clip(self, audio: bytes, voice: str) -> None:
        """Sound from the cache."""
        for start in range(0, len(audio), CLIP_FRAME_BYTES):
            await self.forward(audio[start : start + CLIP_FRAME_BYTES], Source.CACHE.value, voice)

    async def forward(self, chunk: bytes, source: str, voice: str) -> None:
        """One read of sound becomes one frame, at once; then it may wait until a device that reads slowly has read."""
        spoken_as = ("live" if source == "cache" else source, voice)
        if spoken_as == self._voice:
            await self._socket.send(chunk)
        else:
            await self._socket.send(*self._announcement(source, voice), chunk)
            self._voice = spoken_as
        if not self._speech.bytes_sent:
            self._first_frame_is_out(source)
        self._only_cache = self._only_cache and source == "cache"
        self._speech.source = "cache" if self._only_cache else spoken_as[0]
        self._sent(chunk)
        while self._socket.held() > HELD_BYTES:
            await _pause(RECHECK_S)

    async def queued(self, reason: str, expires_in_s: float) -> None:
        """Tells the device, once, that this speech waits in line and until when at most."""
        if not self._told_queued:
            self._told_queued = True
            expires_at = datetime.now(UTC) + timedelta(seconds=expires_in_s)
            await self._socket.send(messages.speech_queued(self._speech.id, reason, expires_at))

    async def settle(self) -> None:
        """Returns when all was taken from this process: a speech that a stuck device never read is not spoken."""
        while self._socket.held():
            await _pause(SETTLE_S)

    async def complete_cut(self) -> None:
        """Fills a frame or sample that broke off with zero bytes, so that whatever follows decodes."""
        self._completer.feed(self._unwalked)
        self._unwalked = b""
        missing = self._completer.padding()
        if missing:
            await self._socket.send(missing)
            self._count(missing)

    def _sent(self, chunk: bytes) -> None:
        self._completer.feed(self._unwalked)
        self._unwalked = chunk
        self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self._speech.bytes_sent += len(chunk)
        self._pacing.sent(len(chunk), time.monotonic())

    def _announcement(self, source: str, voice: str) -> list[Frame]:
        """What the device reads before the first sound, and where its source changes."""
        frame: dict[str, object] = {"id": self._speech.id, "source": source, "voice": voice}
        if self._voice is not None:
            frames: list[Frame] = [{"type": "speech.switched", **frame}]
        else:
            if self._speech.claim is not None and self._speech.claim.of is not None:
                frame["of"] = self._speech.claim.of
            frames = [{"type": "speech.started", **frame, "format": self._format}]
        if source in ("backup", "offline") and not self._notified:
            self._notified = True
            frames.append(messages.BACKUP_VOICE_NOTICE)
        return frames

    def _first_frame_is_out(self, source: str) -> None:
        now = time.perf_counter()
        self._speech.first_chunk_ms = round((now - self._speech.received_at_monotonic) * 1000, 2)
        self._speech.response_ms = round((now - self._speech.started_at_monotonic) * 1000, 2)
        self._speech.spoken_at = datetime.now(UTC)
        metrics.FIRST_CHUNK_SECONDS.labels(source).observe(now - self._speech.started_at_monotonic)


async def _pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, RECHECK_S))
