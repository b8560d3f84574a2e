"""`python manage.py talk "Good morning"`: a device on the command line."""

import asyncio
import math
import os
import struct
import wave
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tts.devices.client import (
    DEMO_TOKEN_FILE,
    GREETING_ID,
    ConnectionClosed,
    DeviceClient,
    DeviceError,
    Frame,
    HandshakeRefused,
    RequestRefused,
    ServerUnreachable,
    SpeechResult,
)

END_TIMEOUT_S = 5.0
STDIN = 0


class Command(BaseCommand):
    help = "Speak each argument, or standard input line by line, as a device does; the sound goes to a file."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="one speech each; none: lines of standard input")
        parser.add_argument("--url", default=f"ws://127.0.0.1:{os.environ.get('PORT') or 8000}/ws/device/")
        parser.add_argument("--token", help="of a device; default: the demo device's, left by `make run`")
        parser.add_argument("--out", type=Path, help="default: speech.mp3, speech.wav or speech.au, by format")
        parser.add_argument("--format", help="for example pcm_16000; default: mp3_44100_128")
        parser.add_argument("--no-greeting", action="store_true", help="start without the greeting")

    def handle(
        self,
        *,
        texts: Sequence[str],
        url: str,
        token: str | None,
        out: Path | None,
        format: str | None,
        no_greeting: bool,
        **options: object,
    ) -> None:
        device = DeviceClient(url, token or _read_demo_token(), format=format, timeout_s=None)
        talk = Talk(device, self.stdout.write)
        try:
            asyncio.run(talk.run(_each(texts) if texts else _read_lines(STDIN), greeting=not no_greeting))
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except DeviceError as error:
            raise CommandError(_explain(error)) from None
        finally:
            if audio := talk.audio:
                path = _write_audio(audio, talk.format, out)
                self.stdout.write(f"{len(audio):,} bytes of sound written to {path}")
        if not talk.all_spoken:
            raise SystemExit(1)


