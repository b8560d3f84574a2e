"""`python -m tests.chaos.two_hosts`: two machines, one of which is cut off and dies. A command, not run by pytest.

Each host is a network namespace with two web processes and a worker. PostgreSQL, Redis, S3, the sandbox and nginx are
on a third machine, beat on the second host. Devices talk all the time, and texts are queued over REST. The first host
loses its way to Redis, to PostgreSQL, and to both: packets vanish, nothing is refused. Then it dies with all its
processes, in the middle of a transaction, and comes back a while later with its disk.

Prints what was heard in each phase and what must hold at the end, and exits with 1 if something does not. Needs root.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.report import table
from tests.chaos import network, ward
from tests.chaos.cluster import Cluster, Listener
from tests.chaos.network import POSTGRES, PROVIDER, REDIS, Host
from tests.chaos.soak import checks
from tests.chaos.soak.checks import Check
from tests.chaos.ward import ADD_USER, HEADS, Ward
from tests.deploy.proxies import NginxProxy
from tests.sandbox import SandboxProcess
from tests.services import PostgresProcess, RedisProcess, S3Process

WEB_PROCESSES = 2
CREDITS = 10_000_000
HOLD_LOCK = """
import time
from django.db import connection, transaction
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("SELECT id FROM usage_dailyusage FOR UPDATE")
    print("held", flush=True)
    time.sleep(3600)
"""


async def disturb(ward: Ward, first: Host, cluster: Cluster, asked: argparse.Namespace) -> None:
    async with ward.phase("nothing happens", asked.afterwards_s):
        pass
    for name, addresses in (
        ("no packets to Redis", (REDIS,)),
        ("no packets to PostgreSQL", (POSTGRES,)),
        ("no packets to either", (REDIS, POSTGRES)),
    ):
        async with ward.phase(f"{name} for {asked.partition_s:g} s", asked.afterwards_s):
            with network.partition(first, *addresses):
                await asyncio.sleep(asked.partition_s)
    holding = await asyncio.to_thread(hold_lock, cluster)
    with network.partition(first, network.EVERYTHING):
        async with ward.phase("the host dies", asked.dead_s) as phase:
            first.kill_processes()
            phase.over_at = ward.killed_at = time.monotonic()
        holding.wait()
    ports = [server.port for server in cluster.servers]
    async with ward.phase("the host comes back", asked.afterwards_s):
        for port in ports:
            await asyncio.to_thread(cluster.start_server, port)
        cluster.start_worker()


def hold_lock(cluster: Cluster) -> "subprocess.Popen[str]":
    """Lock the usage of today, as the recorder does for moments. Return the process that holds the lock."""
    holding = cluster.start_code(HOLD_LOCK)
    assert holding.stdout is not None
    while holding.stdout.readline() != "held\n":
        pass  # a line of the log
    return holding


async def run_load(
    listeners: list[Listener], proxy: NginxProxy, first: Host, cluster: Cluster, asked: argparse.Namespace
) -> Ward:
    async with ward.talking(listeners, proxy) as found:
        await disturb(found, first, cluster, asked)
    return found


def run(asked: argparse.Namespace, folder: Path, stack: ExitStack) -> list[Check]:
    first, second = network.create_network(("first", "second"))
    postgres = stack.enter_context(PostgresProcess(POSTGRES))
    redis = stack.enter_context(RedisProcess(address=REDIS))
    s3 = stack.enter_context(S3Process(PROVIDER))
    sandbox = SandboxProcess({"SANDBOX_HOST": PROVIDER})
    stack.callback(sandbox.process.kill)
    sandbox.settings(concurrency=60, first_byte_ms=60, character_limit=CREDITS)
    shared = {**s3.environment, "PHRASE_STORE": "s3"}
    clusters = []
    for host in (first, second):
        (folder / host.name).mkdir()
        clusters.append(Cluster(folder / host.name, sandbox, postgres, redis, place=host.place, settings=shared))
        stack.callback(clusters[-1].close)
    listeners = clusters[0].seed(asked.devices)
    clusters[0].run_code(ADD_USER)
    for cluster in clusters:
        for _ in range(WEB_PROCESSES):
            cluster.start_server()
        cluster.start_worker()
    beat = clusters[1].start_beat()
    stack.callback(beat.kill)
    web = [f"{server.address}:{server.port}" for cluster in clusters for server in cluster.servers]
    proxy = stack.enter_context(NginxProxy(*web))
    found = asyncio.run(run_load(listeners, proxy, first, clusters[0], asked))
    beat.kill()
    for cluster in clusters:
        cluster.close()
    for cluster in clusters:
        cluster.run_code(checks.SETTLE)
    print(table(HEADS, found.rows()), table(("", ""), found.facts()), sep="\n\n", end="\n\n")
    return [*found.checks(), *ward.accounts(clusters[0], found)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.two_hosts", description="One of two hosts fails.")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--partition-s", type=float, default=10.0)
    parser.add_argument("--dead-s", type=float, default=30.0, help="seconds until the dead host comes back")
    parser.add_argument("--afterwards-s", type=float, default=10.0, help="seconds of each phase after its disturbance")
    parser.add_argument("--keep", action="store_true", help="keep the logs of the processes")
    asked = parser.parse_args()
    if reason := network.missing_tool():
        print(reason)
        return 2
    network.run_isolated()
    folder = Path(tempfile.mkdtemp(prefix="voicecare-two-hosts-"))
    with ExitStack() as stack:
        found = run(asked, folder, stack)
    return checks.report(found, folder, keep=asked.keep)


if __name__ == "__main__":
    sys.exit(main())
