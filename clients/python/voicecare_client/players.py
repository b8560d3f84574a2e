"""Players: programs that play audio from their standard input.

Each speech gets a process of its own. Its end is the end of the playback, so an acknowledgement is sent when the
patient has heard the speech, and killing it is immediate silence.
"""

import asyncio
import shutil
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from voicecare_client.audio_files import audio_suffix, write_audio_file
from voicecare_client.errors import PlayerFailed


class Playback(Protocol):
    """The playback of one speech."""

    async def write(self, audio: bytes) -> None:
        """Play these bytes after those before. Waits while the player has enough. Raises PlayerFailed."""

    async def finish(self) -> None:
        """There is no more audio. Returns when all of it was played. Raises PlayerFailed."""

    async def stop(self) -> None:
        """Be silent immediately. Also called after `finish`, and more than once."""


class Player(Protocol):
    async def open(self, format: str) -> Playback:
        """Return a new playback of audio in this format of docs/protocol.md. Raises PlayerFailed."""


class CommandPlayer:
    """Plays with a program, which gets the audio on its standard input. `{rate}` in an argument is the sample rate.

    The program must end with exit code 0 when it has played everything, and not before.
    """

    def __init__(self, *command: str) -> None:
        self._command = command

    async def open(self, format: str) -> "CommandPlayback":
        command = [argument.format(rate=format.split("_")[1]) for argument in self._command]
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE)
        except OSError as error:
            raise PlayerFailed(f"{command[0]} cannot be started: {error.strerror}.") from error
        if process.stdin is None or process.stderr is None:
            raise RuntimeError("both are pipes")
        return CommandPlayback(command[0], process, process.stdin, process.stderr)


class CommandPlayback:
    """One process. Its messages on the standard error are read all the time, so that it never waits for a reader."""

    def __init__(self, name: str, process: Process, stdin: StreamWriter, messages: StreamReader) -> None:
        self._name = name
        self._process = process
        self._stdin = stdin
        self._messages = asyncio.create_task(messages.read())

    async def write(self, audio: bytes) -> None:
        try:
            self._stdin.write(audio)
            await self._stdin.drain()
        except ConnectionError:
            code = await self._process.wait()
            raise await self._failure(code) from None

    async def finish(self) -> None:
        self._stdin.close()
        if code := await self._process.wait():
            raise await self._failure(code)

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._messages

    async def _failure(self, code: int) -> PlayerFailed:
        said = (await self._messages).decode(errors="replace").strip().splitlines()
        return PlayerFailed(f"{self._name} ended with exit code {code}: {said[-1] if said else 'it gave no reason'}")


class FilePlayer:
    """Plays with a program that reads no standard input, but a file, whose name is added to the command.

    So each speech begins when all of its audio is there.
    """

    def __init__(self, *command: str) -> None:
        self._command = command

    async def open(self, format: str) -> "FilePlayback":
        return FilePlayback(self._command, format)


class FilePlayback:
    def __init__(self, command: Sequence[str], format: str) -> None:
        self._command = command
        self._format = format
        self._audio = bytearray()
        self._playback: CommandPlayback | None = None

    async def write(self, audio: bytes) -> None:
        self._audio += audio

    async def finish(self) -> None:
        with TemporaryDirectory(prefix="voicecare-") as folder:
            path = Path(folder) / f"speech{audio_suffix(self._format)}"
            write_audio_file(bytes(self._audio), self._format, path)
            self._playback = await CommandPlayer(*self._command, str(path)).open(self._format)
            await self._playback.finish()

    async def stop(self) -> None:
        if self._playback is not None:
            await self._playback.stop()


# For each codec in this order. Raw audio has no header, so its programs need to know what it is.
_PIPED: Sequence[tuple[str, tuple[str, ...]]] = (
    # Without --start-delay aplay begins to play only when its buffer is full.
    ("pcm", ("aplay", "-q", "-t", "raw", "-f", "S16_LE", "-r", "{rate}", "-c", "1", "--start-delay=1")),
    ("ulaw", ("aplay", "-q", "-t", "raw", "-f", "MU_LAW", "-r", "{rate}", "-c", "1", "--start-delay=1")),
    ("pcm", ("ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-f", "s16le", "-sample_rate", "{rate}", "-")),
    ("ulaw", ("ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-f", "mulaw", "-sample_rate", "{rate}", "-")),
    ("mp3", ("ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-")),
    ("mp3", ("mpv", "--really-quiet", "--no-video", "-")),
    ("mp3", ("mpg123", "-q", "-")),
    ("opus", ("ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-")),
    ("opus", ("mpv", "--really-quiet", "--no-video", "-")),
)
_FILES: Sequence[tuple[str, tuple[str, ...]]] = (("mp3", ("afplay",)), ("pcm", ("afplay",)))  # macOS


class InstalledPlayer:
    """Plays each speech with a program for its format. The format changes if a conversation is resumed elsewhere."""

    async def open(self, format: str) -> Playback:
        return await _choose(format).open(format)


def find_player(format: str) -> Player:
    """Return a player with the programs that are installed.

    Raises PlayerFailed with what could be installed if none of them plays this format.
    """
    _choose(format)
    return InstalledPlayer()


def _choose(format: str) -> Player:
    codec = format.split("_", maxsplit=1)[0]
    piped = [command for its_codec, command in _PIPED if its_codec == codec]
    files = [command for its_codec, command in _FILES if its_codec == codec]
    for command in piped:
        if shutil.which(command[0]):
            return CommandPlayer(*command)
    for command in files:
        if shutil.which(command[0]):
            return FilePlayer(*command)
    names = ", ".join(dict.fromkeys(command[0] for command in (*piped, *files)))
    raise PlayerFailed(f"No program that plays {format} is installed. Install one of: {names}.")
