"""Daily totals: updated by every write, equal after a rebuild, in days of USAGE_TIME_ZONE."""

import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from pytest_django import Settings

from usage.ledger import events, rollup
from usage.ledger.events import Attempt
from usage.models import NO_ID, DailyUsage, UsageEvent

pytestmark = pytest.mark.django_db

PATIENT, VOICE = uuid.uuid4(), uuid.uuid4()
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def attempt(asked: int = 10, *, answered: bool = True, **fields: object) -> Attempt:
    plain = {
        "source_id": uuid.uuid4(),
        "segment": 0,
        "attempt": 1,
        "kind": "live",
        "patient_id": PATIENT,
        "voice_id": VOICE,
        "model": "flash",
        "started_at": NOON,
    }
    made = Attempt(**{**plain, "requested_characters": asked, **fields})
    if answered:
        made.mark_answered("request", asked // 2)
    return made


def rows() -> list[dict]:
    return sorted(DailyUsage.objects.values(*rollup.KEY_COLUMNS, *rollup.COLUMNS), key=str)


def test_events_with_one_key_share_a_row():
    events.record_attempts(
        [attempt(10, first_chunk_ms=120.0), attempt(30, first_chunk_ms=3000.5), attempt(5, answered=False)]
    )
    row = DailyUsage.objects.get()
    assert (row.day, row.patient, row.voice, row.model, row.kind) == (NOON.date(), PATIENT, VOICE, "flash", "live")
    assert (row.characters, row.credits, row.saved_characters, row.events, row.failed) == (40, 20, 0, 3, 0)
    assert (row.chunk_150, row.chunk_over) == (1, 1)
    assert sum(getattr(row, name) for name in rollup.CHUNK_COLUMNS) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"patient_id": uuid.uuid4()},
        {"voice_id": uuid.uuid4()},
        {"model": "other"},
        {"kind": "retry"},
        {"started_at": NOON + timedelta(days=1)},
    ],
)
def test_each_part_of_the_key_makes_a_separate_row(other: dict):
    events.record_attempts([attempt(), attempt(**other)])
    events.record_attempts([attempt(**other)])
    assert sorted(DailyUsage.objects.values_list("events", flat=True)) == [1, 2]


def test_events_without_patient_and_voice_are_added_under_no_id():
    events.record_attempts([attempt(kind="probe", patient_id=None, voice_id=None)])
    events.record_attempts([attempt(kind="probe", patient_id=None, voice_id=None)])
    row = DailyUsage.objects.get()
    assert (row.patient, row.voice, row.events) == (NO_ID, NO_ID, 2)


def test_recording_again_adds_only_the_difference():
    same = attempt(answered=False)
    events.record_attempts([same])
    events.record_attempts([same])
    same.mark_answered("late", 7)
    same.first_chunk_ms = 80.0
    events.record_attempts([same])
    same.outcome = "failed"
    events.record_attempts([same, same])
    row = DailyUsage.objects.get()
    assert (row.events, row.characters, row.credits, row.failed, row.chunk_100) == (1, 10, 7, 1, 1)


def test_a_rolled_back_transaction_adds_nothing():
    with transaction.atomic():
        events.record_attempts([attempt()])
        transaction.set_rollback(True)
    assert rows() == []


@pytest.mark.parametrize(
    ("zone", "at", "day"),
    [
        ("UTC", "2026-03-01T23:59:59.999+00:00", date(2026, 3, 1)),
        ("Europe/Berlin", "2026-03-01T22:59:59+00:00", date(2026, 3, 1)),
        ("Europe/Berlin", "2026-03-01T23:00:00+00:00", date(2026, 3, 2)),
        ("Europe/Berlin", "2026-06-30T22:00:00+00:00", date(2026, 7, 1)),
        ("America/New_York", "2028-02-29T04:59:59+00:00", date(2028, 2, 28)),
        ("America/New_York", "2028-03-01T04:59:59+00:00", date(2028, 2, 29)),
        ("Pacific/Kiritimati", "2025-12-31T10:00:00+00:00", date(2026, 1, 1)),
        ("America/Sao_Paulo", "2018-11-04T02:59:59+00:00", date(2018, 11, 3)),  # this day had no midnight
        ("America/Sao_Paulo", "2018-11-04T03:00:00+00:00", date(2018, 11, 4)),
    ],
)
def test_an_event_belongs_to_its_day_in_the_usage_time_zone(settings: Settings, zone: str, at: str, day: date):
    settings.USAGE_TIME_ZONE = zone
    events.record_attempts([attempt(started_at=datetime.fromisoformat(at))])
    assert DailyUsage.objects.get().day == day
    rollup.rebuild()
    assert DailyUsage.objects.get().day == day


