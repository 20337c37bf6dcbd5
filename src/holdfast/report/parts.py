"""What a page is made of. Rooms of the report turn runs into these; ``html`` and ``export`` turn these into files.

Page -> Section per run -> Part: Note | Facts | Table | Figure | Passage | Choice
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = str | int | float | bool | Interval | None


@dataclass(frozen=True)
class Column:
    """A column of a table: ``digits`` after the point (None: three significant ones); ``kind`` code, for model text and names, is set in a
    fixed-width font."""

    title: str
    digits: int | None = 3
    kind: Literal["plain", "code"] = "plain"
    hint: str = ""


@dataclass(frozen=True)
class Note:
    """A sentence or two. ``tone`` finding stands out; warning stands out and says so."""

    text: str
    tone: Literal["plain", "finding", "warning"] = "plain"


@dataclass(frozen=True)
class Facts:
    """Names and values, side by side."""

    pairs: Sequence[tuple[str, Cell]]


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
    kept = [place for place in range(len(table.columns)) if place == 0 or any(_has_value(row[place]) for row in table.rows)]
    if len(kept) == len(table.columns):
        return table
    rows = [[row[place] for place in kept] for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[place] for place in kept], rows=rows)


def _has_value(cell: Cell) -> bool:
    return cell.value is not None if isinstance(cell, Interval) else cell not in (None, "")


@dataclass(frozen=True)
class Figure:
    """A plotly figure as plain data. ``caption``: one sentence on what to see, with n and interval. ``values``: the same as a table.

    Colours in ``data`` and ``layout`` are names such as ``@accent`` (see ``palette``), so that a figure follows the theme.
    """

    title: str
    caption: str
    data: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    values: Table
    height: int = 380


@dataclass(frozen=True)
class Piece:
    """A stretch of text in a passage: what it is (``role``, or ``heat`` in 0..1), and what a pointer over it says."""

    text: str
    role: str = ""
    heat: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Passage:
    """Running text whose pieces are coloured. ``legend`` names the roles in use."""

    title: str
    caption: str
    lines: Sequence[tuple[str, Sequence[Piece]]]
    """What each line is called, and its pieces."""
    legend: Sequence[tuple[str, str]] = ()
    """Role, and what it means."""


@dataclass(frozen=True)
class Choice:
    """Several bundles of parts of which a reader looks at one."""

    title: str
    options: Sequence[tuple[str, Sequence[Part]]]


Part = Note | Facts | Table | Figure | Passage | Choice


@dataclass(frozen=True)
class Section:
    """What one run, or a comparison of several, has to show."""

    title: str
    kind: str
    where: str
    parts: Sequence[Part] = field(default_factory=tuple)
    problems: Sequence[str] = field(default_factory=tuple)
    """What was wrong or missing in the directory; said at the head of the section."""
