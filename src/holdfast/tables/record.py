"""A table as plain data: what a wing writes into its summary, and what the terminal, HTML, Markdown and CSV are
rendered from.

In JSON a cell is a string, a number, a truth value, null, an interval as ``{"value": 0.5, "low": 0.4, "high": 0.6}``,
or a mean with its standard deviation as ``{"value": 0.5, "sd": 0.1}``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Mapping[str, Any] | None, key: str = "value") -> Interval:
        """Return the interval of an entry of a summary, an empty one where there is no entry. ``key`` is the entry's
        name for the estimate itself.
        """
        return cls(estimate.get(key), estimate.get("low"), estimate.get("high")) if estimate else cls(None)


@dataclass(frozen=True)
class MeanSd:
    """A mean with the standard deviation of what it is the mean of; ``sd`` is None where there is but one value."""

    value: float | None
    sd: float | None = None


Cell = str | int | float | bool | Interval | MeanSd | None


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
    """Return the table without columns that have no value in any row; the first column always stays."""
    keep = [place == 0 or any(map(_has_value, cells)) for place, cells in enumerate(by_column(table))]
    if all(keep):
        return table
    rows = [list(compress(row, keep)) for row in table.rows]
    return dataclasses.replace(table, columns=list(compress(table.columns, keep)), rows=rows)


def numeric(table: Table) -> list[bool]:
    """Return for every column whether it holds numbers alone."""
    return [_is_numeric(cells) for cells in by_column(table)]


def middle(cell: Cell) -> str | int | float | bool | None:
    """Return the cell without its interval or standard deviation."""
    return cell.value if isinstance(cell, Interval | MeanSd) else cell


def to_json(table: Table) -> dict[str, Any]:
    """Return the table as JSON takes it; a number that is not finite becomes null."""
    rows = [list(map(_cell_to_json, row)) for row in table.rows]
    return dataclasses.asdict(table) | {"columns": list(map(dataclasses.asdict, table.columns)), "rows": rows}


def from_json(value: Any) -> Table:
    """Return the table that JSON of a summary holds.

    Raises:
        ValueError, KeyError, TypeError: the value is not a table.
    """
    columns = [
        Column(str(c["title"]), _digits(c.get("digits", 3)), c.get("kind", "plain"), str(c.get("hint", "")))
        for c in value["columns"]
    ]
    title, rows = str(value["title"]), [list(map(_cell_from_json, row)) for row in value["rows"]]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a row of the table {title!r} has another number of cells than there are columns")
    return Table(title, columns, rows, str(value.get("caption", "")), bool(value.get("filterable", False)))


def by_column(table: Table) -> list[tuple[Cell, ...]]:
    """Return the cells of every column."""
    return list(zip(*table.rows, strict=True)) or [()] * len(table.columns)


def _is_numeric(cells: Sequence[Cell]) -> bool:
    filled = [cell for cell in cells if cell is not None]
    return bool(filled) and not any(isinstance(cell, str | bool) for cell in filled)


def _has_value(cell: Cell) -> bool:
    return middle(cell) not in (None, "")


def _cell_to_json(cell: Cell) -> Any:
    if isinstance(cell, Interval | MeanSd):
        return {key: _cell_to_json(value) for key, value in vars(cell).items()}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _cell_from_json(cell: Any) -> Cell:
    if isinstance(cell, dict):
        kind, keys = (MeanSd, ("value", "sd")) if "sd" in cell else (Interval, ("value", "low", "high"))
        return kind(*(_number(cell[key]) for key in keys))
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
