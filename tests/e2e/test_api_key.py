"""A wrong API key is known before a patient speaks, and a key in a file can be replaced while the server runs."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually, until
from usage.models import Incident

pytestmark = pytest.mark.django_db(transaction=True)

WITHIN_S = 15


def write_key(path: Path, key: str) -> None:
    """Replace the file at once, as a mounted secret does. Its time is in the past, so nobody waits for it to settle."""
    new = path.with_suffix(".new")
    new.write_text(f"{key}\n")
    os.utime(new, (time.time() - 60,) * 2)
    new.replace(path)


@pytest.fixture
def key_file(tmp_path: Path, sandbox: SandboxProcess) -> Path:
    sandbox.settings(api_key="sk_right")
    return tmp_path / "key"


@pytest.fixture
def own_server(key_file: Path, start_server: Callable[..., ServerProcess]) -> Iterator[Callable[[], ServerProcess]]:
    """Return a function that starts a server with this key file."""
    started: list[ServerProcess] = []

    def start() -> ServerProcess:
        started.append(start_server(ELEVENLABS_API_KEY_FILE=key_file, ALERT_WEBHOOK_URL=""))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def is_degraded(server: ServerProcess) -> bool:
    return "provider_key" in json.loads(server.get("/readyz")[1])["degraded"]


async def is_live(device: Device) -> bool:
    return (await device.speak("This is said with the key in the file.")).terminal["source"] == "live"


async def open_incidents() -> list[str]:
    rows = Incident.objects.filter(kind="access", resolved_at=None)
    return await in_database(lambda: list(rows.values_list("detail", flat=True)))


@pytest.mark.parametrize("content", ["sk_wrong", "", None], ids=["wrong key", "empty file", "no file"])
async def test_a_wrong_key_is_found_without_any_speech_and_its_replacement_is_used(
    content: str | None, key_file: Path, own_server: Callable[[], ServerProcess], alice: Member
) -> None:
    if content is not None:
        write_key(key_file, content)
    server = own_server()
    until(lambda: is_degraded(server), WITHIN_S)
    assert len(await open_incidents()) == 1
    write_key(key_file, "sk_right")
    until(lambda: is_degraded(server), WITHIN_S, wanted=lambda degraded: not degraded)
    await eventually(open_incidents, wanted=lambda found: not found)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await eventually(lambda: is_live(device), WITHIN_S)  # speech gets the new key within a second


async def test_a_key_is_rotated_while_a_device_speaks(
    key_file: Path, own_server: Callable[[], ServerProcess], sandbox: SandboxProcess, alice: Member
) -> None:
    write_key(key_file, "sk_right")
    server = own_server()
    sandbox.fault(kind="slow", bytes_per_s=40_000, first=1)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        await device.send({"type": "speak", "id": "long", "text": "This began with the old key. " * 3})
        await device.wait_for_audio("long")
        sandbox.settings(api_key="sk_next")
        write_key(key_file, "sk_next")
        until(lambda: "provider.key_changed" in server.logged(), WITHIN_S)
        assert (await device.wait_for("long")).terminal["type"] == "speech.finished"

        await eventually(lambda: is_live(device), WITHIN_S)


async def test_after_a_change_to_a_wrong_key_the_offline_voice_speaks(
    key_file: Path, own_server: Callable[[], ServerProcess], alice: Member
) -> None:
    write_key(key_file, "sk_right")
    server = own_server()
    write_key(key_file, "sk_expired")
    until(lambda: is_degraded(server), WITHIN_S)
    async with Device(server.ws, alice.token) as device:
        await device.start(greeting=False)
        assert (await device.speak("Nobody accepts this key.")).terminal["source"] == "offline"
    assert "sk_" not in server.logged()
    write_key(key_file, "sk_right")
    until(lambda: is_degraded(server), WITHIN_S, wanted=lambda degraded: not degraded)
