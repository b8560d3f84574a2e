"""The ledger: each attempt is one event, and its characters are counted and returned once."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from usage.ledger import events
from usage.ledger.events import Attempt
from usage.models import DailyUsage, UsageEvent
from voicecare.providers.elevenlabs.requests import printable_id

pytestmark = pytest.mark.django_db

TALK, OTHER_TALK = uuid.uuid4(), uuid.uuid4()


def attempt(asked: int = 10, *, answered: bool = True, **fields: object) -> Attempt:
    identity = {"source_id": uuid.uuid4(), "segment": 0, "attempt": 1, "kind": "live", "conversation_id": TALK}
    made = Attempt(**{**identity, "requested_characters": asked, **fields})
    if answered:
        made.mark_answered("request", None)
    return made


def test_every_field_of_an_attempt_is_recorded():
    whole = attempt(
        40,
        answered=False,
        segment=3,
        attempt=2,
        kind="retry",
        patient_id=uuid.uuid4(),
        voice_id=uuid.uuid4(),
        model="m",
        code="stalled",
        first_byte_ms=12.5,
        first_chunk_ms=14.0,
        text_digest="a digest",
    )
    whole.mark_answered("request-1", 20)
    whole.outcome = "failed"
    events.record_attempts([whole])
    event = UsageEvent.objects.get()
    ids = {"source_id": "source", "conversation_id": "conversation", "patient_id": "patient", "voice_id": "voice"}
    names = {field.name: ids.get(field.name, field.name) for field in fields(Attempt)}
    assert {name: getattr(event, column) for name, column in names.items()} == asdict(whole)
    assert set(names.values()) == {field.name for field in UsageEvent._meta.concrete_fields} - {"id"}
    assert (event.characters, event.credits) == (40, 20)


@pytest.mark.parametrize(("cost", "credits"), [(None, 40), (0, 0), (20, 20), (4000, 4000), (4001, 40), (10**14, 40)])
def test_an_implausible_cost_is_replaced_by_one_credit_per_character(cost: int | None, credits: int):
    asked = attempt(40, answered=False)
    asked.mark_answered(None, cost)
    assert (asked.characters, asked.credits, asked.outcome, asked.request_id) == (40, credits, "completed", "")
    assert events.record_attempts([asked]) == {TALK: 40}  # the column can hold the credits


def test_an_unanswered_attempt_counts_nothing_and_stays_unknown():
    assert events.record_attempts([attempt(answered=False)]) == {}
    event = UsageEvent.objects.get()
    assert (event.outcome, event.characters, event.credits, event.requested_characters) == ("unknown", 0, 0, 10)


def test_an_attempt_recorded_twice_counts_once():
    same = attempt()
    assert events.record_attempts([same]) == {TALK: 10}
    assert events.record_attempts([same]) == {}
    assert UsageEvent.objects.get().characters == 10


def test_an_attempt_counts_when_it_is_answered():
    same = attempt(answered=False)
    events.record_attempts([same])
    same.mark_answered("late", 5)
    assert events.record_attempts([same]) == {TALK: 10}
    event = UsageEvent.objects.get()
    assert (event.outcome, event.characters, event.credits, event.request_id) == ("completed", 10, 5, "late")


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_an_answered_attempt_counts_with_any_outcome(outcome: str):
    same = attempt()
    events.record_attempts([same])
    same.outcome = outcome
    assert events.record_attempts([same]) == {}
    event = UsageEvent.objects.get()
    assert (event.outcome, event.characters) == (outcome, 10)


@pytest.mark.parametrize("kind", ["cache", "offline"])
def test_cached_and_offline_speech_counts_as_saved(kind: str):
    assert events.record_attempts([attempt(answered=False, kind=kind, outcome="completed", saved_characters=10)]) == {}
    event = UsageEvent.objects.get()
    assert (event.saved_characters, event.characters, event.credits) == (10, 0, 0)


def test_new_characters_are_returned_by_conversation():
    shared = uuid.uuid4()
    batch = [
        attempt(1, source_id=shared, segment=0),
        attempt(2, source_id=shared, segment=0, attempt=2),
        attempt(4, source_id=shared, segment=1),
        attempt(8, conversation_id=OTHER_TALK),
        attempt(16, conversation_id=None),
        attempt(32, conversation_id=uuid.uuid4(), answered=False),
    ]
    assert events.record_attempts(batch) == {TALK: 7, OTHER_TALK: 8}
    assert UsageEvent.objects.count() == 6


def test_a_batch_written_again_adds_only_new_characters():
    batch = [attempt(1), attempt(2), attempt(4, answered=False)]
    events.record_attempts(batch)
    batch[2].mark_answered(None, None)
    assert events.record_attempts([*batch, attempt(8)]) == {TALK: 12}


def test_a_rolled_back_transaction_counts_nothing():
    same = attempt()
    with transaction.atomic():
        events.record_attempts([same])
        transaction.set_rollback(True)
    assert events.record_attempts([same]) == {TALK: 10}


def test_an_empty_batch_adds_nothing():
    assert events.record_attempts([]) == {}


def test_a_hundred_attempts_take_one_select_and_few_writes():
    """SQLite needs several statements, because one statement accepts a thousand values."""
    batch = [attempt(conversation_id=uuid.uuid4(), patient_id=uuid.uuid4()) for _ in range(100)]
    with CaptureQueriesContext(connection) as captured:
        events.record_attempts(batch)
    said = [query["sql"].replace('"', "").split(maxsplit=3) for query in captured]
    statements = [(words[0], words[2]) for words in said if words[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")]
    assert [verb for verb, _ in statements].count("SELECT") == 1
    assert statements[-1] == ("INSERT", "usage_dailyusage")
    assert len(statements) == 4 or connection.vendor == "sqlite"
    assert len(statements) <= 6


def test_a_resolved_attempt_does_not_become_unknown_again():
    late = attempt(answered=False)
    events.record_attempts([late])
    UsageEvent.objects.update(outcome="completed", characters=10, credits=5)
    assert events.record_attempts([late]) == {}
    assert UsageEvent.objects.get().characters == 10


@pytest.mark.parametrize(
    ("column", "longest"), [("request_id", printable_id("x" * 1000)), ("code", "voice_" + "x" * 58)]
)
def test_columns_hold_the_longest_values_of_the_provider(column: str, longest: str):
    """PostgreSQL refuses a row with a value that is too long, and its usage would be lost."""
    assert len(longest) <= UsageEvent._meta.get_field(column).max_length


def test_the_default_time_of_an_attempt_has_a_time_zone():
    assert attempt().started_at.utcoffset() is not None


@pytest.mark.django_db(transaction=True)
def test_two_simultaneous_writers_count_everything_once():
    def write(batch: list[Attempt]) -> int:
        try:
            with transaction.atomic():
                return sum(events.record_attempts(batch).values())
        finally:
            connection.close()

    batches = [[attempt(1) for _ in range(5)] for _ in range(20)]
    with ThreadPoolExecutor(2) as threads:
        counted = sum(threads.map(write, batches))
    assert counted == UsageEvent.objects.count() == 100


def test_the_last_record_of_an_attempt_in_a_batch_counts():
    """PostgreSQL refuses a statement that writes a row twice, and the whole batch with it."""
    first = attempt(10)
    again = attempt(10, source_id=first.source_id, outcome="failed", answered=False)
    assert events.record_attempts([first, again]) == {}
    assert UsageEvent.objects.get().outcome == "failed"


# Resolved by reconciliation


def record_unknown(asked: int = 10, **fields: object) -> UsageEvent:
    made = attempt(asked, answered=False, **fields)
    events.record_attempts([made])
    return UsageEvent.objects.get(source=made.source_id, attempt=made.attempt)


def test_a_billed_unknown_attempt_is_added_to_the_ledger_and_the_days():
    event = record_unknown(40, code="no_first_byte", first_chunk_ms=12.0)
    assert events.resolve_unknown(event.pk, request_id="r1", credits=20) == {TALK: 40}
    event.refresh_from_db()
    assert (event.outcome, event.code, event.request_id) == ("failed", "billed", "r1")
    assert (event.characters, event.credits, event.first_chunk_ms) == (40, 20, 12.0)
    day = DailyUsage.objects.get()
    assert (day.characters, day.credits, day.events, day.failed) == (40, 20, 1, 1)


@pytest.mark.parametrize(("code", "outcome", "failed"), [("stalled", "failed", 1), ("", "cancelled", 0)])
def test_an_unknown_attempt_that_was_not_billed_counts_nothing(code: str, outcome: str, failed: int):
    """Without an error the attempt was interrupted or its process died, so it is no failure of the provider."""
    event = record_unknown(40, code=code)
    assert events.resolve_unknown(event.pk) == {}
    event.refresh_from_db()
    assert (event.outcome, event.code, event.characters, event.request_id) == (outcome, "not_billed", 0, "")
    assert DailyUsage.objects.get().failed == failed


def test_resolving_again_changes_nothing():
    event = record_unknown(40)
    events.resolve_unknown(event.pk, request_id="r1", credits=20)
    assert events.resolve_unknown(event.pk, request_id="r2", credits=30) == events.resolve_unknown(event.pk) == {}
    assert events.resolve_unknown(uuid.uuid4(), request_id="r3") == {}
    event.refresh_from_db()
    assert (event.request_id, event.credits, DailyUsage.objects.get().characters) == ("r1", 20, 40)


def test_a_request_resolves_only_one_attempt():
    first, second, later = (
        record_unknown(40),
        record_unknown(40),
        record_unknown(40, started_at=datetime.now(UTC) + timedelta(hours=1)),
    )
    assert events.resolve_unknown(first.pk, request_id="r1", credits=20) == {TALK: 40}
    assert events.resolve_unknown(second.pk, request_id="r1", credits=20) == {}
    second.refresh_from_db()
    assert second.outcome == "unknown"
    # The provider may reuse an id later.
    assert events.resolve_unknown(later.pk, request_id="r1", credits=20) == {TALK: 40}


@pytest.mark.parametrize("resolved_as", ["", "r1"])
def test_a_late_answer_overrides_reconciliation(resolved_as: str):
    late = attempt(40, answered=False)
    events.record_attempts([late])
    events.resolve_unknown(UsageEvent.objects.get().pk, request_id=resolved_as, credits=20)
    late.mark_answered("r1", 20)
    events.record_attempts([late])
    assert UsageEvent.objects.get().characters == DailyUsage.objects.get().characters == 40
    assert (UsageEvent.objects.get().outcome, DailyUsage.objects.get().failed) == ("completed", 0)


@pytest.mark.django_db(transaction=True)
def test_simultaneous_resolutions_match_a_request_once():
    def resolve(event: UsageEvent) -> int:
        try:
            with transaction.atomic():
                return sum(events.resolve_unknown(event.pk, request_id=event.model, credits=1).values())
        finally:
            connection.close()

    pairs = [record_unknown(1, model=f"request-{number // 2}") for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(resolve, pairs)) == 20
    assert DailyUsage.objects.aggregate(sum=Sum("characters"))["sum"] == 20
