"""The forecast of credits: whether they last until their reset if usage continues as in the last seven days."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Sum

from usage.ledger import rollup
from usage.models import DailyUsage, ProviderState

WINDOW_DAYS = 7
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected usage of credits until their reset.

    `runs_out_on` is a day in USAGE_TIME_ZONE, or None if the credits last until the reset.
    """

    credits_a_day: float
    used_at_reset: int
    runs_out_on: date | None


@dataclass(frozen=True, slots=True)
class RecentUsage:
    """The credits used since the start of the day `since`."""

    since: date
    credits: int


def current_forecast(state: ProviderState, now: datetime) -> Forecast | None:
    """Return the forecast. None without a limit, without a future reset, or with less than a day of history.

    Two queries. Their cost does not grow with the history.
    """
    oldest = DailyUsage.objects.order_by("day").values_list("day", flat=True).first()
    if oldest is None:
        return None
    since = max(oldest, rollup.day_of(now) - WINDOW_DAYS * DAY)  # the window's whole days and today so far
    used = DailyUsage.objects.filter(day__gte=since).aggregate(credits=Sum("credits"))
    return project(state, RecentUsage(since, used["credits"] or 0), now)


def project(state: ProviderState, recent: RecentUsage, now: datetime) -> Forecast | None:
    """Calculate the forecast from `recent`, without a query. Pure. Returns None in the cases of `current_forecast`."""
    limit, used, resets_at = state.quota_limit, state.quota_used, state.quota_resets_at
    elapsed = now - rollup.start_of_day(recent.since)
    if limit is None or used is None or resets_at is None or resets_at <= now or elapsed < DAY:
        return None
    credits_a_day = recent.credits / (elapsed / DAY)
    used_at_reset = used + credits_a_day * ((resets_at - now) / DAY)
    if used_at_reset < limit:
        return Forecast(credits_a_day, round(used_at_reset), None)
    runs_out_at = now if used >= limit else now + (limit - used) / credits_a_day * DAY
    return Forecast(credits_a_day, round(used_at_reset), rollup.day_of(runs_out_at))
