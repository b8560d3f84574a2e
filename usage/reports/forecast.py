"""Whether the credits last to the end of the period, if they are used as in the last seven days."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Sum

from usage.ledger import rollup
from usage.models import DailyUsage, ProviderState

WINDOW_DAYS = 7
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """In credits. `runs_out_on` is a day in USAGE_TIME_ZONE; None: they last to the reset."""

    credits_a_day: float
    used_at_reset: int
    runs_out_on: date | None


@dataclass(frozen=True, slots=True)
class RecentUsage:
    """The credits used since the beginning of the day `since`."""

    since: date
    credits: int


def current_forecast(state: ProviderState, now: datetime) -> Forecast | None:
    """None where there is nothing to say: no limit, no reset ahead, or less than a day of history. Two short queries,
    however long the history is.
    """
    history = _read_recent_usage(rollup.day_of(now))
    return None if history is None else project(state, history, now)


def project(state: ProviderState, history: RecentUsage, now: datetime) -> Forecast | None:
    """The same without a query. Pure."""
    limit, used, resets_at = state.quota_limit, state.quota_used, state.quota_resets_at
    elapsed = now - rollup.start_of_day(history.since)
    if limit is None or used is None or resets_at is None or resets_at <= now or elapsed < DAY:
        return None
    a_day = history.credits / (elapsed / DAY)
    at_reset = used + a_day * ((resets_at - now) / DAY)
    runs_out_on = None if at_reset < limit else rollup.day_of(_used_up_at(limit - used, a_day, now))
    return Forecast(a_day, round(at_reset), runs_out_on)


def _used_up_at(left: int, a_day: float, now: datetime) -> datetime:
    return now if left <= 0 else now + left / a_day * DAY


def _read_recent_usage(today: date) -> RecentUsage | None:
    """The last seven whole days and this one so far; less where the ledger is younger."""
    oldest = DailyUsage.objects.order_by("day").values_list("day", flat=True).first()
    if oldest is None:
        return None
    since = max(oldest, today - WINDOW_DAYS * DAY)
    used = DailyUsage.objects.filter(day__gte=since).aggregate(credits=Sum("credits"))
    return RecentUsage(since, used["credits"] or 0)
