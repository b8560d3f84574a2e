"""A real server (daphne) as a child process on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Place:
    """Where processes run: a checkout and its Python, the address of web processes, and what precedes each command."""

    checkout: Path = ROOT
    python: str = sys.executable
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


HERE = Place()


class ServerProcess:
    """A daphne process. It is ready when the constructor returns.

    `env` is added to the environment of this process, the output goes to the file `log`, and `arguments` go to daphne.
    `port` is a free one by default. With `untouched` the constructor only waits for the port, so the server has not
    received a request yet.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        *arguments: str,
        untouched: bool = False,
        port: int | None = None,
        place: Place = HERE,
    ) -> None:
        self.address = place.address
        self.port = port or free_port()
        self.log = log
        self.data_dir = Path(env["VOICECARE_DATA_DIR"])
        self._output = log.open("ab")
        self._place = place
        self._env = {**os.environ, "PYTHONFAULTHANDLER": "1", **env}
        command = [*place.prefix, place.python, "-m", "daphne", "-b", self.address, "-p", str(self.port)]
        self._command = [*command, "--websocket_timeout", "-1", *arguments, "voicecare.asgi:application"]
        self.process = self._start()
        self._wait_until(self._listens if untouched else self._ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://{self.address}:{self.port}/ws/device/"

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20) -> int:
        """Wait for the end of the process, at most `timeout` seconds, and return its exit code.

        Raises RuntimeError with the end of the log and the stacks of all threads if it runs longer. It is killed then.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes the stacks
            self.process.wait()
            raise RuntimeError(f"The server did not end in {timeout:g} s:\n{self.logged()[-8000:]}") from error

    def restart(self) -> None:
        """Start the server again on the same port and with the same files, after its process has ended."""
        self.process.wait()
        self.process = self._start()
        self._wait_until(self._ready)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._output.close()

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def gauge(self, name: str) -> float:
        """Return the value of a metric from `/metrics`."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command, cwd=self._place.checkout, env=self._env, stdout=self._output, stderr=subprocess.STDOUT
        )

    def _ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def _listens(self) -> bool:
        with socket.create_connection((self.address, self.port), timeout=5):
            return True

    def _wait_until(self, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError):
                if is_up():
                    return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"The server did not become ready:\n{self.logged()[-3000:]}")


def environment(**settings: Any) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}
