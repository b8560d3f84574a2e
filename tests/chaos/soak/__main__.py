import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from tests.bench.report import table
from tests.chaos.cluster import Address, Cluster, Listener
from tests.chaos.soak import checks
from tests.chaos.soak.checks import Check, Idle
from tests.chaos.soak.devices import Clinician, Record, SoakDevice
from tests.chaos.soak.disturbances import CREDITS, Disturbances
from tests.cloning.samples import recordings
from tests.sandbox import SandboxProcess
from tests.services import PostgresProcess, RedisProcess

BUDGET = 10_000_000  # of every second patient
STOP_S = 150.0
SAMPLE_INTERVAL_S = 5.0
UPLOAD_INTERVAL_S = 120.0
USER = {"username": "soak", "password": "soak-soak-soak"}
ADD_USER = f"from django.contrib.auth.models import User; User.objects.create_superuser(**{USER})"
BUDGETS = """UPDATE patients_patient SET monthly_character_budget = %s
WHERE id IN (SELECT id FROM patients_patient ORDER BY id LIMIT %s)"""


async def load(
    listeners: list[Listener], disturbances: Disturbances, seconds: float
) -> tuple[Record, list[tuple[float, float]]]:
    """Run the load and the disturbances. Return what was seen, and the memory of the steady process over the time."""
    record, memory = Record(), []
    wards = [SoakDevice(one, lambda: [s.ws for s in disturbances.running()], record) for one in listeners]
    token, patients = await log_in(disturbances.steady.url), [one.patient for one in listeners]
    clinician = Clinician(token, patients, lambda: [s.url for s in disturbances.running()], record)
    recording = await asyncio.to_thread(lambda: recordings.encoded(recordings.speech(65), "libmp3lame"))
    tasks = [asyncio.create_task(device.run()) for device in wards]
    tasks.append(asyncio.create_task(clinician.run(recording, UPLOAD_INTERVAL_S)))
    began = time.monotonic()

    async def watch_memory() -> None:
        while True:
            memory.append((time.monotonic() - began, checks.memory_mb(disturbances.steady.process.pid)))
            await asyncio.sleep(SAMPLE_INTERVAL_S)

    watching = asyncio.create_task(watch_memory())
    await disturbances.run(began + seconds)
    watching.cancel()
    for one in (*wards, clinician):
        one.stopping = True
    _, late = await asyncio.wait(tasks, timeout=STOP_S)
    for task in late:
        task.cancel()
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]  # a defect of the load
    return record, memory


async def log_in(url: str) -> str:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/v1/auth/token/", json=USER) as reply,
    ):
        return str((await reply.json())["token"])


def run(cluster: Cluster, devices: int, seconds: float) -> list[Check]:
    cluster.sandbox.settings(concurrency=30, first_byte_ms=60, character_limit=CREDITS, voice_limit=1000)
    listeners = cluster.seed(devices)
    cluster.run_code(ADD_USER)
    cluster.execute(BUDGETS, BUDGET, devices // 2)
    servers = [cluster.start_server() for _ in range(2)]
    cluster.start_worker()
    beat = cluster.start_beat()
    try:
        before = [Idle.of(server) for server in servers]
        disturbances = Disturbances(cluster)
        record, memory = asyncio.run(load(listeners, disturbances, seconds))
        checks.settle(cluster)
        running = {"steady": (disturbances.steady, before[0]), "other": (disturbances.other, before[1])}
        found = [
            *checks.deliveries(cluster, record),
            *checks.endings(record, checks.rows_of_devices(cluster), disturbances.kills),
            *checks.left_behind(cluster, running),
            checks.memory(memory),
        ]
    finally:
        beat.send_signal(signal.SIGTERM)
        beat.wait()
        cluster.close()
    cluster.run_code(checks.SETTLE)
    print_load(record, disturbances)
    return [*found, *checks.totals(cluster)]


def print_load(record: Record, disturbances: Disturbances) -> None:
    figures = {
        "connections": record.connections,
        "closed by the server, by code": record.closes,
        "refused frames, by code": record.refusals,
        "speeches over REST": record.rest_speeches,
        "recordings accepted": record.uploads,
        "disturbances": dict(disturbances.counts),
    }
    print(table(("load", "number"), [[name, str(value)] for name, value in figures.items()]), end="\n\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description="Mixed load with failures.")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--database-url", help="an own PostgreSQL database, which is emptied; default: a new server")
    parser.add_argument("--redis-url", help="an own Redis database; default: a new server")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random choices")
    parser.add_argument("--keep", action="store_true", help="keep the logs of the processes")
    asked = parser.parse_args()
    random.seed(asked.seed)
    print(f"{asked.minutes:g} minutes, {asked.devices} devices, seed {asked.seed}", flush=True)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="voicecare-soak-"))
        (folder / "tmp").mkdir()
        os.environ.update(TMPDIR=str(folder / "tmp"), QUOTA_POLL_S="3")
        postgres = Address(asked.database_url) if asked.database_url else stack.enter_context(PostgresProcess())
        redis = Address(asked.redis_url) if asked.redis_url else stack.enter_context(RedisProcess())
        sandbox = SandboxProcess()
        stack.callback(sandbox.process.kill)
        found = run(Cluster(folder, sandbox, postgres, redis), asked.devices, asked.minutes * 60)
        return checks.report(found, folder, keep=asked.keep)


if __name__ == "__main__":
    sys.exit(main())
