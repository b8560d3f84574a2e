"""`make run` ends whole, however it is ended."""

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.server import ROOT, free_port
from tests.waiting import until


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_what_it_has_started_ends_with_it_on_sigterm(tmp_path: Path):
    """make tells its child alone, and a shell between them would not pass it on."""
    ports = free_port(), free_port()
    settings = {"PORT": str(ports[0]), "SANDBOX_PORT": str(ports[1]), "VOICECARE_DATA_DIR": str(tmp_path)}
    unset = {"DATABASE_URL", "REDIS_URL", "ELEVENLABS_API_KEY", "MAKEFLAGS", "MAKELEVEL"}
    with (tmp_path / "log").open("w") as log:
        make = subprocess.Popen(
            ["make", "-o", "install", "run"],
            cwd=ROOT,
            env={**{name: value for name, value in os.environ.items() if name not in unset}, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(lambda: all(map(answers, ports)), 60)
            make.terminate()
            make.wait(20)
            until(lambda: not any(map(answers, ports)), 10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGTERM)
