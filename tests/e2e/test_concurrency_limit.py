"""More devices than concurrent provider streams (docs/protocol.md, rule 7): each waits in line and keeps its voice."""

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
from voicecare_client import SpeechResult

LIMIT = 2
RATE = 80_000  # bytes per second of a slow provider
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


def set_provider_limit(sandbox: SandboxProcess, limit: int = LIMIT) -> None:
    """The provider refuses requests over the limit and sends the audio of the others slowly."""
    sandbox.settings(concurrency=limit, strict_concurrency=True)
    sandbox.fault(kind="slow", bytes_per_s=RATE)


def requests_in_flight(sandbox: SandboxProcess) -> int:
    return max(sandbox.account()["in_flight"].values())


def refusals(sandbox: SandboxProcess) -> int:
    return sum(record["status"] == 429 for record in sandbox.requests())


async def learn_limit(server: ServerProcess, member: Member) -> None:
    """Make the server learn the limit, which is in the provider's first response."""
    async with Device(server.ws, member.token) as device:
        await device.start(greeting=False)
        await device.speak("The provider says with this how many it serves at once.")
    await wait_until_limit_known(server)


async def wait_until_limit_known(server: ServerProcess) -> None:
    async def known() -> bool:
        return await asyncio.to_thread(server.gauge, "voicecare_slots_limit") == LIMIT

    await eventually(known)


async def speak_once(url: str, member: Member, number: int) -> SpeechResult:
    async with Device(url, member.token, timeout_s=40) as device:
        started = await device.start(greeting=False)
        spoken = await device.speak(sentence(number), id="said")
        accounts = await accounts_of(started["conversation"]) if (await device.end()) else None
    assert accounts is not None
    assert accounts.counter == accounts.ledger == len(sentence(number))
    return spoken


async def speak_all(urls: list[str], members: list[Member]) -> list[SpeechResult]:
    """All members speak at the same time."""
    speaking = (speak_once(urls[n % len(urls)], member, n) for n, member in enumerate(members))
    return await asyncio.gather(*speaking)


