"""Tables -> lines of a terminal, Markdown and CSV. HTML is made by the templates of the report, from the same texts of
cells.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence

from holdfast.tables.record import Cell, Column, Interval, MeanSd, Table, by_column, middle, numeric, without_empty
from holdfast.tables.text import MINUS, clipped, number, shorten, visible

_TYPED = str.maketrans({MINUS: "-", "\N{EN DASH}": "-"})
_WIDTH = 116
"""The letters of a line of a caption on a terminal."""


def cell_text(cell: Cell, digits: int | None) -> tuple[str, str]:
    """A cell's text, and what stands beside it: the ends of its interval in brackets, or ± its standard deviation. This
    is the one place where a number in a table becomes text.
    """
    if isinstance(cell, str):
        return cell, ""
    beside = ""
    if isinstance(cell, Interval) and cell.low is not None:
        beside = f"[{number(cell.low, digits)}, {number(cell.high, digits)}]"
    elif isinstance(cell, MeanSd) and cell.sd is not None:
        beside = f"± {number(cell.sd, digits)}"
    return number(middle(cell), digits), beside


def as_text(table: Table, longest: int | None = None) -> list[str]:
    """Return lines for a terminal: title, heads, rows in columns, caption.

    Args:
        table: what is written.
        longest: letters of a cell, for a terminal that has no room for more. Of longer ones the middle is left out with
            an ellipsis, and a last line says that cells are cut. None: cells are whole.
    """
    table = without_empty(table)
    whole = [[visible(column.title) for column in table.columns], *_cells(table, _typed)]
    lines = whole if longest is None else [list(map(shorten, line, itertools.repeat(longest))) for line in whole]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    below = textwrap.wrap(visible(table.caption), _WIDTH)
    below += ["…: cells are cut for the terminal; files hold them whole."] if lines != whole else []
    return [
        visible(table.title),
        *(_aligned(line, widths, numeric(table)) for line in lines),
        *map("  {}".format, below),
    ]


def as_markdown(table: Table) -> list[str]:
    """Return the lines of a Markdown table, without its title and caption."""
    table = without_empty(table)
    heads = [plain(column.title) for column in table.columns]
    below = ["---:" if right else "---" for right in numeric(table)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, below, *_cells(table, markdown_cell))]


def markdown_cell(cell: Cell, digits: int | None) -> str:
    """Return a cell in Markdown. The brackets of an interval are not escaped, as they are no link."""
    value, beside = cell_text(cell, digits)
    return f"{plain(value)} {beside}".rstrip()


def plain(text: str) -> str:
    """Return text that Markdown shows as it is: its own marks and those of HTML are escaped, line breaks are made
    visible.
    """
    escaped = visible(clipped(text)).replace("\\", "\\\\").replace("&", "&amp;")
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|`*_[]#!":
        escaped = escaped.replace(mark, "\\" + mark)
    return escaped


def as_csv(table: Table) -> str:
    """Return the table as CSV in full precision. An interval is three columns, a mean with its standard deviation two.
    Text that a spreadsheet would take for a formula gets an apostrophe.
    """
    table = without_empty(table)
    parts = [_parts(cells) for cells in by_column(table)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in (table.columns, *table.rows):
        values: list[Cell] = []
        for cell, endings in zip(line, parts, strict=True):
            values += _values(cell, endings)
        writer.writerow(map(_safe, values))
    return out.getvalue()


def _cells(table: Table, text: Callable[[Cell, int | None], str]) -> list[list[str]]:
    """The rows of a table with their cells as text."""
    digits = [column.digits for column in table.columns]
    return [list(map(text, row, digits)) for row in table.rows]


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(cells, widths, right, strict=True))
    return f"  {'  '.join(padded)}".rstrip()


def _typed(cell: Cell, digits: int | None) -> str:
    """Return a cell with the minus of a keyboard, and without characters that move a cursor."""
    value, beside = cell_text(cell, digits)
    if isinstance(cell, str):
        return visible(value)
    return f"{value} {beside}".strip().translate(_TYPED) if cell is not None else ""


def _values(cell: Cell | Column, endings: Sequence[str]) -> list[Cell]:
    """The values of a cell, or of the head, in the columns of CSV that end in this way."""
    if isinstance(cell, Column):
        return [cell.title + ending for ending in endings]
    own = list(vars(cell).values()) if isinstance(cell, Interval | MeanSd) else [cell]
    return own + [None] * (len(endings) - len(own))


def _parts(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the endings of the heads in CSV, one per column that these cells need there."""
    if any(isinstance(cell, Interval) for cell in cells):
        return "", " low", " high"
    return ("", " sd") if any(isinstance(cell, MeanSd) for cell in cells) else ("",)


def _safe(cell: Cell) -> str | float | int | None:
    value = middle(cell)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
