"""The budget of one speech: reserved before the request, given back at any end, and never exceeded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import Member
from tests.e2e.database import locked_database, missing_table
from tests.e2e.rows import in_database
from tests.tts import examples
from tests.waiting import eventually
from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.error_reporter import ErrorReporter
from tts.speech import Speech
from tts.synthesis.budget import BudgetReservation, BudgetUnknown
from tts.text.stream import Segment, TextStream
from usage import budgets
from usage.models import BudgetMonth, Incident

pytestmark = pytest.mark.django_db(transaction=True)

FIRST = "This is the first of three sentences, and the longest one. "
PHRASE = "That is known by heart, whatever comes after it. "
LAST = "And this is the last of them, which is short."
TEXT = FIRST + PHRASE + LAST
BUDGET = 200

Make = Callable[..., BudgetReservation]


@pytest.fixture
async def tasks() -> AsyncIterator[set[asyncio.Task[Any]]]:
    tasks: set[asyncio.Task[Any]] = set()
    yield tasks
    if tasks:
        await asyncio.wait(tasks)


@pytest.fixture
def make(alice: Member, tasks: set[asyncio.Task[Any]]) -> Make:
    alice.patient.monthly_character_budget = BUDGET
    alice.patient.save()

    def spawn(work: Coroutine[Any, Any, Any]) -> None:
        tasks.add(asyncio.create_task(work))

    def make(speech: Speech | None = None) -> BudgetReservation:
        context = replace(examples.CONTEXT, phrases=frozenset({PHRASE.strip()}))
        return BudgetReservation(
            speech or examples.speech(text=TEXT),
            alice.patient.pk,
            context,
            ErrorReporter(CircuitBreaker(), spawn),
            spawn,
            sends_tags=False,
        )

    return make


def segment(index: int, text: str) -> Segment:
    return Segment(index, text, text, text, None, None)


async def account() -> tuple[int, int] | None:
    """The used and the reserved characters, or None if nothing was reserved yet."""
    return await in_database(BudgetMonth.objects.values_list("used", "reserved").first)


async def settled(reservation: BudgetReservation, tasks: set[asyncio.Task[Any]]) -> tuple[int, int] | None:
    reservation.settle()
    while tasks:
        await tasks.pop()
    return await account()


async def test_a_complete_text_is_reserved_with_its_first_segment(make: Make):
    reservation = make()
    assert await reservation.reserve_for(segment(0, FIRST))
    assert await account() == (0, len(FIRST) + len(LAST))
    assert await reservation.reserve_for(segment(2, LAST))
    assert await account() == (0, len(FIRST) + len(LAST))


async def test_a_phrase_that_is_not_cached_is_reserved_when_it_is_reached(make: Make):
    speech = examples.speech(text=TEXT)
    reservation = make(speech)
    await reservation.reserve_for(segment(0, FIRST))
    speech.progress.billed(len(FIRST))
    assert await reservation.reserve_for(segment(1, PHRASE))
    assert await account() == (0, len(TEXT))


async def test_a_text_that_is_being_written_is_reserved_segment_by_segment(make: Make):
    speech = replace(examples.speech(), text_stream=TextStream(FIRST, complete=False))
    reservation = make(speech)
    await reservation.reserve_for(segment(0, FIRST))
    assert await account() == (0, len(FIRST))
    speech.progress.billed(len(FIRST))
    await reservation.reserve_for(segment(1, LAST))
    assert await account() == (0, len(FIRST) + len(LAST))


async def test_a_repeated_segment_is_reserved_again_after_it_was_billed(make: Make):
    speech = examples.speech(text=FIRST)
    reservation = make(speech)
    for _ in range(2):  # the first request got no response
        await reservation.reserve_for(segment(0, FIRST))
    assert await account() == (0, len(FIRST))
    speech.progress.billed(len(FIRST))
    await reservation.reserve_for(segment(0, FIRST))
    assert await account() == (0, 2 * len(FIRST))


async def test_billed_characters_become_used_and_the_rest_is_given_back(make: Make, tasks: set[asyncio.Task[Any]]):
    speech = examples.speech(text=TEXT, characters=1000)  # of an earlier reading, which has been settled
    reservation = make(speech)
    await reservation.reserve_for(segment(0, FIRST))
    speech.progress.billed(len(FIRST))
    assert await settled(reservation, tasks) == (len(FIRST), 0)


async def test_an_exceeded_budget_opens_one_incident(make: Make, tasks: set[asyncio.Task[Any]]):
    taken = [await make(examples.speech(text="x" * size)).reserve_for(segment(0, "x" * size)) for size in (150, 51, 50)]
    assert taken == [True, False, True]
    assert await account() == (0, 200)
    while tasks:
        await tasks.pop()
    incident = await in_database(Incident.objects.get)
    assert incident.kind == "budget"


async def test_a_reservation_that_is_cancelled_is_given_back(make: Make, tasks: set[asyncio.Task[Any]]):
    reservation = make()
    async with locked_database():
        asking = asyncio.create_task(reservation.reserve_for(segment(0, FIRST)))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait({asking})
        reservation.settle()
    while tasks:
        await tasks.pop()
    assert await account() == (0, 0)


async def test_without_an_answer_of_the_database_no_request_is_allowed(make: Make, tasks: set[asyncio.Task[Any]]):
    reservation = make()
    async with locked_database():
        with pytest.raises(BudgetUnknown):
            await reservation.reserve_for(segment(0, FIRST))
        async with asyncio.timeout(1):  # the database is not waited for again
            with pytest.raises(BudgetUnknown):
                await reservation.reserve_for(segment(1, PHRASE))
    assert await settled(reservation, tasks) == (0, 0)


async def test_a_reservation_that_succeeds_late_allows_the_later_segments(make: Make):
    reservation = make()
    async with locked_database():
        with pytest.raises(BudgetUnknown):
            await reservation.reserve_for(segment(0, FIRST))
    await eventually(account, wanted=lambda seen: seen == (0, len(FIRST) + len(LAST)))

    async def is_allowed() -> bool:
        with suppress(BudgetUnknown):  # the row is written, the event loop has not seen it yet
            return await reservation.reserve_for(segment(2, LAST))
        return False

    await eventually(is_allowed)
    assert await account() == (0, len(FIRST) + len(LAST))


async def test_speeches_that_the_database_keeps_waiting_do_not_exceed_the_budget_together(
    make: Make, tasks: set[asyncio.Task[Any]]
):
    """Three fit. Eight ask while the database is locked, and their reservations are made after the time limit."""
    size = BUDGET // 3
    reservations = [make(examples.speech(text="x" * size)) for _ in range(8)]

    async def is_allowed(reservation: BudgetReservation) -> bool:
        try:
            return await reservation.reserve_for(segment(0, "x" * size))
        except BudgetUnknown:
            return False

    async with locked_database():
        allowed = await asyncio.gather(*map(is_allowed, reservations))
    assert allowed == [False] * 8
    for reservation in reservations:
        reservation.settle()
    while tasks:
        await tasks.pop()
    assert await account() == (0, 0)


async def test_after_a_database_error_no_request_is_allowed(make: Make, tasks: set[asyncio.Task[Any]]):
    reservation = make()
    async with missing_table("usage_budgetmonth"):
        with pytest.raises(BudgetUnknown):
            await reservation.reserve_for(segment(0, FIRST))
    with pytest.raises(BudgetUnknown):
        await reservation.reserve_for(segment(1, PHRASE))
    assert await settled(reservation, tasks) is None


async def test_a_reservation_that_is_held_for_long_is_renewed(make: Make, monkeypatch: pytest.MonkeyPatch):
    """It happens before the repair could remove the reservation."""
    speech = examples.speech(text=TEXT)
    reservation = make(speech)
    await reservation.reserve_for(segment(0, FIRST))
    speech.progress.billed(len(FIRST))
    monkeypatch.setattr(budgets, "RESERVATION_TTL", timedelta(0))
    assert await reservation.reserve_for(segment(2, LAST))
    assert await account() == (len(FIRST), len(LAST))


async def test_a_reservation_that_the_repair_has_removed_is_not_settled(
    make: Make, tasks: set[asyncio.Task[Any]], monkeypatch: pytest.MonkeyPatch
):
    speech = examples.speech(text=TEXT)
    reservation = make(speech)
    await reservation.reserve_for(segment(0, FIRST))
    speech.progress.billed(len(FIRST))
    monkeypatch.setattr(budgets, "STALE_AFTER", timedelta(0))
    assert await settled(reservation, tasks) == (0, len(FIRST) + len(LAST))
