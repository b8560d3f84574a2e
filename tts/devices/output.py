"""Handing one speech's sound to one device: the frames around it, its pace, and what is still on the way."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from tts.devices.transport import Frame, Socket
from tts.protocol import messages
from tts.speech import Speech
from tts.synthesis.pacing import Pacing
from tts.synthesis.sink import record_audio
from voicecare.audio.formats import FORMATS
from voicecare.audio.framing import FramePadder

RECHECK_S = 0.25  # a device's `progress` may correct the estimate while we wait
SETTLE_S = 0.01
HELD_BYTES = 128 * 1024  # what a device may leave unread in this process, beside what the system holds for it


class Delivery:
    """One speech to one device. Between `speech.started` and the terminal message nothing else is heard."""

    def __init__(self, socket: Socket, speech: Speech, format_name: str) -> None:
        self._socket = socket
        self._speech = speech
        self._format = format_name
        self._voice: tuple[str, str] | None = None
        self._notified = False
        self._told_queued = False
        self._completer = FramePadder(FORMATS[format_name])
        self._unwalked = b""  # the latest chunk: walking through it must not hold up its own departure
        self._pacing = Pacing(FORMATS[format_name].bytes_per_second)

    async def wait_for_capacity(self) -> None:
        """Waits until the device wants another segment: rule 3 of the contract, section 2. The first passes at once."""
        while wait := self._pacing.wait(time.monotonic()):
            await _pause(wait)
        self._pacing.segment_begins()

    def heard(self, ms: int) -> None:
        self._pacing.progress(ms, time.monotonic())

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """One read of sound becomes one frame, at once; then it may wait until a device that reads slowly has read."""
        spoken_as = ("live" if source == "cache" else source, voice)
        if spoken_as == self._voice:
            await self._socket.send(chunk)
        else:
            await self._socket.send(*self._announcement(source, voice), chunk)
            self._voice = spoken_as
        record_audio(self._speech, len(chunk), source)
        self._completer.feed(self._unwalked)
        self._unwalked = chunk
        self._pacing.sent(len(chunk), time.monotonic())
        while self._socket.held() > HELD_BYTES:
            await _pause(RECHECK_S)

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        """Tells the device, once, that this speech waits in line and until when at most."""
        if not self._told_queued:
            self._told_queued = True
            expires_at = datetime.now(UTC) + timedelta(seconds=expires_in_s)
            await self._socket.send(messages.speech_queued(self._speech.id, reason, expires_at))

    async def flush(self) -> None:
        """Returns when all was taken from this process: a speech that a stuck device never read is not spoken."""
        while self._socket.held():
            await _pause(SETTLE_S)

    async def pad_partial_frame(self) -> None:
        """Fills a frame or sample that broke off with zero bytes, so that whatever follows decodes."""
        self._completer.feed(self._unwalked)
        self._unwalked = b""
        missing = self._completer.padding()
        if missing:
            await self._socket.send(missing)
            self._speech.progress.padded(len(missing))
            self._pacing.sent(len(missing), time.monotonic())

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


async def _pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, RECHECK_S))
