"""The measured processes: start them, observe them from outside, and stop all of them."""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from tests.server import ROOT, free_port

PR_SET_PDEATHSIG = 1
START_S = 30.0
STOP_S = 15.0

_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """The child dies with this process, even if this process is killed without a chance to clean up (Linux)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A server process on a free port. It answers requests when the constructor returns."""

    def __init__(self, command: list[str], log: Path, ready: str, **env: str) -> None:
        self.port = free_port()
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=self.port) for part in command)],
                cwd=ROOT,
                env=_environment(env),
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # safe: this process runs no other thread
            )
        self._wait_until_it_answers(ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=5) as reply:
            return reply.read()

    def cpu_s(self) -> float:
        """Return the processor seconds of all its threads so far, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kb(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() // 1024

    def _wait_until_it_answers(self, path: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get(path)
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.process.kill()
        raise RuntimeError(f"{self.process.args} did not start:\n{self.log.read_text()[-3000:]}")


@dataclass(frozen=True)
class Relay:
    """How to start a relay. `tokens` are those of its devices; the bare relay has none."""

    name: str
    application: str
    ready: str
    env: dict[str, str]
    tokens: Sequence[str] = ()

    def start(self, folder: Path, **env: str) -> Child:
        address = ["-b", "127.0.0.1", "-p", "{port}"]
        # No pings: an idle client is not read here, so pings would not be answered.
        limits = ["--websocket_timeout", "-1", "--ping-interval", "100000"]
        return Child(
            ["daphne", *address, *limits, self.application], folder / f"{self.name}.log", self.ready, **(self.env | env)
        )


class Rig:
    """A context with the upstream and the relays. `relays` are the running ones.

    With the addresses of a PostgreSQL server and of a Redis server there is a third relay, `production`. Its database
    is created for this run and dropped at the end.
    """

    def __init__(self, devices: int, database_url: str = "", redis_url: str = "") -> None:
        self._devices = devices
        self._database_url = database_url
        self._redis_url = redis_url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voicecare-bench-")))
            command = ["tests.bench.upstream", "{port}"]
            self.upstream = stack.enter_context(Child(command, self.folder / "upstream.log", "/__stats"))
            relays = [Relay("bare", "tests.bench.bare:application", "/", {"UPSTREAM_URL": self.upstream.url})]
            relays.append(self._ours("ours"))
            if self._database_url and self._redis_url:
                database_url = stack.enter_context(_own_database(self._database_url))
                relays.append(self._ours("production", DATABASE_URL=database_url, REDIS_URL=self._redis_url))
            self.known = {relay.name: relay for relay in relays}
            self.relays = {name: stack.enter_context(self.start(name)) for name in self.known}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, name: str, **env: str) -> Child:
        """Start another process of this relay, as a context. `env` changes its environment."""
        return self.known[name].start(self.folder, **env)

    def set_upstream(self, **values: float) -> None:
        self.upstream.get("/__set?" + "&".join(f"{name}={value}" for name, value in values.items()))

    def upstream_stats(self) -> dict[str, Any]:
        return json.loads(self.upstream.get("/__stats"))

    def _ours(self, name: str, **servers: str) -> Relay:
        """The server as in production, except for a very high limit for the device's characters.

        Without `servers` it uses SQLite, and no Redis.
        """
        env = {
            "DEBUG": "0",
            "SECRET_KEY": "bench",
            "ALLOWED_HOSTS": "127.0.0.1",
            "VOICECARE_DATA_DIR": str(self.folder / name),
            "ELEVENLABS_API_KEY": "bench",
            "ELEVENLABS_BASE_URL": self.upstream.url,
            "DEVICE_CHARACTERS_PER_MINUTE": "100000000",
            **servers,
        }
        return Relay(name, "voicecare.asgi:application", "/readyz", env, seeded(self._devices, env))


@contextmanager
def _own_database(server_url: str) -> Iterator[str]:
    """Create a database for this run on the server, and return its URL."""
    name = f"voicecare_bench_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _environment(changes: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without variables that name servers outside of the bench."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return kept | changes


def seeded(devices: int, env: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", "tests.bench.seed", str(devices)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(env), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
