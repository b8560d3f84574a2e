"""`manage.py talk` as a separate process, with a scripted server."""

import asyncio
import json
import os
import re
import signal
import struct
import sys
import wave
from asyncio.subprocess import PIPE, STDOUT, Process
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.clients.scripted_server import STARTED, Script, ServerConnection, finish, serving, started
from tests.server import ROOT, free_port
from tests.waiting import eventually

STAND_INS = ROOT / "tests/clients/stand_ins"


@dataclass
class TalkResult:
    code: int
    output: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working and data folder, with the demo token that `make run` writes."""
    (tmp_path / "demo-device-token").write_text("secret\n")
    return tmp_path


def enable_ctrl_c() -> None:
    """Restores the default SIGINT handler. Processes that a shell starts in the background, as in CI, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def launch(folder: Path, *arguments: str, stdin: int | IO[bytes] = PIPE, **changes: str) -> Process:
    env = {**os.environ, "VOICECARE_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1", **changes}
    command = (sys.executable, str(ROOT / "manage.py"), "talk", *arguments)
    return await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=env, stdin=stdin, stdout=PIPE, stderr=STDOUT, preexec_fn=enable_ctrl_c
    )


async def talk(folder: Path, *arguments: str, stdin: bytes = b"", **changes: str) -> TalkResult:
    process = await launch(folder, *arguments, **changes)
    output, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return TalkResult(process.returncode, output.decode())


async def talk_to(script: Script, folder: Path, *arguments: str, stdin: bytes = b"", **changes: str) -> TalkResult:
    async with serving(script) as url:
        return await talk(folder, *arguments, "--url", url, stdin=stdin, **changes)


async def echo(connection: ServerConnection) -> None:
    """Speaks every text as its own bytes until the conversation ends."""
    await connection.start()
    while (frame := (await connection.socket.receive()).json())["type"] == "speak":
        await connection.speak(frame["id"], frame["text"].encode())
    await connection.send({"type": "conversation.ended", "conversation": "c0", "characters": 21})


