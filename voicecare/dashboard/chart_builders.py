"""Figures of usage as charts: which columns there are, what they are called, and where their rows lead."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import NamedTuple

from django.utils.formats import date_format

from usage.reports.queries import PeriodStats, UsageShare
from voicecare.dashboard.chart import Chart, Column, Row

FIRST_SOUND_WITHIN_MS = 500

_CHARACTERS = (
    Column("Live", "live"),
    Column("Backup voice", "backup"),
    Column("Made ahead", "ahead"),
    Column("Saved", "saved"),
    Column("Billed characters"),
    Column("Credits"),
)
_FIRST_SOUND = (Column("Half within", "median"), Column("95 % within", "slow"), Column("Speeches"))
_TROUBLES = (
    Column("Failed requests", "failed"),
    Column("In the backup voice", "backup"),
    Column("In the offline voice", "offline"),
    Column("Requests"),
)
_ALL_WELL = "Nothing has failed, and everything was heard in the voice it was meant for."


class Named(NamedTuple):
    """Whose share it is, and the page about them; empty where there is none, or none for this viewer."""

    label: str
    address: str = ""


Address = Callable[[date], str]


def by_day(days: Sequence[PeriodStats], address: Address) -> Chart:
    title, summary = "Characters by day", "Characters of each day, billed and saved"
    return _characters("days", title, summary, "Day", [_row(figures.start, figures, address) for figures in days])


def by_month(months: Sequence[PeriodStats], address: Address) -> Chart:
    rows = [_month(_row(figures.start, figures, address), figures.start) for figures in months]
    title, summary = "Characters by month", "Characters of each month, billed and saved"
    return _characters("months", title, summary, "Month", rows)


def first_sounds(days: Sequence[PeriodStats], address: Address) -> Chart:
    rows = [_day(figures.start, (figures.p50_ms, figures.p95_ms, figures.speeches), address) for figures in days]
    return Chart(
        "first-sound",
        "Time to the first sound",
        "Milliseconds from a text to its first sound on the device, the median and the slowest twentieth of each day",
        "Day",
        "ms",
        "lines",
        _FIRST_SOUND,
        rows,
        limit=FIRST_SOUND_WITHIN_MS,
    )


def troubles(days: Sequence[PeriodStats], address: Address) -> Chart:
    rows = [_day(day.start, (day.failed, day.backups, day.offline, day.requests), address) for day in days]
    summary = "Failed requests of each day, and sentences that were heard in the backup or the offline voice"
    return Chart(
        "troubles", "Failures and fallbacks", summary, "Day", "", "stacked", _TROUBLES, rows, nothing=_ALL_WELL
    )


def shares(
    name: str, title: str, heading: str, top: Sequence[UsageShare], named: Callable[[UsageShare], Named]
) -> Chart:
    """The largest first."""
    rows = []
    for share in top:
        label, address = named(share)
        rows.append(Row(label, label, (share.characters, share.saved), address))
    columns = (Column("Billed", "live"), Column("Saved", "saved"))
    return Chart(name, title, f"{title}: characters, billed and saved", heading, "characters", "shares", columns, rows)


def _characters(name: str, title: str, summary: str, heading: str, rows: Sequence[Row]) -> Chart:
    return Chart(name, title, summary, heading, "characters", "stacked", _CHARACTERS, rows)


def _row(start: date, figures: PeriodStats, address: Address) -> Row:
    spoken = (figures.live, figures.backup, figures.other, figures.saved)
    return _day(start, (*spoken, figures.characters, figures.credits), address)


def _day(day: date, values: Sequence[int | float | None], address: Address) -> Row:
    return Row(day.isoformat(), date_format(day, "SHORT_DATE_FORMAT"), values, address(day))


def _month(row: Row, month: date) -> Row:
    return replace(row, key=f"{month:%Y-%m}", label=date_format(month, "YEAR_MONTH_FORMAT"))
