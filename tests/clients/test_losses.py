"""The Python client over many losses of the network and deaths of the server: no speech is lost, none is heard twice.

Each loss falls into a chosen moment: the middle of a handshake, of a speech, of an acknowledgement, or any other.
KILLS=20 in the environment kills the server more often: each death costs the processor time of a start.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.clients.lossy_proxy import Loss, LossyProxy, Moment, Way, lossy_proxy
from tests.conftest import Member
from tests.e2e.provider import repeat_request
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.waiting import eventually
from tts.models import Utterance
from tts.outbox import store
from voicecare_client import Device, PlayerFailed

FORMAT, BYTES_PER_S = "pcm_16000", 32_000
SPEED = 3  # of the players: a sentence takes about a second
PATIENTS, LOSSES = 4, 20
KILLS = int(os.environ.get("KILLS", "5"))
SEED = 20261130
DELIVERY_INTERVAL_S = 2.0  # longer than one takes to be played, also between own speeches
SETTLED_S = 60.0
UNWRITTEN_S = 3.0  # a process may not have written the end of a speech of this time before it was killed
PATIENT_SERVER = {"FIRST_CHUNK_TIMEOUT_S": 20, "STALL_TIMEOUT_S": 20, "BUSY_WAIT_S": 60, "HEDGE_SHARE": 0}
"""A busy machine must not look like a failing provider: each text has one sound."""

pytestmark = pytest.mark.timeout(300 + 30 * KILLS)  # with all starts, on a busy machine

_texts = (
    f"The {thing} is on the {place} beside the {colour} {neighbour}, as always."
    for thing, place, colour, neighbour in itertools.product(
        ("cup", "book", "radio", "letter", "basket", "lamp", "plate", "spoon", "hat", "key"),
        ("table", "shelf", "window sill", "chair", "cupboard", "floor"),
        ("blue", "red", "green", "yellow", "white", "brown"),
        ("vase", "picture", "clock", "cushion", "bowl"),
    )
)


@dataclass
class Played:
    audio: bytearray = field(default_factory=bytearray)
    ended_at: float | None = None  # Unix time of the last sample; None: it was stopped before


@dataclass
class FastPlayer:
    """Plays SPEED times as fast as it should, and keeps what it has played."""

    played: list[Played] = field(default_factory=list)

    async def open(self, format: str) -> "FastPlayback":
        assert format == FORMAT
        self.played.append(Played())
        return FastPlayback(self.played[-1])


class FastPlayback:
    def __init__(self, played: Played) -> None:
        self._played = played
        self._stopped = asyncio.Event()

    async def write(self, audio: bytes) -> None:
        try:
            async with asyncio.timeout(len(audio) / BYTES_PER_S / SPEED):
                await self._stopped.wait()
        except TimeoutError:
            self._played.audio += audio
        else:
            raise PlayerFailed("stopped")

    async def finish(self) -> None:
        self._played.ended_at = time.time()

    async def stop(self) -> None:
        self._stopped.set()


@dataclass
class Bedside:
    """A patient who talks, with deliveries in between, until its losses are over."""

    member: Member
    proxy: LossyProxy
    device: Device
    player: FastPlayer
    said: list[str] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)

    async def talk(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            text = next(_texts)
            self.said.append(text)
            assert await self.device.speak(text) is True
            await asyncio.sleep(self.proxy.random.uniform(0, 0.5))

    async def deliver(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            text = next(_texts)
            self.delivered.append(text)
            await in_database(store.submit, self.member.patient.pk, text, expires_in_s=900, author=None)
            await asyncio.sleep(DELIVERY_INTERVAL_S)

    def rows(self) -> list[Utterance]:
        return list(Utterance.objects.filter(patient=self.member.patient).order_by("received_at"))


def planned(chooser: random.Random, ways: Sequence[Way], count: int) -> deque[Loss]:
    """Return losses of all moments in turn. A handshake is lost when the connection before it is lost."""
    moments: tuple[Moment, ...] = ("audio", "request", "ack", "response", "any")
    return deque(
        Loss(chooser.choice(ways), moment, 0 if moment in ("request", "response") else chooser.randrange(2, 12))
        for _, moment in zip(range(count), itertools.cycle(moments), strict=False)
    )


@asynccontextmanager
async def bedsides(members: Sequence[Member], proxies: Sequence[LossyProxy]) -> AsyncIterator[list[Bedside]]:
    """Yield devices that stay connected through the proxies. At the end each one ends its conversation."""
    async with AsyncExitStack() as stack:
        found = []
        for member, proxy in zip(members, proxies, strict=True):
            await stack.enter_async_context(lossy_proxy(proxy))
            player = FastPlayer()
            device = Device(proxy.url, member.token, player, format=FORMAT, greeting=False)
            found.append(Bedside(member, proxy, await stack.enter_async_context(device), player))
        yield found


async def live(beds: Sequence[Bedside]) -> None:
    """Let all of them talk until their losses are over, and until all that was said and delivered was heard."""
    async with asyncio.TaskGroup() as living:
        for bed in beds:
            plan = bed.proxy.plan
            living.create_task(bed.talk(lambda plan=plan: not plan))
            living.create_task(bed.deliver(lambda plan=plan: not plan))

    def unheard() -> list[str]:
        deliveries = (row for bed in beds for row in bed.rows() if row.origin == "server")
        return [f"{row.text} ({row.state})" for row in deliveries if row.state != "heard"]

    await eventually(lambda: in_database(unheard), SETTLED_S, wanted=lambda texts: not texts)


async def assert_heard_once(bed: Bedside, sandbox: SandboxProcess, killed_at: Sequence[float] = ()) -> None:
    """Compare what the player has played, what the device says of it, and what the server has written."""
    records = {record["text"]: record for record in sandbox.requests()}
    texts = [*bed.said, *bed.delivered]
    sounds = {await asyncio.to_thread(repeat_request, sandbox, records[text]): text for text in texts}
    assert len(sounds) == len(texts)
    ended = [played for played in bed.player.played if played.ended_at is not None]
    ended_at = {sounds[bytes(played.audio)]: played.ended_at for played in ended}  # KeyError: not the whole sound
    times = Counter(sounds[bytes(played.audio)] for played in ended)
    assert times == Counter(texts)

    rows = await in_database(bed.rows)
    deliveries = [row for row in rows if row.origin == "server"]
    assert [row.text for row in deliveries] == bed.delivered
    for row in deliveries:
        assert row.heard_at.timestamp() >= ended_at[row.text], "acknowledged before it was played"

    own = [row for row in rows if row.origin == "device"]
    assert {row.text for row in own} == set(bed.said)
    for text in bed.said:
        states = {row.state for row in own if row.text == text}
        assert states <= {"spoken", "interrupted"}, text
        is_maybe_unwritten = any(abs(ended_at[text] - at) < UNWRITTEN_S for at in killed_at)
        assert "spoken" in states or is_maybe_unwritten, text


async def test_nothing_is_lost_or_heard_twice_over_losses_of_the_network(
    start_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    transactional_db: None,
) -> None:
    server = start_server(**PATIENT_SERVER)
    chooser = random.Random(SEED)
    losses = planned(chooser, ("cut", "cut", "reset", "reset", "stall"), LOSSES)  # a stall takes up to 15 s
    plans = [deque(itertools.islice(losses, first, None, PATIENTS)) for first in range(PATIENTS)]
    proxies = [LossyProxy(plan, lambda: server.port, server.process.kill, chooser) for plan in plans]
    members = [await in_database(member, f"Patient {number}") for number in range(PATIENTS)]
    async with bedsides(members, proxies) as beds:
        await live(beds)
    assert sum(len(proxy.happened) for proxy in proxies) == LOSSES
    for bed in beds:
        await assert_heard_once(bed, sandbox)


async def test_nothing_is_lost_or_heard_twice_over_deaths_of_the_server(
    start_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    member: Callable[..., Member],
    transactional_db: None,
) -> None:
    """Two servers: while the devices talk to one, the other one starts again."""
    servers = deque(start_server(**PATIENT_SERVER) for _ in range(2))
    killed_at: list[float] = []
    restarts: list[asyncio.Task[None]] = []

    def kill() -> None:
        servers[0].process.kill()
        killed_at.append(time.time())
        restarts.append(asyncio.create_task(asyncio.to_thread(servers[0].restart)))
        servers.rotate()

    chooser = random.Random(SEED)
    plan = planned(chooser, ("kill",), KILLS)
    proxies = [LossyProxy(plan, lambda: servers[0].port, kill, chooser) for _ in range(PATIENTS)]
    members = [await in_database(member, f"Patient {number}") for number in range(PATIENTS)]
    async with bedsides(members, proxies) as beds:
        await live(beds)
    await asyncio.gather(*restarts)
    assert len(killed_at) == KILLS
    for bed in beds:
        await assert_heard_once(bed, sandbox, killed_at)
