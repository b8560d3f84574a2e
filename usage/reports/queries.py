"""Usage and latency figures. The REST API and the admin get all their figures here.

The figures come from `DailyUsage`, whose number of rows does not grow with the number of events. Past days and months
are cached for a while. They only change through reconciliation and through speech that was running at midnight. Days
and months are in USAGE_TIME_ZONE. Counts are of ledger events, which are segments. `speeches` counts whole speeches.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from django.core.cache import cache
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth
from django.utils import timezone

from usage.ledger.rollup import CHUNK_BOUNDS_MS, CHUNK_COLUMNS, day_of, month_after
from usage.models import NO_ID, DailyUsage, ProviderState, UsageEvent
from usage.reports import forecast
from usage.reports.forecast import Forecast

Kind = UsageEvent.Kind

LIVE_KINDS = (Kind.LIVE, Kind.RETRY)
SAVED_KINDS = (Kind.CACHE, Kind.OFFLINE)
OVERHEAD_KINDS = (Kind.PROBE, Kind.WARM, Kind.PREVIEW)  # billed, but not spoken to a patient
BILLED_KINDS = (*LIVE_KINDS, Kind.BACKUP, *OVERHEAD_KINDS)
PLAYED_KINDS = (*LIVE_KINDS, Kind.BACKUP, *SAVED_KINDS)

DAY_CACHE_S, MONTH_CACHE_S = 600, 3600

Sums = dict[str, int]
"""The sums of one day or month, by the names in `_SUM_COLUMNS` and `_CHUNK_SUMS`. Empty if there was no usage."""


@dataclass(frozen=True, slots=True)
class PeriodStats:
    """Figures of one day or month that begins on `start`.

    `live`, `backup`, `other`, `characters` and `saved` are characters. `requests`, `failed`, `backups`, `offline` and
    `speeches` are counts. `p50_ms` and `p95_ms` are the time to first audio, None without speeches.
    """

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
class UsageShare:
    """The usage of one patient or voice. `key` is its id, or None for usage without a patient or voice."""

    key: uuid.UUID | None
    characters: int
    saved: int


@dataclass(frozen=True, slots=True)
class UnconfirmedRequests:
    """Requests whose response was never seen and that are not reconciled yet. No other figure includes them."""

    attempts: int
    characters: int


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """The account's credits in this period, from the last reading. None if not read, or for no limit."""

    limit: int | None
    used: int | None
    remaining: int | None
    exhausted: bool
    resets_at: datetime | None
    polled_at: datetime | None
    forecast: Forecast | None


_COLUMNS = ("characters", "credits", "saved_characters", "events", "failed", *CHUNK_COLUMNS)
_SUM_COLUMNS: dict[str, tuple[str, Collection[str]]] = {  # name: (column, kinds)
    "live": ("characters", LIVE_KINDS),
    "backup": ("characters", (Kind.BACKUP,)),
    "other": ("characters", OVERHEAD_KINDS),
    "characters": ("characters", Kind),
    "saved": ("saved_characters", Kind),
    "credits": ("credits", Kind),
    "requests": ("events", BILLED_KINDS),
    "failed": ("failed", BILLED_KINDS),
    "backups": ("events", (Kind.BACKUP,)),
    "offline": ("events", (Kind.OFFLINE,)),
}
_CHUNK_SUMS = {f"heard_{name}": (name, PLAYED_KINDS) for name in CHUNK_COLUMNS}
_COLUMNS_BY_KIND = {
    kind: [(name, column) for name, (column, kinds) in (_SUM_COLUMNS | _CHUNK_SUMS).items() if kind in kinds]
    for kind in Kind.values
}
_ROW_SUMS = {
    "characters": Sum("characters"),
    "credits": Sum("credits"),
    "saved_characters": Sum("saved_characters"),
    "requests": Sum("events", filter=Q(kind__in=BILLED_KINDS), default=0),
}


def today() -> date:
    return day_of(timezone.now())


def daily_stats(first: date, last: date, *, patient_id: uuid.UUID | None = None) -> list[PeriodStats]:
    """Return figures of every day of the range, both ends included."""
    return [_period_stats(day, sums) for day, sums in _daily_sums(first, last, patient_id).items()]


def monthly_stats(first: date, last: date, *, patient_id: uuid.UUID | None = None) -> list[PeriodStats]:
    """Return figures of every whole month that has a day in the range."""
    starts = [first.replace(day=1)] if first.replace(day=1) <= last else []
    while starts and month_after(starts[-1]) <= last:
        starts.append(month_after(starts[-1]))
    current = today().replace(day=1)
    past = [start for start in starts if start < current]
    sums = _cached_sums("month", past, patient_id, current, MONTH_CACHE_S)
    for start in starts[len(past) :]:
        month: Counter[str] = Counter()
        for day_sums in _daily_sums(start, month_after(start) - timedelta(days=1), patient_id).values():
            month.update(day_sums)
        sums[start] = month
    return [_period_stats(start, sums[start]) for start in starts]


def usage_rows(usage: QuerySet[DailyUsage], *, by_month: bool, group: str = "") -> QuerySet[DailyUsage, Any]:
    """Return dicts with `start`, the key of the group, and the sums of `_ROW_SUMS`, ordered by `start`.

    Days or months without usage are left out.
    """
    start: Any = TruncMonth("day") if by_month else F("day")
    keys = [group] if group else []
    rows = usage.order_by().annotate(start=start).values("start", *keys)
    summed: QuerySet[DailyUsage, Any] = rows.annotate(**_ROW_SUMS).order_by("start", *keys)
    return summed


