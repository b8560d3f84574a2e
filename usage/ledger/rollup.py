"""Daily sums of the ledger: kept up in the transaction that writes the events, and rebuilt from them on demand.

What an event adds to its day is one function, `share`; both ways use it or say the same in SQL. A day is one in
USAGE_TIME_ZONE, and an event belongs to the one in which its attempt began.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Max, Min, Q, QuerySet, Sum

from usage.models import NO_ID, DailyUsage, UsageEvent

CHUNK_BOUNDS_MS = (50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000)
CHUNK_COLUMNS = (*(f"chunk_{edge}" for edge in CHUNK_BOUNDS_MS), "chunk_over")
COLUMNS = ("characters", "credits", "saved_characters", "events", "failed", *CHUNK_COLUMNS)
KEY_COLUMNS = ("day", "patient", "voice", "model", "kind")
ROWS_PER_STATEMENT = 500  # SQLite takes at most 32,766 parameters

_FIELDS = {field.name: field for field in DailyUsage._meta.concrete_fields}

Totals = tuple[int, ...]
"""One number for each of COLUMNS."""

ZERO_TOTALS: Totals = (0,) * len(COLUMNS)


class Key(NamedTuple):
    """Which row an event is summed in."""

    day: date
    patient: uuid.UUID
    voice: uuid.UUID
    model: str
    kind: str


class Summable(Protocol):
    """What of an event is summed."""

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
    """The first moment of that day, also where the clocks are changed at midnight."""
    return datetime.combine(day, time.min, time_zone())


def key_for(at: datetime, patient: uuid.UUID | None, voice: uuid.UUID | None, model: str, kind: str) -> Key:
    return Key(day_of(at), patient or NO_ID, voice or NO_ID, model, kind)


def totals_of(event: Summable) -> Totals:
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
    return next((f"chunk_{edge}" for edge in CHUNK_BOUNDS_MS if first_chunk_ms <= edge), "chunk_over")


def subtract_totals(new: Totals, old: Totals) -> Totals:
    return tuple(map(int.__sub__, new, old))


def add_totals(one: Totals, other: Totals) -> Totals:
    return tuple(map(int.__add__, one, other))


def add_to_days(sums: Mapping[Key, Totals]) -> None:
    """Adds to the rows, making those that are missing: one statement. Inside the caller's transaction.

    In the order of their keys: two processes that lock the same rows never wait for each other in a circle.
    """
    wanted = sorted((key, sums[key]) for key in sums if any(sums[key]))
    for start in range(0, len(wanted), ROWS_PER_STATEMENT):
        _upsert(wanted[start : start + ROWS_PER_STATEMENT])


def _upsert(rows: list[tuple[Key, Totals]]) -> None:
    """The ORM's upsert replaces; adding is left to the database, so that no process overwrites another's sum."""
    table = DailyUsage._meta.db_table
    keys = [str(_FIELDS[name].column) for name in KEY_COLUMNS]
    sums = [str(_FIELDS[name].column) for name in COLUMNS]
    one = f"({', '.join(['%s'] * len([*keys, *sums]))})"
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    # Names of our own columns only: nothing of it comes from outside.
    sql = (
        f"INSERT INTO {table} ({', '.join([*keys, *sums])}) VALUES {', '.join([one] * len(rows))} "  # noqa: S608
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {added}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [value for key, numbers in rows for value in (*_prepared(key), *numbers)])


def _prepared(key: Key) -> Iterator[Any]:
    for name, value in zip(KEY_COLUMNS, key, strict=True):
        yield _FIELDS[name].get_db_prep_value(value, connection)


# From the events


def rebuild(first: date | None = None, last: date | None = None) -> int:
    """Sums these days anew from their events, both ends included, else all there are; returns how many days.

    A day is one transaction, while which nobody adds to a sum: speech goes on, its rows are written a moment later.
    """
    whole = _days_with_anything()
    if whole is None:
        return 0
    first, last = first or whole[0], last or whole[1]
    for offset in range((last - first).days + 1):
        _rebuild_day(first + timedelta(days=offset))
    return max((last - first).days + 1, 0)


def _days_with_anything() -> tuple[date, date] | None:
    """Also days that have sums and no event: those sums are wrong."""
    started = UsageEvent.objects.aggregate(first=Min("started_at"), last=Max("started_at"))
    summed = DailyUsage.objects.aggregate(first=Min("day"), last=Max("day"))
    days = [*(day_of(moment) for moment in started.values() if moment), *(day for day in summed.values() if day)]
    return (min(days), max(days)) if days else None


@transaction.atomic
def _rebuild_day(day: date) -> None:
    _lock_table()
    DailyUsage.objects.filter(day=day).delete()
    DailyUsage.objects.bulk_create(_summed(day), batch_size=ROWS_PER_STATEMENT)


def _lock_table() -> None:
    """Who has added and not committed yet is waited for; SQLite's immediate transactions do so by themselves."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {DailyUsage._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")


def _summed(day: date) -> Iterator[DailyUsage]:
    events = UsageEvent.objects.filter(
        started_at__gte=start_of_day(day), started_at__lt=start_of_day(day + timedelta(days=1))
    )
    for row in _grouped(events):
        patient, voice = row.pop("patient") or NO_ID, row.pop("voice") or NO_ID
        yield DailyUsage(day=day, patient=patient, voice=voice, **row)


def _grouped(events: QuerySet[UsageEvent]) -> Iterable[Any]:
    sums: dict[str, Any] = {name: Sum(name) for name in ("characters", "credits", "saved_characters")}
    failed = Count("id", filter=Q(outcome=UsageEvent.Outcome.FAILED))
    by_key = events.order_by().values("patient", "voice", "model", "kind")
    return by_key.annotate(**sums, events=Count("id"), failed=failed, **_chunk_counts())


def _chunk_counts() -> dict[str, Count]:
    bounds = zip((None, *CHUNK_BOUNDS_MS), (*CHUNK_BOUNDS_MS, None), CHUNK_COLUMNS, strict=True)
    return {name: Count("id", filter=_between(above, within)) for above, within, name in bounds}


def _between(above: int | None, within: int | None) -> Q:
    condition = Q(first_chunk_ms__isnull=False)
    if above is not None:
        condition &= Q(first_chunk_ms__gt=above)
    return condition if within is None else condition & Q(first_chunk_ms__lte=within)
