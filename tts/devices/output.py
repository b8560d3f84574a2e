"""Sends the audio of one speech to one device, with the frames around it, at the pace of playback."""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tts.devices.playback import FIRST_PART_S, Playback
from tts.devices.transport import DeviceTransport, Frame
from tts.protocol import messages
from tts.queue_reason import QueueReason
from tts.speech import Speech
from tts.states import Origin
from tts.synthesis.pacing import Pacer
from tts.synthesis.sink import record_audio
from voicecare.audio.formats import FORMATS
from voicecare.audio.ogg import SoundLength

RECHECK_INTERVAL_S = 0.25  # `progress` of the device may correct the estimated playback at any time
MAX_BUFFERED_BYTES = 128 * 1024  # handed to the server and unread, in addition to the buffers of the operating system


class _Chunk(NamedTuple):
    """Audio that becomes one frame, with its length in seconds, its source and the name of its voice.

    For a device with a small buffer, it may become several frames.
    """

    audio: bytes
    seconds: float
    source: str
    voice: str

    def split(self, seconds: float) -> tuple["_Chunk", "_Chunk"]:
        """Return the first `seconds` of the audio, which must be shorter than all of it, and the rest."""
        cut = max(1, int(len(self.audio) * seconds / self.seconds))
        rest_s = self.seconds * (1 - cut / len(self.audio))
        head = self._replace(audio=self.audio[:cut], seconds=self.seconds - rest_s)
        return head, self._replace(audio=self.audio[cut:], seconds=rest_s)


