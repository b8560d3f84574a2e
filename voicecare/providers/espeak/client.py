"""Speech without a provider: espeak-ng in one worker process that serves many streams at once.

The worker synthesises, encodes and paces (`worker`); here bytes are only passed on. It is a process of its own because
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
_RESTART_DELAY_S = 1.0  # after a second failure in a row
_READY_TIMEOUT_S = 3.0  # how long a speech waits for a worker that is coming up


class SynthesizerUnavailable(Exception):
    """The worker process ended, or cannot be started. A new one is on its way: the next `speak` may work."""


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
    """Owns the worker. `start` and `close` once each, from the event loop that speaks."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._worker_ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when speech can be asked for; raises SynthesizerUnavailable if the worker does not come up soon.

        It is tried again every second all the same, until `close`.
        """
        self._supervisor = asyncio.create_task(self._supervise())
        await self._wait_for_worker()

    async def close(self) -> None:
        """Ends the worker and waits for its end; streams under way raise SynthesizerUnavailable."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None

    @property
    def is_running(self) -> bool:
        return self._worker is not None

    async def speak(
        self, text: str, voice: EspeakVoice, format_name: str, *, max_lead_s: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """One complete stream in the format named, as it is made; a short silence for text without audio.

        With `max_lead_s` the audio comes no further than that ahead of real time since its first slice. Closing the
        generator, or cancelling, ends the making. Raises SynthesizerUnavailable when the worker is lost, KeyError
        for an unknown format.
        """
        request = messages.Request(
            text, voice.language, voice.variant, voice.pitch, voice.rate, FORMATS[format_name].name, max_lead_s
        )
        worker = await self._wait_for_worker()
        stream = worker.open(request)
        try:
            while audio := await stream.next():
                yield audio
        finally:
            worker.cancel(stream)

    async def _wait_for_worker(self) -> "_Worker":
        """The worker, waited for while it is coming up."""
        if self._supervisor is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await self._worker_ready.wait()
        if self._worker is None:
            raise SynthesizerUnavailable("espeak is not running")
        return self._worker

    async def _supervise(self) -> None:
        """One worker after the other, until cancelled. `_up` is set while one is there, and when there will be none."""
        failures = 0
        try:
            while True:
                failures = 0 if await self._run_worker() else failures + 1
                if failures > 1:
                    await asyncio.sleep(_RESTART_DELAY_S)
        finally:
            self._worker_ready.set()

    async def _run_worker(self) -> bool:
        """Runs a worker until it ends; False if it never became ready."""
        try:
            worker = await _Worker.spawn()
        except OSError:
            return False
        try:
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    ready = await worker.wait_until_ready()
            except TimeoutError:
                ready = False
            if ready:
                self._worker = worker
                self._worker_ready.set()
                await worker.read_messages()
            return ready
        finally:
            self._worker = None
            self._worker_ready.clear()
            await worker.kill()


class _Stream:
    """What has come for one speech and was not yet taken; bounded by the credit that the worker was given."""

    def __init__(self, number: int, worker: "_Worker") -> None:
        self.number = number
        self._worker = worker
        self._chunks: list[bytes] = []
        self._changed = asyncio.Event()
        self._consumed_bytes = 0
        self.ended = self.failed = False

    def put(self, audio: bytes) -> None:
        self._chunks.append(audio)
        self._changed.set()

    def end(self, *, failed: bool) -> None:
        self.ended, self.failed = True, failed
        self._changed.set()

    async def next(self) -> bytes:
        """All that has come since; b"" at the end."""
        # In quarters of the window: a message for every slice would cost more than the slice.
        if self._consumed_bytes >= messages.WINDOW_BYTES // 4 and not self.ended:
            self._worker.send(messages.pack_credit(self.number, self._consumed_bytes))
            self._consumed_bytes = 0
        await self._changed.wait()
        audio = b"".join(self._chunks)
        self._chunks.clear()
        if self.failed and not audio:
            raise SynthesizerUnavailable("espeak died while it spoke")
        if not self.ended:
            self._changed.clear()
        self._consumed_bytes += len(audio)
        return audio


class _Worker:
    """One process and the streams that it makes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._parser = messages.MessageParser()
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)

    @classmethod
    async def spawn(cls) -> "_Worker":
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

    def cancel(self, stream: _Stream) -> None:
        if self._streams.pop(stream.number, None):
            self.send(messages.pack(messages.CANCEL, stream.number))

    def send(self, message: bytes) -> None:
        # Not awaited: the worker always reads, and what it is sent is small.
        self._stdin.write(message)

    async def wait_until_ready(self) -> bool:
        """Waits for READY, before which nothing can come; False at EOF."""
        return bool(await self._stdout.read(len(messages.pack(messages.READY, 0))))

    async def read_messages(self) -> None:
        """Passes on what the worker makes, until EOF."""
        while data := await self._stdout.read(_READ_BYTES):
            for message in self._parser.feed(data):
                if message.kind == messages.AUDIO:
                    if stream := self._streams.get(message.stream):
                        stream.put(message.body)
                elif stream := self._streams.pop(message.stream, None):
                    stream.end(failed=False)

    async def kill(self) -> None:
        """Kills the process, which has nothing to save, and waits for it; its streams raise."""
        for stream in self._streams.values():
            stream.end(failed=True)
        self._streams.clear()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
