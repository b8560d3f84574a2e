"""A real Celery worker beside a server of a test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from tests.conftest import database_url
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment

ARGUMENTS = (
    "worker",
    "--loglevel",
    "INFO",
    "--pool",
    "solo",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--purge",
)


def process_environment(web: ServerProcess, sandbox: SandboxProcess) -> dict[str, str]:
    """The environment of a process that shares the database, the broker and the files of the server."""
    env = environment(
        DATABASE_URL=database_url(),
        ELEVENLABS_BASE_URL=sandbox.url,
        VOICECARE_DATA_DIR=web.data_dir,
        SECRET_KEY=settings.SECRET_KEY,  # clips that the worker generates have keys of the server
    )
    return {**os.environ, **env}


@contextmanager
def running_worker(web: ServerProcess, sandbox: SandboxProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """A Celery worker as in production, with the broker of the server. It is ready at the beginning."""
    command = [sys.executable, "-m", "celery", "-q", "-A", "voicecare", *ARGUMENTS]
    with (web.data_dir / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=process_environment(web, sandbox), stdout=log, stderr=log)
    _wait_until_ready(process, web.data_dir / "worker.log")
    yield process
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(worker: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until the worker is ready. At its start it purges tasks of other tests."""
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text(errors="replace"):
        if worker.poll() is not None or time.monotonic() > deadline:
            worker.kill()
            raise RuntimeError(log.read_text(errors="replace")[-3000:])
        time.sleep(0.05)
