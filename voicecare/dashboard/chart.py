"""What a chart of the admin shows: one set of rows, from which its picture, its table and its CSV file are made."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.http import HttpResponse

Value = int | float | None
Style = Literal["stacked", "lines", "shares"]

# A spreadsheet takes a cell that begins so for a formula, the full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Column:
    """`tone` is a colour of dashboard.css and puts the column into the picture; without one it is in the table only."""

    label: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """`key` is what a program reads (an ISO date, a name), `label` the same for a reader; `address` leads to the rows
    behind it, empty for who may not see them. None is a value that there was not.
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
    """`name` stands in addresses; `heading` is above the rows' labels; `limit` is a line that should not be crossed;
    `nothing` is said instead of an empty picture.
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
    empty_text: str = "Nothing in this time."

    @property
    def data_id(self) -> str:
        """Of the element of the page that holds the picture."""
        return f"chart-{self.name}-data"

    @property
    def plotted_columns(self) -> list[Column]:
        return [column for column in self.columns if column.tone]

    @property
    def table_rows(self) -> Sequence[Row]:
        """As a reader wants them: the newest day first, or the largest share."""
        return self.rows if self.style == "shares" else self.rows[::-1]

    @property
    def is_empty(self) -> bool:
        """Whether the picture would be."""
        return not any(value for series in self.plot_data["series"] for value in series["values"])

    @property
    def plot_data(self) -> Mapping[str, Any]:
        """For dashboard.js, as JSON."""
        series = [
            {"label": column.label, "tone": column.tone, "values": [row.values[place] for row in self.rows]}
            for place, column in enumerate(self.columns)
            if column.tone
        ]
        labels = {"keys": [row.key for row in self.rows], "labels": [row.label for row in self.rows]}
        return {"style": self.style, "unit": self.unit, "limit": self.limit, "series": series, **labels}

    def csv_rows(self) -> Iterator[list[str | Value]]:
        """The table for a program: dates in ISO 8601, numbers plain."""
        yield [self.row_heading, *(column.label for column in self.columns)]
        for row in self.rows:
            yield [row.key, *row.values]


def csv_response(chart: Chart) -> HttpResponse:
    """With a byte order mark, without which Excel would take UTF-8 for something else."""
    response = HttpResponse("\ufeff", content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="voicecare-{chart.name}.csv"'
    csv.writer(response).writerows(_escape_formulas(line) for line in chart.csv_rows())
    return response


def _escape_formulas(line: Iterable[str | Value]) -> Iterator[str | Value]:
    for cell in line:
        yield f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
