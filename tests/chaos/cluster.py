"""The processes of one outage test. The database is read with plain SQL, independently of the tested code."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.sandbox import SandboxProcess
from tests.server import HERE, Place, ServerProcess, environment
from tests.services import PostgresProcess, RedisProcess

LONG_TIMEOUTS = {"FIRST_CHUNK_TIMEOUT_S": 20, "STALL_TIMEOUT_S": 20, "BUSY_WAIT_S": 60}
"""A busy test machine must not look like a failing provider. So any lost voice has another cause."""


@dataclass(frozen=True)
class Listener:
    """One seeded patient: the token of a device, and the ids of the server-started speeches, in order."""

    patient: str
    token: str
    deliveries: list[str]


@dataclass(frozen=True)
class Address:
    """A PostgreSQL or Redis server that somebody else has started."""

    url: str


@dataclass
class Cluster:
    folder: Path
    sandbox: SandboxProcess
    postgres: PostgresProcess | Address
    redis: RedisProcess | Address
    servers: list[ServerProcess] = field(default_factory=list)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    place: Place = HERE
    settings: dict[str, str] = field(default_factory=dict)  # of all processes, in addition to those below

    def start_server(self, port: int | None = None, **settings: object) -> ServerProcess:
        """Start a server with these settings in addition to those of the cluster."""
        log = self.folder / f"server-{len(self.servers)}.log"
        env = {**self._environment(), **environment(**settings)}
        self.servers.append(ServerProcess(env, log, "--proxy-headers", port=port, place=self.place))
        return self.servers[-1]

    def start_worker(self) -> None:
        """Start a worker as the Procfile does: a parent process and the children that do the work."""
        self.workers.append(self._start_celery(f"worker-{len(self.workers)}.log", "worker", "--concurrency", "2"))

    def start_beat(self) -> "subprocess.Popen[bytes]":
        """Start beat. The caller ends it."""
        return self._start_celery("beat.log", "beat")

    def _start_celery(self, log_name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log_name).open("ab") as log:
            return subprocess.Popen(
                [*self.place.prefix, self.place.python, "-m", "celery", "-A", "voicecare", *arguments],
                cwd=self.place.checkout,
                env={**os.environ, **self._environment()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_worker(self) -> None:
        """Kill the latest worker and its children, also in the middle of a task."""
        os.killpg(self.workers[-1].pid, signal.SIGKILL)
        self.workers[-1].wait()

    def enqueue_task(self, task: str) -> None:
        """Enqueue a task, as a web process does."""
        self.run_code(f"from voicecare.core import task_queue; task_queue.enqueue_on_commit({task!r})")

    def run_code(self, code: str) -> None:
        """Run Python code in a process with the same settings as the others."""
        self.manage("shell", "-v", "0", "-c", code)

    def start_code(self, code: str) -> "subprocess.Popen[str]":
        """Start a process that runs Python code where the other processes run. Its output goes to a pipe."""
        command = [*self.place.prefix, self.place.python, "manage.py", "shell", "-v", "0", "-c", code]
        env = {**os.environ, **self._environment()}
        return subprocess.Popen(command, cwd=self.place.checkout, env=env, stdout=subprocess.PIPE, text=True)

    def manage(self, *arguments: str) -> None:
        """Run a management command with the same settings as the processes."""
        command = [self.place.python, "manage.py", *arguments]
        subprocess.run(command, cwd=self.place.checkout, env={**os.environ, **self._environment()}, check=True)

    def seed(self, patients: int, deliveries: int = 0) -> list[Listener]:
        command = [self.place.python, "-m", "tests.chaos.seed", str(patients), str(deliveries)]
        env = {**os.environ, **self._environment()}
        made = subprocess.run(command, cwd=self.place.checkout, env=env, check=True, stdout=subprocess.PIPE, text=True)
        *_, result = made.stdout.splitlines()  # log lines come before it
        return [Listener(**listener) for listener in json.loads(result)]

    def execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.postgres.url) as connection:
            connection.execute(statement, values)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url) as connection:
            return connection.execute(statement, values).fetchall()

    def states(self, listeners: list[Listener]) -> dict[str, int]:
        """Return the number of deliveries of these patients in each state."""
        statement = (
            "SELECT state, count(*) FROM tts_utterance WHERE patient_id = ANY(%s) AND origin = 'server' GROUP BY 1"
        )
        return dict(self.query(statement, [listener.patient for listener in listeners]))

    def ledger_characters(self) -> dict[str, int]:
        """Return the characters of the ledger by provider request id."""
        return dict(self.query("SELECT request_id, characters FROM usage_usageevent WHERE request_id <> ''"))

    def conversation_ledger_characters(self) -> int:
        """Return the characters of the ledger that belong to conversations."""
        return self.query("SELECT coalesce(sum(characters), 0) FROM usage_usageevent WHERE conversation IS NOT NULL")[
            0
        ][0]

    def conversation_characters(self) -> int:
        """Return the sum of the counters of all conversations."""
        return self.query("SELECT coalesce(sum(tts_characters_used), 0) FROM conversations")[0][0]

    def billed_requests(self) -> dict[str, dict[str, Any]]:
        """Return the provider's own records of billed requests, by request id."""
        return {record["request_id"]: record for record in self.sandbox.requests() if record["billed"]}

    def close(self) -> None:
        for server in self.servers:
            server.stop()
        if self.workers and self.workers[-1].poll() is None:
            self.kill_worker()

    def _environment(self) -> dict[str, str]:
        common = environment(
            DATABASE_URL=self.postgres.url,
            REDIS_URL=self.redis.url,
            ELEVENLABS_BASE_URL=self.sandbox.url,
            VOICECARE_DATA_DIR=self.folder,
            DEBUG=0,
            SECRET_KEY="chaos",
            ALLOWED_HOSTS=f"127.0.0.1,localhost,{self.place.address}",
            EMAIL_URL="console:",
            PHRASE_STORE="file",
            DEVICE_CHARACTERS_PER_MINUTE=1_000_000,
            **LONG_TIMEOUTS,
        )
        return {**common, **self.settings}
