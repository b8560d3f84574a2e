"""Admission of a segment: a slot immediately, or waits that together stay under one maximum."""

import asyncio
import uuid
from dataclasses import dataclass, field

import pytest

from tts.resilience.concurrency import LocalLimiter, SlotTimeout
from tts.synthesis.admission import NOTIFY_AFTER_S, RETRY_INTERVAL_S, AdmissionTicket


@dataclass
class Setup:
    """A limiter with one slot, and the notifications of waiting requests."""

    slots: LocalLimiter = field(default_factory=LocalLimiter)
    notified: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots.set_limit(1)

    def ticket(self, max_wait_s: float) -> AdmissionTicket:
        return AdmissionTicket(self.slots, uuid.uuid4(), max_wait_s, self.notified.append)


async def test_a_free_slot_is_given_without_a_wait_or_a_notification():
    setup = Setup()
    async with setup.ticket(0).slot():
        pass
    async with setup.ticket(0).slot():
        pass
    assert setup.notified == []


async def test_a_wait_without_a_slot_uses_up_the_maximum_wait():
    setup = Setup()
    async with setup.ticket(0).slot():
        late = setup.ticket(RETRY_INTERVAL_S / 2)
        with pytest.raises(SlotTimeout):
            async with late.slot():
                raise AssertionError("no slot was free")
        assert not await late.wait_for_retry()


async def test_waits_for_a_busy_provider_count_against_the_same_maximum():
    ticket = Setup().ticket(RETRY_INTERVAL_S * 1.5)
    assert await ticket.wait_for_retry()
    assert await ticket.wait_for_retry()
    assert not await ticket.wait_for_retry()


async def test_the_caller_is_notified_after_half_a_second_of_waiting_in_sum():
    setup = Setup()
    ticket = setup.ticket(60)
    for _ in range(int(NOTIFY_AFTER_S / RETRY_INTERVAL_S) + 1):
        await ticket.wait_for_retry()
    assert setup.notified
    assert all(0 < left_s < 60 for left_s in setup.notified)


async def test_the_elapsed_time_does_not_include_waits():
    ticket = Setup().ticket(60)
    for _ in range(5):
        await ticket.wait_for_retry()
    assert ticket.elapsed_s() < 3 * RETRY_INTERVAL_S


async def test_a_cancelled_ticket_gives_up_its_place():
    setup = Setup()

    async def hold(ticket: AdmissionTicket) -> None:
        async with ticket.slot():
            await asyncio.sleep(60)

    holder, waiter = asyncio.create_task(hold(setup.ticket(60))), asyncio.create_task(hold(setup.ticket(60)))
    await asyncio.sleep(0)
    for task in (waiter, holder):
        task.cancel()
    await asyncio.wait({holder, waiter})
    async with setup.ticket(0).slot():
        pass
    assert setup.notified == []