class Talk:
    """One conversation, told line by line to `show`."""

    def __init__(self, device: DeviceClient, show: Callable[[str], object]) -> None:
        self.format = ""
        self.all_spoken = True
        self._device = device
        self._show = show
        self._reported: set[str] = set()
        self._labels = {GREETING_ID: "(greeting)"}

    @property
    def audio(self) -> bytes:
        """Everything that was heard, in `format`."""
        return b"".join(spoken.audio for spoken in self._in_order())

    async def run(self, texts: AsyncIterator[str], *, greeting: bool) -> None:
        """Cancelled, it interrupts what plays and ends the conversation. Raises DeviceError."""
        async with self._device:
            started = await self._device.start(greeting=greeting)
            self.format = started["format"]
            self._show(f"{started['companion']} is here, in the voice {started['voice']['name']}.")
            try:
                while (text := await self._next_text(texts)) is not None:
                    await self._speak(text)
            except asyncio.CancelledError:
                await self._device.interrupt()
                await self._end_conversation()
                raise
            await self._end_conversation()

    async def _next_text(self, texts: AsyncIterator[str]) -> str | None:
        """Listens while it waits: a client that does not receive does not answer the server's pings either."""
        text = asyncio.ensure_future(anext(texts, None))
        closed = asyncio.ensure_future(self._device.wait_closed())
        try:
            await asyncio.wait({text, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not text.done():
                raise ConnectionClosed(closed.result())
            return text.result()
        finally:
            text.cancel()
            closed.cancel()
            await asyncio.wait({text, closed})

    async def _speak(self, text: str) -> None:
        if not text.strip():
            return
        speech_id = f"say-{len(self._labels)}"
        self._labels[speech_id] = shorten(text, 70, placeholder=" ...")
        try:
            await self._device.speak(text, speech_id)
        except RequestRefused as refused:
            self.all_spoken = False
            self._show(f"{self._labels[speech_id]}\n  refused, {refused}")
        self._report_ended()

    async def _end_conversation(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                ended = await self._device.end()
                self._report_ended()
                self._show(f"The conversation has ended: {ended['characters']} characters in all.")

    def _in_order(self) -> list[SpeechResult]:
        return sorted(self._device.speeches.values(), key=lambda spoken: spoken.first_audio_at or math.inf)

    def _report_ended(self) -> None:
        """Says what has ended since it was last asked, the greeting too."""
        for spoken in self._in_order():
            if spoken.is_done and spoken.id not in self._reported:
                self._reported.add(spoken.id)
                self.all_spoken = self.all_spoken and spoken.terminal["type"] == "speech.finished"
                lines = filter(None, (_describe_frame(frame, spoken) for frame in spoken.frames))
                self._show("\n  ".join([self._labels.get(spoken.id, spoken.id), *lines]))


def _describe_frame(frame: Frame, spoken: SpeechResult) -> str:
    match frame["type"]:
        case "notice":
            return f"notice: {frame['message']}"
        case "speech.queued":
            return f"it had to wait ({frame['reason']})"
        case "speech.finished":
            voice = spoken.frames_of("speech.started", "speech.switched")[-1]["voice"]
            first = spoken.first_audio_s
            here = "" if first is None else f"first sound after {first * 1000:.0f} ms here, "
            return (
                f"{frame['source']}, voice {voice}, {frame['characters']} characters, {frame['bytes']:,} bytes, "
                f"{here}{frame['first_chunk_ms']:.0f} ms on the server"
            )
        case "speech.interrupted":
            return f"interrupted after {frame['bytes']:,} bytes, {frame['characters']} characters"
        case "speech.failed":
            return f"failed, {frame['code']}: {frame['message']}"
    return ""


def _explain(error: DeviceError) -> str:
    """The error and what to do about it."""
    match error:
        case ServerUnreachable():
            return f"{error} Start the server with `make run`, or name another one with --url."
        case HandshakeRefused(status=403):
            return (
                "The server refused the token (HTTP 403): it is unknown or revoked, or its patient is archived. "
                "`python manage.py seed_demo` leaves one that works; --token takes another. Is it the right server? "
                "PORT or --url names another one."
            )
        case HandshakeRefused():
            return f"{error} Is this the address of a voicecare server? --url takes another."
        case ConnectionClosed(code=code):
            return f"{error} {_CLOSED.get(code or 0, '')}".rstrip()
    return str(error)


_CLOSED = {
    4001: "Another connection with the same token has replaced this one.",
    4003: "The device was revoked, or its patient archived.",
    4008: "There were too many errors in a row.",
    4012: "It is going down: try again in a moment.",
}


def _read_demo_token() -> str:
    path = settings.DATA_DIR / DEMO_TOKEN_FILE
    try:
        token: str = path.read_text().strip()
    except OSError as error:
        raise CommandError(
            f"No demo token ({error.strerror}: {path}). Run `make run` or `python manage.py seed_demo` first, "
            "or give a device's token with --token."
        ) from None
    return token


async def _each(texts: Sequence[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def _read_lines(fd: int) -> AsyncIterator[str]:
    held = b""
    while chunk := await _read(fd):
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").strip()
    yield held.decode(errors="replace").strip()


async def _read(fd: int) -> bytes:
    """What there is to read, b"" at the end. Not in a thread: one that waits in a read cannot be ended by Ctrl-C."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a regular file: always ready, and epoll refuses it
        return os.read(fd, 65536)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 65536)


def _write_audio(audio: bytes, format: str, path: Path | None) -> Path:
    """MP3 as it came, PCM as WAV, µ-law as AU: what every player opens."""
    codec, rate = format.split("_")[:2]
    path = path or Path("speech").with_suffix({"pcm": ".wav", "ulaw": ".au"}.get(codec, f".{codec}"))
    if codec == "pcm":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(int(rate))
            file.writeframes(audio)
    elif codec == "ulaw":
        path.write_bytes(struct.pack(">4s5I", b".snd", 24, len(audio), 1, int(rate), 1) + audio)
    else:
        path.write_bytes(audio)
    return path
