"""A table as plain data: what a wing writes into its summary, and what the terminal, HTML, Markdown and CSV are
rendered from.

In JSON a cell is a string, a number, a truth value, null, or an interval as ``{"value": 0.5, "low": 0.4, "high":
0.6}``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Mapping[str, Any] | None, key: str = "value") -> Interval:
        """Of an entry of a summary; empty where there is none. ``key``: what it calls its middle."""
        return cls(estimate.get(key), estimate.get("low"), estimate.get("high")) if estimate else cls(None)


Cell = str | int | float | bool | Interval | None


@dataclass(frozen=True)
class Column:
    """A column of a table: ``digits`` after the point (None: three significant ones); ``kind`` code, for model text and
    names, is set in a fixed-width font."""

    title: str
    digits: int | None = 3
    kind: Literal["plain", "code"] = "plain"
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; sortable, and with ``filterable`` a box that hides rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    filterable: bool = False


def without_empty(table: Table) -> Table:
    """The table without columns that have no value in any row."""
    kept = [
        place for place in range(len(table.columns)) if place == 0 or any(_has_value(row[place]) for row in table.rows)
    ]
    if len(kept) == len(table.columns):
        return table
    rows = [[row[place] for place in kept] for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[place] for place in kept], rows=rows)


def numeric(table: Table) -> list[bool]:
    """Which columns hold numbers alone."""
    columns = [[row[place] for row in table.rows if row[place] is not None] for place in range(len(table.columns))]
    return [bool(cells) and not any(isinstance(cell, str | bool) for cell in cells) for cells in columns]


def to_json(table: Table) -> dict[str, Any]:
    """The table as JSON takes it; what is no number is null."""
    rows = [[_cell_to_json(cell) for cell in row] for row in table.rows]
    return dataclasses.asdict(table) | {
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": rows,
    }


def from_json(value: Any) -> Table:
    """A table from a summary.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    columns = [
        Column(str(c["title"]), _digits(c.get("digits", 3)), c.get("kind", "plain"), str(c.get("hint", "")))
        for c in value["columns"]
    ]
    rows = [[_cell_from_json(cell) for cell in row] for row in value["rows"]]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a row of the table {value['title']!r} has another number of cells than there are columns")
    return Table(
        str(value["title"]), columns, rows, str(value.get("caption", "")), bool(value.get("filterable", False))
    )


def _has_value(cell: Cell) -> bool:
    return cell.value is not None if isinstance(cell, Interval) else cell not in (None, "")


def _cell_to_json(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return {key: _cell_to_json(value) for key, value in vars(cell).items()}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell_from_json(cell: Any) -> Cell:
    if isinstance(cell, dict):
        return Interval(*(_number(cell[key]) for key in ("value", "low", "high")))
    if cell is None or isinstance(cell, str | int | float):
        return cell
    raise TypeError(f"a cell of a table is {type(cell).__name__}")


def _number(value: Any) -> float | None:
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"an interval of a table holds {type(value).__name__}")
    return value


def _digits(value: Any) -> int | None:
    if value is not None and not (isinstance(value, int) and 0 <= value <= 20):
        raise ValueError(f"a column of a table has {value!r} digits")
    return value
