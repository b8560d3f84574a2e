"""Usage and latency figures. The REST API and the admin get all their figures here.

The figures come from `DailyUsage`, whose number of rows does not grow with the number of events. Past days and months
are cached for a while. They only change through reconciliation and through speech that was running at midnight. Days
and months are in USAGE_TIME_ZONE. Counts are numbers of ledger events, one for each attempt. Only `speeches` is the
number of whole speeches.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from django.core.cache import cache
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncMonth
from django.utils import timezone

from usage.ledger.rollup import CHUNK_BOUNDS_MS, CHUNK_COLUMNS, day_of, month_after
from usage.models import NO_ID, DailyUsage, ProviderState, UsageEvent
from usage.prices import Cost, PriceList
from usage.reports import forecast
from usage.reports.forecast import Forecast
from voicecare.patients.models import Patient

Kind = UsageEvent.Kind

LIVE_KINDS = (Kind.LIVE, Kind.RETRY, Kind.HEDGE)
SAVED_KINDS = (Kind.CACHE, Kind.OFFLINE)
OVERHEAD_KINDS = (Kind.PROBE, Kind.WARM, Kind.PREVIEW, Kind.TRIAL)  # billed, but not spoken to a patient
BILLED_KINDS = (*LIVE_KINDS, Kind.BACKUP, *OVERHEAD_KINDS)
PLAYED_KINDS = (*LIVE_KINDS, Kind.BACKUP, *SAVED_KINDS)

DAY_CACHE_S, MONTH_CACHE_S = 600, 3600
DAY = timedelta(days=1)

SumKey = str | int | None | tuple[str, int | None]
Sums = Mapping[SumKey, int]
"""The sums of one day or month, by the names in `_SUM_NAMES`. Empty if there was no usage.

If there are prices, it also has the credits by the index of their price, with None for credits without a price. The
credits of second requests are also there by a pair of Kind.HEDGE and that index.
"""


@dataclass(frozen=True, slots=True)
class PeriodStats:
    """Figures of the day, month or range that begins on `start`.

    `live`, `backup`, `other`, `characters` and `saved` are characters. `live` were spoken in the patient's voice,
    `other` were used for probes, the phrase cache, previews and trials of models, and `saved` were not billed.
    `requests`, `failed`, `backups`, `offline` and `speeches` are counts. `p50_ms` and `p95_ms` are percentiles of the
    time to first audio, None without speeches. `cost` is in PRICE_CURRENCY, None without a price. Of the credits,
    `unpriced_credits` have no price and are not part of the cost. They are only counted if there are prices.
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
    cost: Decimal | None = None
    unpriced_credits: int = 0


@dataclass(frozen=True, slots=True)
class SecondRequests:
    """Requests that were sent because the first one for a speech brought no audio in the usual time.

    `won` is the number of speeches that began with the audio of the second request, and `p50_ms` their median time to
    first audio, None without one. `characters` and `cost` were billed for second requests, and are part of the figures
    of the period.
    """

    requests: int
    characters: int
    cost: Decimal | None
    won: int
    p50_ms: float | None


@dataclass(frozen=True, slots=True)
class RangeStats:
    """Figures of each day of a range, of the whole range, and of its second requests."""

    days: list[PeriodStats]
    total: PeriodStats
    second_requests: SecondRequests


@dataclass(frozen=True, slots=True)
class UsageShare:
    """The usage of one patient or voice. `key` is its id, or None for usage without a patient or voice.

    `cost` is in PRICE_CURRENCY, None without a price.
    """

    key: uuid.UUID | None
    characters: int
    saved: int
    credits: int
    cost: Decimal | None
    unpriced_credits: int
    requests: int


