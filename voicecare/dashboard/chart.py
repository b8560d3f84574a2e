"""One chart of the admin. Its plot, its table and its CSV file are made from the same rows."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.http import HttpResponse

Value = int | float | None
Style = Literal["stacked", "lines", "shares"]

# Spreadsheets treat a cell that starts with one of these as a formula, including the full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Column:
    """`tone` names a color of dashboard.css. A column without a tone is in the table only, not in the plot."""

    label: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """`key` is for programs (an ISO date or a name), `label` is for people. `url` leads to the rows behind the figures.

    `url` is empty if the user may not see those rows. A value of None means that there is no data.
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
    """`name` is part of URLs. `row_heading` is the heading of the row labels. `limit` is drawn as a dashed line.

    `empty_text` replaces the plot if there is nothing to draw.
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
        """The id of the HTML element that holds `plot_data`."""
        return f"chart-{self.name}-data"

    @property
    def plotted_columns(self) -> list[Column]:
        return [column for column in self.columns if column.tone]

    @property
    def table_rows(self) -> Sequence[Row]:
        """The rows in the order of the table: newest day first, or largest share first."""
        return self.rows if self.style == "shares" else self.rows[::-1]

    @property
    def is_empty(self) -> bool:
        """Whether the plot would show nothing."""
        return not any(value for series in self.plot_data["series"] for value in series["values"])

    @property
    def plot_data(self) -> Mapping[str, Any]:
        """The input of charts.js, as JSON."""
        series = [
            {"label": column.label, "tone": column.tone, "values": [row.values[index] for row in self.rows]}
            for index, column in enumerate(self.columns)
            if column.tone
        ]
        labels = {"keys": [row.key for row in self.rows], "labels": [row.label for row in self.rows]}
        return {"style": self.style, "unit": self.unit, "limit": self.limit, "series": series, **labels}

    def csv_rows(self) -> Iterator[list[str | Value]]:
        """The table for programs: ISO 8601 dates and plain numbers."""
        yield [self.row_heading, *(column.label for column in self.columns)]
        for row in self.rows:
            yield [row.key, *row.values]


def csv_response(chart: Chart) -> HttpResponse:
    """The chart as a CSV file. Excel recognizes UTF-8 only with a byte order mark."""
    response = HttpResponse("\ufeff", content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="voicecare-{chart.name}.csv"'
    writer = csv.writer(response)
    for row in chart.csv_rows():
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row])
    return response