class SpeechOutput:
    """The `AudioSink` of one speech for one device. No other speech is sent before the end of this one.

    A device that reads slowly, or has a small buffer (`buffer_ms`), does not delay the provider. Its audio waits here,
    so that the provider's response is read to its end, and the provider's slot is free when the provider has finished.
    If the device reads slowly, at most one response waits: the next segment, and another attempt at the same segment,
    begin when all of it was sent. So the waiting audio of a device is limited by what `ResponseGuard` allows for the
    longest segment: (30 s + 300 characters x 1 s) x 48,000 bytes/s = 15.8 MB. 300 spoken characters are about 25 s,
    which is 0.1 MB to 1.2 MB, depending on the format. If the device has a small buffer, the next segment is requested
    as early as for any other device, so that its audio comes in time. Up to MAX_LEAD_S more audio may wait then. An
    interruption drops the audio.

    Audio that waits is sent by a task. Call `close` when the speech ends, for any reason: nothing is sent after that.
    """

    def __init__(self, transport: DeviceTransport, speech: Speech, format_name: str, playback: Playback) -> None:
        self._transport = transport
        self._playback = playback
        self._speech = speech
        self._format = format_name
        self._announced: tuple[str, str] | None = None  # source and voice
        self._notice_sent = False
        self._queued_sent = False
        self._unsent: deque[_Chunk] = deque()
        self._unsent_bytes = 0
        self._sender: asyncio.Task[None] | None = None  # sends what waits
        self._bytes_per_second = FORMATS[format_name].bytes_per_second
        self._length = SoundLength() if FORMATS[format_name].codec == "opus" else None  # its bit rate varies
        self._pacer = Pacer(self._bytes_per_second)

    def unsent_bytes(self) -> int:
        """The number of bytes of audio that wait because the device reads slowly or has a small buffer."""
        return self._unsent_bytes

    async def wait_for_capacity(self) -> None:
        """Wait until the device needs another segment (docs/protocol.md, rule 3).

        For the first segment, return immediately.
        """
        if self._playback.buffer_s is None:
            await self.wait_for_listener()
        elif self._announced is not None:
            await self._transport.wait_for_buffer(MAX_BUFFERED_BYTES)
        while wait := self._pacer.delay_until_next(time.monotonic()):  # noqa: ASYNC110 - time passes without an event
            await asyncio.sleep(min(wait, RECHECK_INTERVAL_S))
        self._pacer.start_segment()

    def report_playback(self, ms: int) -> None:
        """Note that the device has played `ms` milliseconds of the speech."""
        self._pacer.record_progress(ms, time.monotonic())

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        """Send one chunk as one frame immediately, or keep it while the device has no room for it."""
        seconds = len(chunk) / self._bytes_per_second if self._length is None else self._length.feed(chunk)
        self._pacer.record_sent(seconds * self._bytes_per_second, time.monotonic())
        whole = _Chunk(chunk, seconds, source, voice)
        unsent: _Chunk | None = whole
        is_sending = self._sender is not None and not self._sender.done()
        if not is_sending and self._may_send():
            unsent = await self._send_fitting(whole)
        if unsent is not None:
            self._unsent.append(unsent)
            self._unsent_bytes += len(unsent.audio)
            if not is_sending:
                self._sender = asyncio.create_task(self._send_kept())

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
        """Wait until all waiting audio was sent, as fast as the device reads and plays.

        Then at most MAX_BUFFERED_BYTES are unread.
        """
        if self._sender is not None:
            await self._sender
        if self._announced is not None:
            await self._transport.wait_for_buffer(MAX_BUFFERED_BYTES)

    async def close(self) -> None:
        """Drop all waiting audio."""
        if self._sender is not None and not self._sender.done():
            self._sender.cancel()
            await asyncio.wait({self._sender})
        self._unsent.clear()
        self._unsent_bytes = 0

    async def _send_kept(self) -> None:
        while self._unsent:
            if self._announced is not None:
                await self._transport.wait_for_buffer(MAX_BUFFERED_BYTES)
            chunk = self._unsent.popleft()
            self._unsent_bytes -= len(chunk.audio)
            if (rest := await self._send_fitting(chunk)) is not None:
                self._unsent.appendleft(rest)
                self._unsent_bytes += len(rest.audio)
                await asyncio.sleep(self._playback.part_s)

    async def _send_fitting(self, chunk: _Chunk) -> _Chunk | None:
        """Send as much of the chunk as the device has room for. Return the rest, or None if there is no rest."""
        room_s = self._playback.room_s(time.monotonic(), is_first=self._announced is None)
        if chunk.seconds <= room_s:
            await self._send(chunk)
            return None
        if room_s < (FIRST_PART_S if self._announced is None else self._playback.part_s):
            return chunk
        head, rest = chunk.split(room_s)
        await self._send(head)
        return rest

    def _may_send(self) -> bool:
        """Whether at most MAX_BUFFERED_BYTES are unread. The first chunk of a speech may always be sent."""
        return self._announced is None or self._transport.buffered_bytes() <= MAX_BUFFERED_BYTES

    async def _send(self, chunk: _Chunk) -> None:
        frames: list[Frame] = [chunk.audio]
        announced = ("live" if chunk.source == "cache" else chunk.source, chunk.voice)
        if announced != self._announced:
            frames = [*self._announce(chunk.source, chunk.voice), chunk.audio]
            self._announced = announced
        await self._transport.send(*frames, audio_s=chunk.seconds)
        record_audio(self._speech, len(chunk.audio), chunk.source)
        self._playback.record_sent(chunk.seconds, time.monotonic())

    def _announce(self, source: str, voice: str) -> list[Frame]:
        """Return the frames to send before the first audio, or before the first audio from another source or voice."""
        frame: dict[str, object] = {"id": self._speech.id, "source": source, "voice": voice}
        if self._announced is not None:
            frames: list[Frame] = [{"type": "speech.switched", **frame}]
        else:
            if self._speech.claim is not None and self._speech.claim.original is not None:
                frame["of"] = self._speech.claim.original
            if self._speech.origin == Origin.HOLD_MESSAGE:
                frame["hold_message"] = True
            frames = [{"type": "speech.started", **frame, "format": self._format}]
        if source in ("backup", "offline") and not self._notice_sent:
            self._notice_sent = True
            frames.append(messages.BACKUP_VOICE_NOTICE)
        return frames
