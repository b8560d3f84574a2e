"""`python -m tests.bench [--quick] [--only NAME]`: measures and prints tables.

With DATABASE_URL (a PostgreSQL server) and REDIS_URL, the server is measured with them, too.
"""

import argparse
import asyncio
import gc
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import NoReturn

from tests.bench import faults, report, scenarios
from tests.bench.processes import Rig


@dataclass(frozen=True)
class Plan:
    """The amount of measurements. `delays` are the upstream's times to the first byte, in seconds."""

    rounds_alone: int
    utterances: int
    delays: tuple[float, ...]
    rounds_of_crowd: int
    crowds: tuple[int, ...]
    crowd_delay: float
    processes: int
    idle: int
    fault_rounds: int


FULL = Plan(
    rounds_alone=10,
    utterances=20,
    delays=(0, 0.075),
    rounds_of_crowd=5,
    crowds=(20, 200),
    crowd_delay=0.075,
    processes=3,
    idle=200,
    fault_rounds=10,
)
QUICK = replace(FULL, delays=(0,), rounds_of_crowd=2, crowds=(50,), processes=1, idle=50, fault_rounds=3)

Measure = Callable[[Rig, Plan], Awaitable[str]]


async def alone(rig: Rig, plan: Plan) -> str:
    measured = {
        _title(1, delay): await scenarios.one_after_another(rig, plan.utterances, plan.rounds_alone, delay)
        for delay in plan.delays
    }
    return f"{report.streams(measured)}\n\n{report.ratios(measured)}"


async def crowd(rig: Rig, plan: Plan) -> str:
    delay = plan.crowd_delay
    measured = {
        _title(count, delay): await scenarios.concurrently(rig, count, plan.rounds_of_crowd, delay)
        for count in plan.crowds
    }
    return f"{report.streams(measured)}\n\n{report.ratios(measured)}"


def _title(speakers: int, delay: float) -> str:
    return f"@{speakers}, provider {delay * 1000:.0f} ms"


async def fresh(rig: Rig, plan: Plan) -> str:
    measured = {
        relay: [await scenarios.fresh_process(rig, relay, 0) for _ in range(plan.processes)] for relay in rig.relays
    }
    return report.fresh(measured)


async def cache(rig: Rig, plan: Plan) -> str:
    """Measure cache hits, also with Redis if there is a Redis server."""
    measured = await scenarios.cache_hits(rig, "ours", "file")
    if "production" in rig.relays:
        measured += await scenarios.cache_hits(rig, "production", "redis")
    return report.cache(measured)


async def memory(rig: Rig, plan: Plan) -> str:
    idle = {relay: await scenarios.idle_kb(rig, relay, plan.idle) for relay in rig.relays}
    stuck = {relay: await scenarios.stuck_kb(rig, relay) for relay in rig.relays}
    return report.memory(idle, stuck)


async def hang_up(rig: Rig, plan: Plan) -> str:
    return report.hung_up(await scenarios.hang_up(rig, plan.crowds[0]))


async def fault(rig: Rig, plan: Plan) -> str:
    return await faults.measure(rig, plan.fault_rounds)


MEASURES: dict[str, Measure] = {
    "alone": alone,
    "crowd": crowd,
    "fresh": fresh,
    "cache": cache,
    "memory": memory,
    "hang_up": hang_up,
    "faults": fault,
}


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    plan = QUICK if arguments.quick else FULL
    python = platform.python_version()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {os.getloadavg()[0]:.1f}")
    servers = (os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", ""))
    with Rig(max(*plan.crowds, plan.idle), *servers) as rig:
        gc.freeze()
        asyncio.run(_measure(rig, plan, arguments.only or list(MEASURES)))


async def _measure(rig: Rig, plan: Plan, names: list[str]) -> None:
    for name in names:
        print(f"\n{await MEASURES[name](rig, plan)}", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}; upstream at the end: {rig.upstream_stats()}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes; the figures are rough")
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    return parser.parse_args()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """On SIGTERM, unwind as on Ctrl-C, so that no process is left running."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
