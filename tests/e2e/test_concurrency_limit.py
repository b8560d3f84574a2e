"""More devices than the provider serves at once (the contract, section 2, rule 7): each in its turn, in its voice."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Member
from tests.e2e.device import Device
from tests.e2e.rows import accounts_of
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.services import RedisProcess
from tests.waiting import eventually
from tts.devices.client import Spoken

LIMIT = 2
RATE = 80_000  # bytes per second of what is sent slowly
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn")

OwnServer = Callable[..., ServerProcess]


def sentence(number: int) -> str:
    return f"This is said to the patient number {number} while the others wait for their turn."


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture
def six(member: Callable[..., Member]) -> list[Member]:
    return [member(name) for name in NAMES]


def grant(sandbox: SandboxProcess, limit: int = LIMIT) -> None:
    """The provider refuses whatever is over the limit, and takes its time with what is not."""
    sandbox.settings(concurrency=limit, strict_concurrency=True)
    sandbox.fault(kind="slow", bytes_per_s=RATE)


def most_at_once(sandbox: SandboxProcess) -> int:
    return max(sandbox.account()["in_flight"].values())


def refusals(sandbox: SandboxProcess) -> int:
    return sum(record["status"] == 429 for record in sandbox.requests())


async def learn(server: ServerProcess, member: Member) -> None:
    """The provider tells its limit with its first answer."""
    async with Device(server.ws, member.token) as device:
        await device.start(greeting=False)
        await device.speak("The provider says with this how many it serves at once.")
    await until_known(server)


async def until_known(server: ServerProcess) -> None:
    async def known() -> bool:
        return await asyncio.to_thread(server.gauge, "voicecare_slots_limit") == LIMIT

    await eventually(known)


async def say(url: str, member: Member, number: int) -> Spoken:
    async with Device(url, member.token, timeout_s=40) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(sentence(number), id="said")
        accounts = await accounts_of(started["conversation"]) if (await device.end()) else None
    assert accounts is not None
    assert accounts.counter == accounts.ledger == len(sentence(number))
    return spoken


async def say_all(urls: list[str], members: list[Member]) -> list[Spoken]:
    """All at the same time."""
    speaking = (say(urls[n % len(urls)], member, n) for n, member in enumerate(members))
    return await asyncio.gather(*speaking)


class Watcher:
    """Looks all the while how many requests the provider has in flight."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.most = 0
        self._sandbox = sandbox

    async def __aenter__(self) -> "Watcher":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, await asyncio.to_thread(most_at_once, self._sandbox))
            await asyncio.sleep(0.02)


def live(spoken: list[Spoken]) -> None:
    """All in their own voice, none told of a voice issue."""
    assert [one.terminal["type"] for one in spoken] == ["speech.finished"] * len(spoken)
    assert [one.terminal["source"] for one in spoken] == ["live"] * len(spoken)
    assert not [notice for one in spoken for notice in one.frames_of("notice", "speech.switched")]


async def test_six_devices_and_two_streams_all_live_and_each_in_its_turn(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    grant(sandbox)
    await learn(server, six[0])
    known = len(sandbox.requests())
    spoken = await say_all([server.ws], six)
    live(spoken)
    assert refusals(sandbox) == 0
    records = sandbox.requests()[known:]
    assert len(records) == len(six)  # nobody asked twice
    assert {record["outcome"] for record in records} == {"completed"}
    in_order = sorted(spoken, key=lambda one: one.asked_at or 0.0)
    waited = [one.first_audio_s or 0.0 for one in in_order]
    one_turn = max(len(one.audio) for one in spoken) / RATE
    for place, seconds in enumerate(waited):
        assert seconds < (place // LIMIT) * one_turn + 1.5, waited
    waiters = [one for one in spoken if (one.first_audio_s or 0.0) > 1.0]
    assert len(waiters) >= len(six) - 2 * LIMIT  # they have waited for two turns
    told = [[frame["reason"] for frame in one.frames_of("speech.queued")] for one in waiters]
    assert told == [["busy"]] * len(waiters)


async def test_before_the_limit_is_known_the_provider_says_no_and_nobody_is_offline_for_it(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    grant(sandbox)
    live(await say_all([server.ws], six))


async def test_who_waits_is_told_after_half_a_second_and_until_when(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    await asyncio.to_thread(sandbox.settings, concurrency=LIMIT, strict_concurrency=True)
    await learn(server, six[0])
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    busy = [asyncio.create_task(say(server.ws, member, n)) for n, member in enumerate(six[:LIMIT])]
    await eventually(lambda: asyncio.to_thread(lambda: most_at_once(sandbox) == LIMIT))
    async with Device(server.ws, six[-1].token) as device:
        await device.start(greeting=False)
        asked = time.monotonic()
        await device.send({"type": "speak", "id": "waits", "text": sentence(9)})
        await device.wait_for_frame("speech.queued", id="waits", reason="busy")
        assert 0.45 < time.monotonic() - asked < 1.2
        spoken = await device.hear("waits")
    assert [frame["type"] for frame in spoken.frames] == ["speech.queued", "speech.started", "speech.finished"]
    live([spoken, *await asyncio.gather(*busy)])


async def test_who_waits_beyond_the_limit_of_patience_is_spoken_to_offline(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=1, REDIS_URL="")
    await asyncio.to_thread(sandbox.settings, concurrency=LIMIT, strict_concurrency=True)
    await learn(server, six[0])
    sandbox.fault(kind="slow", bytes_per_s=RATE // 4)
    busy = [asyncio.create_task(say(server.ws, member, n)) for n, member in enumerate(six[:LIMIT])]
    await eventually(lambda: asyncio.to_thread(lambda: most_at_once(sandbox) == LIMIT))
    async with Device(server.ws, six[-1].token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(sentence(9))
    assert (spoken.terminal["source"], spoken.terminal["characters"]) == ("offline", 0)
    assert spoken.first_audio_s is not None
    assert 0.9 < spoken.first_audio_s < 2.5
    live(await asyncio.gather(*busy))


async def test_two_processes_with_one_redis_never_ask_for_more_than_the_limit(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member], redis: RedisProcess
) -> None:
    redis.flush()
    settings = {"BUSY_WAIT_S": 30, "REDIS_URL": redis.url}
    servers = [await asyncio.to_thread(own_server, **settings) for _ in range(2)]
    grant(sandbox)
    await learn(servers[0], six[0])  # the second one has it from Redis
    async with Watcher(sandbox) as watcher:
        spoken = await say_all([server.ws for server in servers], six)
    live(spoken)
    assert refusals(sandbox) == 0
    assert watcher.most == LIMIT
    await until_known(servers[1])


async def test_redis_is_killed_while_they_speak_and_nobody_notices(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member], redis: RedisProcess
) -> None:
    redis.flush()
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL=redis.url)
    grant(sandbox)
    await learn(server, six[0])
    speaking = asyncio.create_task(say_all([server.ws], six))
    await eventually(lambda: asyncio.to_thread(lambda: most_at_once(sandbox) == LIMIT))
    redis.kill()
    try:
        live(await speaking)
        assert "slots.unlimited" in server.logged()
        assert await asyncio.to_thread(server.gauge, "voicecare_slots_unlimited_total") > 0
    finally:
        redis.start()
    async with Watcher(sandbox) as watcher:
        await until_limited(server)
        live(await say_all([server.ws], six))
    assert watcher.most == LIMIT


async def until_limited(server: ServerProcess) -> None:
    async def limited() -> bool:
        return "slots.limited_again" in server.logged()

    await eventually(limited)