class InFlightMonitor:
    """Records the maximum of requests that the provider has in flight."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self.most = 0
        self._sandbox = sandbox

    async def __aenter__(self) -> "InFlightMonitor":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, await asyncio.to_thread(requests_in_flight, self._sandbox))
            await asyncio.sleep(0.02)


def assert_all_live(spoken: list[SpeechResult]) -> None:
    """Assert that all speeches are in their own voice, without a notice."""
    assert [one.terminal["type"] for one in spoken] == ["speech.finished"] * len(spoken)
    assert [one.terminal["source"] for one in spoken] == ["live"] * len(spoken)
    assert not [notice for one in spoken for notice in one.frames_of("notice", "speech.switched")]


async def test_six_devices_share_two_streams_in_order(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    set_provider_limit(sandbox)
    await learn_limit(server, six[0])
    known = len(sandbox.requests())
    spoken = await speak_all([server.ws], six)
    assert_all_live(spoken)
    assert refusals(sandbox) == 0
    records = sandbox.requests()[known:]
    assert len(records) == len(six)  # no request was made twice
    assert {record["outcome"] for record in records} == {"completed"}
    in_order = sorted(spoken, key=lambda one: one.requested_at or 0.0)
    waited = [one.first_audio_s or 0.0 for one in in_order]
    one_turn = max(len(one.audio) for one in spoken) / RATE
    for place, seconds in enumerate(waited):
        assert seconds < (place // LIMIT) * one_turn + 2.5, waited
    waiters = [one for one in spoken if (one.first_audio_s or 0.0) > 1.0]
    assert len(waiters) >= len(six) - 2 * LIMIT  # they have waited for two rounds
    reasons = [[frame["reason"] for frame in one.frames_of("speech.queued")] for one in waiters]
    assert reasons == [["busy"]] * len(waiters)


async def test_refusals_before_the_limit_is_known_do_not_lead_to_the_offline_voice(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    set_provider_limit(sandbox)
    assert_all_live(await speak_all([server.ws], six))


async def test_a_waiting_speech_is_reported_as_queued_after_half_a_second(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL="")
    await asyncio.to_thread(sandbox.settings, concurrency=LIMIT, strict_concurrency=True)
    await learn_limit(server, six[0])
    sandbox.fault(kind="slow", bytes_per_s=RATE)
    busy = [asyncio.create_task(speak_once(server.ws, member, n)) for n, member in enumerate(six[:LIMIT])]
    await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) == LIMIT))
    async with Device(server.ws, six[-1].token) as device:
        await device.start(greeting=False)
        sent_at = time.monotonic()
        await device.send({"type": "speak", "id": "waits", "text": sentence(9)})
        await device.wait_for_frame("speech.queued", id="waits", reason="busy")
        assert time.monotonic() - sent_at > 0.45
        spoken = await device.wait_for("waits")
    assert [frame["type"] for frame in spoken.frames] == ["speech.queued", "speech.started", "speech.finished"]
    assert_all_live([spoken, *await asyncio.gather(*busy)])


async def test_a_speech_that_waits_too_long_is_spoken_offline(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member]
) -> None:
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=1, REDIS_URL="")
    await asyncio.to_thread(sandbox.settings, concurrency=LIMIT, strict_concurrency=True)
    await learn_limit(server, six[0])
    sandbox.fault(kind="slow", bytes_per_s=RATE // 4)
    busy = [asyncio.create_task(speak_once(server.ws, member, n)) for n, member in enumerate(six[:LIMIT])]
    await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) == LIMIT))
    async with Device(server.ws, six[-1].token) as device:
        await device.start(greeting=False)
        spoken = await device.speak(sentence(9))
    assert (spoken.terminal["source"], spoken.terminal["characters"]) == ("offline", 0)
    assert spoken.first_audio_s is not None
    assert 0.9 < spoken.first_audio_s < 10
    assert_all_live(await asyncio.gather(*busy))


async def test_two_processes_with_one_redis_stay_within_the_limit(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member], redis: RedisProcess
) -> None:
    redis.flush()
    settings = {"BUSY_WAIT_S": 30, "REDIS_URL": redis.url}
    servers = [await asyncio.to_thread(own_server, **settings) for _ in range(2)]
    set_provider_limit(sandbox)
    await learn_limit(servers[0], six[0])  # the second server gets the limit from Redis
    async with InFlightMonitor(sandbox) as watcher:
        spoken = await speak_all([server.ws for server in servers], six)
    assert_all_live(spoken)
    assert refusals(sandbox) == 0
    assert watcher.most == LIMIT
    await wait_until_limit_known(servers[1])


async def test_a_killed_redis_does_not_disturb_speech(
    own_server: OwnServer, sandbox: SandboxProcess, six: list[Member], redis: RedisProcess
) -> None:
    redis.flush()
    server = await asyncio.to_thread(own_server, BUSY_WAIT_S=30, REDIS_URL=redis.url)
    set_provider_limit(sandbox)
    await learn_limit(server, six[0])
    speaking = asyncio.create_task(speak_all([server.ws], six))
    await eventually(lambda: asyncio.to_thread(lambda: requests_in_flight(sandbox) == LIMIT))
    redis.kill()
    try:
        assert_all_live(await speaking)
        assert "concurrency.limit_suspended" in server.logged()
        assert await asyncio.to_thread(server.gauge, "voicecare_slots_unlimited_total") > 0
    finally:
        redis.start()
    async with InFlightMonitor(sandbox) as watcher:
        await wait_until_limited(server)
        assert_all_live(await speak_all([server.ws], six))
    assert watcher.most == LIMIT


async def wait_until_limited(server: ServerProcess) -> None:
    async def limited() -> bool:
        return "concurrency.limit_restored" in server.logged()

    await eventually(limited)
