"""`python -m tests.chaos.rolling_deploy --from REV`: an upgrade while devices talk. A command, not run by pytest.

Two web processes behind nginx, a worker and beat run the version REV of this repository, in a checkout and a virtual
environment of its own. Devices talk all the time, and texts are queued over REST. Then this version migrates the
database, and the processes are replaced one after the other: SIGTERM, wait for the end, start again on the same port,
wait for `/readyz`. Without `--from`, this version is replaced by itself.

Prints what was heard in each phase and what must hold at the end, and exits with 1 if something does not.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.bench.report import table
from tests.chaos import ward
from tests.chaos.cluster import Cluster, Listener
from tests.chaos.soak import checks
from tests.chaos.soak.checks import Check
from tests.chaos.ward import ADD_USER, HEADS, Ward
from tests.deploy.proxies import NginxProxy
from tests.sandbox import SandboxProcess
from tests.server import HERE, ROOT, Place
from tests.services import PostgresProcess, RedisProcess

WEB_PROCESSES = 2
CREDITS = 10_000_000
AFTERWARDS_S = 3.0
BACK_S = 5.0
STOP_S = 30.0
GOING_AWAY = "closed 4012"


def check_out(revision: str, folder: Path) -> Place:
    """Create a checkout of the revision with a virtual environment."""
    checkout = folder / "previous"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    subprocess.run(["git", "checkout", "-q", revision], cwd=checkout, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(checkout / ".venv")], check=True)
    python = checkout / ".venv/bin/python"
    subprocess.run([python, "-m", "pip", "-q", "install", "-r", "requirements-dev.txt"], cwd=checkout, check=True)
    return Place(checkout=checkout, python=str(python))


async def deploy(ward: Ward, old: Cluster, new: Cluster, beat: "subprocess.Popen[bytes]") -> None:
    """Replace all processes of `old` by those of `new`."""
    async with ward.phase("nothing happens", AFTERWARDS_S):
        pass
    async with ward.phase("migration", AFTERWARDS_S):
        await asyncio.to_thread(new.manage, "migrate", "--noinput", "-v", "0")
    for number, server in enumerate(old.servers, start=1):
        async with ward.phase(f"web process {number} is replaced", AFTERWARDS_S):
            server.signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait, STOP_S)
            await asyncio.to_thread(new.start_server, server.port)
    async with ward.phase("worker and beat are replaced", AFTERWARDS_S):
        for process in (old.workers[-1], beat):
            process.terminate()
            await asyncio.to_thread(process.wait, STOP_S)
        new.start_worker()


async def run_load(listeners: list[Listener], proxy: NginxProxy, *clusters: Cluster) -> Ward:
    old, new = clusters
    beat = old.start_beat()
    try:
        async with ward.talking(listeners, proxy) as found:
            await deploy(found, old, new, beat)
    finally:
        beat.kill()
    return found


def run(devices: int, place: Place, folder: Path, stack: ExitStack) -> tuple[Ward, list[Check]]:
    """Run the deployment from the version at `place` to this one, print what was heard, and return what must hold."""
    postgres = stack.enter_context(PostgresProcess())
    redis = stack.enter_context(RedisProcess())
    sandbox = SandboxProcess()
    stack.callback(sandbox.process.kill)
    sandbox.settings(concurrency=60, first_byte_ms=60, character_limit=CREDITS)
    (folder / "data").mkdir()
    old = Cluster(folder / "data", sandbox, postgres, redis, place=place)
    new = replace(old, place=HERE, servers=[], workers=[])
    for cluster in (old, new):
        stack.callback(cluster.close)
    listeners = old.seed(devices)
    old.run_code(ADD_USER)
    for _ in range(WEB_PROCESSES):
        old.start_server()
    old.start_worker()
    proxy = stack.enter_context(NginxProxy(*(f"{server.address}:{server.port}" for server in old.servers)))
    found = asyncio.run(run_load(listeners, proxy, old, new))
    for cluster in (old, new):
        cluster.close()
    new.run_code(checks.SETTLE)
    print(table(HEADS, found.rows()), table(("", ""), found.facts()), sep="\n\n", end="\n\n")
    return found, [*found.checks(), *undisturbed(found), *ward.accounts(new, found)]


def undisturbed(found: Ward) -> list[Check]:
    gaps = [gap for device in found.devices for gap in device.gaps]
    sentences = [sentence for device in found.devices for sentence in device.sentences]
    return [
        Check.none("connections that did not end with 4012", [gap for gap in gaps if gap.end != GOING_AWAY]),
        Check.none("sentences whose sound began twice", [s for s in sentences if s.begun > 1]),
        Check.none("sentences in another voice", [s for s in sentences if s.source != "live"]),
    ]


def back_in_time(found: Ward) -> Check:
    gaps = [gap for device in found.devices for gap in device.gaps]
    return Check.none(f"devices not back within {BACK_S:g} s", [gap for gap in gaps if ward.away_s(gap) > BACK_S])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling_deploy", description="An upgrade under load.")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--from", dest="revision", help="the previous version; default: this one")
    parser.add_argument("--keep", action="store_true", help="keep the logs of the processes")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="voicecare-deploy-"))
    with ExitStack() as stack:
        place = check_out(asked.revision, folder) if asked.revision else HERE
        devices, found = run(asked.devices, place, folder, stack)
    found.append(back_in_time(devices))
    return checks.report(found, folder, keep=asked.keep)


if __name__ == "__main__":
    sys.exit(main())
