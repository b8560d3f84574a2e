"""What was used, and how soon it was heard: the one source of every figure that the REST API and the admin show.

All of it comes from `DailyUsage`, whose rows do not grow with the number of events. What is over changes no more, but
for what reconciliation adds and what was under way at midnight: it is kept in the cache for a while. Days and months
are those of USAGE_TIME_ZONE. How often something happened counts events of the ledger, which are segments; `speeches`
counts texts that were heard.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from django.core.cache import cache
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth
from django.utils import timezone

from usage.ledger.rollup import CHUNK_BOUNDS_MS, CHUNK_COLUMNS, day_of
from usage.models import NO_ID, DailyUsage, ProviderState, UsageEvent
from usage.reports import forecast
from usage.reports.forecast import Forecast

Kind = UsageEvent.Kind

LIVE = (Kind.LIVE, Kind.RETRY)
SAVED = (Kind.CACHE, Kind.OFFLINE)
BESIDE = (Kind.PROBE, Kind.WARM, Kind.PREVIEW)  # billed, and no patient heard it at that moment
ASKING = (*LIVE, Kind.BACKUP, *BESIDE)
HEARD = (*LIVE, Kind.BACKUP, *SAVED)

DAY_KEPT_S, MONTH_KEPT_S = 600, 3600

Sums = dict[str, int]
"""A day's or a month's, one number for each of `_SUMS` and `_CHUNKS`; empty where nothing was used."""


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


_COLUMNS = ("characters", "credits", "saved_characters", "events", "failed", *CHUNK_COLUMNS)
_SUMS: dict[str, tuple[str, Collection[str]]] = {  # each a column's, over some kinds
    "live": ("characters", LIVE),
    "backup": ("characters", (Kind.BACKUP,)),
    "other": ("characters", BESIDE),
    "characters": ("characters", Kind),
    "saved": ("saved_characters", Kind),
    "credits": ("credits", Kind),
    "requests": ("events", ASKING),
    "failed": ("failed", ASKING),
    "backups": ("events", (Kind.BACKUP,)),
    "offline": ("events", (Kind.OFFLINE,)),
}
_CHUNKS = {f"heard_{name}": (name, HEARD) for name in CHUNK_COLUMNS}
_BY_KIND = {
    kind: [(name, column) for name, (column, kinds) in (_SUMS | _CHUNKS).items() if kind in kinds]
    for kind in Kind.values
}
_TABLE = {
    "characters": Sum("characters"),
    "credits": Sum("credits"),
    "saved_characters": Sum("saved_characters"),
    "requests": Sum("events", filter=Q(kind__in=ASKING), default=0),
}
_NONE = (0, 0)


def today() -> date:
    return day_of(timezone.now())


def days(first: date, last: date, *, patient: uuid.UUID | None = None) -> list[Figures]:
    """Every day of the range, both ends included."""
    return [_figures(day, sums) for day, sums in _of_days(first, last, patient).items()]


def months(first: date, last: date, *, patient: uuid.UUID | None = None) -> list[Figures]:
    """Every month that holds a day of the range, whole."""
    starts = list(_months(first, last))
    current = today().replace(day=1)
    over = _kept("month", [start for start in starts if start < current], patient, current, MONTH_KEPT_S)
    return [_figures(start, over[start] if start < current else _of_month(start, patient)) for start in starts]


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
    """Also of years ago, where nobody could find out; so they are summed by the database."""
    found = UsageEvent.objects.filter(outcome=UsageEvent.Outcome.UNKNOWN)
    return Unknown(**found.aggregate(attempts=Count("id"), characters=Sum("requested_characters", default=0)))


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Of the first-sound buckets, in ms: as if times lay evenly in each bucket; beyond the last edge, that edge."""
    rank, lower = share * sum(counts), 0.0
    if not sum(counts):
        return None
    for count, upper in zip(counts, CHUNK_BOUNDS_MS, strict=False):
        if count and rank <= count:
            return round(lower + (upper - lower) * rank / count, 1)
        rank, lower = rank - count, float(upper)
    return lower


