"""The range of days of a dashboard: one of the usual ones, or two dates, from the query parameters of a page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

from usage.reports import queries
from voicecare.patients.models import Clinic

DEFAULT_DAYS = 30
MAX_DAYS = 366
FIRST_DAY = date(2000, 1, 1)  # no data is older
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayRange:
    """Days in USAGE_TIME_ZONE, both ends included. `name` is the key in `RANGES`, or empty for two dates.

    `error` says why the range that was asked for is not shown. The range is the default then.
    """

    first: date
    last: date
    name: str = ""
    error: str = ""

    @property
    def query(self) -> str:
        """The query string of a URL with this range. Empty for the default range."""
        if self.name == DEFAULT:
            return ""
        dates = {"from": self.first.isoformat(), "to": self.last.isoformat()}
        return "?" + urlencode({"range": self.name} if self.name else dates)

    def query_with(self, clinic: Clinic | None) -> str:
        """The query string of a URL with this range and this clinic."""
        if clinic is None:
            return self.query
        return f"{self.query}&clinic={clinic.pk}" if self.query else f"?clinic={clinic.pk}"


def _last_days(number: int) -> Callable[[date], tuple[date, date]]:
    return lambda today: (today - (number - 1) * DAY, today)


def _last_month(today: date) -> tuple[date, date]:
    last = today.replace(day=1) - DAY
    return last.replace(day=1), last


DEFAULT = "30-days"
RANGES: Mapping[str, tuple[str, Callable[[date], tuple[date, date]]]] = {
    "7-days": ("Last 7 days", _last_days(7)),
    DEFAULT: ("Last 30 days", _last_days(DEFAULT_DAYS)),
    "90-days": ("Last 90 days", _last_days(90)),
    "this-month": ("This month", lambda today: (today.replace(day=1), today)),
    "last-month": ("Last month", _last_month),
}


class _InvalidRange(Exception):
    """The range cannot be shown. The message says why."""


def parse(parameters: Mapping[str, str]) -> DayRange:
    """Returns the range that the query parameters `range`, or `from` and `to`, ask for."""
    today = queries.today()
    try:
        return _chosen(parameters, today)
    except _InvalidRange as invalid:
        first, last = RANGES[DEFAULT][1](today)
        return DayRange(first, last, DEFAULT, f"{invalid} This page shows the last {DEFAULT_DAYS} days.")


def _chosen(parameters: Mapping[str, str], today: date) -> DayRange:
    if not (parameters.get("from") or parameters.get("to")):
        name = parameters.get("range") or DEFAULT
        if name not in RANGES:
            raise _InvalidRange("There is no such range.")
        return DayRange(*RANGES[name][1](today), name)
    last = min(_date(parameters.get("to"), today), today)
    first = _date(parameters.get("from"), max(last - (DEFAULT_DAYS - 1) * DAY, FIRST_DAY))
    if first > today:
        raise _InvalidRange("The range begins in the future.")
    if first > last:
        raise _InvalidRange("The range ends before it begins.")
    if (last - first).days >= MAX_DAYS:
        raise _InvalidRange(f"A range has at most {MAX_DAYS} days.")
    return DayRange(first, last)


def _date(text: str | None, default: date) -> date:
    if not text:
        return default
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise _InvalidRange("A date must be written like 2026-11-30.") from None
    if day < FIRST_DAY:
        raise _InvalidRange("There is no data before the year 2000.")
    return day