@dataclass(frozen=True, slots=True)
class UnconfirmedRequests:
    """Requests whose response was never seen and that are not reconciled yet. No other figure includes them."""

    attempts: int
    characters: int


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """The account's credits in this billing period, when the subscription was last read.

    All numbers are None if it was never read. `limit` and `remaining` are None if there is no limit. `exhausted_at` is
    when the provider has refused speech for want of credits, None if it does not. That may be later than the reading.
    """

    limit: int | None
    used: int | None
    remaining: int | None
    exhausted: bool
    exhausted_at: datetime | None
    resets_at: datetime | None
    polled_at: datetime | None
    forecast: Forecast | None


class _Scope(NamedTuple):
    """Whose usage is read: that of one patient, of the patients of one clinic, or of all if both are None."""

    patient_id: uuid.UUID | None = None
    clinic_id: uuid.UUID | None = None

    def limit(self, usage: QuerySet[DailyUsage]) -> QuerySet[DailyUsage]:
        if self.patient_id is not None:
            return usage.filter(patient=self.patient_id)
        if self.clinic_id is not None:
            return usage.filter(patient__in=Patient.objects.filter(clinic=self.clinic_id).order_by().values("pk"))
        return usage


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
_HEDGE_SUM_COLUMNS = {"hedge_requests": ("events", (Kind.HEDGE,)), "hedge_characters": ("characters", (Kind.HEDGE,))}
_HEDGE_CHUNK_SUMS = {f"hedge_{name}": (name, (Kind.HEDGE,)) for name in CHUNK_COLUMNS}
_SUM_NAMES = _SUM_COLUMNS | _CHUNK_SUMS | _HEDGE_SUM_COLUMNS | _HEDGE_CHUNK_SUMS
_COLUMNS_BY_KIND = {
    kind: [(name, column) for name, (column, kinds) in _SUM_NAMES.items() if kind in kinds] for kind in Kind.values
}
_ROW_SUMS = {
    "characters": Sum("characters"),
    "credits": Sum("credits"),
    "saved_characters": Sum("saved_characters"),
    "requests": Sum("events", filter=Q(kind__in=BILLED_KINDS), default=0),
}


def today() -> date:
    return day_of(timezone.now())


def daily_stats(
    first: date,
    last: date,
    *,
    patient_id: uuid.UUID | None = None,
    clinic_id: uuid.UUID | None = None,
    prices: PriceList | None = None,
) -> list[PeriodStats]:
    """Return the figures of every day of the range, both ends included. `prices` are read if they are not given."""
    return range_stats(first, last, patient_id=patient_id, clinic_id=clinic_id, prices=prices).days


def range_stats(
    first: date,
    last: date,
    *,
    patient_id: uuid.UUID | None = None,
    clinic_id: uuid.UUID | None = None,
    prices: PriceList | None = None,
) -> RangeStats:
    """Return the figures of the range, both ends included, and of each day. `prices` are read if they are not given."""
    prices = PriceList.read() if prices is None else prices
    sums = _daily_sums(first, last, _Scope(patient_id, clinic_id), prices)
    days = [_period_stats(day, sums[day], prices) for day in sums]
    total = _added(sums.values())
    return RangeStats(days, _period_stats(first, total, prices), _second_requests(total, prices))


def monthly_stats(
    first: date,
    last: date,
    *,
    patient_id: uuid.UUID | None = None,
    clinic_id: uuid.UUID | None = None,
    prices: PriceList | None = None,
) -> list[PeriodStats]:
    """Return the figures of every whole month that has a day in the range. `prices` are read if they are not given."""
    prices = PriceList.read() if prices is None else prices
    starts = [first.replace(day=1)] if first.replace(day=1) <= last else []
    while starts and month_after(starts[-1]) <= last:
        starts.append(month_after(starts[-1]))
    current, scope = today().replace(day=1), _Scope(patient_id, clinic_id)
    past = [start for start in starts if start < current]
    sums = _cached_sums("month", past, scope, prices, current=current, timeout_s=MONTH_CACHE_S)
    for start in starts[len(past) :]:
        days = _daily_sums(start, month_after(start) - timedelta(days=1), scope, prices)
        sums[start] = _added(days.values())
    return [_period_stats(start, sums[start], prices) for start in starts]


