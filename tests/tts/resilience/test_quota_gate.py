"""The quota gate of one process: its own refusals are known immediately, and waiters are woken."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from tts.resilience.quota_gate import QuotaGate
from usage.models import Incident, ProviderState
from usage.provider_state.circuit import ProviderStatus
from voicecare.core.database import run_in_db_thread

SPENT = ProviderStatus(quota_exhausted=True, hold_s=60)
PASSED = ProviderStatus(quota_exhausted=True, hold_s=0)
BACK = ProviderStatus()


class Background:
    """Collects background work until the test runs it."""

    def __init__(self) -> None:
        self.work: list[Coroutine[Any, Any, Any]] = []

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.work.append(work)

    async def run(self) -> None:
        while self.work:
            await self.work.pop(0)


@pytest.fixture
def background() -> Background:
    return Background()


@pytest.fixture
def quota(background: Background) -> QuotaGate:
    return QuotaGate(background)


def apply(quota: QuotaGate, known: ProviderStatus) -> None:
    quota.apply(known, quota.version())


async def woken_by(quota: QuotaGate, change: Any) -> list[bool]:
    """Whether each of several waiters is woken by this change."""
    waiting = [asyncio.create_task(quota.wait_for_change(0.5)) for _ in range(3)]
    await asyncio.sleep(0.02)
    change()
    return await asyncio.gather(*waiting)


def test_the_quota_is_available_at_first(quota: QuotaGate):
    assert not quota.is_exhausted
    assert quota.hold_remaining_s(time.monotonic()) == 0


@pytest.mark.django_db(transaction=True)
async def test_a_refusal_is_known_here_immediately_and_then_everywhere(quota: QuotaGate, background: Background):
    quota.mark_exhausted(40, "quota_exceeded, HTTP 401, request r1")
    assert quota.is_exhausted
    assert 59 < quota.hold_remaining_s(time.monotonic()) <= 60
    await background.run()
    row = await run_in_db_thread(ProviderState.objects.get)
    assert (row.quota, row.quota_needed) == ("spent", 40)
    assert (await run_in_db_thread(Incident.objects.get)).detail == "quota_exceeded, HTTP 401, request r1"


@pytest.mark.django_db(transaction=True)
async def test_further_refusals_write_nothing_more(quota: QuotaGate, background: Background):
    for _ in range(3):
        quota.mark_exhausted(40)
    assert len(background.work) == 1
    await background.run()


@pytest.mark.django_db(transaction=True)
async def test_a_read_from_before_or_during_the_write_is_ignored(quota: QuotaGate, background: Background):
    before = quota.version()
    quota.mark_exhausted(40)
    during = quota.version()
    quota.apply(BACK, during)
    await background.run()
    for mark in (before, during):
        quota.apply(BACK, mark)
    assert quota.is_exhausted
    apply(quota, BACK)
    assert not quota.is_exhausted


async def test_a_refusal_that_could_not_be_written_is_forgotten_when_the_row_is_read(quota: QuotaGate):
    quota.mark_exhausted(2**70)  # too large for the column
    [work] = quota._spawn.work
    with pytest.raises(Exception):  # noqa: B017, PT011 - the database's own error; the task that runs it logs it
        await work
    apply(quota, BACK)
    assert not quota.is_exhausted


def test_live_speech_is_held_for_the_first_minute(quota: QuotaGate):
    apply(quota, ProviderStatus(quota_exhausted=True, hold_s=30))
    now = time.monotonic()
    assert 29 < quota.hold_remaining_s(now) <= 30
    assert quota.hold_remaining_s(now + 31) == 0
    apply(quota, BACK)
    assert quota.hold_remaining_s(now) == 0


@pytest.mark.parametrize(
    ("first", "then", "woken"),
    [
        (BACK, SPENT, True),
        (SPENT, BACK, True),
        (PASSED, BACK, True),
        (SPENT, PASSED, True),  # refused again after it seemed to be back: live speech is not held a second time
        (SPENT, ProviderStatus(quota_exhausted=True, hold_s=59.5), False),
        (BACK, BACK, False),
        (PASSED, PASSED, False),
    ],
)
async def test_a_change_wakes_all_waiters(quota: QuotaGate, first: ProviderStatus, then: ProviderStatus, woken: bool):
    apply(quota, first)
    assert await woken_by(quota, lambda: apply(quota, then)) == [woken] * 3


async def test_a_refusal_wakes_all_waiters(quota: QuotaGate, background: Background):
    assert await woken_by(quota, lambda: quota.mark_exhausted(1)) == [True] * 3
    background.work.pop().close()


async def test_a_wait_without_a_change_returns_false_and_can_be_cancelled(quota: QuotaGate):
    assert not await quota.wait_for_change(0.01)
    waiting = asyncio.create_task(quota.wait_for_change(10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# The price of a response


@pytest.mark.parametrize(
    ("characters", "credits", "reads"), [(40, 20, 0), (40, 40, 0), (40, None, 0), (40, 41, 1), (40, 120, 1)]
)
async def test_a_response_that_costs_more_than_any_model_triggers_a_poll(
    quota: QuotaGate, background: Background, characters: int, credits: int | None, reads: int
):
    quota.on_billed(characters, credits)
    assert len(background.work) == reads
    for work in background.work:
        work.close()


async def test_many_such_responses_trigger_one_poll(quota: QuotaGate, background: Background):
    for _ in range(10):
        quota.on_billed(40, 120)
    [work] = background.work
    work.close()
