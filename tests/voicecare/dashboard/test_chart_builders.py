"""The figures that each chart shows in its columns, and the colours of both themes."""

import re
from datetime import date
from pathlib import Path

from django.utils import translation

from usage.reports.queries import PeriodStats, UsageShare
from voicecare.dashboard import chart_builders
from voicecare.dashboard.chart import Chart

CSS = (Path(__file__).parents[3] / "voicecare/static/voicecare/dashboard.css").read_text()
DAY = PeriodStats(
    date(2026, 11, 5),
    live=1,
    backup=2,
    other=3,
    characters=6,
    saved=5,
    credits=4,
    requests=30,
    failed=7,
    backups=8,
    offline=9,
    speeches=20,
    p50_ms=180.5,
    p95_ms=None,
)


def no_url(day: date) -> str:
    return ""


def by_label(chart: Chart) -> dict[str, object]:
    (row,) = chart.rows
    return {column.label: value for column, value in zip(chart.columns, row.values, strict=True)}


def test_characters_by_day_are_split_by_source_and_summed():
    assert by_label(chart_builders.by_day([DAY], no_url)) == {
        "Live": 1,
        "Backup voice": 2,
        "Pre-generated": 3,
        "Saved": 5,
        "Billed characters": 6,
        "Credits": 4,
    }


def test_a_month_has_its_number_as_key_and_its_name_as_label():
    with translation.override("de"):
        (row,) = chart_builders.by_month([DAY], no_url).rows
    assert (row.key, row.label) == ("2026-11", "November 2026")


def test_a_day_has_an_iso_key_and_a_localized_label():
    with translation.override("de"):
        (row,) = chart_builders.by_day([DAY], lambda day: f"/{day}/").rows
    assert (row.key, row.label, row.url) == ("2026-11-05", "05.11.2026", "/2026-11-05/")


def test_the_latency_chart_has_a_limit_of_half_a_second():
    chart = chart_builders.latency([DAY], no_url)
    assert by_label(chart) == {"p50 (median)": 180.5, "p95": None, "Speeches": 20}
    assert chart.limit == 500


def test_the_failures_chart_counts_failures_and_fallbacks():
    assert by_label(chart_builders.failures([DAY], no_url)) == {
        "Failed requests": 7,
        "Backup voice": 8,
        "Offline voice": 9,
        "Requests": 30,
    }


def test_shares_keep_their_order():
    top = [UsageShare(None, 9, 1, 9, None, 9, 1), UsageShare(None, 5, 2, 5, None, 5, 1)]
    chart = chart_builders.top_shares(
        "voices", "Voices", "Voice", top, lambda share: chart_builders.ShareLabel(str(share.characters))
    )
    assert [(row.label, *row.values) for row in chart.rows] == [("9", 9, 1), ("5", 5, 2)]


def test_every_colour_is_defined_for_light_and_dark():
    charts = [make([DAY], no_url) for make in (chart_builders.by_day, chart_builders.latency, chart_builders.failures)]
    charts.append(chart_builders.cost_by_day([DAY], no_url, "EUR"))
    for tone in {column.tone for chart in charts for column in chart.plotted_columns} | {"limit"}:
        assert len(re.findall(rf"--chart-{tone}: #", CSS)) == 3  # light, dark by system setting, dark by user choice
        assert f".tone-{tone} {{" in CSS