def uncached_month(month: date, prices: PriceList, clinic_id: uuid.UUID | None = None) -> PeriodStats:
    """Return the figures of the month that begins on `month`, as they are in the daily totals now."""
    scope = _Scope(clinic_id=clinic_id)
    return _period_stats(month, _read_sums("month", [month], scope, prices)[month], prices)


def usage_rows(usage: QuerySet[DailyUsage], *, by_month: bool, group: str = "") -> QuerySet[DailyUsage, Any]:
    """Return dicts with `start`, the key of the group, and the sums of `_ROW_SUMS`, ordered by `start`.

    `start` is the day, or the first day of the month. `group` is a key column of `DailyUsage`, or empty. Days or months
    without usage are left out.
    """
    start: Any = TruncMonth("day") if by_month else F("day")
    keys = [group] if group else []
    rows = usage.order_by().annotate(start=start).values("start", *keys)
    summed: QuerySet[DailyUsage, Any] = rows.annotate(**_ROW_SUMS).order_by("start", *keys)
    return summed


def costs_of_rows(
    rows: Sequence[Mapping[str, Any]], usage: QuerySet[DailyUsage], *, by_month: bool, group: str = ""
) -> list[Cost]:
    """Return the cost of each row of `usage_rows`, which were made with the same arguments. At most two queries."""
    prices = PriceList.read()
    if not rows or not prices:
        return [Cost(None, row["credits"]) for row in rows]
    keys = ["start", *([group] if group else [])]
    first, last = rows[0]["start"], rows[-1]["start"]  # the rows are ordered by them
    within = usage.filter(day__gte=first, day__lt=month_after(last) if by_month else last + DAY)
    if group:
        within = within.filter(**{f"{group}__in": {row[group] for row in rows}})
    start: Any = TruncMonth("day") if by_month else F("day")
    parts = within.order_by().annotate(start=start, price=prices.index()).values(*keys, "price")
    credits: dict[tuple[Any, ...], list[tuple[int | None, int]]] = defaultdict(list)
    for *key, index, number in parts.annotate(number=Sum("credits")).values_list(*keys, "price", "number"):
        credits[tuple(key)].append((index, number))
    return [prices.cost(credits[tuple(row[key] for key in keys)]) for row in rows]


def top_shares(
    key: Literal["patient", "voice"],
    first: date,
    last: date,
    limit: int | None = 10,
    *,
    clinic_id: uuid.UUID | None = None,
    prices: PriceList | None = None,
) -> list[UsageShare]:
    """Return the patients or voices with the most characters in the range, both ends included. None is no limit.

    Past days are cached as one total per key (all keys, not just the top N), so today's usage can be added before
    ranking. `prices` are read if they are not given.
    """
    prices = PriceList.read() if prices is None else prices
    last_past_day = min(last, today() - DAY)
    name = f"usage-{key}-{first}-{last_past_day}-{clinic_id}-{prices.version}"
    past = cache.get(name)
    if past is None:
        past = _shares(key, first, last_past_day, prices, clinic_id)
        cache.set(name, past, DAY_CACHE_S)
    recent = _shares(key, max(first, last_past_day + DAY), last, prices, clinic_id)
    added = past | {each: _added([past.get(each, {}), sums]) for each, sums in recent.items()}
    return _sorted_shares(added, prices, limit)


def all_shares(
    key: Literal["patient", "voice"], first: date, last: date, prices: PriceList, clinic_id: uuid.UUID | None = None
) -> list[UsageShare]:
    """Return all patients or voices with usage in the range, both ends included. Nothing is cached."""
    return _sorted_shares(_shares(key, first, last, prices, clinic_id), prices)


