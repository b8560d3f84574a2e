"""The servers that voicecare can stand on (Redis, PostgreSQL, S3) as child processes, for tests that stop, kill or
pause them.

with RedisProcess() as redis:
    ...  # connect to redis.url
    redis.kill()
    ...
    redis.start()  # on the same port

Where a server is not installed the test is skipped, with CI=true it fails.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import psycopg
import pytest
import redis

from tests.server import free_port

START_S = 30
STOP_S = 15


class Service:
    """One server on a free port of this machine, with a folder of its own; runs when the constructor returns."""

    stop_signal = signal.SIGTERM
    os_user: str | None = None  # the user it runs as, where it may not run as ours

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="voicecare-service-"))
        try:
            self.command = self.prepare()
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        raise NotImplementedError

    def prepare(self) -> Sequence[str]:
        """Makes what the server needs, once, and returns the command that runs it."""
        raise NotImplementedError

    def ping(self) -> None:
        """Raises while it does not answer."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it (again), on the same port; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, user=self.os_user)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.02)

    def stop(self) -> None:
        """An orderly end."""
        self.process.send_signal(self.stop_signal)
        self.process.wait(STOP_S)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def pause(self) -> None:
        """It takes connections and requests, and answers none."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            self.ping()
        except (OSError, psycopg.OperationalError, redis.RedisError):
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        """To all its processes: PostgreSQL's children lead sessions of their own."""
        if self.process.poll() is None:
            pid = self.process.pid
            self.process.send_signal(signal.SIGSTOP)  # or it would make another one meanwhile
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for target in (pid, *map(int, children)):
                try:
                    os.kill(target, number)
                except ProcessLookupError:
                    continue


class RedisProcess(Service):
    """Keeps nothing: started again it is empty. `arguments` go to redis-server."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> Sequence[str]:
        network = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        return [_binary("redis-server"), *network, "--save", "", "--appendonly", "no", *self.arguments]

    def ping(self) -> None:
        with self.client() as client:
            client.ping()

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_timeout=1, decode_responses=True)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()


class PostgresProcess(Service):
    """Anybody on this machine may log in; nothing is synced to disk, but a restart keeps the data."""

    stop_signal = signal.SIGINT  # ends the connections; SIGTERM would wait for them
    user = "voicecare"

    @property
    def url(self) -> str:
        return f"postgres://{self.user}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> Sequence[str]:
        server, initdb = _postgres_binary("postgres"), _postgres_binary("initdb")
        if os.geteuid() == 0:  # it refuses to run as root
            self.os_user = "nobody"
            shutil.chown(self.folder, self.os_user)
        data = self.folder / "data"
        settings = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", self.user]
        subprocess.run(
            [initdb, *settings, "-D", str(data)],
            check=True,
            cwd=self.folder,
            user=self.os_user,
            stdout=subprocess.DEVNULL,
        )
        options = {"fsync": "off", "listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 200}
        options |= {"unix_socket_directories": self.folder}
        return [server, "-D", str(data), *(part for name in options for part in ("-c", f"{name}={options[name]}"))]

    def ping(self) -> None:
        with psycopg.connect(self.url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")


class S3Process(Service):
    """moto's server, with an empty bucket at every start. `environment` is what voicecare is told of it."""

    bucket = "voicecare-test"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_STORAGE_BUCKET_NAME": self.bucket,
            "AWS_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def prepare(self) -> Sequence[str]:
        if find_spec("moto") is None:
            _skip_or_fail("moto")
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def ping(self) -> None:
        """Makes the bucket: there is none after a start."""
        request = urllib.request.Request(f"{self.url}/{self.bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass


def _binary(name: str, *folders: Path) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))
    return found or _skip_or_fail(name)


def _postgres_binary(name: str) -> str:
    """Debian keeps them beside the path, a folder for each version."""
    return _binary(name, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


def _skip_or_fail(name: str) -> NoReturn:
    reason = f"{name} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
