"""`python manage.py talk "Good morning"`: a device on the command line, for trying out a server."""

import asyncio
import math
import os
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from voicecare.management.demo_data import DEMO_TOKEN_FILE
from voicecare_client import (
    GREETING_ID,
    ConnectionClosed,
    DeviceClient,
    DeviceError,
    Frame,
    HandshakeRefused,
    RequestRefused,
    ServerUnreachable,
    SpeechResult,
    audio_suffix,
    write_audio_file,
)

END_TIMEOUT_S = 5.0
STDIN = 0


class Command(BaseCommand):
    help = (
        "Send each argument, or each line of standard input, as a speech, as a device does. Write the audio to a file."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "texts", nargs="*", metavar="TEXT", help="text of one speech; without any, lines of standard input"
        )
        parser.add_argument("--url", default=f"ws://127.0.0.1:{os.environ.get('PORT') or 8000}/ws/device/")
        parser.add_argument("--token", help="device token; default: that of the demo device, written by `make run`")
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
            asyncio.run(talk.run(_read_texts(texts), greeting=not no_greeting))
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except DeviceError as error:
            raise CommandError(_explain(error)) from None
        finally:
            if audio := talk.audio:
                path = out or Path(f"speech{audio_suffix(talk.format)}")
                write_audio_file(audio, talk.format, path)
                self.stdout.write(f"{len(audio):,} bytes of sound written to {path}")
        if not talk.all_spoken:
            raise SystemExit(1)


class Talk:
    """One conversation with the server. Each result is passed to `show` as a line of text."""

    def __init__(self, device: DeviceClient, show: Callable[[str], object]) -> None:
        self.format = ""
        self.all_spoken = True
        self._device = device
        self._show = show
        self._reported: set[str] = set()
        self._labels = {GREETING_ID: "(greeting)"}

    @property
    def audio(self) -> bytes:
        """All received audio, in the audio format `self.format`."""
        return b"".join(speech.audio for speech in self._in_order())

    async def run(self, texts: AsyncIterator[str], *, greeting: bool) -> None:
        """Request a speech for each text, one after the other. Raises DeviceError.

        When cancelled, this interrupts the current speech and ends the conversation.
        """
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
        """Return the next text, or None after the last one.

        Raises ConnectionClosed if the server closes the connection. The client continues to receive frames while it
        waits. Otherwise it would not answer the server's pings.
        """
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
        return sorted(self._device.speeches.values(), key=lambda speech: speech.first_audio_at or math.inf)

    def _report_ended(self) -> None:
        """Report the speeches that have ended since the last call, including the greeting."""
        for speech in self._in_order():
            if speech.is_done and speech.id not in self._reported:
                self._reported.add(speech.id)
                self.all_spoken = self.all_spoken and speech.terminal["type"] == "speech.finished"
                lines = filter(None, (_describe_frame(frame, speech) for frame in speech.frames))
                self._show("\n  ".join([self._labels.get(speech.id, speech.id), *lines]))


def _describe_frame(frame: Frame, speech: SpeechResult) -> str:
    match frame["type"]:
        case "notice":
            return f"notice: {frame['message']}"
        case "speech.queued":
            return f"it had to wait ({frame['reason']})"
        case "speech.finished":
            return _describe_finished(frame, speech)
        case "speech.interrupted":
            return f"interrupted after {frame['bytes']:,} bytes, {frame['characters']} characters"
        case "speech.failed":
            return f"failed, {frame['code']}: {frame['message']}"
    return ""


def _describe_finished(frame: Frame, speech: SpeechResult) -> str:
    announced = speech.frames_of("speech.started", "speech.switched")
    if not announced:
        return "nothing to speak: the text has no letter or digit"
    first = speech.first_audio_s
    here = "" if first is None else f"first sound after {first * 1000:.0f} ms here, "
    return (
        f"{frame['source']}, voice {announced[-1]['voice']}, {frame['characters']} characters, "
        f"{frame['bytes']:,} bytes, {here}{frame['first_chunk_ms']:.0f} ms on the server"
    )


def _explain(error: DeviceError) -> str:
    """Return the message of the error, with advice on what to do."""
    match error:
        case ServerUnreachable():
            return f"{error} Start the server (`make run`, `honcho start web`), or give another address with --url."
        case HandshakeRefused(code="unknown_token" | "missing_token"):
            return (
                f"{error} `python manage.py seed_demo` writes a valid token, or give one with --token. "
                "If this is the wrong server, set --url."
            )
        case HandshakeRefused(code=""):
            return f"{error} Check that this is the address of a voicecare server, or set --url."
        case ConnectionClosed(code=code):
            return f"{error} {_CLOSED.get(code or 0, '')}".rstrip()
    return str(error)


_CLOSED = {
    4001: "Another connection with the same token has replaced this one.",
    4003: "The device was revoked, or its patient was archived.",
    4008: "There were too many errors in a row.",
    4012: "The server is shutting down. Try again in a moment.",
}


def _read_demo_token() -> str:
    path = settings.DATA_DIR / DEMO_TOKEN_FILE
    try:
        token: str = path.read_text().strip()
    except OSError as error:
        raise CommandError(
            f"No demo token ({error.strerror}: {path}). Run `make run` or `python manage.py seed_demo` first, "
            "or give a device token with --token."
        ) from None
    return token


async def _read_texts(arguments: Sequence[str]) -> AsyncIterator[str]:
    """Yield the arguments. Without any, yield the lines of standard input."""
    if arguments:
        for text in arguments:
            yield text
        return
    rest = b""
    while chunk := await _read(STDIN):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").strip()
    yield rest.decode(errors="replace").strip()


async def _read(fd: int) -> bytes:
    """Return the available bytes of the file descriptor, or b"" at the end of the file.

    This uses no thread, because Ctrl-C cannot end a blocking read in a thread.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # epoll does not accept a regular file, which is always readable
        return os.read(fd, 65536)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 65536)
