"""The processes of one such test, and what their database says: asked in SQL, past all that is tested here."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment
from tests.services import PostgresProcess, RedisProcess

LONG_TIMEOUTS = {"FIRST_CHUNK_TIMEOUT_S": 20, "STALL_TIMEOUT_S": 20, "BUSY_WAIT_S": 60}
"""A busy machine is no failure of the provider's: whoever loses a voice here has lost it for another cause."""


@dataclass(frozen=True)
class Listener:
    """One patient of the database: the token of a device, and what the server has to say, in order."""

    patient: str
    token: str
    deliveries: list[str]


@dataclass
class Cluster:
    folder: Path
    sandbox: SandboxProcess
    postgres: PostgresProcess
    redis: RedisProcess
    servers: list[ServerProcess] = field(default_factory=list)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_server(self) -> ServerProcess:
        log = self.folder / f"server-{len(self.servers)}.log"
        self.servers.append(ServerProcess(self._environment(), log))
        return self.servers[-1]

    def start_worker(self) -> None:
        """As the Procfile does: a parent, and the children that do the work."""
        with (self.folder / f"worker-{len(self.workers)}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "voicecare", "worker", "--concurrency", "2"],
                cwd=ROOT,
                env={**os.environ, **self._environment()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)

    def kill_worker(self) -> None:
        """The last one, with its children and whatever they were doing."""
        os.killpg(self.workers[-1].pid, signal.SIGKILL)
        self.workers[-1].wait()

    def enqueue_task(self, task: str) -> None:
        """A hint, as a web process gives it."""
        self.run_code(f"from voicecare.core import task_queue; task_queue.enqueue_on_commit({task!r})")

    def run_code(self, code: str) -> None:
        """In a process that has the settings of all others."""
        command = [sys.executable, "manage.py", "shell", "-c", code]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **self._environment()}, check=True)

    def seed(self, patients: int, deliveries: int = 0) -> list[Listener]:
        command = [sys.executable, "-m", "tests.chaos.seed", str(patients), str(deliveries)]
        made = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **self._environment()}, check=True, stdout=subprocess.PIPE, text=True
        )
        return [Listener(**listener) for listener in json.loads(made.stdout)]

    def execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.postgres.url) as connection:
            connection.execute(statement, values)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url) as connection:
            return connection.execute(statement, values).fetchall()

    def states(self, listeners: list[Listener]) -> dict[str, int]:
        """How many deliveries of these patients are in each state."""
        statement = (
            "SELECT state, count(*) FROM tts_utterance WHERE patient_id = ANY(%s) AND origin = 'server' GROUP BY 1"
        )
        return dict(self.query(statement, [listener.patient for listener in listeners]))

    def ledger_characters(self) -> dict[str, int]:
        """Characters by the provider's request id, as the ledger has them."""
        return dict(self.query("SELECT request_id, characters FROM usage_usageevent WHERE request_id <> ''"))

    def conversation_ledger_characters(self) -> int:
        """Characters of the ledger that belong to a conversation."""
        return self.query("SELECT coalesce(sum(characters), 0) FROM usage_usageevent WHERE conversation IS NOT NULL")[
            0
        ][0]

    def conversation_characters(self) -> int:
        """Characters of all conversations together."""
        return self.query("SELECT coalesce(sum(tts_characters_used), 0) FROM conversations")[0][0]

    def billed_requests(self) -> dict[str, dict[str, Any]]:
        """The provider's own records of what it charges for, by request id."""
        return {record["request_id"]: record for record in self.sandbox.requests() if record["billed"]}

    def close(self) -> None:
        for server in self.servers:
            server.stop()
        if self.workers and self.workers[-1].poll() is None:
            self.kill_worker()

    def _environment(self) -> dict[str, str]:
        return environment(
            DATABASE_URL=self.postgres.url,
            REDIS_URL=self.redis.url,
            ELEVENLABS_BASE_URL=self.sandbox.url,
            VOICECARE_DATA_DIR=self.folder,
            SECRET_KEY="chaos",
            PHRASE_STORE="file",
            DEVICE_CHARACTERS_PER_MINUTE=1_000_000,
            **LONG_TIMEOUTS,
        )
