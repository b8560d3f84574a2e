"""A chart has one set of rows for the plot, the table and the CSV file. CSV cells are never formulas."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from voicecare.dashboard.chart import Chart, Column, Row, csv_response

CSS = Path(__file__).parents[3] / "voicecare/static/voicecare/dashboard.css"


def chart(*rows: Row, **fields: object) -> Chart:
    columns = (Column("Live", "live"), Column("Credits"))
    return Chart("days", "Days", "All days", "Day", "characters", "stacked", columns, rows, **fields)


def csv_lines(*rows: Row) -> list[list[str]]:
    return list(csv.reader(csv_response(chart(*rows)).content.decode("utf-8-sig").splitlines()))


def test_the_plot_has_the_coloured_columns_and_the_table_has_all():
    shown = chart(Row("2026-11-01", "11/01/2026", (5, 9)), Row("2026-11-02", "11/02/2026", (None, 0)), limit=500)
    assert shown.plot_data == {
        "style": "stacked",
        "unit": "characters",
        "limit": 500,
        "keys": ["2026-11-01", "2026-11-02"],
        "labels": ["11/01/2026", "11/02/2026"],
        "series": [{"label": "Live", "tone": "live", "values": [5, None]}],
    }
    lines = csv_response(shown).content.decode("utf-8-sig").splitlines()
    assert lines == ["Day,Live,Credits", "2026-11-01,5,9", "2026-11-02,,0"]


def test_the_csv_file_has_iso_dates_and_plain_numbers():
    assert csv_lines(Row("2026-11-01", "1 November", (12345, 6.5))) == [
        ["Day", "Live", "Credits"],
        ["2026-11-01", "12345", "6.5"],
    ]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_a_name_that_looks_like_a_formula_is_quoted(first: str):
    content = csv_response(chart(Row(f"{first}1+1", "", (1, 2)))).content.decode("utf-8-sig")
    assert f"'{first}1+1" in content
    assert not re.search(rf'(^|[,"\n]){re.escape(first)}1', content.replace("'" + first, "'"))


def test_other_names_are_not_changed():
    assert csv_lines(Row("Müller, O'Neil", "", (1, 2)))[1] == ["Müller, O'Neil", "1", "2"]


def test_the_csv_file_is_named_after_the_chart():
    response = csv_response(chart())
    assert response["Content-Disposition"] == 'attachment; filename="voicecare-days.csv"'
    assert response["Content-Type"] == "text/csv; charset=utf-8"


def test_a_chart_without_values_or_with_zeros_only_is_empty():
    assert chart().is_empty
    assert chart(Row("a", "a", (0, None))).is_empty
    assert chart(Row("a", "a", (0, 1))).is_empty  # this column is not plotted
    assert not chart(Row("a", "a", (1, 0))).is_empty


def test_a_table_of_days_is_newest_first_and_shares_keep_their_order():
    rows = Row("2026-11-01", "", (1, 2)), Row("2026-11-02", "", (3, 4))
    assert [row.key for row in chart(*rows).table_rows] == ["2026-11-02", "2026-11-01"]
    assert replace(chart(*rows), style="shares").table_rows == rows