def by_group(shares: Iterable[UsageShare], group_of: Mapping[Any, uuid.UUID | None]) -> list[UsageShare]:
    """Return the sums of the shares of each group, the largest first. `group_of` has the group of a share's key.

    The key of a sum is the group, or None for shares without a group.
    """
    groups: dict[uuid.UUID | None, list[UsageShare]] = defaultdict(list)
    for share in shares:
        groups[group_of.get(share.key)].append(share)
    sums = [
        UsageShare(
            group,
            sum(share.characters for share in members),
            sum(share.saved for share in members),
            sum(share.credits for share in members),
            _sum_of_known(share.cost for share in members),
            sum(share.unpriced_credits for share in members),
            sum(share.requests for share in members),
        )
        for group, members in groups.items()
    ]
    return sorted(sums, key=lambda share: (-share.characters, -share.saved, str(share.key)))


def _sum_of_known(costs: Iterable[Decimal | None]) -> Decimal | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal()) if known else None


def quota_status() -> QuotaStatus:
    state = ProviderState.objects.filter(pk=1).first() or ProviderState()
    exhausted = state.quota == ProviderState.Quota.EXHAUSTED
    return QuotaStatus(
        limit=state.quota_limit,
        used=state.quota_used,
        remaining=state.quota_remaining,
        exhausted=exhausted,
        exhausted_at=state.quota_changed_at if exhausted else None,
        resets_at=state.quota_resets_at,
        polled_at=state.polled_at,
        forecast=forecast.current_forecast(state, timezone.now()),
    )


