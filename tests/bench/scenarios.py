"""The measured situations. Each function runs one situation and returns figures, without a verdict."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median, quantiles

from tests.bench.load import DIRECT, BenchClient, ReceivedUtterance, VoicecareClient, open_clients
from tests.bench.processes import Child, Rig
from tests.bench.seed import PHRASES
from tests.bench.sound import BODY_BYTES, fresh_text
from tests.bench.stuck import StuckDevice

SPREAD_S = 4.0  # the starts of streams are spread over this time
LATE_S = 0.1  # a device's own buffer hides this delay
PAUSE_S = 0.3  # the pause between two speeches of a fresh process
BACKGROUND_WRITES_S = 0.4  # the server's background writes take less than this
STUCK_BODY_BYTES = 16 * 1024 * 1024
STUCK_S = 4.0
MAX_POLLS = 300
POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Block:
    """The utterances of one target in one round."""

    utterances: list[ReceivedUtterance]
    cpu_s: float

    @property
    def p50(self) -> float:
        return median(self._first())

    @property
    def p95(self) -> float:
        return quantiles(self._first(), n=20, method="inclusive")[-1]

    @property
    def wrong(self) -> int:
        return sum(not one.is_complete for one in self.utterances)

    @property
    def late(self) -> int:
        return sum(one.late_s > LATE_S for one in self.utterances)

    @property
    def reads(self) -> float:
        return median(len(one.reads) for one in self.utterances)

    def _first(self) -> list[float]:
        return [one.first_ms for one in self.utterances if one.reads] or [float("nan")]


Round = dict[str, Block]


async def one_after_another(rig: Rig, utterances: int, rounds: int, ttfb: float) -> list[Round]:
    """Measure one speaker at full speed."""
    rig.set_upstream(ttfb=ttfb, pace=0)
    return await _rounds(rig, 1, rounds, utterances)


async def concurrently(rig: Rig, streams: int, rounds: int, ttfb: float) -> list[Round]:
    """Measure many speakers in real time."""
    rig.set_upstream(ttfb=ttfb, pace=1)
    return await _rounds(rig, streams, rounds, 1)


async def _rounds(rig: Rig, speakers: int, rounds: int, utterances: int) -> list[Round]:
    """The targets take turns, in another order each round. Other load on the machine affects all of them."""
    targets = (DIRECT, *rig.relays)
    async with AsyncExitStack() as stack:
        speaking = {each: await stack.enter_async_context(open_clients(rig, each, speakers)) for each in targets}
        for target in targets:
            await speaking[target][0].speak(fresh_text())
        return [
            {target: await _block(rig, target, speaking[target], utterances) for target in _turns(targets, number)}
            for number in range(rounds)
        ]


def _turns(targets: tuple[str, ...], number: int) -> tuple[str, ...]:
    first = number % len(targets)
    return targets[first:] + targets[:first]


async def _block(rig: Rig, target: str, speaking: list[BenchClient], utterances: int) -> Block:
    before = _cpu_s(rig, target)
    gap = SPREAD_S / len(speaking)
    said = await asyncio.gather(*(_say_many(line, n * gap, utterances) for n, line in enumerate(speaking)))
    await asyncio.sleep(BACKGROUND_WRITES_S)
    return Block([heard for many in said for heard in many], _cpu_s(rig, target) - before)


async def _say_many(line: BenchClient, wait: float, utterances: int) -> list[ReceivedUtterance]:
    await asyncio.sleep(wait)
    return [await line.speak(fresh_text()) for _ in range(utterances)]


def _cpu_s(rig: Rig, target: str) -> float:
    return (rig.upstream if target == DIRECT else rig.relays[target]).cpu_s()


@dataclass(frozen=True)
class Fresh:
    """Milliseconds to the first audio in a new process.

    Of its first speech, of later speeches after the same pause, and of speeches without a pause.
    """

    first: float
    later: float
    at_speed: float


async def fresh_process(rig: Rig, target: str, ttfb: float) -> Fresh:
    rig.set_upstream(ttfb=ttfb, pace=0)
    with rig.start(target) as child:
        async with open_clients(rig, target, 1, child.url) as (line,):
            first, *later = [(await _say_many(line, PAUSE_S, 1))[0] for _ in range(11)]
            at_speed = await _say_many(line, 0, 20)
    return Fresh(first.first_ms, median(one.first_ms for one in later), median(one.first_ms for one in at_speed))


async def idle_kb(rig: Rig, target: str, connections: int) -> float:
    """Return the memory of one idle connection in KB (for ours: with an open conversation)."""
    with rig.start(target) as child:
        async with open_clients(rig, target, connections, child.url):
            pass  # the first connections load code and reserve memory once
        await asyncio.sleep(1)
        before = child.rss_kb()
        async with open_clients(rig, target, connections, child.url):
            await asyncio.sleep(1)
            return (child.rss_kb() - before) / connections


@dataclass(frozen=True)
class Cache:
    """Milliseconds to the first audio of a cached phrase, and of the round trip of an empty message.

    `layer` names the place of the phrase in the cache.
    """

    layer: str
    hit: float
    echo: float
    hits: int


async def cache_hits(rig: Rig, target: str, store: str) -> list[Cache]:
    """Measure each phrase twice in a new process: first from the store, then from memory."""
    rig.set_upstream(ttfb=0, pace=0)
    with rig.start(target, PHRASE_STORE=store) as child:
        async with open_clients(rig, target, 1, child.url) as (line,):
            for phrase in PHRASES:
                await line.speak(phrase)
        await asyncio.sleep(BACKGROUND_WRITES_S)
    with rig.start(target, PHRASE_STORE=store) as child:
        async with open_clients(rig, target, 1, child.url) as (line,):
            assert isinstance(line, VoicecareClient)
            return [await _hits(rig, line, layer) for layer in (store, f"memory, before {store}")]


async def _hits(rig: Rig, line: VoicecareClient, layer: str) -> Cache:
    asked = rig.upstream_stats()["requests"]
    heard, echoes = [], []
    for phrase in PHRASES:
        echoes.append(await line.ping())
        heard.append(await line.speak(phrase))
    missed = rig.upstream_stats()["requests"] - asked
    return Cache(layer, median(one.first_ms for one in heard), median(echoes), len(PHRASES) - missed)


async def stuck_kb(rig: Rig, target: str) -> int:
    """Return the growth of the server in KB for one device that stops reading while a large response is sent to it."""
    rig.set_upstream(ttfb=0, pace=0, size=BODY_BYTES)
    with rig.start(target) as child:
        async with open_clients(rig, target, 1, child.url) as (line,):
            await _say_many(line, 0, 3)
        rig.set_upstream(size=STUCK_BODY_BYTES)
        with StuckDevice(child.port, next(iter(rig.known[target].tokens), None)) as device:
            before = child.rss_kb()
            device.request_speech()
            largest = await _largest_rss_kb(child)
        rig.set_upstream(size=BODY_BYTES)
    return largest - before


async def _largest_rss_kb(child: Child) -> int:
    largest, until = 0, time.monotonic() + STUCK_S
    while time.monotonic() < until:
        largest = max(largest, child.rss_kb())
        await asyncio.sleep(0.1)
    return largest


@dataclass(frozen=True)
class HungUp:
    """Speakers that disconnect in the middle of a word: how many responses the upstream saw dropped, and how soon."""

    speakers: int
    cancelled: int
    seconds: float


async def hang_up(rig: Rig, speakers: int) -> HungUp:
    rig.set_upstream(ttfb=0, pace=1)
    before = rig.upstream_stats()["cancelled"]
    async with open_clients(rig, "ours", speakers) as speaking:
        said = [asyncio.create_task(line.speak(fresh_text())) for line in speaking]
        await asyncio.sleep(1)
        began = time.monotonic()
        await asyncio.gather(*(line.close() for line in speaking))
        await _until_nothing_is_open(rig)
        seconds = time.monotonic() - began
        await asyncio.gather(*said)
    return HungUp(speakers, rig.upstream_stats()["cancelled"] - before, seconds)


async def _until_nothing_is_open(rig: Rig) -> None:
    for _ in range(MAX_POLLS):
        if not rig.upstream_stats()["open"]:
            return
        await asyncio.sleep(POLL_INTERVAL_S)