def start_in(format: str) -> Script:
    async def script(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["format"] == format
        await connection.send({**STARTED, "format": format})
        await connection.expect("speak")
        await connection.send({**started("say-1"), "format": format}, b"\1\2\3\4", finish("say-1", 4))
        await connection.end()

    return script


# Speech and reports


async def test_each_argument_is_one_speech_and_its_figures_are_printed(folder):
    result = await talk_to(echo, folder, "Good morning", "I see.")
    assert result.code == 0
    assert "Clara is here, in the voice Rachel." in result.output
    figures = r"live, voice Rachel, 7 characters, 12 bytes, first sound after \d+ ms here, 2 ms on the server"
    assert re.search(rf"Good morning\n  {figures}\n", result.output)
    assert "21 characters in all" in result.output
    assert (folder / "speech.mp3").read_bytes() == b"Good morningI see."


@pytest.mark.parametrize("stdin", [b"Good morning\n\nI see.\n", b"Good morning\r\n  \nI see."])
async def test_without_arguments_the_lines_of_standard_input_are_spoken(stdin, folder):
    result = await talk_to(echo, folder, "--out", "heard.mp3", stdin=stdin)
    assert result.code == 0
    assert (folder / "heard.mp3").read_bytes() == b"Good morningI see."
    assert result.output.count("on the server") == 2


async def test_standard_input_may_be_a_file(folder):
    (folder / "lines").write_text("Good morning\nI see.")
    async with serving(echo) as url:
        with (folder / "lines").open("rb") as lines:
            process = await launch(folder, "--url", url, stdin=lines)
        await process.communicate()
    assert process.returncode == 0
    assert (folder / "speech.mp3").read_bytes() == b"Good morningI see."


async def test_the_greeting_is_reported_and_written_first(folder):
    async def script(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["greeting"] is True
        await connection.send(STARTED)
        await connection.expect("speak")
        await connection.speak("greeting", b"hello ", source="cache")
        await connection.speak("say-1", b"you")
        await connection.end()

    result = await talk_to(script, folder, "You")
    assert result.output.index("(greeting)\n  cache") < result.output.index("You\n  live")
    assert (folder / "speech.mp3").read_bytes() == b"hello you"


async def test_no_greeting_requests_no_greeting(folder):
    async def script(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["greeting"] is False
        await connection.send(STARTED)
        await connection.expect("speak")
        await connection.speak("say-1", b"x")
        await connection.end()

    assert (await talk_to(script, folder, "--no-greeting", "Hello")).code == 0


async def test_notices_are_shown_in_words(folder):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        notice = {"type": "notice", "code": "backup_voice", "message": "Temporary voice issue, using backup voice"}
        await connection.send({"type": "speech.queued", "id": "say-1", "reason": "busy", "expires_at": "2026"})
        await connection.send(started("say-1"), notice, b"x", finish("say-1", 1, source="backup"))
        await connection.end()

    result = await talk_to(script, folder, "Hello")
    assert result.code == 0
    assert "Temporary voice issue, using backup voice" in result.output
    assert "had to wait (busy)" in result.output


# Playing


def with_player(folder: Path) -> dict[str, str]:
    """The environment in which aplay is the stand-in, which writes what it plays to `played.raw`."""
    return {"PATH": f"{STAND_INS}:{os.environ['PATH']}", "PLAYED_TO": str(folder / "played")}


async def test_play_plays_the_speech_to_its_end_and_acknowledges_deliveries(folder):
    acknowledged: list[str] = []

    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.send({**started("srv-1"), "format": "pcm_16000"}, b"\1\2" * 100, finish("srv-1"))
        acknowledged.append((await connection.expect("ack"))["id"])
        await connection.expect("speak")
        begin = {**started("say-1"), "format": "pcm_16000"}
        await connection.send(begin, b"\3\4" * 4000, b"\5\6" * 4000, finish("say-1"))
        await connection.end()
        assert (folder / "played.raw").read_bytes() == b"\1\2" * 100 + b"\3\4" * 4000 + b"\5\6" * 4000
        assert len((folder / "played.log").read_text().split()) == 2

    async with serving(script) as url:
        arguments = ("--url", url, "--play", "--format", "pcm_16000")
        process = await launch(folder, *arguments, **with_player(folder))
        await eventually(lambda: acknowledged, 100)
        output, _ = await process.communicate(b"Good morning\n")
    assert process.returncode == 0, output
    assert acknowledged == ["srv-1"]
    assert not (folder / "speech.wav").exists()


async def test_play_without_a_player_says_what_to_install(folder):
    result = await talk_to(echo, folder, "Hello", "--play", PATH=str(folder))
    assert result.code == 1
    assert (
        "No program that plays mp3_44100_128 is installed. Install one of: ffplay, mpv, mpg123, afplay."
        in result.output
    )


async def test_a_player_that_fails_is_reported(folder):
    (folder / "aplay").write_text("#!/bin/sh\necho 'audio open error: No such device' >&2\nexit 1\n")
    (folder / "aplay").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    result = await talk_to(start_in("pcm_16000"), folder, "Hello", "--play", "--format", "pcm_16000", PATH=path)
    assert result.code == 1
    assert "aplay ended with exit code 1: audio open error: No such device" in result.output


# Failures


async def test_a_rejected_text_is_reported_and_the_next_one_is_spoken(folder):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send({"type": "error", "id": "say-1", "code": "too_long", "message": "Too long."})
        await connection.expect("speak")
        await connection.speak("say-2", b"x")
        await connection.end()

    result = await talk_to(script, folder, "a" * 5001, "Short")
    assert result.code == 1
    assert "too_long: Too long." in result.output
    assert "Short\n  live" in result.output
    assert "a" * 100 not in result.output


@pytest.mark.parametrize(
    ("terminal", "words"),
    [
        (
            {"type": "speech.failed", "code": "no_voice", "message": "Nobody could speak."},
            "no_voice: Nobody could speak.",
        ),
        ({"type": "speech.interrupted", "bytes": 1, "characters": 5}, "interrupted after 1 bytes, 5 characters"),
    ],
)
async def test_interrupted_and_failed_speech_is_reported(terminal, words, folder):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(started("say-1"), b"x", {"id": "say-1", **terminal})
        await connection.end()

    result = await talk_to(script, folder, "Hello")
    assert result.code == 1
    assert words in result.output


@pytest.mark.parametrize(
    ("code", "words"), [(4001, "replaced"), (4003, "revoked"), (4012, "shutting down"), (1000, "1000")]
)
async def test_a_closed_connection_is_explained_and_received_audio_is_kept(code, words, folder):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(started("say-1"), b"half")
        await connection.socket.close(code=code)

    result = await talk_to(script, folder, "Hello")
    assert result.code == 1
    assert words in result.output
    assert (folder / "speech.mp3").read_bytes() == b"half"


async def test_a_connection_closed_between_speeches_ends_the_command(folder):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.socket.close(code=4003)

    async with serving(script) as url:
        process = await launch(folder, "--url", url)
        assert process.stdout is not None
        output = await process.stdout.read()
        assert await process.wait() == 1
    assert b"revoked" in output


async def test_an_unreachable_server_is_explained(folder):
    result = await talk(folder, "Hello", "--url", f"ws://127.0.0.1:{free_port()}/ws/device/")
    assert result.code == 1
    assert "make run" in result.output
    assert not (folder / "speech.mp3").exists()


async def test_a_rejected_token_is_explained(folder):
    result = await talk_to(echo, folder, "Hello", "--token", "wrong")
    assert result.code == 1
    assert "unknown_token: No device has this token." in result.output
    assert "seed_demo" in result.output


async def test_a_missing_demo_token_is_explained(folder):
    (folder / "demo-device-token").unlink()
    result = await talk(folder, "Hello")
    assert result.code == 1
    assert "make run" in result.output


async def test_an_unknown_format_is_explained(folder):
    async def script(connection: ServerConnection) -> None:
        await connection.expect("conversation.start")
        await connection.send(
            {"type": "error", "code": "unknown_format", "message": "It must be one of mp3_44100_128."}
        )

    result = await talk_to(script, folder, "Hello", "--format", "flac")
    assert result.code == 1
    assert "one of mp3_44100_128" in result.output


async def test_ctrl_c_interrupts_and_ends_the_conversation(folder):
    asked: list[str] = []
    playing = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(started("say-1"), b"half")
        playing.set()
        asked.append((await connection.expect("interrupt"))["type"])
        await connection.send({"type": "speech.interrupted", "id": "say-1", "bytes": 4, "characters": 5})
        await connection.end()
        asked.append("conversation.end")

    async with serving(script) as url:
        process = await launch(folder, "Hello", "--url", url)
        await eventually(playing.is_set)
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
    assert process.returncode == 130
    assert asked == ["interrupt", "conversation.end"]
    assert b"Traceback" not in output
    assert (folder / "speech.mp3").read_bytes() == b"half"


# Where it connects


async def test_it_connects_to_the_port_of_the_latest_make_run(folder):
    async with serving(echo) as url:
        address = {"host": "127.0.0.1", "port": int(url.split(":")[2].split("/")[0]), "sandbox_port": 1}
        (folder / "demo-address.json").write_text(json.dumps(address))
        result = await talk(folder, "Good morning")
    assert result.code == 0, result.output
    assert (folder / "speech.mp3").read_bytes() == b"Good morning"


# Files


@pytest.mark.parametrize(("format", "rate"), [("pcm_16000", 16000), ("pcm_24000", 24000)])
async def test_pcm_is_written_as_wav(format, rate, folder):
    assert (await talk_to(start_in(format), folder, "Hello", "--format", format)).code == 0
    with wave.open(str(folder / "speech.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        assert file.readframes(9) == b"\1\2\3\4"


async def test_ulaw_is_written_as_au(folder):
    assert (await talk_to(start_in("ulaw_8000"), folder, "Hello", "--format", "ulaw_8000")).code == 0
    data = (folder / "speech.au").read_bytes()
    assert struct.unpack(">4s5I", data[:24]) == (b".snd", 24, 4, 1, 8000, 1)
    assert data[24:] == b"\1\2\3\4"
