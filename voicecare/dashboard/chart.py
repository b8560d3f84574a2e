"""A chart of the admin. The plot, the table and the CSV file of a chart are made from the same rows."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from django.http import HttpResponse

from usage.prices import plain

Value = int | float | Decimal | None
Style = Literal["stacked", "lines", "shares"]

# Spreadsheets treat a cell that starts with one of these as a formula, including the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the chart's table. `tone` is the name of a color in dashboard.css.

    A column with a tone is also plotted. A column without a tone is shown only in the table. `digits` is the argument
    of the template filter `floatformat`.
    """

    label: str
    tone: str = ""
    digits: str = "-1g"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the chart's table, with one value for each column. A value of None means that there is no data.

    `key` is for programs (an ISO date or a name), `label` is for people. `url` is the page with the rows that were
    summed, or empty if the user may not see them.
    """

    key: str
    label: str
    values: Sequence[Value]
    url: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. `name` is part of its URLs.

    `row_heading` is the heading of the table's first column, which has the labels. `limit` is a value at which a dashed
    line is drawn. `empty_text` is shown instead of the plot if there is no data.
    """

    name: str
    title: str
    summary: str
    row_heading: str
    unit: str
    style: Style
    columns: Sequence[Column]
    rows: Sequence[Row]
    csv_url: str = ""
    links: Sequence[Link] = ()
    limit: int | None = None
    empty_text: str = "No data in this period."

    @property
    def data_id(self) -> str:
        """The id of the HTML element that contains `plot_data`, where charts.js reads it."""
        return f"chart-{self.name}-data"

    @property
    def plotted_columns(self) -> list[Column]:
        return [column for column in self.columns if column.tone]

    @property
    def table_rows(self) -> Sequence[Row]:
        """The rows in the order of the table: newest day first, or largest share first."""
        return self.rows if self.style == "shares" else self.rows[::-1]

    @property
    def table_cells(self) -> list[tuple[Row, list[tuple[Value, str]]]]:
        """Each row of the table with its values and the digits of their columns."""
        digits = [column.digits for column in self.columns]
        return [(row, list(zip(row.values, digits, strict=True))) for row in self.table_rows]

    @property
    def is_empty(self) -> bool:
        """Whether all plotted values are zero or missing."""
        return not any(value for series in self.plot_data["series"] for value in series["values"])

    @property
    def plot_data(self) -> Mapping[str, Any]:
        """The data of the plot, which the page passes to charts.js as JSON."""
        series = [
            {"label": column.label, "tone": column.tone, "values": [_plotted(row.values[index]) for row in self.rows]}
            for index, column in enumerate(self.columns)
            if column.tone
        ]
        labels = {"keys": [row.key for row in self.rows], "labels": [row.label for row in self.rows]}
        return {"style": self.style, "unit": self.unit, "limit": self.limit, "series": series, **labels}


def _plotted(value: Value) -> int | float | None:
    return float(value) if isinstance(value, Decimal) else value  # JSON has no decimal numbers


def csv_response(chart: Chart) -> HttpResponse:
    """Returns the table of the chart as a CSV file with ISO 8601 dates and plain numbers, in UTF-8.

    The file starts with a byte order mark, because Excel would not recognize UTF-8 without it. Text that a spreadsheet
    would take for a formula is prefixed with an apostrophe.
    """
    response = HttpResponse("\ufeff", content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="voicecare-{chart.name}.csv"'
    writer = csv.writer(response)
    lines: list[list[str | Value]] = [[chart.row_heading, *(column.label for column in chart.columns)]]
    lines += [[row.key, *row.values] for row in chart.rows]
    for cells in lines:
        writer.writerow([csv_cell(cell) for cell in cells])
    return response


def csv_cell(cell: str | Value) -> str | Value:
    """Returns the cell for a CSV file: an exact amount without an exponent, a text that no spreadsheet calculates."""
    if isinstance(cell, Decimal):
        return plain(cell)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
