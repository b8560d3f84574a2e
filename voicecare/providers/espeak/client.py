"""Speech without a provider: espeak-ng in one child process that serves many streams at once.

The child synthesises, encodes and paces (`child`); here bytes are only passed on. It is a process of its own because
the library has global state, can crash on odd text, and is under the GPL. The messages between the two: `wire`.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from voicecare.audio.formats import FORMATS
from voicecare.providers.espeak import messages

__all__ = ["EspeakVoice", "OfflineSynthesizer", "SynthesizerUnavailable"]

_ROOT = Path(__file__).resolve().parents[3]
_READ_BYTES = 256 * 1024
_START_TIMEOUT_S = 20.0
_RESTART_PAUSE_S = 1.0  # after a second failure in a row
_PATIENCE_S = 3.0  # how long a speech waits for a child that is coming up


class SynthesizerUnavailable(Exception):
    """The child process ended, or cannot be started. A new one is on its way: the next `speak` may work."""


@dataclass(frozen=True, slots=True)
class EspeakVoice:
    """`language` is ISO 639-1 or a tag such as `en-GB` (unknown: English), `variant` one of espeak's (`f2`, `m3`).

    An unknown variant is left out; `pitch` 0..99, `rate` in words a minute.
    """

    language: str = "en"
    variant: str = ""
    pitch: int = 50
    rate: int = 175


class OfflineSynthesizer:
    """Owns the child. `start` and `close` once each, from the event loop that speaks."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when speech can be asked for; raises SynthesizerUnavailable if the child does not come up soon.

        It is tried again every second all the same, until `close`.
        """
        self._keeper = asyncio.create_task(self._keep())
        await self._running()

    async def close(self) -> None:
        """Ends the child and waits for its end; streams under way raise SynthesizerUnavailable."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    @property
    def is_running(self) -> bool:
        return self._child is not None

    async def speak(
        self, text: str, voice: EspeakVoice, format_name: str, *, max_lead_s: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """One complete stream in the format named, as it is made; a short silence for text without sound.

        With `max_lead_s` the sound comes no further than that ahead of real time since its first slice. Closing the
        generator, or cancelling, ends the making. Raises SynthesizerUnavailable when the child is lost, KeyError
        for an unknown format.
        """
        request = messages.Request(
            text, voice.language, voice.variant, voice.pitch, voice.rate, FORMATS[format_name].name, max_lead_s
        )
        child = await self._running()
        stream = child.open(request)
        try:
            while sound := await stream.next():
                yield sound
        finally:
            child.drop(stream)

    async def _running(self) -> "_Child":
        """The child, waited for while it is coming up."""
        if self._keeper is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._up.wait()
        if self._child is None:
            raise SynthesizerUnavailable("espeak is not running")
        return self._child

    async def _keep(self) -> None:
        """One child after the other, until cancelled. `_up` is set while one is there, and when there will be none."""
        failures = 0
        try:
            while True:
                failures = 0 if await self._run_one() else failures + 1
                if failures > 1:
                    await asyncio.sleep(_RESTART_PAUSE_S)
        finally:
            self._up.set()

    async def _run_one(self) -> bool:
        """Runs a child until it ends; False if it never became ready."""
        try:
            child = await _Child.spawn()
        except OSError:
            return False
        try:
            return await self._run(child)
        finally:
            self._child = None
            self._up.clear()
            await child.end()

    async def _run(self, child: "_Child") -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT_S):
                ready = await child.is_ready()
            if ready:
                self._child = child
                self._up.set()
                await child.pump()
            return ready
        return False


class _Stream:
    """What has come for one speech and was not yet taken; bounded by the credit that the child was given."""

    def __init__(self, number: int, child: "_Child") -> None:
        self.number = number
        self._child = child
        self._parts: list[bytes] = []
        self._came = asyncio.Event()
        self._taken = 0
        self.ended = self.died = False

    def put(self, sound: bytes) -> None:
        self._parts.append(sound)
        self._came.set()

    def end(self, *, died: bool) -> None:
        self.ended, self.died = True, died
        self._came.set()

    async def next(self) -> bytes:
        """All that has come since; b"" at the end."""
        self._repay()
        await self._came.wait()
        sound = b"".join(self._parts)
        self._parts.clear()
        if self.died and not sound:
            raise SynthesizerUnavailable("espeak died while it spoke")
        if not self.ended:
            self._came.clear()
        self._taken += len(sound)
        return sound

    def _repay(self) -> None:
        # In quarters of the window: a message for every slice would cost more than the slice.
        if self._taken >= messages.WINDOW // 4 and not self.ended:
            self._child.send(messages.pack_credit(self.number, self._taken))
            self._taken = 0


class _Child:
    """One process and the streams that it makes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._messages = messages.Splitter()
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)

    @classmethod
    async def spawn(cls) -> "_Child":
        # A session of its own: Ctrl-C goes to the parent, which then decides.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicecare.providers.espeak.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            limit=_READ_BYTES,
            start_new_session=True,
        )
        return cls(process)

    def open(self, request: messages.Request) -> _Stream:
        stream = _Stream(next(self._numbers), self)
        self._streams[stream.number] = stream
        self.send(messages.pack_request(stream.number, request))
        return stream

    def drop(self, stream: _Stream) -> None:
        if self._streams.pop(stream.number, None):
            self.send(messages.pack(messages.CANCEL, stream.number))

    def send(self, message: bytes) -> None:
        # Not awaited: the child always reads, and what it is sent is small.
        self._stdin.write(message)

    async def is_ready(self) -> bool:
        """Waits for READY, before which nothing can come; False at EOF."""
        return bool(await self._stdout.read(len(messages.pack(messages.READY, 0))))

    async def pump(self) -> None:
        """Passes on what the child makes, until EOF."""
        while data := await self._stdout.read(_READ_BYTES):
            for message in self._messages.feed(data):
                self._deliver(message)

    def _deliver(self, message: messages.Message) -> None:
        if message.kind == messages.AUDIO:
            if stream := self._streams.get(message.stream):
                stream.put(message.body)
        elif stream := self._streams.pop(message.stream, None):
            stream.end(died=False)

    async def end(self) -> None:
        """Kills the process, which has nothing to save, and waits for it; its streams raise."""
        for stream in self._streams.values():
            stream.end(died=True)
        self._streams.clear()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
