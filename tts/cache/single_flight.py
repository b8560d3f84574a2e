"""Single-flight: concurrent speeches that need the same clip share one request to the provider.

    flight = flights.join(key)
    if flight is None:
        with flights.start(key) as flight:  # this caller is the leader
            ...                             # request the audio, add() each chunk, complete() at the end
    else:
        async for chunk in flight.chunks(stall_s):  # after FlightFailed begin again with join()
            ...

`join` and `start` are synchronous. Nothing awaits between them, so after a failed flight only one of the followers
becomes the next leader. Used from one event loop.
"""

import asyncio
from collections.abc import AsyncGenerator
from enum import Enum
from types import TracebackType
from typing import Self

from voicecare.core.errors import VoicecareError


class FlightFailed(VoicecareError):
    """The shared request failed, or none of its audio came for too long."""

    code = "fill_failed"
    retryable = True


class _State(Enum):
    RUNNING = 1
    COMPLETE = 2
    FAILED = 3


class Flight:
    """A request to the provider that several speeches share, and the chunks of audio that have arrived so far.

    The speech that makes the request is the leader, all others are followers. The leader uses the flight as a context
    manager. Leaving it without `complete` fails the flight. Only the first call of `complete` or `fail` has an effect.
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
        """Pass a chunk to the followers. Takes the same time for any number of followers."""
        if self._state is _State.RUNNING:
            self._chunks.append(chunk)
            self._notify()

    def complete(self) -> bytes:
        """End the flight and return the whole audio. Without any chunk, end it like `fail` and return b""."""
        self._finish(_State.COMPLETE if self._chunks else _State.FAILED)
        return b"".join(self._chunks)

    def fail(self) -> None:
        self._finish(_State.FAILED)

    async def chunks(self, stall_s: float) -> AsyncGenerator[bytes, None]:
        """Yield all chunks from the beginning, and end when the leader completes the flight.

        A follower may read slowly. Raises FlightFailed when the leader fails, even if unread chunks are left, because
        the follower has to speak the whole text again. Also raises FlightFailed if no chunk comes for `stall_s`
        seconds. No new follower can join the flight then.
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
                    raise FlightFailed("The audio that this speech was sharing has stalled.") from None
        raise FlightFailed("The request that this speech was sharing has failed.")

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
    """The running flights of one process, by the key of the clip."""

    def __init__(self) -> None:
        self._running: dict[str, Flight] = {}

    def join(self, key: str) -> Flight | None:
        """Return the running flight for the clip with this key, or None."""
        return self._running.get(key)

    def start(self, key: str) -> Flight:
        """Return a new flight that other speeches can join: `with flights.start(key) as flight`.

        The caller is its leader.
        """
        flight = self._running[key] = Flight(self, key)
        return flight

    def remove(self, key: str, flight: Flight) -> None:
        """Let no more followers join this flight. Another flight that has started under the same key stays."""
        if self._running.get(key) is flight:
            del self._running[key]
