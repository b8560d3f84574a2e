"""What was used, and how soon it was heard: the one source of every figure that the REST API and the admin show.

All of it comes from `DailyUsage`, whose rows do not grow with the number of events; months that are over are kept in
the cache for a while. Days and months are those of USAGE_TIME_ZONE. How often something happened counts events of the
ledger, which are segments; `speeches` counts texts that were heard.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncMonth
from django.utils import timezone

from usage import forecast
from usage.daily import CHUNK_COLUMNS, CHUNK_EDGES_MS, day_of
from usage.forecast import Forecast
from usage.models import NOBODY, DailyUsage, ProviderState, UsageEvent

Kind = UsageEvent.Kind

LIVE = (Kind.LIVE, Kind.RETRY)
SAVED = (Kind.CACHE, Kind.OFFLINE)
BESIDE = (Kind.PROBE, Kind.WARM, Kind.PREVIEW)  # billed, and no patient heard it at that moment
ASKING = (*LIVE, Kind.BACKUP, *BESIDE)
HEARD = (*LIVE, Kind.BACKUP, *SAVED)

MONTH_KEPT_S = 3600


@dataclass(frozen=True, slots=True)
class Figures:
    """One day, or one month. Characters, but for `credits` and the counts; times are of speeches' first sounds, None
    where there was none."""

    start: date
    live: int = 0
    backup: int = 0
    other: int = 0
    characters: int = 0
    saved: int = 0
    credits: int = 0
    requests: int = 0
    failed: int = 0
    backups: int = 0
    offline: int = 0
    speeches: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What one patient or voice has of the whole; `key` is None for what belongs to nobody."""

    key: uuid.UUID | None
    characters: int
    saved: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Requests whose answer was never seen, until reconciliation has found out: in no other figure."""

    attempts: int
    characters: int


@dataclass(frozen=True, slots=True)
class QuotaFigures:
    """The account's credits in this period, as the provider told them last; None where it did not, or without limit."""

    limit: int | None
    used: int | None
    remaining: int | None
    exhausted: bool
    resets_at: datetime | None
    polled_at: datetime | None
    forecast: Forecast | None


def _sum(name: str, *kinds: Kind) -> Coalesce:
    return Coalesce(Sum(name, filter=Q(kind__in=kinds) if kinds else None), 0)


_SUMS: dict[str, Any] = {
    "live": _sum("characters", *LIVE),
    "backup": _sum("characters", Kind.BACKUP),
    "other": _sum("characters", *BESIDE),
    "characters": _sum("characters"),
    "saved": _sum("saved"),
    "credits": _sum("credits"),
    "requests": _sum("events", *ASKING),
    "failed": _sum("failed", *ASKING),
    "backups": _sum("events", Kind.BACKUP),
    "offline": _sum("events", Kind.OFFLINE),
}
_TABLE = {
    "characters": _SUMS["characters"],
    "credits": _SUMS["credits"],
    "saved_characters": _SUMS["saved"],
    "requests": _SUMS["requests"],
}
_CHUNKS: dict[str, Any] = {f"heard_{name}": _sum(name, *HEARD) for name in CHUNK_COLUMNS}


def today() -> date:
    return day_of(timezone.now())


def days(first: date, last: date, *, patient: uuid.UUID | None = None) -> list[Figures]:
    """Every day of the range, both ends included."""
    return _filled(_days(first, last), _of(patient).filter(day__range=(first, last)).values(start=F("day")))


def months(first: date, last: date, *, patient: uuid.UUID | None = None) -> list[Figures]:
    """Every month that holds a day of the range, whole."""
    return list(_kept(list(_months(first, last)), patient))


def table(usage: QuerySet[DailyUsage], *, by_month: bool, group: str = "") -> QuerySet[DailyUsage, Any]:
    """Dicts of `start`, the key named as the group, and the sums of `_TABLE`: only what there is, earliest first."""
    start: Any = TruncMonth("day") if by_month else F("day")
    keys = [group] if group else []
    rows = usage.order_by().annotate(start=start).values("start", *keys)
    summed: QuerySet[DailyUsage, Any] = rows.annotate(**_TABLE).order_by("start", *keys)
    return summed