@pytest.mark.parametrize(
    ("ms", "column"),
    [
        (0.0, "chunk_50"),
        (50.0, "chunk_50"),
        (50.01, "chunk_100"),
        (500.0, "chunk_500"),
        (500.1, "chunk_750"),
        (3000.0, "chunk_3000"),
        (3000.1, "chunk_over"),
        (1e9, "chunk_over"),
        (None, None),
    ],
)
def test_a_time_to_first_audio_falls_into_one_bucket(ms: float | None, column: str | None):
    assert rollup.chunk_column(ms) == column
    events.record_attempts([attempt(first_chunk_ms=ms)])
    row = DailyUsage.objects.get()
    assert [name for name in rollup.CHUNK_COLUMNS if getattr(row, name)] == ([column] if column else [])


def test_every_column_is_a_total_or_part_of_the_key():
    names = {field.name for field in DailyUsage._meta.concrete_fields}
    assert names == {"id", *rollup.KEY_COLUMNS, *rollup.COLUMNS}


def history(seed: int, size: int = 300) -> list[Attempt]:
    """Create random attempts of a few patients over a few days: answered, failed, unknown and saved ones."""
    dice = random.Random(seed)
    cast = [None, *(uuid.UUID(int=n) for n in (5, 6, 7))]
    made = []
    for _ in range(size):
        kind = dice.choice(UsageEvent.Kind.values)
        one = attempt(
            dice.randrange(1, 300),
            answered=False,
            kind=kind,
            patient_id=dice.choice(cast),
            voice_id=dice.choice(cast),
            model=dice.choice(["flash", "v3"]),
            started_at=NOON + timedelta(hours=dice.randrange(-80, 80)),
            first_chunk_ms=dice.choice([None, dice.uniform(1, 4000)]),
        )
        if kind in ("cache", "offline"):
            one.outcome, one.saved_characters = "completed", one.requested_characters
        elif dice.random() < 0.8:
            one.mark_answered("r", dice.choice([None, one.requested_characters // 2]))
            one.outcome = dice.choice(["completed", "completed", "failed", "cancelled"])
        made.append(one)
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("zone", ["UTC", "Australia/Adelaide"])
def test_a_rebuild_gives_the_same_totals(settings: Settings, zone: str, seed: int):
    settings.USAGE_TIME_ZONE = zone
    attempts = history(seed)
    for start in range(0, len(attempts), 37):
        events.record_attempts(attempts[start : start + 37])
    kept_up = rows()
    DailyUsage.objects.filter(kind="live").update(characters=1)  # wrong totals
    DailyUsage.objects.filter(kind="cache").delete()
    DailyUsage.objects.create(day=date(2026, 2, 20), kind="live", characters=9)
    assert rollup.rebuild() > 1
    assert rows() == kept_up
    expected = Counter()
    for one in attempts:
        expected[one.kind] += one.characters
    totals = Counter()
    for row in kept_up:
        totals[row["kind"]] += row["characters"]
    assert totals == expected


def test_the_command_rebuilds_the_given_days(capsys: pytest.CaptureFixture[str]):
    events.record_attempts(
        [attempt(), attempt(started_at=NOON + timedelta(days=1)), attempt(started_at=NOON + timedelta(days=2))]
    )
    DailyUsage.objects.update(characters=1)
    call_command("rebuild_usage", "--from", "2026-03-02", "--to", "2026-03-02")
    assert list(DailyUsage.objects.order_by("day").values_list("characters", flat=True)) == [1, 10, 1]
    assert "Rebuilt 1 days." in capsys.readouterr().out
    call_command("rebuild_usage")
    assert list(DailyUsage.objects.values_list("characters", flat=True)) == [10, 10, 10]
    with pytest.raises(CommandError):
        call_command("rebuild_usage", "--from", "the first of March")


def test_without_events_there_is_nothing_to_rebuild():
    assert rollup.rebuild() == 0


@pytest.mark.django_db(transaction=True)
def test_a_rebuild_may_run_while_others_write():
    def write(number: int) -> None:
        try:
            events.record_attempts([attempt(1) for _ in range(5)])
        finally:
            connection.close()

    def rebuild(number: int) -> None:
        try:
            rollup.rebuild()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as threads:
        jobs = [threads.submit(rebuild if number % 4 == 0 else write, number) for number in range(40)]
        [job.result() for job in jobs]
    assert DailyUsage.objects.get().characters == UsageEvent.objects.count() == 150