def _of(patient: uuid.UUID | None) -> QuerySet[DailyUsage]:
    every = DailyUsage.objects.order_by()
    return every if patient is None else every.filter(patient=patient)


def _figures(start: date, sums: Sums) -> Figures:
    if not sums:
        return Figures(start)
    counts = [sums[name] for name in _CHUNKS]
    p50_ms, p95_ms = percentile(counts, 0.5), percentile(counts, 0.95)
    return Figures(start, **{name: sums[name] for name in _SUMS}, speeches=sum(counts), p50_ms=p50_ms, p95_ms=p95_ms)


def _of_days(first: date, last: date, patient: uuid.UUID | None) -> dict[date, Sums]:
    return _kept("day", list(_days(first, last)), patient, today(), DAY_KEPT_S)


def _of_month(start: date, patient: uuid.UUID | None) -> Sums:
    """Out of its days: all but one are kept."""
    whole: Counter[str] = Counter()
    for sums in _of_days(start, _next(start) - timedelta(days=1), patient).values():
        whole.update(sums)
    return whole


def _kept(
    span: Literal["day", "month"], starts: Sequence[date], patient: uuid.UUID | None, current: date, for_s: int
) -> dict[date, Sums]:
    """Those before the current one out of the cache, where they are there; the others in one query, whose sums are
    kept.
    """
    names = {start: f"usage-{span}-{start}-{patient}" for start in starts if start < current}
    kept = cache.get_many(names.values())
    missing = [start for start in starts if names.get(start) not in kept]
    fresh = _read(span, missing, patient)
    cache.set_many({names[start]: fresh[start] for start in missing if start in names}, for_s)
    return {start: fresh[start] if start in fresh else kept[names[start]] for start in starts}


def _read(span: Literal["day", "month"], starts: Sequence[date], patient: uuid.UUID | None) -> dict[date, Sums]:
    if not starts:
        return {}
    end = starts[-1] + timedelta(days=1) if span == "day" else _next(starts[-1])
    start: Any = F("day") if span == "day" else TruncMonth("day")
    usage = _of(patient).filter(day__gte=starts[0], day__lt=end).annotate(start=start).values("start", "kind")
    rows = usage.annotate(**{name: Sum(name) for name in _COLUMNS})  # a filter in every sum would take twice as long
    read: dict[date, Sums] = {start: {} for start in starts}
    for begins, kind, *sums in rows.values_list("start", "kind", *_COLUMNS):
        whole = read[begins] = read.get(begins) or dict.fromkeys((*_SUMS, *_CHUNKS), 0)
        of_kind = dict(zip(_COLUMNS, sums, strict=True))
        for name, column in _BY_KIND[kind]:
            whole[name] += of_kind[column]
    return read


def _top(key: str, first: date, last: date, limit: int) -> list[Share]:
    """The days that are over are kept as one sum; what they have of each key is in it, not of the largest alone."""
    over = min(last, today() - timedelta(days=1))
    name = f"usage-{key}-{first}-{over}"
    before = cache.get(name)
    if before is None:
        before = _shares(key, first, over)
        cache.set(name, before, DAY_KEPT_S)
    since = _shares(key, max(first, over + timedelta(days=1)), last)
    whole = {
        each: map(sum, zip(before.get(each, _NONE), since.get(each, _NONE), strict=True)) for each in before | since
    }
    return sorted((Share(each, *sums) for each, sums in whole.items()), key=_by_size)[:limit]


def _by_size(share: Share) -> tuple[int, int, str]:
    return -share.characters, -share.saved, str(share.key)


def _shares(key: str, first: date, last: date) -> dict[uuid.UUID | None, tuple[int, int]]:
    if first > last:
        return {}
    within = DailyUsage.objects.order_by().filter(day__range=(first, last)).values(key)
    rows = within.annotate(used=Sum("characters"), kept=Sum("saved_characters"))
    return {None if row[key] == NO_ID else row[key]: (row["used"], row["kept"]) for row in rows}


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def _months(first: date, last: date) -> Iterator[date]:
    start = first.replace(day=1)
    while start <= last:
        yield start
        start = _next(start)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)
