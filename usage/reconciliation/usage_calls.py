"""Reads the provider's sums of one day with the call that the account has.

A workspace is billed in credits or in money, and has another call for each. The older statistics are deprecated. Which
one an account has is found out by trying. The last one that answered is tried first, and the others if it is refused.
The deprecated one is always the last, so that an account that gets another one changes to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from django.conf import settings

from usage.models import Reconciliation
from usage.reconciliation import provider_usage
from usage.reconciliation.provider_usage import HOUR_MS, MAX_DAILY_USAGE, ProviderDataUnavailable, Refused, wrap_errors
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.analytics import CREDITS, CURRENCIES

UTC_DAY = timedelta(days=1)
LAG = timedelta(hours=1)  # the figures of the provider lag

UsageCall = Reconciliation.UsageCall


class DayNotOver(Exception):
    """The provider counts days in UTC, and this one is not over."""


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """The provider's sums of one day, and the call that has them. A figure that the call does not have is None.

    `cost` is in hundredths of `currency`, for the UTC day with the same date.
    """

    call: UsageCall
    characters: int | None = None
    credits: int | None = None
    cost: int | None = None
    currency: str = ""


def last_call() -> str:
    """Return the call that brought the figures of the last compared day, or an empty string."""
    rows = Reconciliation.objects.exclude(usage_call="").order_by("-checked_at")
    return rows.values_list("usage_call", flat=True).first() or ""


def read_figures(client: AccountClient, begins: datetime, ends: datetime, now: datetime) -> ProviderFigures:
    """Return the provider's figures between two midnights of USAGE_TIME_ZONE, from the first call that is not refused.

    A table with gaps counts as refused. Raises ProviderDataUnavailable, and DayNotOver if the day in UTC is not over at
    the time `now`. Another error does not lead to another call, because it says nothing about what the account has.
    """
    last, refusals = last_call(), []
    for call in sorted(UsageCall, key=lambda one: (one is UsageCall.DEPRECATED, one != last)):
        try:
            return READERS[call](client, begins, ends, now)
        except Refused as error:
            refusals.append(f"{call.label}: {error}")
    raise ProviderDataUnavailable("; ".join(refusals))


def _credits(client: AccountClient, begins: datetime, ends: datetime, _now: datetime) -> ProviderFigures:
    start, end = _ms(begins), _ms(ends)
    table = wrap_errors(lambda: client.usage_by_product(start, end - 1, time_zone=settings.USAGE_TIME_ZONE))
    columns = table.with_unit(CREDITS)
    if table.with_unit(CURRENCIES) and not columns:
        raise ProviderDataUnavailable("it is in money, although credits were requested")
    if len(columns) != 1:
        raise ProviderDataUnavailable(f"it has {len(columns)} columns of credits instead of one")
    by_hour = wrap_errors(lambda: table.amounts(columns[0]))
    hours = range(start, end, HOUR_MS)
    if not by_hour:
        raise ProviderDataUnavailable("it is empty")
    if any(at not in hours for at in by_hour):
        raise ProviderDataUnavailable("its hours are those of another day or another time zone")
    missing = sum(at not in by_hour for at in hours)
    if missing:  # another call may have them: whether hours without usage are in the table is not documented
        raise Refused(f"{missing} of {len(hours)} hours are missing")
    return ProviderFigures(UsageCall.CREDITS, credits=_total(sum(by_hour.values(), Decimal())))


def utc_day(begins: datetime) -> datetime:
    """Return the midnight in UTC of the same date as the midnight `begins`, which is in USAGE_TIME_ZONE."""
    return datetime.combine(begins.date(), time(), UTC)


def _cost(client: AccountClient, begins: datetime, _ends: datetime, now: datetime) -> ProviderFigures:
    midnight = utc_day(begins)
    start, end = _ms(midnight), _ms(midnight + UTC_DAY)
    table = wrap_errors(lambda: client.cost(start, end - 1))
    columns = table.with_unit(CURRENCIES)
    if table.with_unit(CREDITS):
        raise ProviderDataUnavailable("it has both money and credits")
    if len(columns) != 1:
        raise ProviderDataUnavailable(f"it has {len(columns)} columns of money instead of one")
    by_day = wrap_errors(lambda: table.amounts(columns[0]))
    if not by_day:
        raise ProviderDataUnavailable("it is empty")
    if set(by_day) != {start}:
        raise ProviderDataUnavailable("its days are those of another time or another time zone")
    if now < midnight + UTC_DAY + LAG:
        raise DayNotOver
    return ProviderFigures(
        UsageCall.COST, cost=_total(by_day[start] * 100), currency=(table.units[columns[0]] or "").upper()
    )


def _deprecated(client: AccountClient, begins: datetime, ends: datetime, _now: datetime) -> ProviderFigures:
    characters, credits = (provider_usage.usage_total(client, unit, begins, ends) for unit in ("characters", "credits"))
    return ProviderFigures(UsageCall.DEPRECATED, characters, credits)


Reader = Callable[[AccountClient, datetime, datetime, datetime], ProviderFigures]
READERS: dict[UsageCall, Reader] = {
    UsageCall.CREDITS: _credits,
    UsageCall.COST: _cost,
    UsageCall.DEPRECATED: _deprecated,
}


def _total(amount: Decimal) -> int:
    if amount > MAX_DAILY_USAGE:
        raise ProviderDataUnavailable("it is implausibly high")
    return round(amount)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
