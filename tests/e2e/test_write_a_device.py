"""The device of docs/write-a-device.md, taken from the page and run as its reader would run it."""

import array
import asyncio
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from django.utils import timezone

from tests.conftest import Member
from tests.e2e.rows import in_database
from tests.e2e.tcp_proxy import forgetful_proxy
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Conversation, Utterance
from tts.outbox import store
from voicecare.patients.models import Device as DeviceRow

PAGE = (Path(__file__).resolve().parents[2] / "docs/write-a-device.md").read_text()
BYTES_PER_S = 32_000
TIMEOUT_S = 60.0
LONG = "This sentence is spoken very slowly, so that there is time to do something else meanwhile."

Start = Callable[[str, str], Awaitable[Process]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return a function that starts the device of the page with an address and a token."""
    script = tmp_path / "device.py"
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    script.write_text(code)
    started: list[Process] = []

    async def start_device(url: str, token: str) -> Process:
        command = (sys.executable, "-W", "error", str(script), url, token)
        started.append(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE))
        return started[-1]

    yield start_device
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def typing(device: Process) -> AsyncIterator[Callable[[str], None]]:
    """A function that types lines at the device. Ctrl-D follows at the end."""
    assert device.stdin is not None

    def type_lines(text: str) -> None:
        device.stdin.write(text.encode())

    yield type_lines
    device.stdin.close()


async def first_audio(device: Process) -> bytes:
    assert device.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        return await device.stdout.readexactly(3200)


async def output(device: Process) -> tuple[bytes, str]:
    """Return the samples and the messages of a device that ends."""
    assert device.stdout is not None
    assert device.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        samples, messages = await asyncio.gather(device.stdout.read(), device.stderr.read())
        await device.wait()
    return samples, messages.decode()


def states(member: Member) -> list[tuple[str, str]]:
    rows = Utterance.objects.filter(conversation__device=member.device).order_by("received_at")
    return [(row.text, row.state) for row in rows]


async def test_it_speaks_what_is_typed(server: ServerProcess, alice: Member, start: Start) -> None:
    device = await start(server.ws, alice.token)
    async with typing(device) as type_lines:
        type_lines("Good morning.\nDid you sleep well?\n")
    samples, messages = await output(device)
    assert (device.returncode, messages) == (0, "")
    assert len(samples) > BYTES_PER_S  # both are longer than a second together
    assert max(map(abs, array.array("h", samples))) > 1000
    assert await in_database(states, alice) == [("Good morning.", "spoken"), ("Did you sleep well?", "spoken")]


async def test_it_resumes_and_repeats_what_was_cut_off(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, start: Start
) -> None:
    sandbox.fault(kind="slow", bytes_per_s=8_000, first=1)
    async with forgetful_proxy(server.url) as proxy:
        device = await start(proxy.url.replace("http:", "ws:") + "/ws/device/", alice.token)
        async with typing(device) as type_lines:
            type_lines(f"{LONG}\n")
            heard = await first_audio(device)
            assert proxy.forget("half close") == 1
        samples, messages = await output(device)
    assert device.returncode == 0, messages
    assert len(heard + samples) > 3 * BYTES_PER_S
    assert await in_database(states, alice) == [(LONG, "interrupted"), (LONG, "spoken")]
    assert await in_database(Conversation.objects.filter(device=alice.device).count) == 1


async def test_an_empty_line_interrupts(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member, start: Start
) -> None:
    device = await start(server.ws, alice.token)
    async with typing(device) as type_lines:
        type_lines(f"{LONG} {LONG} {LONG}\n")
        await first_audio(device)
        type_lines("\n")
    samples, messages = await output(device)
    assert (device.returncode, messages) == (0, "")
    assert len(samples) < 3 * BYTES_PER_S  # the whole text takes over ten seconds


async def test_it_acknowledges_a_delivery_that_was_played(server: ServerProcess, alice: Member, start: Start) -> None:
    row = await in_database(store.submit, alice.patient.pk, "Your daughter comes.", expires_in_s=900, author=None)

    async def is_heard() -> bool:
        return (await in_database(Utterance.objects.get, pk=row.pk)).heard_at is not None

    device = await start(server.ws, alice.token)
    async with typing(device):
        await eventually(is_heard, TIMEOUT_S)
    samples, messages = await output(device)
    assert (device.returncode, messages) == (0, "")
    assert len(samples) > BYTES_PER_S // 2


def _revoke(member: Member) -> None:
    DeviceRow.objects.filter(pk=member.device.pk).update(revoked_at=timezone.now())


async def test_a_revoked_device_gives_up_and_says_why(server: ServerProcess, alice: Member, start: Start) -> None:
    connected = await start(server.ws, alice.token)
    async with typing(connected) as type_lines:
        type_lines("Good morning.\n")
        await first_audio(connected)
        await in_database(_revoke, alice)
        _, messages = await output(connected)
    assert connected.returncode == 1
    assert "the device is revoked" in messages
    refused = await start(server.ws, alice.token)
    async with typing(refused):
        _, messages = await output(refused)
    assert refused.returncode == 1
    assert "The device is revoked. Add a new device in the admin." in messages
