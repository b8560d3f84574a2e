"""Makes charts from usage figures: their columns, labels and links."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import NamedTuple

from django.utils.formats import date_format

from usage.reports.queries import PeriodStats, UsageShare
from voicecare.dashboard.chart import Chart, Column, Row, Value

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
    """The name of a patient or voice in a chart, and the URL of its page. The URL is empty if there is no page."""

    label: str
    url: str = ""


UrlForDate = Callable[[date], str]


def by_day(days: Sequence[PeriodStats], url: UrlForDate, currency: str = "") -> Chart:
    """Returns the chart of the characters by day, with their cost if `currency` is not empty."""
    rows = [_character_row(stats, url, currency) for stats in days]
    title, summary = "Characters by day", "Characters of each day, billed and saved"
    return _character_chart("days", title, summary, heading="Day", rows=rows, currency=currency)


def by_month(months: Sequence[PeriodStats], url: UrlForDate, currency: str = "") -> Chart:
    """Returns the chart of the characters by month, with their cost if `currency` is not empty."""
    rows = [
        replace(
            _character_row(stats, url, currency),
            key=f"{stats.start:%Y-%m}",
            label=date_format(stats.start, "YEAR_MONTH_FORMAT"),
        )
        for stats in months
    ]
    title, summary = "Characters by month", "Characters of each month, billed and saved"
    return _character_chart("months", title, summary, heading="Month", rows=rows, currency=currency)


def cost_by_day(days: Sequence[PeriodStats], url: UrlForDate, currency: str) -> Chart:
    rows = [_day_row(day.start, (day.cost, day.credits, day.unpriced_credits), url) for day in days]
    columns = (Column("Cost", "live", "2g"), Column("Credits"), Column("Credits without a price"))
    return Chart("cost", "Cost by day", f"Cost of each day in {currency}", "Day", currency, "stacked", columns, rows)


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
    name: str,
    title: str,
    heading: str,
    top: Sequence[UsageShare],
    label_of: Callable[[UsageShare], ShareLabel],
    *,
    currency: str = "",
) -> Chart:
    """Returns a chart of the patients or voices with the largest usage. `top` has their usage, the largest first.

    `label_of` returns the label for one of them. `heading` is the heading of the column with the labels. The table has
    the cost if `currency` is not empty.
    """
    rows = []
    for share in top:
        label, url = label_of(share)
        costs = (share.cost,) if currency else ()
        rows.append(Row(label, label, (share.characters, share.saved, *costs), url))
    columns = (Column("Billed", "live"), Column("Saved", "saved"), *_cost_columns(currency))
    return Chart(name, title, f"{title}: characters, billed and saved", heading, "characters", "shares", columns, rows)


def _character_chart(name: str, title: str, summary: str, *, heading: str, rows: Sequence[Row], currency: str) -> Chart:
    columns = (*_CHARACTER_COLUMNS, *_cost_columns(currency))
    return Chart(name, title, summary, heading, "characters", "stacked", columns, rows)


def _cost_columns(currency: str) -> tuple[Column, ...]:
    return (Column(f"Cost ({currency})", digits="2g"),) if currency else ()


def _character_row(stats: PeriodStats, url: UrlForDate, currency: str) -> Row:
    spoken = (stats.live, stats.backup, stats.other, stats.saved)
    costs = (stats.cost,) if currency else ()
    return _day_row(stats.start, (*spoken, stats.characters, stats.credits, *costs), url)


def _day_row(day: date, values: Sequence[Value], url: UrlForDate) -> Row:
    return Row(day.isoformat(), date_format(day, "SHORT_DATE_FORMAT"), values, url(day))
