"""Daily totals of the ledger.

The totals are updated in the transaction that writes the events, and can be rebuilt from the events. `totals_of`
defines what one event adds to its day. `_sum_events` computes the same in SQL. Days are in USAGE_TIME_ZONE. An event
belongs to the day on which its attempt started.
"""

import uuid
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Max, Min, Q, Sum

from usage.models import NO_ID, BudgetMonth, DailyUsage, UsageEvent

CHUNK_BOUNDS_MS = (50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000)
CHUNK_COLUMNS = (*(f"chunk_{bound}" for bound in CHUNK_BOUNDS_MS), "chunk_over")
COLUMNS = ("characters", "credits", "saved_characters", "events", "failed", *CHUNK_COLUMNS)
KEY_COLUMNS = ("day", "patient", "voice", "model", "kind")
ROWS_PER_STATEMENT = 500  # SQLite allows at most 32,766 parameters

_FIELDS = {field.name: field for field in DailyUsage._meta.concrete_fields}

Totals = tuple[int, ...]
"""One number for each name in COLUMNS."""

ZERO_TOTALS: Totals = (0,) * len(COLUMNS)


class Key(NamedTuple):
    """The key of a row of daily totals. An event is added to the row with its key."""

    day: date
    patient: uuid.UUID
    voice: uuid.UUID
    model: str
    kind: str


class Summable(Protocol):
    """The fields of an event that are added up. Both `Attempt` and the rows of `UsageEvent` have them."""

    @property
    def characters(self) -> int: ...
    @property
    def credits(self) -> int: ...
    @property
    def saved_characters(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def first_chunk_ms(self) -> float | None: ...


def time_zone() -> ZoneInfo:
    return ZoneInfo(settings.USAGE_TIME_ZONE)


def day_of(at: datetime) -> date:
    return at.astimezone(time_zone()).date()


def start_of_day(day: date) -> datetime:
    """Return the first moment of the day in USAGE_TIME_ZONE, also if daylight saving time skips its midnight."""
    return datetime.combine(day, time.min, time_zone())


def month_after(month: date) -> date:
    """Return the first day of the month after the one that begins on `month`."""
    return (month + timedelta(days=31)).replace(day=1)


def key_for(
    started_at: datetime, patient_id: uuid.UUID | None, voice_id: uuid.UUID | None, model: str, kind: str
) -> Key:
    return Key(day_of(started_at), patient_id or NO_ID, voice_id or NO_ID, model, kind)


def totals_of(event: Summable) -> Totals:
    """Return the numbers that one event adds to the totals of its day, in the order of COLUMNS."""
    column = chunk_column(event.first_chunk_ms)
    chunks = (int(name == column) for name in CHUNK_COLUMNS)
    return (
        event.characters,
        event.credits,
        event.saved_characters,
        1,
        int(event.outcome == UsageEvent.Outcome.FAILED),
        *chunks,
    )


def chunk_column(first_chunk_ms: float | None) -> str | None:
    if first_chunk_ms is None:
        return None
    return next((f"chunk_{bound}" for bound in CHUNK_BOUNDS_MS if first_chunk_ms <= bound), "chunk_over")


def add_to_days(sums: Mapping[Key, Totals]) -> None:
    """Add these sums to the daily totals, and create missing rows. Call it inside a transaction.

    Rows are written in the order of their keys, so two processes that lock the same rows cannot deadlock.
    """
    wanted = sorted((key, sums[key]) for key in sums if any(sums[key]))
    for start in range(0, len(wanted), ROWS_PER_STATEMENT):
        _upsert(wanted[start : start + ROWS_PER_STATEMENT])


def _upsert(rows: list[tuple[Key, Totals]]) -> None:
    """Insert these rows, or add their totals to existing rows, in one statement.

    This is SQL because the ORM's upsert replaces values, so one process would overwrite another's totals.
    """
    table = DailyUsage._meta.db_table
    key_fields = [_FIELDS[name] for name in KEY_COLUMNS]
    keys = [str(field.column) for field in key_fields]
    sums = [str(_FIELDS[name].column) for name in COLUMNS]
    one = f"({', '.join(['%s'] * len([*keys, *sums]))})"
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    # The statement contains only our own column names, no input.
    sql = (
        f"INSERT INTO {table} ({', '.join([*keys, *sums])}) VALUES {', '.join([one] * len(rows))} "  # noqa: S608 - see above
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {added}"
    )
    parameters: list[Any] = []
    for key, totals in rows:
        parameters += [field.get_db_prep_value(value, connection) for field, value in zip(key_fields, key, strict=True)]
        parameters += totals
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


# Rebuilding from the events


def rebuild(first: date | None = None, last: date | None = None) -> int:
    """Rebuild the daily totals from the events. Returns the number of days.

    `first` and `last` are included. Without them, all days are rebuilt. Each day is one transaction, in which other
    processes wait to write totals. Speech continues, because its rows are written in the background.
    """
    started = UsageEvent.objects.aggregate(first=Min("started_at"), last=Max("started_at"))
    summed = DailyUsage.objects.aggregate(first=Min("day"), last=Max("day"))  # totals without an event are wrong
    days = [*(day_of(moment) for moment in started.values() if moment), *(day for day in summed.values() if day)]
    if not days:
        return 0
    first, last = first or min(days), last or max(days)
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        with transaction.atomic():
            # The table lock waits for transactions that have added totals and not committed. It blocks new ones. SQLite
            # needs no lock, because its write transactions are immediate.
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(f"LOCK TABLE {DailyUsage._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")
            DailyUsage.objects.filter(day=day).delete()
            DailyUsage.objects.bulk_create(_sum_events(day), batch_size=ROWS_PER_STATEMENT)
    BudgetMonth.objects.update(checked=False)  # `usage.budgets.repair` compares all of them once
    return max((last - first).days + 1, 0)


def _sum_events(day: date) -> Iterator[DailyUsage]:
    sums: dict[str, Any] = {name: Sum(name) for name in ("characters", "credits", "saved_characters")}
    sums["events"] = Count("id")
    sums["failed"] = Count("id", filter=Q(outcome=UsageEvent.Outcome.FAILED))
    above = Q(first_chunk_ms__isnull=False)
    for bound in CHUNK_BOUNDS_MS:
        sums[f"chunk_{bound}"] = Count("id", filter=above & Q(first_chunk_ms__lte=bound))
        above = Q(first_chunk_ms__gt=bound)
    sums["chunk_over"] = Count("id", filter=above)
    start, end = start_of_day(day), start_of_day(day + timedelta(days=1))
    events = UsageEvent.objects.filter(started_at__gte=start, started_at__lt=end).order_by()
    for row in events.values("patient", "voice", "model", "kind").annotate(**sums):
        ids = {"patient": row["patient"] or NO_ID, "voice": row["voice"] or NO_ID}
        yield DailyUsage(**{**row, **ids, "day": day})