def top_patients(first: date, last: date, limit: int = 10) -> list[Share]:
    return _top("patient", first, last, limit)


def top_voices(first: date, last: date, limit: int = 10) -> list[Share]:
    return _top("voice", first, last, limit)


def quota() -> QuotaFigures:
    state = ProviderState.objects.filter(pk=1).first() or ProviderState()
    return QuotaFigures(
        limit=state.quota_limit,
        used=state.quota_used,
        remaining=state.quota_remaining,
        exhausted=state.quota == ProviderState.Quota.SPENT,
        resets_at=state.quota_resets_at,
        polled_at=state.polled_at,
        forecast=forecast.of(state, timezone.now()),
    )


def unknown() -> Unknown:
    found = UsageEvent.objects.filter(outcome=UsageEvent.Outcome.UNKNOWN).values_list("asked", flat=True)
    return Unknown(len(found), sum(found))


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Of the first-sound buckets, in ms: as if times lay evenly in each bucket; beyond the last edge, that edge."""
    rank, lower = share * sum(counts), 0.0
    if not sum(counts):
        return None
    for count, upper in zip(counts, CHUNK_EDGES_MS, strict=False):
        if count and rank <= count:
            return round(lower + (upper - lower) * rank / count, 1)
        rank, lower = rank - count, float(upper)
    return lower


def _of(patient: uuid.UUID | None) -> QuerySet[DailyUsage]:
    every = DailyUsage.objects.order_by()
    return every if patient is None else every.filter(patient=patient)


def _filled(starts: Iterable[date], grouped: QuerySet[DailyUsage, Any]) -> list[Figures]:
    rows = {row["start"]: row for row in grouped.annotate(**_SUMS, **_CHUNKS)}
    return [_figures(rows[start]) if start in rows else Figures(start) for start in starts]


def _figures(row: dict[str, Any]) -> Figures:
    counts = [row[name] for name in _CHUNKS]
    times = {"speeches": sum(counts), "p50_ms": percentile(counts, 0.5), "p95_ms": percentile(counts, 0.95)}
    own = {field.name: row[field.name] for field in fields(Figures) if field.name not in times}
    return Figures(**own, **times)


def _kept(starts: Sequence[date], patient: uuid.UUID | None) -> Iterator[Figures]:
    """A month that is over changes no more, but for what reconciliation adds: it is looked at again after an hour."""
    current = today().replace(day=1)
    names = {start: f"usage-month-{start}-{patient}" for start in starts}
    kept = cache.get_many([names[start] for start in starts if start < current])
    missing = [start for start in starts if names[start] not in kept]
    fresh = {figures.start: figures for figures in _read_months(missing, patient)}
    cache.set_many({names[start]: fresh[start] for start in missing if start < current}, MONTH_KEPT_S)
    for start in starts:
        yield kept.get(names[start]) or fresh[start]


def _read_months(starts: Sequence[date], patient: uuid.UUID | None) -> list[Figures]:
    if not starts:
        return []
    usage = _of(patient).filter(day__gte=starts[0], day__lt=_next(starts[-1]))
    return _filled(starts, usage.annotate(start=TruncMonth("day")).values("start"))


def _top(key: str, first: date, last: date, limit: int) -> list[Share]:
    within = DailyUsage.objects.order_by().filter(day__range=(first, last)).values(key)
    rows = within.annotate(used=_SUMS["characters"], kept=_SUMS["saved"]).order_by("-used", "-kept", key)[:limit]
    return [Share(None if row[key] == NOBODY else row[key], row["used"], row["kept"]) for row in rows]


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def _months(first: date, last: date) -> Iterator[date]:
    start = first.replace(day=1)
    while start <= last:
        yield start
        start = _next(start)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)
