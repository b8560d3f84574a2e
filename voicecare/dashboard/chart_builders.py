"""Builds charts from usage figures: their columns, labels and links."""

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
    Column("Pre-generated", "ahead"),
    Column("Saved", "saved"),
    Column("Billed characters"),
    Column("Credits"),
)
_LATENCY_COLUMNS = (Column("p50 (median)", "median"), Column("p95", "slow"), Column("Speeches"))
_FAILURE_COLUMNS = (
    Column("Failed requests", "failed"),
    Column("Backup voice", "backup"),
    Column("Offline voice", "offline"),
    Column("Requests"),
)


class ShareLabel(NamedTuple):
    """The name of a share and the URL of its page. The URL is empty if there is no page."""

    label: str
    url: str = ""


UrlForDate = Callable[[date], str]


def by_day(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    rows = [_character_row(stats, url) for stats in days]
    return _character_chart("days", "Characters by day", "Characters of each day, billed and saved", "Day", rows)


def by_month(months: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    rows = [
        replace(
            _character_row(stats, url),
            key=f"{stats.start:%Y-%m}",
            label=date_format(stats.start, "YEAR_MONTH_FORMAT"),
        )
        for stats in months
    ]
    return _character_chart(
        "months", "Characters by month", "Characters of each month, billed and saved", "Month", rows
    )


def latency(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    return Chart(
        "first-sound",
        "Latency (time to first audio)",
        "Milliseconds from a text to its first audio on the device, median and 95th percentile of each day",
        "Day",
        "ms",
        "lines",
        _LATENCY_COLUMNS,
        [_day_row(day.start, (day.p50_ms, day.p95_ms, day.speeches), url) for day in days],
        limit=FIRST_AUDIO_GOAL_MS,
    )


def failures(days: Sequence[PeriodStats], url: UrlForDate) -> Chart:
    return Chart(
        "troubles",
        "Failures and fallbacks",
        "Failed requests of each day, and sentences that were spoken in the backup or the offline voice",
        "Day",
        "",
        "stacked",
        _FAILURE_COLUMNS,
        [_day_row(day.start, (day.failed, day.backups, day.offline, day.requests), url) for day in days],
        empty_text="No failures or fallbacks in this period.",
    )


def top_shares(
    name: str, title: str, heading: str, top: Sequence[UsageShare], label_of: Callable[[UsageShare], ShareLabel]
) -> Chart:
    """A chart of the largest shares. `top` is sorted by size, largest first."""
    rows = []
    for share in top:
        label, url = label_of(share)
        rows.append(Row(label, label, (share.characters, share.saved), url))
    columns = (Column("Billed", "live"), Column("Saved", "saved"))
    return Chart(name, title, f"{title}: characters, billed and saved", heading, "characters", "shares", columns, rows)


def _character_chart(name: str, title: str, summary: str, heading: str, rows: Sequence[Row]) -> Chart:
    return Chart(name, title, summary, heading, "characters", "stacked", _CHARACTER_COLUMNS, rows)


def _character_row(stats: PeriodStats, url: UrlForDate) -> Row:
    spoken = (stats.live, stats.backup, stats.other, stats.saved)
    return _day_row(stats.start, (*spoken, stats.characters, stats.credits), url)


def _day_row(day: date, values: Sequence[int | float | None], url: UrlForDate) -> Row:
    return Row(day.isoformat(), date_format(day, "SHORT_DATE_FORMAT"), values, url(day))