def top_patients(first: date, last: date, limit: int = 10) -> list[UsageShare]:
    return _top("patient", first, last, limit)


def top_voices(first: date, last: date, limit: int = 10) -> list[UsageShare]:
    return _top("voice", first, last, limit)


def quota_status() -> QuotaStatus:
    state = ProviderState.objects.filter(pk=1).first() or ProviderState()
    return QuotaStatus(
        limit=state.quota_limit,
        used=state.quota_used,
        remaining=state.quota_remaining,
        exhausted=state.quota == ProviderState.Quota.EXHAUSTED,
        resets_at=state.quota_resets_at,
        polled_at=state.polled_at,
        forecast=forecast.current_forecast(state, timezone.now()),
    )


def unconfirmed_requests() -> UnconfirmedRequests:
    """Include attempts of years ago that could not be reconciled. The database sums them."""
    found = UsageEvent.objects.filter(outcome=UsageEvent.Outcome.UNKNOWN)
    return UnconfirmedRequests(
        **found.aggregate(attempts=Count("id"), characters=Sum("requested_characters", default=0))
    )


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return a percentile of the time to first audio in ms, or None without speeches. `counts` are the chunk buckets.

    Times are interpolated linearly within a bucket. Above the last bound, the last bound is returned.
    """
    rank, lower = share * sum(counts), 0.0
    if not sum(counts):
        return None
    for count, upper in zip(counts, CHUNK_BOUNDS_MS, strict=False):
        if count and rank <= count:
            return round(lower + (upper - lower) * rank / count, 1)
        rank, lower = rank - count, float(upper)
    return lower


def _period_stats(start: date, sums: Sums) -> PeriodStats:
    if not sums:
        return PeriodStats(start)
    counts = [sums[name] for name in _CHUNK_SUMS]
    p50_ms, p95_ms = percentile(counts, 0.5), percentile(counts, 0.95)
    return PeriodStats(
        start, **{name: sums[name] for name in _SUM_COLUMNS}, speeches=sum(counts), p50_ms=p50_ms, p95_ms=p95_ms
    )


def _daily_sums(first: date, last: date, patient_id: uuid.UUID | None) -> dict[date, Sums]:
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    return _cached_sums("day", days, patient_id, today(), DAY_CACHE_S)


def _cached_sums(
    period: Literal["day", "month"], starts: Sequence[date], patient_id: uuid.UUID | None, current: date, timeout_s: int
) -> dict[date, Sums]:
    """Return past periods from the cache, and read the others in one query.

    Past periods that were read are cached. `current` is the start of the current period, which is never cached.
    """
    keys = {start: f"usage-{period}-{start}-{patient_id}" for start in starts if start < current}
    cached = cache.get_many(keys.values())
    missing = [start for start in starts if keys.get(start) not in cached]
    fresh = _read_sums(period, missing, patient_id)
    cache.set_many({keys[start]: fresh[start] for start in missing if start in keys}, timeout_s)
    return {start: fresh[start] if start in fresh else cached[keys[start]] for start in starts}


def _read_sums(
    period: Literal["day", "month"], starts: Sequence[date], patient_id: uuid.UUID | None
) -> dict[date, Sums]:
    if not starts:
        return {}
    end = starts[-1] + timedelta(days=1) if period == "day" else month_after(starts[-1])
    usage = DailyUsage.objects.order_by().filter(day__gte=starts[0], day__lt=end)
    if patient_id is not None:
        usage = usage.filter(patient=patient_id)
    start: Any = F("day") if period == "day" else TruncMonth("day")
    columns = {name: Sum(name) for name in _COLUMNS}  # a filter in every sum would take twice as long
    rows = usage.annotate(start=start).values("start", "kind").annotate(**columns)
    sums: dict[date, Sums] = {start: {} for start in starts}
    for row_start, kind, *values in rows.values_list("start", "kind", *_COLUMNS):
        period_sums = sums[row_start] = sums.get(row_start) or dict.fromkeys((*_SUM_COLUMNS, *_CHUNK_SUMS), 0)
        of_kind = dict(zip(_COLUMNS, values, strict=True))
        for name, column in _COLUMNS_BY_KIND[kind]:
            period_sums[name] += of_kind[column]
    return sums


def _top(key: str, first: date, last: date, limit: int) -> list[UsageShare]:
    """Past days are cached as one total per key (all keys, not just the top N), so today's usage can be added before
    ranking.
    """
    last_past_day = min(last, today() - timedelta(days=1))
    name = f"usage-{key}-{first}-{last_past_day}"
    past = cache.get(name)
    if past is None:
        past = _shares(key, first, last_past_day)
        cache.set(name, past, DAY_CACHE_S)
    recent = _shares(key, max(first, last_past_day + timedelta(days=1)), last)
    shares = []
    for each in past | recent:
        (characters, saved), (more, more_saved) = past.get(each, (0, 0)), recent.get(each, (0, 0))
        shares.append(UsageShare(each, characters + more, saved + more_saved))
    shares.sort(key=lambda share: (-share.characters, -share.saved, str(share.key)))
    return shares[:limit]


def _shares(key: str, first: date, last: date) -> dict[uuid.UUID | None, tuple[int, int]]:
    if first > last:
        return {}
    within = DailyUsage.objects.order_by().filter(day__range=(first, last)).values(key)
    rows = within.annotate(used=Sum("characters"), kept=Sum("saved_characters"))
    return {None if row[key] == NO_ID else row[key]: (row["used"], row["kept"]) for row in rows}
