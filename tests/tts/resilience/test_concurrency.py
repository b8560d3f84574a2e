"""The concurrency limiter: the same rules in one process and with a real Redis, and failures of Redis or a process."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.services import RedisProcess
from tests.waiting import eventually
from tts.resilience.concurrency import (
    KEYS,
    MAX_SLOTS_PER_PATIENT,
    ConcurrencyLimiter,
    LocalLimiter,
    RedisLimiter,
    SlotTimeout,
    Waiter,
    admit,
    create_limiter,
)

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = (ROOT / "tts/resilience/concurrency.lua").read_text()
LEASE_S = 1.0
SOON_S = 5.0
LATE_S = 30.0  # the start of a process on a busy machine

# Another process: holds a number of slots, prints `held`, and releases them when its standard input ends.
HOLDER = """
import asyncio, sys
from contextlib import AsyncExitStack
from tts.resilience.concurrency import RedisLimiter

async def main(url, count, lease_s):
    slots = RedisLimiter(url, lease_s=lease_s, timeout_s=20)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(slots.acquire(None, wait_s=5))
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await slots.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""
# Another process: ten tasks acquire a slot again and again. Each held slot is counted in Redis.
WORKER = """
import asyncio, sys
from redis.asyncio import Redis
from tts.resilience.concurrency import RedisLimiter

async def one(slots, client):
    for _ in range(10):
        async with slots.acquire(None, wait_s=30):
            await client.lpush("seen", await client.incr("inside"))
            await asyncio.sleep(0.002)
            await client.decr("inside")

async def main(url):
    slots = RedisLimiter(url, timeout_s=20)
    async with Redis.from_url(url) as client:
        await asyncio.gather(*(one(slots, client) for _ in range(10)))
    await slots.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def redis_process() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture
def server(redis_process: RedisProcess) -> RedisProcess:
    redis_process.flush()
    return redis_process


@pytest.fixture(params=["local", "redis"])
async def slots(request: pytest.FixtureRequest) -> AsyncIterator[ConcurrencyLimiter]:
    made = LocalLimiter() if request.param == "local" else redis_limiter(request.getfixturevalue("server"))
    yield made
    await made.close()
    if isinstance(made, RedisLimiter):
        assert reported_processes(request.getfixturevalue("server")) == 0


@pytest.fixture
async def shared(server: RedisProcess) -> AsyncIterator[RedisLimiter]:
    made = redis_limiter(server, lease_s=LEASE_S)
    made.set_limit(2)
    yield made
    await made.close()


def redis_limiter(server: RedisProcess, *, lease_s: float = 10) -> RedisLimiter:
    """A limiter whose timeout is long enough for a busy machine."""
    return RedisLimiter(server.url, lease_s=lease_s, timeout_s=SOON_S)


def reported_processes(server: RedisProcess) -> int:
    """The number of processes that hold a slot or wait, according to Redis."""
    with server.client() as client:
        return client.hlen(KEYS[0])


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"voicecare_slots_{name}") or 0.0


async def take(
    stack: AsyncExitStack, slots: ConcurrencyLimiter, *, patient=None, background=False, wait_s=SOON_S
) -> None:
    await stack.enter_async_context(slots.acquire(patient, background=background, wait_s=wait_s))


async def is_full(slots: ConcurrencyLimiter, *, patient=None, background=False) -> bool:
    try:
        async with slots.acquire(patient, background=background, wait_s=0.1):
            return False
    except SlotTimeout:
        return True


class Speaker:
    """Acquires a slot, keeps it until `end` is called, and records the order of admissions."""

    def __init__(
        self, slots: ConcurrencyLimiter, name: str, order: list[str], *, patient=None, background=False
    ) -> None:
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots.acquire(patient, background=background, wait_s=SOON_S)))
        self.name, self.order = name, order

    async def _run(self, hold) -> None:
        async with hold:
            self.order.append(self.name)
            await self.done.wait()

    async def end(self) -> None:
        self.done.set()
        await self.task


async def acquire_once(slots: ConcurrencyLimiter) -> None:
    async with slots.acquire(None, wait_s=SOON_S):
        pass


async def one_sync() -> None:
    await asyncio.sleep(0.1)


def other_process(source: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# The rules


CLAIMS = st.lists(st.builds(Waiter, st.sampled_from(["", "a", "b", "c"]), st.booleans()), max_size=8)


@given(held=CLAIMS, line=CLAIMS, limit=st.none() | st.integers(1, 9))
def test_the_lua_script_applies_the_same_rules(
    redis_process: RedisProcess, held: list[Waiter], line: list[Waiter], limit: int | None
):
    waiting = [[*claim.to_payload(), claim.number, len(line) - place] for place, claim in enumerate(line)]
    statement = json.dumps({"held": [claim.to_payload() for claim in held], "line": waiting})
    redis_process.flush()
    with redis_process.client() as client:
        script = client.register_script(SCRIPT)
        _, going = script(KEYS, ["process", statement, 10**7, 10**6, MAX_SLOTS_PER_PATIENT, limit or "", 1])
    assert going == [claim.number for claim in admit(held, line, limit)]


async def test_without_a_known_limit_all_requests_are_admitted_and_counted(slots: ConcurrencyLimiter):
    patient = uuid.uuid4()
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await take(stack, slots, patient=patient)
        assert (slots.limit, slots.held_count) == (None, 20)
        slots.set_limit(20)
        assert await is_full(slots)
    assert slots.held_count == 0


@pytest.mark.parametrize("nonsense", [0, -3])
async def test_an_impossible_limit_is_ignored(slots: ConcurrencyLimiter, nonsense: int):
    slots.set_limit(nonsense)
    assert slots.limit is None
    slots.set_limit(3)
    slots.set_limit(nonsense)
    assert (slots.limit, metric("limit")) == (3, 3)


async def test_the_limit_is_never_exceeded_and_every_request_is_admitted(slots: ConcurrencyLimiter):
    slots.set_limit(4)
    inside = most = turns = 0

    async def one(seed: int) -> None:
        nonlocal inside, most, turns
        async with slots.acquire(uuid.UUID(int=seed % 40), background=seed % 5 == 0, wait_s=30):
            inside, turns = inside + 1, turns + 1
            most = max(most, inside)
            await asyncio.sleep(Random(seed).uniform(0, 0.004))
            inside -= 1

    await asyncio.gather(*(one(seed) for seed in range(200)))
    assert (most, turns, inside) == (4, 200, 0)


async def test_slots_are_given_in_order_of_arrival(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    order: list[str] = []
    speakers = [Speaker(slots, str(number), order) for number in range(8)]
    for speaker in speakers:
        await one_sync()
        await speaker.end()
    assert order == [str(number) for number in range(8)]


async def test_a_patient_holds_at_most_two_slots_and_others_overtake(slots: ConcurrencyLimiter):
    slots.set_limit(4)
    patient, order = uuid.uuid4(), []
    own = [Speaker(slots, f"own {number}", order, patient=patient) for number in range(3)]
    other = Speaker(slots, "other", order, patient=uuid.uuid4())
    await eventually(lambda: order, wanted=lambda seen: seen == ["own 0", "own 1", "other"])
    await one_sync()
    assert len(order) == 3
    await own[0].end()
    await eventually(lambda: order[3:], wanted=lambda seen: seen == ["own 2"])
    for speaker in (*own, other):
        await speaker.end()


@pytest.mark.parametrize(("limit", "share"), [(None, 1), (1, 0), (2, 1), (4, 1), (7, 1), (8, 2), (20, 5)])
async def test_background_work_holds_at_most_a_quarter_of_the_slots(
    slots: ConcurrencyLimiter, limit: int | None, share: int
):
    slots.set_limit(limit or 0)
    async with AsyncExitStack() as stack:
        for _ in range(share):
            await take(stack, slots, background=True)
        assert await is_full(slots, background=True)
        for _ in range((limit or 20) - share):
            await take(stack, slots)
        assert await is_full(slots) == (limit is not None)


async def test_background_work_does_not_wait_for_a_slot_that_it_never_gets(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(SlotTimeout):
            await take(AsyncExitStack(), slots, background=True, wait_s=600)
    assert slots.waiting_count == 0


@pytest.mark.parametrize("limit", [2, 4, 9])
async def test_background_work_never_takes_the_last_free_slot(slots: ConcurrencyLimiter, limit: int):
    slots.set_limit(limit)
    async with AsyncExitStack() as patients, AsyncExitStack() as background:
        for _ in range(limit - 2):
            await take(patients, slots)
        await take(background, slots, background=True)
        await background.aclose()
        await take(patients, slots)
        assert await is_full(slots, background=True)
        await take(patients, slots)


@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_a_patient_is_served_before_background_work_that_waits_longer(slots: ConcurrencyLimiter, limit: int):
    slots.set_limit(limit)
    order: list[str] = []
    held = [Speaker(slots, "held", order) for _ in range(limit)]
    await eventually(lambda: len(order), wanted=lambda seen: seen == limit)
    background = [Speaker(slots, "background", order, background=True) for _ in range(16)]
    await one_sync()
    patients = [Speaker(slots, "patient", order) for _ in range(2)]
    await one_sync()
    for ends in [*held, *patients][:2]:
        await ends.end()
        await one_sync()
    assert order[limit:] == ["patient", "patient"]
    for speaker in background:
        speaker.task.cancel()
    await asyncio.gather(*(speaker.task for speaker in background), return_exceptions=True)
    for speaker in (*held, *patients):
        await speaker.end()


async def test_background_work_for_a_patient_leaves_the_patient_both_slots(slots: ConcurrencyLimiter):
    slots.set_limit(8)
    patient = uuid.uuid4()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await take(stack, slots, patient=patient, background=True)
        for _ in range(MAX_SLOTS_PER_PATIENT):
            await take(stack, slots, patient=patient)
        assert await is_full(slots, patient=patient)


async def test_a_lowered_limit_interrupts_no_request_and_admits_none(slots: ConcurrencyLimiter):
    slots.set_limit(3)
    order: list[str] = []
    held = [Speaker(slots, str(number), order) for number in range(3)]
    await eventually(lambda: len(order), wanted=lambda seen: seen == 3)
    slots.set_limit(1)
    newcomer = Speaker(slots, "newcomer", order)
    for speaker in held[:2]:
        await speaker.end()
        await one_sync()
        assert "newcomer" not in order
    await held[2].end()
    await eventually(lambda: order[-1], wanted=lambda seen: seen == "newcomer")
    await newcomer.end()


async def test_a_raised_limit_admits_waiting_requests(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    order: list[str] = []
    speakers = [Speaker(slots, str(number), order) for number in range(3)]
    await eventually(lambda: order, wanted=lambda seen: seen == ["0"])
    assert slots.waiting_count == 2
    slots.set_limit(3)
    await eventually(lambda: order, wanted=lambda seen: seen == ["0", "1", "2"])
    assert slots.waiting_count == 0
    for speaker in speakers:
        await speaker.end()


async def test_a_request_that_waited_too_long_is_removed(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    async with slots.acquire(None, wait_s=SOON_S):
        began = time.monotonic()
        with pytest.raises(SlotTimeout, match=r"0\.2 s"):
            async with slots.acquire(None, wait_s=0.2):
                pytest.fail("there is no slot")
        assert time.monotonic() - began < 2
        assert (slots.held_count, slots.waiting_count) == (1, 0)


async def test_an_error_in_the_block_is_raised_and_releases_the_slot(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    with pytest.raises(TimeoutError):
        async with slots.acquire(None, wait_s=SOON_S):
            raise TimeoutError
    await acquire_once(slots)


async def test_releasing_a_slot_does_not_wait(slots: ConcurrencyLimiter):
    slots.set_limit(1)
    hold = slots.acquire(None, wait_s=SOON_S)
    await hold.__aenter__()
    with pytest.raises(StopIteration):  # it never suspended
        hold.__aexit__(None, None, None).send(None)
    await acquire_once(slots)


@pytest.mark.parametrize("seed", range(5))
async def test_many_cancellations_leave_nothing_behind(slots: ConcurrencyLimiter, seed: int):
    random = Random(seed)
    slots.set_limit(3)

    async def one() -> None:
        with suppress(SlotTimeout):
            async with slots.acquire(uuid.UUID(int=random.randrange(9)), background=random.random() < 0.3, wait_s=0.05):
                await asyncio.sleep(random.uniform(0, 0.01))

    async def cancelled_sometime() -> None:
        task = asyncio.create_task(one())
        await asyncio.sleep(random.uniform(0, 0.02))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(cancelled_sometime() for _ in range(150)))
    assert (slots.held_count, slots.waiting_count) == (0, 0)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await take(stack, slots)


# Processes


async def test_two_processes_together_keep_the_limit(server: RedisProcess, shared: RedisLimiter):
    shared.set_limit(3)
    async with shared.acquire(None, wait_s=SOON_S):
        pass
    workers = [other_process(WORKER, server.url) for _ in range(2)]
    for worker in workers:
        assert await asyncio.to_thread(worker.wait, 60) == 0
        worker.communicate()
    with server.client() as client:
        seen = [int(number) for number in client.lrange("seen", 0, -1)]
    assert (len(seen), max(seen)) == (200, 3)
    assert reported_processes(server) == 0


async def test_one_process_publishes_the_limit_to_the_others(server: RedisProcess, shared: RedisLimiter):
    other = redis_limiter(server)
    async with shared.acquire(None, wait_s=SOON_S), other.acquire(None, wait_s=SOON_S):
        assert other.limit == 2
        assert await is_full(other)
        other.set_limit(5)
        await eventually(lambda: shared.limit, wanted=lambda seen: seen == 5)
    await other.close()


async def test_slots_are_given_in_order_of_arrival_across_processes(server: RedisProcess, shared: RedisLimiter):
    other = redis_limiter(server)
    order: list[str] = []
    shared.set_limit(1)
    await acquire_once(other)
    async with shared.acquire(None, wait_s=SOON_S):
        speakers = []
        for number in range(6):
            speakers.append(Speaker((shared, other)[number % 2], str(number), order))
            await one_sync()  # each request waits before the next one comes
    for speaker in speakers:
        await speaker.end()
    assert order == [str(number) for number in range(6)]
    await other.close()


async def test_patients_of_one_process_are_served_before_background_work_of_another(
    server: RedisProcess, shared: RedisLimiter
):
    other, order = redis_limiter(server), []
    shared.set_limit(4)
    await acquire_once(other)
    async with AsyncExitStack() as stack:
        await take(stack, shared)
        async with AsyncExitStack() as released:
            for _ in range(3):
                await take(released, shared)
            background = Speaker(shared, "background", order, background=True)
            await one_sync()
            patients = [Speaker(other, "patient", order) for _ in range(2)]
            await one_sync()
        await eventually(lambda: order, wanted=lambda seen: len(seen) == 2)
        await one_sync()
        assert order == ["patient", "patient"]  # the last slot stays free
        assert await is_full(other, background=True)
        await patients[0].end()
        await eventually(lambda: order, wanted=lambda seen: seen[2:] == ["background"])
        assert await is_full(other, background=True)  # all processes together have one share
    await patients[1].end()
    await background.end()
    await other.close()


async def test_the_slots_of_a_killed_process_are_free_after_its_lease(server: RedisProcess, shared: RedisLimiter):
    async with shared.acquire(None, wait_s=SOON_S):
        pass
    holder = other_process(HOLDER, server.url, 2, LEASE_S)
    assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
    await asyncio.sleep(LEASE_S * 1.5)
    assert await is_full(shared)  # the process is alive and sends snapshots
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    killed = time.monotonic()
    async with AsyncExitStack() as stack:
        await take(stack, shared)
        await take(stack, shared)
        assert LEASE_S * 0.5 < time.monotonic() - killed < LEASE_S + 10


async def test_waiting_requests_of_a_dead_process_do_not_block_others(server: RedisProcess):
    slots, order = redis_limiter(server), []
    slots.set_limit(1)
    async with slots.acquire(None, wait_s=SOON_S):
        waiter = other_process(HOLDER, server.url, 1, 10)
        await eventually(lambda: reported_processes(server), wanted=lambda seen: seen == 2)
        waiter.send_signal(signal.SIGKILL)
        waiter.communicate()
        newcomer = Speaker(slots, "newcomer", order)
        await one_sync()
    await eventually(
        lambda: order, LATE_S, wanted=lambda seen: seen == ["newcomer"]
    )  # long before the lease of ten seconds
    await newcomer.end()
    await slots.close()


# Redis


async def test_a_stopped_redis_blocks_no_request_and_is_used_again(server: RedisProcess, shared: RedisLimiter):
    unlimited = metric("unlimited_total")
    async with AsyncExitStack() as stack:
        await take(stack, shared)
        server.kill()
        with capture_logs() as logs:
            for _ in range(5):
                await take(stack, shared, wait_s=1)
            assert [entry["event"] for entry in logs] == ["concurrency.limit_suspended"]
            assert metric("unlimited_total") == unlimited + 5
            await asyncio.to_thread(server.start)
            await eventually(lambda: len(logs), wanted=lambda seen: seen == 2)
        assert [entry["event"] for entry in logs] == ["concurrency.limit_suspended", "concurrency.limit_restored"]
        assert await is_full(shared)  # requests without a slot are counted, and the limit is known again
    await acquire_once(shared)


async def test_a_hanging_redis_is_waited_for_only_once(server: RedisProcess):
    order: list[str] = []
    slots = RedisLimiter(server.url, timeout_s=0.5)
    slots.set_limit(1)
    async with slots.acquire(None, wait_s=SOON_S):
        server.pause()
        try:
            began = time.monotonic()
            await Speaker(slots, "first", order).end()
            assert time.monotonic() - began > 0.4
            began = time.monotonic()
            for _ in range(20):
                await Speaker(slots, "later", order).end()
            assert time.monotonic() - began < 5  # not one timeout for each request
        finally:
            server.resume()
    assert len(order) == 21
    await slots.close()
    assert reported_processes(server) == 0


async def test_a_limit_learned_while_redis_hangs_is_published_later(server: RedisProcess):
    slots = RedisLimiter(server.url, timeout_s=0.5)
    slots.set_limit(2)
    await acquire_once(slots)
    server.pause()
    try:
        slots.set_limit(5)
        await acquire_once(slots)
    finally:
        server.resume()
    with server.client() as client:
        await eventually(lambda: client.get(KEYS[1]), wanted=lambda seen: seen == "5")
    assert slots.limit == 5
    await slots.close()


async def test_closing_during_a_snapshot_leaves_nothing_held(server: RedisProcess):
    slots = redis_limiter(server)
    async with slots.acquire(None, wait_s=SOON_S):
        slots.set_limit(3)
        for _ in range(3):
            await asyncio.sleep(0)
    await slots.close()
    assert reported_processes(server) == 0


async def test_waiting_requests_are_admitted_when_redis_fails(server: RedisProcess, shared: RedisLimiter):
    order: list[str] = []
    speakers = [Speaker(shared, str(number), order) for number in range(5)]
    await eventually(lambda: order, wanted=lambda seen: seen == ["0", "1"])
    server.kill()
    await eventually(lambda: order, wanted=lambda seen: seen == ["0", "1", "2", "3", "4"])
    for speaker in speakers:
        await speaker.end()
    server.start()


async def test_background_work_keeps_its_share_while_redis_is_away(server: RedisProcess, shared: RedisLimiter):
    shared.set_limit(4)
    order: list[str] = []
    background = [Speaker(shared, "background", order, background=True) for _ in range(5)]
    await eventually(lambda: order, wanted=lambda seen: seen == ["background"])
    server.kill()
    try:
        patients = [Speaker(shared, "patient", order) for _ in range(6)]
        await eventually(lambda: len(order), wanted=lambda seen: seen == 7)
        assert order == ["background", *["patient"] * 6]
        for speaker in patients:
            await speaker.end()
        await background[0].end()
        await eventually(lambda: len(order), wanted=lambda seen: seen == 8)
        for speaker in background[1:]:
            speaker.done.set()
        await asyncio.gather(*(speaker.task for speaker in background))
    finally:
        server.start()


async def test_an_emptied_redis_gets_the_held_slots_again(server: RedisProcess, shared: RedisLimiter):
    other = redis_limiter(server)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await take(stack, shared)
        server.flush()
        assert await is_full(shared)
        assert await is_full(other)
    await acquire_once(other)
    await other.close()


async def test_a_restart_between_two_snapshots_is_no_outage(server: RedisProcess, shared: RedisLimiter):
    async with shared.acquire(None, wait_s=SOON_S):
        pass
    await one_sync()
    server.stop()
    server.start()
    with capture_logs() as logs:
        async with shared.acquire(None, wait_s=SOON_S):
            assert await asyncio.to_thread(reported_processes, server) == 1
    assert logs == []


@pytest.mark.parametrize(
    ("ill", "well"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 9", "REPLICAOF NO ONE"),
    ],
    ids=["full", "read-only"],
)
async def test_a_redis_that_refuses_writes_blocks_no_request(
    server: RedisProcess, shared: RedisLimiter, ill: str, well: str
):
    with server.client() as client, capture_logs() as logs:
        client.execute_command(*ill.split())
        try:
            async with AsyncExitStack() as stack:
                for _ in range(4):
                    await take(stack, shared, wait_s=1)
        finally:
            client.execute_command(*well.split())
    assert [entry["event"] for entry in logs] == ["concurrency.limit_suspended"]


async def test_a_missing_redis_blocks_no_request():
    slots = create_limiter("redis://127.0.0.1:9/0")
    slots.set_limit(1)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await take(stack, slots, wait_s=1)
    await slots.close()


async def test_without_a_redis_url_the_limit_is_per_process():
    assert isinstance(create_limiter(""), LocalLimiter)


@pytest.mark.timed
async def test_a_free_slot_costs_one_short_round_trip(server: RedisProcess, shared: RedisLimiter):
    times = []
    for _ in range(300):
        began = time.perf_counter()
        async with shared.acquire(None, wait_s=SOON_S):
            times.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)
    assert sorted(times)[150] < 0.0015
