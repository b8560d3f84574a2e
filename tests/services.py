"""The servers that voicecare can use (Redis, PostgreSQL, S3) as child processes, for tests that stop, kill or pause
them.

with RedisProcess() as redis:
    ...  # connect to redis.url
    redis.kill()
    ...
    redis.start()  # on the same port

If a server is not installed, the test is skipped. With CI=true it fails.
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
from urllib.parse import quote

import psycopg
import pytest
import redis

from tests.processes import child_processes
from tests.server import free_port

START_S = 30
STOP_S = 15


class Service:
    """A server on a free port of a local address, with its own folder. It is running when the constructor returns."""

    stop_signal = signal.SIGTERM
    os_user: str | None = None  # the operating system user of the process; None: the current user

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
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
        """Create what the server needs and return its command. Called once."""
        raise NotImplementedError

    def ping(self) -> None:
        """Raise an exception if the server does not answer."""
        raise NotImplementedError

    def start(self) -> None:
        """Start or restart the server on its port. Returns when the server answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, user=self.os_user)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server gracefully."""
        self.process.send_signal(self.stop_signal)
        self.process.wait(STOP_S)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def pause(self) -> None:
        """Suspend the server. It accepts connections and requests, but does not answer."""
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
        """Send a signal to the process and its children. The children of PostgreSQL have sessions of their own."""
        if self.process.poll() is None:
            pid = self.process.pid
            self.process.send_signal(signal.SIGSTOP)  # so that it starts no new child before the loop ends
            for target in (pid, *child_processes(pid)):
                try:
                    os.kill(target, number)
                except ProcessLookupError:
                    continue


class RedisProcess(Service):
    """Redis without persistence, so it is empty after a restart. `arguments` go to redis-server."""

    def __init__(self, *arguments: str, address: str = "127.0.0.1") -> None:
        self.arguments = arguments
        super().__init__(address)

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def prepare(self) -> Sequence[str]:
        network = ("--bind", self.address, "--port", str(self.port), "--dir", str(self.folder))
        open_to_hosts = ("--protected-mode", "no")  # else it would answer clients on this address only
        return [binary("redis-server"), *network, *open_to_hosts, "--save", "", "--appendonly", "no", *self.arguments]

    def ping(self) -> None:
        with self.client() as client:
            client.ping()

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_timeout=1, decode_responses=True)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()


class SecureRedisProcess(RedisProcess):
    """Redis that needs a password and speaks TLS only, with a certificate of localhost that no authority has signed."""

    password = "p@ss/word"

    @property
    def url(self) -> str:
        return f"rediss://:{quote(self.password, safe='')}@localhost:{self.port}/0?ssl_ca_certs={self.certificate}"

    def prepare(self) -> Sequence[str]:
        self.certificate, key = self.folder / "certificate.pem", self.folder / "key.pem"
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        create = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
        subprocess.run([*create, "-keyout", str(key), "-out", str(self.certificate)], check=True, capture_output=True)
        tls = ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
        tls += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(key)]
        return [*super().prepare(), "--port", "0", *tls, "--requirepass", self.password]


class PostgresProcess(Service):
    """PostgreSQL without passwords and without fsync. A restart keeps the data."""

    stop_signal = signal.SIGINT  # closes the connections; SIGTERM would wait for them
    user = "voicecare"

    @property
    def url(self) -> str:
        return f"postgres://{self.user}@{self.address}:{self.port}/postgres"

    def prepare(self) -> Sequence[str]:
        server, initdb = _postgres_binary("postgres"), _postgres_binary("initdb")
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
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
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n")
        options = {"fsync": "off", "listen_addresses": self.address, "port": self.port, "max_connections": 200}
        options |= {"unix_socket_directories": self.folder}
        return [server, "-D", str(data), *(part for name in options for part in ("-c", f"{name}={options[name]}"))]

    def ping(self) -> None:
        with psycopg.connect(self.url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")


class S3Process(Service):
    """The server of moto, with an empty bucket after every start. `environment` has its settings for voicecare."""

    bucket = "voicecare-test"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

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
        return [sys.executable, "-m", "moto.server", "-H", self.address, "-p", str(self.port)]

    def ping(self) -> None:
        """Create the bucket, which does not exist after a start."""
        request = urllib.request.Request(f"{self.url}/{self.bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass


def binary(name: str, *folders: Path) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))
    return found or _skip_or_fail(name)


def _postgres_binary(name: str) -> str:
    """Debian installs these outside PATH, in one folder per version."""
    return binary(name, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


def _skip_or_fail(name: str) -> NoReturn:
    reason = f"{name} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
