"""The client of the espeak worker process. One worker serves many streams at the same time.

The worker synthesizes and encodes the audio, and decides when it is sent. This module restarts the worker when it ends,
and forwards the bytes.
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
_RESTART_DELAY_S = 1.0  # from the second consecutive failure on
_READY_TIMEOUT_S = 3.0  # wait of one speech for a worker that is starting


class SynthesizerUnavailable(Exception):
    """The worker process has ended or could not be started. It is restarted, so a later call of `speak` can succeed."""


@dataclass(frozen=True, slots=True)
class EspeakVoice:
    """The voice of a speech. `language` is a code of `voicecare.core.languages` or a tag such as `en-GB`.

    For a language without an espeak voice, the English voice is used, which reads text in Latin letters.

    `variant` is a voice variant of espeak, such as `f2` or `m3`. An unknown variant is ignored. `pitch` is 0 to 99,
    `rate` is in words per minute.
    """

    language: str = "en"
    variant: str = ""
    pitch: int = 50
    rate: int = 175


class OfflineSynthesizer:
    """Synthesizes speech in a worker process, which it starts and restarts.

    Call `start` and `close` once each, in the event loop that also calls `speak`.
    """

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._worker_ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the worker and waits until it is ready. Raises SynthesizerUnavailable if it is not ready in time.

        Also in that case, the worker is started again and again until `close` is called.
        """
        self._supervisor = asyncio.create_task(self._supervise())
        await self._wait_for_worker()

    async def close(self) -> None:
        """Stops the worker and waits for its exit. Streams in progress raise SynthesizerUnavailable."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None

    @property
    def is_running(self) -> bool:
        return self._worker is not None

    async def speak(
        self,
        text: str,
        voice: EspeakVoice,
        format_name: str,
        *,
        max_lead_s: float | None = None,
        as_written: bool = False,
        apologize: bool = True,
    ) -> AsyncGenerator[bytes, None]:
        """Yields the audio of a text as one stream in the named format, while the audio is made.

        Markup is not read aloud. In place of words that no voice of espeak can read, a prepared sentence is spoken
        (`readability`), unless `apologize` is false. A text without letters and digits gives a short silence. With
        `as_written`, espeak gets the text unchanged, even if it reads the text badly.

        With `max_lead_s`, the audio is made at most this many seconds ahead of real time, counted from the first audio.
        Closing the generator, or cancellation, stops the synthesis. Raises SynthesizerUnavailable if the worker ends,
        and KeyError for an unknown format.
        """
        request = messages.Request(
            text,
            as_written,
            apologize,
            voice.language,
            voice.variant,
            voice.pitch,
            voice.rate,
            FORMATS[format_name].name,
            max_lead_s,
        )
        worker = await self._wait_for_worker()
        stream = worker.open(request)
        try:
            while audio := await stream.next():
                yield audio
        finally:
            worker.cancel(stream)

    async def _wait_for_worker(self) -> "_Worker":
        """Returns the worker. While it is starting, waits for it, at most _READY_TIMEOUT_S seconds.

        Raises SynthesizerUnavailable if it is not ready in time.
        """
        if self._supervisor is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await self._worker_ready.wait()
        if self._worker is None:
            raise SynthesizerUnavailable("The espeak worker is not running.")
        return self._worker

    async def _supervise(self) -> None:
        """Runs a worker, and another one whenever it ends, until this task is cancelled.

        `_worker_ready` is set while a worker is ready. It is also set after the cancellation, so that speech that waits
        for a worker fails immediately.
        """
        failures = 0
        try:
            while True:
                failures = 0 if await self._run_worker() else failures + 1
                if failures > 1:
                    await asyncio.sleep(_RESTART_DELAY_S)
        finally:
            self._worker_ready.set()

    async def _run_worker(self) -> bool:
        """Runs one worker until it ends. Returns False if it did not become ready."""
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
    """The audio of one speech that was received from the worker and not yet read by the caller.

    Its size is limited, because the worker may send only as many bytes as it has credit for (`messages`).
    """

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
        """Returns all audio received since the last call, or b"" at the end. Waits if there is none yet.

        Raises SynthesizerUnavailable if the worker has ended and all received audio was returned.
        """
        # Credit goes back in quarters of the window. A message for every slice would cost more than the slice.
        if self._consumed_bytes >= messages.WINDOW_BYTES // 4 and not self.ended:
            self._worker.send(messages.pack_credit(self.number, self._consumed_bytes))
            self._consumed_bytes = 0
        await self._changed.wait()
        audio = b"".join(self._chunks)
        self._chunks.clear()
        if self.failed and not audio:
            raise SynthesizerUnavailable("The espeak worker ended during the speech.")
        if not self.ended:
            self._changed.clear()
        self._consumed_bytes += len(audio)
        return audio


class _Worker:
    """A worker process and the streams that it serves."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._parser = messages.MessageParser()
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)

    @classmethod
    async def spawn(cls) -> "_Worker":
        # In its own session, so that Ctrl-C only reaches the parent, which then stops the worker.
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
        # No drain: the worker always reads, and the messages are small.
        self._stdin.write(message)

    async def wait_until_ready(self) -> bool:
        """Waits for READY, the first message of the worker. Returns False if the process ends before."""
        return bool(await self._stdout.read(len(messages.pack(messages.READY, 0))))

    async def read_messages(self) -> None:
        """Passes the messages of the worker to their streams, until the worker ends."""
        while data := await self._stdout.read(_READ_BYTES):
            for message in self._parser.feed(data):
                if message.kind == messages.AUDIO:
                    if stream := self._streams.get(message.stream):
                        stream.put(message.body)
                elif stream := self._streams.pop(message.stream, None):
                    stream.end(failed=False)

    async def kill(self) -> None:
        """Kills the process, which has no state to save, and waits for its exit.

        Its streams raise SynthesizerUnavailable.
        """
        for stream in self._streams.values():
            stream.end(failed=True)
        self._streams.clear()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
