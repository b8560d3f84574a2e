"""One flight for each key in a process: whoever wants the same sound follows the running one, chunk by chunk.

    flight = flights.follow(key)
    if flight is not None:
        async for chunk in flight.chunks(stall_s): ...   # FillFailed: look again, somebody else may lead by now
    else:
        with flights.lead(key) as flight: ...               # ask, flight.add(chunk), and flight.complete() at the end

        with flights.start(key) as flight:   # ask, flight.add(chunk), and flight.complete() at the end
leads the next. Used from one event loop.
"""

import asyncio
from collections.abc import AsyncGenerator
from enum import Enum
from types import TracebackType
from typing import Self

from voicecare.core.errors import VoicecareError


class FlightFailed(VoicecareError):
    """The sound that was followed will not be whole, or nothing of it came for too long."""

    code = "fill_failed"
    retryable = True


class _State(Enum):
    RUNNING = 1
    COMPLETE = 2
    FAILED = 3


class Flight:
    """What a leader has received so far. The first of `complete` and `fail` decides; what comes later changes nothing.

    As a context manager, for the leader: left without `complete`, however it is left, it has failed.
    """

    def __init__(self, flights: "SingleFlight", key: str) -> None:
        self._flights = flights
        self._key = key
        self._chunks: list[bytes] = []
        self._state = _State.RUNNING
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fail()

    def add(self, chunk: bytes) -> None:
        """Returns at once, however many follow."""
        if self._state is _State.RUNNING:
            self._chunks.append(chunk)
            self._notify()

    def complete(self) -> bytes:
        """That was all of it; returns the whole sound, empty if the flight has failed. One without sound fails."""
        self._finish(_State.COMPLETE if self._chunks else _State.FAILED)
        return b"".join(self._chunks)

    def fail(self) -> None:
        self._finish(_State.FAILED)

    async def chunks(self, stall_s: float) -> AsyncGenerator[bytes, None]:
        """Everything from the beginning; ends when the leader completes. A follower may be as slow as it likes.

        Raises FillFailed as soon as the leader has failed, also if there were chunks left to give: the follower has to
        say it all again anyway. The same if nothing came for `stall_s`; then nobody else follows this leader any more.
        """
        position = 0
        while self._state is not _State.FAILED:
            if position < len(self._chunks):
                position += 1
                yield self._chunks[position - 1]
            elif self._state is _State.COMPLETE:
                return
            else:
                try:
                    async with asyncio.timeout(stall_s):
                        await self._changed.wait()
                except TimeoutError:
                    self._flights.remove(self._key, self)
                    raise FlightFailed("Nothing more came of the sound that this speech was following.") from None
        raise FlightFailed("The sound that this speech was following has failed.")

    def _finish(self, state: _State) -> None:
        if self._state is _State.RUNNING:
            self._state = state
            if state is _State.FAILED:
                self._chunks.clear()
            self._flights.remove(self._key, self)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class SingleFlight:
    """The running flights of a process."""

    def __init__(self) -> None:
        self._running: dict[str, Flight] = {}

    def join(self, key: str) -> Flight | None:
        """The running flight of this key, if there is one."""
        return self._running.get(key)

    def start(self, key: str) -> Flight:
        """A new flight, which others follow from now on. To be entered: `with flights.lead(key) as flight`."""
        flight = self._running[key] = Flight(self, key)
        return flight

    def remove(self, key: str, flight: Flight) -> None:
        """Nobody follows it any more who does not do so already. Another leader's flight stays."""
        if self._running.get(key) is flight:
            del self._running[key]
