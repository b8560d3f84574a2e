"""A segment's turn: a slot at once, or patience that is spent only once, however it is spent."""

import asyncio
import uuid
from dataclasses import dataclass, field

import pytest

from tts.resilience.concurrency import LocalLimiter, SlotTimeout
from tts.synthesis.admission import NOTIFY_AFTER_S, RETRY_INTERVAL_S, AdmissionTicket


@dataclass
class Counter:
    """A provider with one stream, and what devices are told."""

    slots: LocalLimiter = field(default_factory=LocalLimiter)
    told: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots.set_limit(1)

    def turn(self, limit_s: float) -> AdmissionTicket:
        return AdmissionTicket(self.slots, uuid.uuid4(), limit_s, self.told.append)


async def test_a_free_slot_is_given_without_a_wait_or_a_notification():
    counter = Counter()
    async with counter.turn(0).slot():
        pass
    async with counter.turn(0).slot():
        pass
    assert counter.told == []


async def test_a_wait_without_a_slot_uses_up_the_maximum_wait():
    counter = Counter()
    async with counter.turn(0).slot():
        late = counter.turn(RETRY_INTERVAL_S / 2)
        with pytest.raises(SlotTimeout):
            async with late.slot():
                raise AssertionError("there was no slot to have")
        assert not await late.wait_for_retry()


async def test_waits_for_a_busy_provider_count_against_the_same_maximum():
    turn = Counter().turn(RETRY_INTERVAL_S * 1.5)
    assert await turn.wait_for_retry()
    assert await turn.wait_for_retry()
    assert not await turn.wait_for_retry()


async def test_the_caller_is_notified_after_half_a_second_of_waiting_in_sum():
    counter = Counter()
    turn = counter.turn(60)
    for _ in range(int(NOTIFY_AFTER_S / RETRY_INTERVAL_S) + 1):
        await turn.wait_for_retry()
    assert counter.told
    assert all(0 < left_s < 60 for left_s in counter.told)


async def test_the_elapsed_time_does_not_include_waits():
    turn = Counter().turn(60)
    await turn.wait_for_retry()
    assert turn.elapsed_s() < RETRY_INTERVAL_S / 2


async def test_a_cancelled_ticket_gives_up_its_place():
    counter = Counter()

    async def stand(turn: AdmissionTicket) -> None:
        async with turn.slot():
            await asyncio.sleep(60)

    holder, waiter = asyncio.create_task(stand(counter.turn(60))), asyncio.create_task(stand(counter.turn(60)))
    await asyncio.sleep(0)
    for task in (waiter, holder):
        task.cancel()
    await asyncio.wait({holder, waiter})
    async with counter.turn(0).slot():
        pass
    assert counter.told == []
