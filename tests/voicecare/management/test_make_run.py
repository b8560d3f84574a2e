"""The Makefile: `make help` lists the targets, `make run` starts all processes, prints "Ready" and ends them."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest
import requests

from tests.server import ROOT, free_port
from tests.waiting import until
from voicecare.core.lan import lan_address
from voicecare_client import DeviceClient

REMOVED_VARIABLES = {"DATABASE_URL", "REDIS_URL", "ELEVENLABS_API_KEY", "PHRASE_STORE", "MAKEFLAGS", "MAKELEVEL"}


@dataclass
class Run:
    make: "subprocess.Popen[bytes]"
    ports: tuple[int, int]
    data: Path

    def is_up(self) -> bool:
        return all(map(_accepts_connections, self.ports))

    def is_down(self) -> bool:
        return not any(map(_accepts_connections, self.ports))

    def has_no_process(self) -> bool:
        """Return whether the process group of make is empty: make, its shell, honcho and the announcement."""
        with suppress(ProcessLookupError):
            os.killpg(self.make.pid, 0)
            return False
        return True

    def log(self) -> str:
        return (self.data / "log").read_text()

    def is_ready(self) -> bool:
        return "Ready." in self.log()


def _accepts_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def host() -> str:
    return "127.0.0.1"


@pytest.fixture
def run(tmp_path: Path, host: str) -> Iterator[Run]:
    ports = free_port(), free_port()
    settings = {"PORT": str(ports[0]), "SANDBOX_PORT": str(ports[1]), "HOST": host, "VOICECARE_DATA_DIR": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES} | settings
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


def test_known_phrases_are_generated_soon_after_the_start(run: Run):
    """Without cached phrases a patient hears nothing while the quota is used up."""
    until(run.is_up, 60)
    until(lambda: [path for path in (run.data / "phrases").rglob("*") if path.is_file()], 60)
    assert "warming.request_failed" not in run.log()


def test_the_last_lines_print_ready_and_every_url_when_all_processes_answer(run: Run):
    until(run.is_ready, 100)
    assert run.is_up()
    web, sandbox = run.ports
    before, _, last = run.log().partition("Ready.")
    assert before.count("started (pid=") == 4
    password = (run.data / "demo-password").read_text().strip()
    assert f"http://127.0.0.1:{web}/admin/ " in last
    assert f"user admin, password {password}" in last
    assert f"http://127.0.0.1:{web}/api/docs/ " in last
    assert f"http://127.0.0.1:{sandbox}/ " in last
    assert '  .venv/bin/python manage.py talk "Good morning"' in last  # it needs no port: the run has kept it
    address = json.loads((run.data / "demo-address.json").read_text())
    assert address == {"host": "127.0.0.1", "port": web, "sandbox_port": sandbox}
    assert "in the same network" not in last
    assert "Warning" not in run.log()


@pytest.mark.parametrize("host", ["0.0.0.0"])
async def test_a_device_in_the_network_can_connect_with_what_is_printed(run: Run):
    if lan_address("0.0.0.0") is None:
        pytest.skip("this machine has no network")
    await asyncio.to_thread(until, run.is_ready, 100)
    _, _, printed = run.log().partition("For a device in the same network:")
    [url] = re.findall(r"^address +(ws://\S+)", printed, re.MULTILINE)
    [token] = re.findall(r"^token +(\S+)", printed, re.MULTILINE)
    assert "127.0.0.1" not in url
    async with DeviceClient(url, token) as device:
        await device.start(greeting=False)
        assert (await device.speak("Good morning")).audio
    [page] = re.findall(r"^in browser +(http://\S+)", printed, re.MULTILINE)
    assert (await asyncio.to_thread(requests.get, page, timeout=20)).status_code == 200


def test_ctrl_c_ends_all_processes_without_an_error(run: Run):
    until(run.is_ready, 100)
    os.killpg(run.make.pid, signal.SIGINT)  # a terminal sends SIGINT to the whole foreground group
    run.make.wait(20)
    until(run.is_down, 10)
    assert "Error" not in run.log()


def test_an_early_end_leaves_no_process_and_prints_no_ready(run: Run):
    until(lambda: run.log().count("started (pid=") == 4, 60)
    run.make.terminate()
    run.make.wait(20)
    until(run.has_no_process, 20)
    assert not run.is_ready()


def test_sigterm_ends_all_processes(run: Run):
    """make sends the signal only to its child. A shell between them would not forward it."""
    until(run.is_up, 60)
    run.make.terminate()
    run.make.wait(20)
    until(run.is_down, 10)


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_make_without_a_target_lists_every_target_with_a_description():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    lines = make().stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  make ")] == targets
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("port", ["abc", "9 1", "80x", "+", "-1"])
def test_a_port_that_is_not_a_number_is_refused(port: str):
    process = make("help", PORT=port)
    assert process.returncode != 0
    assert f'PORT must be a number, not "{port}"' in process.stderr


def test_make_needs_no_option_of_gnu_tools(tmp_path: Path):
    """macOS has the tools of BSD. Its `expr` knows the operators of POSIX only."""
    expr = tmp_path / "expr"
    expr.write_text(
        f'#!/bin/sh\ncase "$1" in length|substr|index|match|+|--*) exit 2;; esac\nexec {which("expr")} "$@"\n'
    )
    expr.chmod(0o755)
    process = make("-n", "help", PORT="9000", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("variables", "recipients"),
    [
        ({}, ["you@example.org"]),
        ({"ADMIN_EMAILS": "me@example.org"}, []),  # make takes it from the environment
        ({"EMAIL_URL": "smtp://mail.example.org"}, []),
        ({"ELEVENLABS_API_KEY": "key"}, []),
    ],
    ids=["demo", "own", "mail server", "real provider"],
)
def test_alerts_of_the_demo_are_sent_to_the_terminal(variables: dict[str, str], recipients: list[str]):
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    for name in ("ADMIN_EMAILS", "EMAIL_URL"):
        environment.pop(name, None)
    made = subprocess.run(
        ["make", "-pn", "run"], cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=True
    )
    assert re.findall(r"^run: ADMIN_EMAILS = (.*)$", made.stdout, re.MULTILINE) == recipients
