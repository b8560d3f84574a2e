"""What a device has received and not yet played: one track for each speech, played one after the other."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from voicecare_client.connection import Frame
from voicecare_client.errors import DeviceError, PlayerFailed, SpeechFailed
from voicecare_client.players import Playback, Player

BUFFER_BYTES = 1_000_000  # about 30 s of PCM at 16 kHz
START_S = 0.15  # audio that is there before a track begins, so that a slow network causes no gap at the beginning

OnEnd = Callable[[str, DeviceError | None], Awaitable[None]]


@dataclass(eq=False)
class _Track:
    """`failure` is why the track was not heard as a whole. Its audio is played nevertheless."""

    id: str
    format: str
    pieces: deque[bytes] = field(default_factory=deque)
    size: int = 0  # bytes in `pieces`
    is_complete: bool = False
    failure: DeviceError | None = None

    @property
    def may_begin(self) -> bool:
        return self.is_complete or self.size >= START_S * bytes_per_s(self.format)


class Playlist:
    """Feed it each frame of a connection, in order, and let `run` play.

    `on_end` is called with the id of each track that has ended by itself, and with None if it was played to its end, or
    with the reason why it was not.
    """

    def __init__(self, player: Player, on_end: OnEnd, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._player = player
        self._on_end = on_end
        self._buffer_bytes = buffer_bytes
        self._tracks: deque[_Track] = deque()
        self._receiving: _Track | None = None
        self._current: Playback | None = None
        self._changed = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        """The speeches that are received or played, in order."""
        return [track.id for track in self._tracks]

    @property
    def complete_ids(self) -> list[str]:
        """The speeches that were received as a whole, without a failure, and are not played to their end yet."""
        return [track.id for track in self._tracks if track.is_complete and track.failure is None]

    async def feed(self, frame: Frame | bytes) -> None:
        """Add the audio and the end of a speech. Waits while more than `buffer_bytes` wait to be played."""
        if isinstance(frame, bytes):
            if self._receiving is not None:
                self._receiving.pieces.append(frame)
                self._receiving.size += len(frame)
                await self._notify()
                await self._wait_for_room()
        elif frame["type"] == "speech.started":
            self._receiving = _Track(frame["id"], frame["format"])
            self._tracks.append(self._receiving)
        elif frame["type"] == "speech.interrupted":
            await self.discard(frame["id"])
        elif frame["type"] in ("speech.finished", "speech.failed"):
            track = self._receiving
            if track is not None and track.id == frame["id"]:
                if frame["type"] == "speech.failed":
                    track.failure = SpeechFailed(frame["code"], frame["message"])
                track.is_complete = True
                self._receiving = None
                await self._notify()

    async def discard(self, *ids: str) -> None:
        """Be silent immediately, if one of these speeches plays, and ignore the audio that may still come of them."""
        if self._receiving is not None and self._receiving.id in ids:
            self._receiving = None
        stopped = bool(self._tracks) and self._tracks[0].id in ids
        self._tracks = deque(track for track in self._tracks if track.id not in ids)
        if stopped and self._current is not None:
            await self._current.stop()
        await self._notify()

    async def discard_incomplete(self) -> None:
        """The connection is lost: the speech that was being received does not go on."""
        if self._receiving is not None:
            await self.discard(self._receiving.id)

    async def wait_until_played(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._tracks)

    async def run(self) -> None:
        """Play until cancelled. The track that plays is stopped then."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._tracks) and self._tracks[0].may_begin)
            track = self._tracks[0]
            failure = await self._play(track)
            if track in self._tracks:  # not discarded
                self._tracks.remove(track)
                await self._on_end(track.id, failure)
                await self._notify()

    async def _play(self, track: _Track) -> DeviceError | None:
        try:
            playback = self._current = await self._player.open(track.format)
        except PlayerFailed as failure:
            return await self._skip(track, failure)
        try:
            while track in self._tracks and (track.pieces or not track.is_complete):
                if track.pieces:
                    await playback.write(track.pieces[0])
                    track.size -= len(track.pieces.popleft())
                    await self._notify()
                else:
                    async with self._changed:
                        await self._changed.wait()
            if track in self._tracks:
                await playback.finish()
        except PlayerFailed as failure:
            return await self._skip(track, failure)
        finally:
            self._current = None
            await playback.stop()
        return track.failure

    async def _skip(self, track: _Track, failure: PlayerFailed) -> PlayerFailed:
        """Drop the audio of a track that cannot be played, until its end has been received."""
        while track in self._tracks and not track.is_complete:
            track.pieces.clear()
            track.size = 0
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait()
        return failure

    async def _wait_for_room(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: sum(track.size for track in self._tracks) <= self._buffer_bytes)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def bytes_per_s(format: str) -> float:
    """Return the bytes of a second of audio in this format, for example 32000 for "pcm_16000"."""
    codec, rate, *kbit_per_s = format.split("_")
    if kbit_per_s:
        return int(kbit_per_s[0]) * 125
    return int(rate) * (2 if codec == "pcm" else 1)
