"""A player for tests, which keeps what it has played."""

import asyncio
from dataclasses import dataclass, field

from voicecare_client import PlayerFailed


@dataclass
class Played:
    format: str
    audio: bytearray = field(default_factory=bytearray)
    is_finished: bool = False
    is_stopped: bool = False  # before its end


@dataclass
class RecordingPlayer:
    """Plays immediately. While `go_on` is not set, it takes no more audio, and nothing ends."""

    speeches: list[Played] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""

    def __post_init__(self) -> None:
        self.go_on.set()

    async def open(self, format: str) -> "RecordingPlayback":
        if self.failure:
            raise PlayerFailed(self.failure)
        self.speeches.append(Played(format))
        return RecordingPlayback(self, self.speeches[-1])

    @property
    def heard(self) -> list[bytearray]:
        return [speech.audio for speech in self.speeches if speech.is_finished]


class RecordingPlayback:
    def __init__(self, player: RecordingPlayer, played: Played) -> None:
        self._player = player
        self._played = played
        self._stopped = asyncio.Event()

    async def write(self, audio: bytes) -> None:
        await self._until_it_goes_on()
        self._played.audio += audio

    async def finish(self) -> None:
        await self._until_it_goes_on()
        self._played.is_finished = True

    async def stop(self) -> None:
        self._played.is_stopped = not self._played.is_finished
        self._stopped.set()

    async def _until_it_goes_on(self) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._player.go_on, self._stopped)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._stopped.is_set():
            raise PlayerFailed("stopped")
