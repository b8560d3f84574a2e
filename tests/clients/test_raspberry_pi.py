"""examples/raspberry_pi, run as its reader would run it, with a program in place of aplay."""

import array
import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.utils import timezone

from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.e2e.tcp_proxy import forgetful_proxy
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Utterance
from tts.outbox import store
from voicecare.patients.models import Device as DeviceRow

EXAMPLE = ROOT / "examples/raspberry_pi/device.py"
STAND_INS = Path(__file__).parent / "stand_ins"
BYTES_PER_S = 32_000
TIMEOUT_S = 60.0
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."


@dataclass
class Pi:
    process: Process
    played_to: Path

    @property
    def samples(self) -> bytes:
        path = self.played_to.with_suffix(".raw")
        return path.read_bytes() if path.exists() else b""

    @property
    def ends_of_playback(self) -> list[float]:
        """When the player has played its last sample, for each speech that was played to its end. Unix time."""
        path = self.played_to.with_suffix(".log")
        return list(map(float, path.read_text().split())) if path.exists() else []

    def type_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def next_line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            return (await self.process.stdout.readline()).decode().strip()

    async def end(self) -> tuple[int, str]:
        """Wait for the end. Return the exit code and the messages."""
        async with asyncio.timeout(TIMEOUT_S):
            _, messages = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, messages.decode()

    async def end_with_ctrl_c(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        return await self.end()


Start = Callable[[str, str], Awaitable[Pi]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return a function that starts the device with an address and a token."""
    started: list[Process] = []

    async def start_device(url: str, token: str) -> Pi:
        played_to = tmp_path / f"played-{len(started)}"
        env = {
            **os.environ,
            "PATH": f"{STAND_INS}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "clients/python"),
            "PYTHONUNBUFFERED": "1",
            "PLAYED_TO": str(played_to),
            "VOICECARE_URL": url,
            "VOICECARE_TOKEN": token,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(EXAMPLE)),
            env=env,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        return Pi(process, played_to)

    yield start_device
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


def states(member: Member) -> list[tuple[str, str]]:
    rows = Utterance.objects.filter(conversation__device=member.device).order_by("received_at")
    return [(row.text, row.state) for row in rows]


def test_the_page_shows_this_program():
    page = (ROOT / "docs/write-a-device.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert code == EXAMPLE.read_text()


async def test_it_plays_what_is_typed(server: ServerProcess, alice: Member, start: Start) -> None:
    pi = await start(server.ws, alice.token)
    for line in ("Good morning.", "Did you sleep well?"):
        pi.type_line(line)
        assert await pi.next_line() == "Heard."
    assert await pi.end_with_ctrl_c() == (0, "Connected.\n")
    assert len(pi.samples) > BYTES_PER_S  # both are longer than a second together
    assert max(map(abs, array.array("h", pi.samples))) > 1000
    assert len(pi.ends_of_playback) == 2
    assert await in_database(states, alice) == [("Good morning.", "spoken"), ("Did you sleep well?", "spoken")]


async def test_it_resumes_and_repeats_what_was_cut_off(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, start: Start
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, first=1)
    async with forgetful_proxy(server.url) as proxy:
        pi = await start(proxy.url.replace("http:", "ws:") + "/ws/device/", alice.token)
        pi.type_line(LONG)
        await eventually(lambda: pi.samples, TIMEOUT_S)
        assert proxy.forget("half close") == 1
        assert await pi.next_line() == "Heard."
        code, messages = await pi.end_with_ctrl_c()
    assert code == 0, messages
    assert len(pi.samples) > 3 * BYTES_PER_S
    assert len(pi.ends_of_playback) == 1
    assert await in_database(states, alice) == [(LONG, "interrupted"), (LONG, "spoken")]
    assert await in_database(Conversation.objects.filter(device=alice.device).count) == 1


async def test_an_empty_line_interrupts(server: ServerProcess, alice: Member, start: Start) -> None:
    pi = await start(server.ws, alice.token)
    pi.type_line(f"{LONG} {LONG} {LONG}")
    await eventually(lambda: pi.samples, TIMEOUT_S)
    pi.type_line("")
    assert await pi.next_line() == "Interrupted."
    code, messages = await pi.end_with_ctrl_c()
    assert code == 0, messages
    assert pi.ends_of_playback == []
    assert len(pi.samples) < 5 * BYTES_PER_S  # the whole text takes over ten seconds


async def test_it_acknowledges_a_delivery_when_it_was_played(
    server: ServerProcess, alice: Member, start: Start
) -> None:
    row = await in_database(store.submit, alice.patient.pk, "Your daughter comes.", expires_in_s=900, author=None)

    async def heard_at() -> float | None:
        heard = (await in_database(Utterance.objects.get, pk=row.pk)).heard_at
        return heard and heard.timestamp()

    async def is_heard() -> bool:
        return await heard_at() is not None

    pi = await start(server.ws, alice.token)
    await eventually(is_heard, TIMEOUT_S)
    code, messages = await pi.end_with_ctrl_c()
    assert code == 0, messages
    assert len(pi.samples) > BYTES_PER_S // 2
    assert await heard_at() >= pi.ends_of_playback[0]


def _revoke(member: Member) -> None:
    DeviceRow.objects.filter(pk=member.device.pk).update(revoked_at=timezone.now())


async def test_a_revoked_device_gives_up_and_says_why(server: ServerProcess, alice: Member, start: Start) -> None:
    connected = await start(server.ws, alice.token)
    connected.type_line("Good morning.")
    assert await connected.next_line() == "Heard."
    await in_database(_revoke, alice)
    code, messages = await connected.end()
    assert code == 1
    assert "A person has to look at this device" in messages
    assert "the device is revoked" in messages
    refused = await start(server.ws, alice.token)
    code, messages = await refused.end()
    assert code == 1
    assert "HTTP 403, revoked_device: The device is revoked. Add a new device in the admin." in messages
