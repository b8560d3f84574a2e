"""Tables of the workspace's analytics. All these calls of the provider answer with one form of table.

The names of the columns are hardly documented. So a column is found by its type or its unit where this is possible.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Self

from voicecare.providers.elevenlabs.requests import printable_id
from voicecare.providers.elevenlabs.responses import HistoryItem, invalid_response

CREDITS = frozenset({"credits"})
CURRENCIES = frozenset({"usd", "eur", "inr", "pln", "gbp"})
SPEECH_ENDPOINTS = ("/v1/text-to-speech", "/v1/text-to-dialogue")

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class AnalyticsTable:
    """Rows with one cell for each of `columns`. `types` and `units` describe the columns; a unit may be None."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    units: tuple[str | None, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def from_json(cls, reply: object) -> Self:
        """Raises ServerError if it is not a table."""
        data = reply if isinstance(reply, dict) else {}
        parts = [data.get(name) for name in ("columns", "column_types", "column_units", "rows")]
        columns, types, units, rows = (part if isinstance(part, list) else None for part in parts)
        if columns is None or types is None or units is None or rows is None:
            raise invalid_response("not a table")
        if not len(columns) == len(types) == len(units):
            raise invalid_response("a table with columns of unequal number")
        if any(not isinstance(row, list) or len(row) != len(columns) for row in rows):
            raise invalid_response("a table with a row of another length")
        if any(not isinstance(cell, str | int | float | None) for row in rows for cell in row):
            raise invalid_response("a table with a cell that is not a plain value")
        return cls(
            tuple(map(str, columns)),
            tuple(map(str, types)),
            tuple(unit if isinstance(unit, str) else None for unit in units),
            tuple(map(tuple, rows)),
        )

    def with_unit(self, units: Collection[str]) -> list[int]:
        """Returns the indexes of the columns that have one of these units."""
        return [index for index, unit in enumerate(self.units) if unit is not None and unit.lower() in units]

    def times(self) -> list[int]:
        """Returns the time of each row as Unix time in milliseconds.

        Raises ServerError if the table does not have exactly one column of times, or a cell is not a time.
        """
        columns = [index for index, kind in enumerate(self.types) if kind == "DateTime"]
        if len(columns) != 1:
            raise invalid_response("a table without one column of times")
        return [_unix_ms(row[columns[0]]) for row in self.rows]

    def amounts(self, index: int) -> dict[int, Decimal]:
        """Returns the sum of a column for each time, as Unix time in milliseconds.

        Raises ServerError as `times` does, or if a cell is not a number.
        """
        sums: dict[int, Decimal] = {}
        for at, row in zip(self.times(), self.rows, strict=True):
            sums[at] = sums.get(at, Decimal()) + _number(row[index])
        return sums

    def speech_requests(self) -> Iterator[tuple[int, HistoryItem]]:
        """Yields the successful speech requests of a list of requests, each with its time in milliseconds.

        The number of characters is 0, and the credits are None, if the list does not have them.
        """
        credits = self.with_unit(CREDITS)
        for at, row in zip(self.times(), self.rows, strict=True):
            cell = dict(zip(self.columns, row, strict=True))
            request_id = printable_id(cell.get("request_id"))
            if request_id is None:
                raise invalid_response("a list of requests without ids")
            if not str(cell.get("endpoint", "")).startswith(SPEECH_ENDPOINTS) or _is_failure(cell.get("success")):
                continue
            yield (
                at,
                HistoryItem(
                    item_id=request_id,
                    request_id=request_id,
                    voice_id=str(cell.get("voice_id") or ""),
                    model_id=str(cell.get("model_id") or cell.get("model") or ""),
                    created_at_unix=at // 1000,
                    characters=int(_number(cell.get("characters") or 0)),
                    credits=round(_number(row[credits[0]])) if len(credits) == 1 else None,
                ),
            )


def _unix_ms(cell: Cell) -> int:
    """Returns the Unix time in milliseconds of a time in ISO 8601. A time without an offset is in UTC."""
    try:
        at = datetime.fromisoformat(cell if isinstance(cell, str) else "")
    except ValueError as error:
        raise invalid_response("a table with an invalid time") from error
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _number(cell: Cell) -> Decimal:
    """The examples of the documentation have numbers as text, so both are read. An empty cell is 0."""
    try:
        number = Decimal(str(0 if cell is None else cell))
    except InvalidOperation as error:
        raise invalid_response("a table with an invalid number") from error
    if not number.is_finite() or number < 0 or isinstance(cell, bool):
        raise invalid_response("a table with an invalid number")
    return number


def _is_failure(success: Cell) -> bool:
    return success is False or (isinstance(success, str) and success.lower() == "false")
