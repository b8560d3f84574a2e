"""deploy/run, the entry point of the image and of the systemd units."""

import os
import signal
import subprocess
from pathlib import Path

from tests.deploy.test_procfile import LINES
from tests.server import ROOT

RUN = ROOT / "deploy/run"


def test_it_becomes_the_process_of_a_line_of_the_procfile(tmp_path: Path):
    """A shell in between would not pass SIGTERM on."""
    celery = tmp_path / "celery"
    celery.write_text("#!/bin/sh\necho $$ $PWD $@\nexec sleep 60\n")
    celery.chmod(0o755)
    arguments = LINES["beat"].removeprefix("celery ")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen([RUN, "beat"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid} {ROOT} {arguments}\n"
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_it_runs_any_other_command():
    printed = subprocess.run([RUN, "printf", "%s|", "a b", "$HOME"], capture_output=True, text=True, check=True)
    assert printed.stdout == "a b|$HOME|"
