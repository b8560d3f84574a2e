"""Fixtures: a second server on the same database, servers for one test, a worker, a closed circuit after the test."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until_provider_healthy
from tests.e2e.worker import running_worker
from tests.processes import child_processes
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess


@pytest.fixture(scope="session")
def second_server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Another server process on the same database, for tests that also use `server`."""
    return start_server()


@pytest.fixture
def own_server(
    start_server: Callable[..., ServerProcess], sandbox: SandboxProcess, transactional_db: None
) -> Iterator[Callable[..., ServerProcess]]:
    """A function that starts servers for this test only. The test may kill them."""
    started: list[ServerProcess] = []

    def start(*arguments: str, **changes: object) -> ServerProcess:
        started.append(start_server(*arguments, **changes))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def web(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with its own data directory for the broker and the recordings."""
    return own_server()


@pytest.fixture
def worker(web: ServerProcess, sandbox: SandboxProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """A Celery worker of the server `web`."""
    with running_worker(web, sandbox) as process:
        yield process


@pytest.fixture
def circuit_closed_after(
    server: ServerProcess, second_server: ServerProcess, sandbox: SandboxProcess
) -> Iterator[None]:
    """For tests that open the circuit. The servers' own probes close it before the next test."""
    yield
    sandbox.clear_faults()
    wait_until_provider_healthy(server)
    wait_until_provider_healthy(second_server)


@pytest.fixture
def kill_espeak() -> Callable[[ServerProcess], int]:
    """A function that kills the offline voice of a server, like a crash. It returns the number of killed processes."""

    def kill(server: ServerProcess) -> int:
        if not Path("/proc/self/task").exists():
            pytest.skip("finds the child process in /proc, which is Linux")
        pids = child_processes(server.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    return kill
