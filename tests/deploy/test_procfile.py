"""The Procfile in a plain shell and under the process runners that are installed here."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from shutil import which

import pytest

from tests.sandbox import SandboxProcess
from tests.server import ROOT, free_port
from tests.waiting import until

LINES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
BIN = Path(sys.executable).parent
RUNNERS = {
    "honcho": [str(BIN / "honcho"), "-e", os.devnull, "start"],
    "foreman": ["foreman", "start", "-e", os.devnull],
}


def test_no_line_ends_by_itself():
    """A process runner stops all processes when one ends, so work that is done once does not belong here."""
    assert set(LINES) == {"web", "worker", "beat"}


@pytest.mark.parametrize(("environment", "port"), [({}, "8000"), ({"PORT": ""}, "8000"), ({"PORT": "9123"}, "9123")])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_port_has_a_default_in_a_plain_shell(tmp_path: Path, shell: str, environment: dict[str, str], port: str):
    daphne = tmp_path / "daphne"
    daphne.write_text('#!/bin/sh\necho "$@"\n')
    daphne.chmod(0o755)
    process = subprocess.run(
        [shell, "-c", LINES["web"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f" -p {port} " in process.stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_process_runner_keeps_all_lines_alive(runner: str, tmp_path: Path, sandbox_process: SandboxProcess):
    if not which(RUNNERS[runner][0]):
        pytest.skip(f"{runner} is not installed")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PORT": str(port),
        "VOICECARE_DATA_DIR": str(tmp_path),
        "ELEVENLABS_BASE_URL": sandbox_process.url,
        "PHRASE_STORE": "file",
    }
    subprocess.run([BIN / "python", "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=environment, check=True)

    def alive() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            missing: set[str] = {"worker", "beat"} & set(json.load(reply)["degraded"])
            return not missing
        return False

    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(
            RUNNERS[runner], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(alive, 90)
        assert started.poll() is None, (tmp_path / "log").read_text()
        started.terminate()
        started.wait(30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