def unconfirmed_requests() -> UnconfirmedRequests:
    """Count the unknown attempts and sum up their characters, including attempts of years ago. One query."""
    found = UsageEvent.objects.filter(outcome=UsageEvent.Outcome.UNKNOWN)
    return UnconfirmedRequests(
        **found.aggregate(attempts=Count("id"), characters=Sum("requested_characters", default=0))
    )


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return a percentile of the time to first audio in ms, or None without speeches.

    `counts` are the numbers of speeches in the buckets of CHUNK_BOUNDS_MS and above them. `share` is 0.5 for the
    median. Times are interpolated linearly within a bucket. Above the last bound, the last bound is returned.
    """
    rank, lower = share * sum(counts), 0.0
    if not sum(counts):
        return None
    for count, upper in zip(counts, CHUNK_BOUNDS_MS, strict=False):
        if count and rank <= count:
            return round(lower + (upper - lower) * rank / count, 1)
        rank, lower = rank - count, float(upper)
    return lower


def _period_stats(start: date, sums: Sums, prices: PriceList) -> PeriodStats:
    cost = prices.cost(_credits_by_price(sums))
    if not sums:
        return PeriodStats(start, cost=cost.amount)
    counts = [sums[name] for name in _CHUNK_SUMS]
    return PeriodStats(
        start,
        **{name: sums[name] for name in _SUM_COLUMNS},
        speeches=sum(counts),
        p50_ms=percentile(counts, 0.5),
        p95_ms=percentile(counts, 0.95),
        cost=cost.amount,
        unpriced_credits=cost.unpriced_credits,
    )


def _second_requests(sums: Sums, prices: PriceList) -> SecondRequests:
    counts = [sums.get(name, 0) for name in _HEDGE_CHUNK_SUMS]
    credits = [(key[1], number) for key, number in sums.items() if isinstance(key, tuple)]
    return SecondRequests(
        requests=sums.get("hedge_requests", 0),
        characters=sums.get("hedge_characters", 0),
        cost=prices.cost(credits).amount,
        won=sum(counts),
        p50_ms=percentile(counts, 0.5),
    )


def _sorted_shares(
    shares: Mapping[uuid.UUID | None, Sums], prices: PriceList, limit: int | None = None
) -> list[UsageShare]:
    """Return the shares with the most characters first. None is no limit."""

    def order(item: tuple[uuid.UUID | None, Sums]) -> tuple[int, int, str]:
        return -item[1]["characters"], -item[1]["saved_characters"], str(item[0])

    found = []
    for key, sums in sorted(shares.items(), key=order)[:limit]:
        cost = prices.cost(_credits_by_price(sums))
        share = UsageShare(
            key,
            sums["characters"],
            sums["saved_characters"],
            sums["credits"],
            cost.amount,
            unpriced_credits=cost.unpriced_credits if prices else sums["credits"],
            requests=sums["requests"],
        )
        found.append(share)
    return found


def _credits_by_price(sums: Sums) -> list[tuple[int | None, int]]:
    return [(key, credits) for key, credits in sums.items() if key is None or isinstance(key, int)]


def _added(parts: Iterable[Sums]) -> Counter[SumKey]:
    added: Counter[SumKey] = Counter()
    for part in parts:
        added.update(part)
    return added


def _daily_sums(first: date, last: date, scope: _Scope, prices: PriceList) -> dict[date, Sums]:
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    return _cached_sums("day", days, scope, prices, current=today(), timeout_s=DAY_CACHE_S)


def _cached_sums(
    period: Literal["day", "month"],
    starts: Sequence[date],
    scope: _Scope,
    prices: PriceList,
    *,
    current: date,
    timeout_s: int,
) -> dict[date, Sums]:
    """Return the sums of each period. Past periods come from the cache if they are there, all others from one query.

    Past periods from the query are added to the cache for `timeout_s`. `current` is the start of the current period,
    which is never cached.
    """
    version = prices.version
    keys = {
        start: f"usage-{period}-{start}-{scope.patient_id}-{scope.clinic_id}-{version}"
        for start in starts
        if start < current
    }
    cached = cache.get_many(keys.values())
    missing = [start for start in starts if keys.get(start) not in cached]
    fresh = _read_sums(period, missing, scope, prices)
    cache.set_many({keys[start]: fresh[start] for start in missing if start in keys}, timeout_s)
    return {start: fresh[start] if start in fresh else cached[keys[start]] for start in starts}


def _read_sums(
    period: Literal["day", "month"], starts: Sequence[date], scope: _Scope, prices: PriceList
) -> dict[date, Sums]:
    if not starts:
        return {}
    end = starts[-1] + DAY if period == "day" else month_after(starts[-1])
    usage = scope.limit(DailyUsage.objects.order_by().filter(day__gte=starts[0], day__lt=end))
    start: Any = F("day") if period == "day" else TruncMonth("day")
    columns = {name: Sum(name) for name in _COLUMNS}  # a filter in every sum would take twice as long
    rows = usage.annotate(start=start, price=prices.index()).values("start", "kind", "price").annotate(**columns)
    sums: dict[date, dict[SumKey, int]] = {start: {} for start in starts}
    for row_start, kind, price, *values in rows.values_list("start", "kind", "price", *_COLUMNS):
        period_sums = sums[row_start] = sums.get(row_start) or dict.fromkeys(_SUM_NAMES, 0)
        of_kind = dict(zip(_COLUMNS, values, strict=True))
        for name, column in _COLUMNS_BY_KIND[kind]:
            period_sums[name] += of_kind[column]
        if prices:
            for key in (price, (kind, price)) if kind == Kind.HEDGE else (price,):
                period_sums[key] = period_sums.get(key, 0) + of_kind["credits"]
    return dict(sums)


def _shares(
    key: str, first: date, last: date, prices: PriceList, clinic_id: uuid.UUID | None
) -> dict[uuid.UUID | None, Sums]:
    """Return the `_ROW_SUMS` of each patient or voice, and its credits by the index of their price."""
    if first > last:
        return {}
    usage = DailyUsage.objects.order_by().filter(day__range=(first, last))
    within = _Scope(clinic_id=clinic_id).limit(usage).annotate(price=prices.index())
    shares: dict[uuid.UUID | None, Counter[SumKey]] = defaultdict(Counter)
    for row in within.values(key, "price").annotate(**_ROW_SUMS):
        share = shares[None if row[key] == NO_ID else row[key]]
        share.update({name: row[name] for name in _ROW_SUMS})
        if prices:
            share[row["price"]] += row["credits"]
    return dict(shares)
