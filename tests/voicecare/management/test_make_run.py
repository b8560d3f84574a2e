"""`make run` as a whole: what it starts is of use soon, and none of it outlives make."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server import ROOT, free_port
from tests.waiting import until

UNSET = {"DATABASE_URL", "REDIS_URL", "ELEVENLABS_API_KEY", "PHRASE_STORE", "MAKEFLAGS", "MAKELEVEL"}


@dataclass
class Run:
    make: "subprocess.Popen[bytes]"
    ports: tuple[int, int]
    data: Path

    def is_up(self) -> bool:
        return all(map(_answers, self.ports))

    def is_gone(self) -> bool:
        return not any(map(_answers, self.ports))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    ports = free_port(), free_port()
    settings = {"PORT": str(ports[0]), "SANDBOX_PORT": str(ports[1]), "VOICECARE_DATA_DIR": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | settings
    with (tmp_path / "log").open("w") as log:
        make = subprocess.Popen(
            ["make", "-o", "install", "run"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Run(make, ports, tmp_path)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGTERM)
            make.wait(20)


def test_known_phrases_are_made_soon_and_not_only_in_the_next_round(run: Run):
    """Without them nothing would be heard while the quota is spent."""
    until(run.is_up, 60)
    until(lambda: [path for path in (run.data / "phrases").rglob("*") if path.is_file()], 60)
    assert "warming.request_failed" not in (run.data / "log").read_text()


def test_what_it_has_started_ends_with_it_on_sigterm(run: Run):
    """make tells its child alone, and a shell between them would not pass it on."""
    until(run.is_up, 60)
    run.make.terminate()
    run.make.wait(20)
    until(run.is_gone, 10)
