"""Figures of usage as charts: which columns there are, what they are called, and where their rows lead."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import NamedTuple

from django.utils.formats import date_format

from usage.reports.queries import PeriodStats, UsageShare
from voicecare.dashboard.chart import Chart, Column, Row

FIRST_AUDIO_GOAL_MS = 500

_CHARACTER_COLUMNS = (
    Column("Live", "live"),
    Column("Backup voice", "backup"),
    Column("Made ahead", "ahead"),
    Column("Saved", "saved"),
    Column("Billed characters"),
    Column("Credits"),
)
_LATENCY_COLUMNS = (Column("Half within", "median"), Column("95 % within", "slow"), Column("Speeches"))
_FAILURE_COLUMNS = (
    Column("Failed requests", "failed"),
    Column("In the backup voice", "backup"),
    Column("In the offline voice", "offline"),
    Column("Requests"),
)
_NO_FAILURES = "Nothing has failed, and everything was heard in the voice it was meant for."


class ShareLabel(NamedTuple):
    """Whose share it is, and the page about them; empty where there is none, or none for this viewer."""

    label: str
    url: str = ""


UrlForDate = Callable[[date], str]


def by_day(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    title, summary = "Characters by day", "Characters of each day, billed and saved"
    return _character_chart("days", title, summary, "Day", [_character_row(stats.start, stats, url) for stats in days])


def by_month(months: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    rows = [_as_month_row(_character_row(stats.start, stats, url), stats.start) for stats in months]
    title, summary = "Characters by month", "Characters of each month, billed and saved"
    return _character_chart("months", title, summary, "Month", rows)


def latency(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    rows = [_day_row(stats.start, (stats.p50_ms, stats.p95_ms, stats.speeches), url) for stats in days]
    return Chart(
        "first-sound",
        "Time to the first sound",
        "Milliseconds from a text to its first sound on the device, the median and the slowest twentieth of each day",
        "Day",
        "ms",
        "lines",
        _LATENCY_COLUMNS,
        rows,
        limit=FIRST_AUDIO_GOAL_MS,
    )


def failures(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    rows = [_day_row(day.start, (day.failed, day.backups, day.offline, day.requests), url) for day in days]
    summary = "Failed requests of each day, and sentences that were heard in the backup or the offline voice"
    return Chart(
        "troubles",
        "Failures and fallbacks",
        summary,
        "Day",
        "",
        "stacked",
        _FAILURE_COLUMNS,
        rows,
        empty_text=_NO_FAILURES,
    )


def top_shares(
    name: str, title: str, heading: str, top: Sequence[UsageShare], label_of: Callable[[UsageShare], ShareLabel]
) -> Chart:
    """The largest first."""
    rows = []
    for share in top:
        label, url = label_of(share)
        rows.append(Row(label, label, (share.characters, share.saved), url))
    columns = (Column("Billed", "live"), Column("Saved", "saved"))
    return Chart(name, title, f"{title}: characters, billed and saved", heading, "characters", "shares", columns, rows)


def _character_chart(name: str, title: str, summary: str, heading: str, rows: Sequence[Row]) -> Chart:
    return Chart(name, title, summary, heading, "characters", "stacked", _CHARACTER_COLUMNS, rows)


def _character_row(start: date, stats: PeriodStats, url: UrlForDate) -> Row:
    spoken = (stats.live, stats.backup, stats.other, stats.saved)
    return _day_row(start, (*spoken, stats.characters, stats.credits), url)


def _day_row(day: date, values: Sequence[int | float | None], url: UrlForDate) -> Row:
    return Row(day.isoformat(), date_format(day, "SHORT_DATE_FORMAT"), values, url(day))


def _as_month_row(row: Row, month: date) -> Row:
    return replace(row, key=f"{month:%Y-%m}", label=date_format(month, "YEAR_MONTH_FORMAT"))
