"""A full data directory: speech continues, and the administrator learns of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings

from tests.conftest import Member, database_url
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of, in_database
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment
from tests.waiting import eventually
from tts.models import Phrase

FILLER = "filler"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def server(
    small_disk: Path, sandbox: SandboxProcess, transactional_db: None, tmp_path: Path
) -> Iterator[ServerProcess]:
    """A server whose database and log are not on the small disk."""
    env = environment(
        DATABASE_URL=database_url(),
        VOICECARE_DATA_DIR=small_disk,
        PHRASE_STORE="file",
        ELEVENLABS_BASE_URL=sandbox.url,
        SECRET_KEY=settings.SECRET_KEY,
    )
    with ServerProcess(env, tmp_path / "server.log") as process:
        yield process


async def test_speech_continues_and_is_counted(server: ServerProcess, alice: Member) -> None:
    phrases = ["This phrase finds no room.", "This phrase finds room again."]
    await in_database(lambda: [Phrase.objects.create(text=text) for text in phrases])
    fill(server.data_dir)
    async with Device(server.ws, alice.token) as device:
        started = await device.start(greeting=False)
        for text in (phrases[0], "And this is said once."):
            spoken = await device.speak(text)
            assert (spoken.terminal["type"], spoken.terminal["source"]) == ("speech.finished", "live")
        assert "cache" in json.loads(server.get("/readyz")[1])["degraded"]
        (server.data_dir / FILLER).unlink()
        await device.speak(phrases[1])
        await eventually(lambda: "cache" not in json.loads(server.get("/readyz")[1])["degraded"])
        await device.end()
    accounts = await accounts_of(started["conversation"])
    assert accounts.ledger == accounts.counter == sum(map(len, [*phrases, "And this is said once."]))
    assert "journal.write_failed" in server.logged()
    assert "phrase_cache.store_failed" in server.logged()


def doctor(data_dir: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **variables, **environment(VOICECARE_DATA_DIR=data_dir, DATABASE_URL=database_url())}
    command = [sys.executable, "manage.py", "doctor", "--no-speech", "--json"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.django_db
def test_the_doctor_names_the_full_disk(small_disk: Path):
    fill(small_disk)
    found = doctor(small_disk, SECRET_KEY="s")
    [disk] = [part for part in json.loads(found.stdout)["parts"] if part["name"] == "disk"]
    assert (found.returncode, disk["status"]) == (1, "failure")
    assert disk["state"].startswith("0.0 of 0.0 GB are free in ")


@pytest.mark.django_db
def test_a_secret_key_that_cannot_be_written_is_one_line(small_disk: Path):
    fill(small_disk)
    for _ in range(2):
        found = doctor(small_disk, SECRET_KEY="")
        problem = f"voicecare cannot start. VOICECARE_DATA_DIR: {small_disk}/secret_key cannot be written: "
        assert found.stderr == f"{problem}No space left on device.\n"
        assert found.returncode == 1
