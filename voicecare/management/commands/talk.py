"""`python manage.py talk "Good morning"`: a device on the command line, for trying out a server."""

import asyncio
import os
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from voicecare.management import demo_address, talk_device
from voicecare.management.demo_data import DEMO_TOKEN_FILE
from voicecare.management.talk import PlayingClient, Talk
from voicecare_client import (
    ConnectionClosed,
    DeviceError,
    HandshakeRefused,
    Player,
    PlayerFailed,
    ServerUnreachable,
    audio_suffix,
    find_player,
    write_audio_file,
)

DEFAULT_FORMAT = "mp3_44100_128"
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
        parser.add_argument("--url", default=f"{demo_address.read().socket}", help="default: %(default)s")
        who = parser.add_mutually_exclusive_group()
        who.add_argument("--token", help="device token; default: that of the demo device, written by `make run`")
        who.add_argument(
            "--patient",
            metavar="NAME",
            help="be a new device of this patient in the database, for now",
        )
        parser.add_argument("--play", action="store_true", help="play the speech, with a program that is installed")
        parser.add_argument("--out", type=Path, help="default: speech.mp3, speech.wav or speech.au, by format")
        parser.add_argument("--format", help=f"for example pcm_16000; default: {DEFAULT_FORMAT}")
        parser.add_argument("--no-greeting", action="store_true", help="start without the greeting")

    def handle(
        self,
        *,
        texts: Sequence[str],
        url: str,
        token: str | None,
        patient: str | None,
        play: bool,
        out: Path | None,
        format: str | None,
        no_greeting: bool,
        **options: object,
    ) -> None:
        player = _find_player(format or DEFAULT_FORMAT) if play else None
        given = nullcontext(token or _read_demo_token()) if patient is None else talk_device.issued(patient)
        with given as valid_token:
            device = PlayingClient(url, valid_token, format=format, player=player)
            talk = Talk(device, self.stdout.write)
            try:
                asyncio.run(talk.run(_read_texts(texts), greeting=not no_greeting))
            except KeyboardInterrupt:
                raise SystemExit(130) from None
            except DeviceError as error:
                raise CommandError(_explain(error)) from None
            finally:
                if talk.audio and (out or not play):
                    self._write(talk.audio, talk.format, out)
        if device.failure is not None:
            raise CommandError(str(device.failure))
        if not talk.all_spoken:
            raise SystemExit(1)

    def _write(self, audio: bytes, format: str, out: Path | None) -> None:
        path = out or Path(f"speech{audio_suffix(format)}")
        write_audio_file(audio, format, path)
        self.stdout.write(f"{len(audio):,} bytes of sound written to {path}")


def _find_player(format: str) -> Player:
    try:
        return find_player(format)
    except PlayerFailed as error:
        raise CommandError(f"{error} Without --play the speech is written to a file.") from None


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
