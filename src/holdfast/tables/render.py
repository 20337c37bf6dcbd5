"""Tables -> lines of a terminal, Markdown and CSV. HTML is made by the templates of the report, from the same texts of
cells.
"""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Sequence

from holdfast.tables.record import Cell, Interval, Spread, Table, middle, numeric, without_empty
from holdfast.tables.text import MINUS, clipped, number, shorten, visible

_TYPED = str.maketrans({MINUS: "-", "\N{EN DASH}": "-"})
_WIDTH = 116
"""Letters of a line of a caption on a terminal."""


def cell_text(cell: Cell, digits: int | None) -> tuple[str, str]:
    """A cell's text, and what stands beside it: the ends of its interval in brackets, or ± its standard deviation. This
    is the one place where a number in a table becomes text.
    """
    if isinstance(cell, str):
        return cell, ""
    beside = ""
    if isinstance(cell, Interval) and cell.low is not None:
        beside = f"[{number(cell.low, digits)}, {number(cell.high, digits)}]"
    elif isinstance(cell, Spread) and cell.sd is not None:
        beside = f"± {number(cell.sd, digits)}"
    return number(middle(cell), digits), beside


def as_text(table: Table, longest: int | None = None) -> list[str]:
    """Lines of a terminal: title, heads, rows in columns, caption.

    Args:
        table: what is written.
        longest: letters of a cell, for a terminal that has no room for more. Of longer ones the middle is left out with
            an ellipsis, and a last line says that cells are cut. None: cells are whole.
    """
    table = without_empty(table)
    lines = [[visible(column.title) for column in table.columns]]
    cut = False
    for row in table.rows:
        whole = [_typed(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        cells = whole if longest is None else [shorten(text, longest) for text in whole]
        cut = cut or cells != whole
        lines.append(cells)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    right = numeric(table)
    text = [visible(table.title), *(_aligned(line, widths, right) for line in lines)]
    text += [f"  {line}" for line in textwrap.wrap(visible(table.caption), _WIDTH)]
    return [*text, "  …: cells are cut for the terminal; files hold them whole."] if cut else text


def as_markdown(table: Table) -> list[str]:
    """Lines of a Markdown table, without its title and caption."""
    table = without_empty(table)
    heads = [plain(column.title) for column in table.columns]
    lines = [heads, ["---:" if right else "---" for right in numeric(table)]]
    for row in table.rows:
        lines.append([markdown_cell(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def markdown_cell(cell: Cell, digits: int | None) -> str:
    """A cell in Markdown. The brackets of an interval are not escaped, as they are no link."""
    value, beside = cell_text(cell, digits)
    return f"{plain(value)} {beside}".rstrip()


def plain(text: str) -> str:
    """Text that Markdown shows as it is: its own marks and those of HTML are escaped, line breaks are made visible."""
    escaped = visible(clipped(text)).replace("\\", "\\\\").replace("&", "&amp;")
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|`*_[]#!":
        escaped = escaped.replace(mark, "\\" + mark)
    return escaped


def as_csv(table: Table) -> str:
    """Full precision; an interval is three columns, a mean with its standard deviation two. Text that a spreadsheet
    would take for a formula gets an apostrophe.
    """
    table = without_empty(table)
    parts = [_parts(cells) for cells in zip(*table.rows, strict=True)] or [("",)] * len(table.columns)
    heads: list[Cell] = []
    for column, endings in zip(table.columns, parts, strict=True):
        heads += [column.title + ending for ending in endings]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_safe, heads))
    for row in table.rows:
        values: list[Cell] = []
        for cell, endings in zip(row, parts, strict=True):
            own = list(vars(cell).values()) if isinstance(cell, Interval | Spread) else [cell]
            values += [*own, *[None] * (len(endings) - len(own))]
        writer.writerow(map(_safe, values))
    return out.getvalue()


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(cells, widths, right, strict=True))
    return f"  {'  '.join(padded)}".rstrip()


def _typed(cell: Cell, digits: int | None) -> str:
    """Numbers with the signs of a keyboard, text without what moves a cursor."""
    value, beside = cell_text(cell, digits)
    if isinstance(cell, str):
        return visible(value)
    return f"{value} {beside}".strip().translate(_TYPED) if cell is not None else ""


def _parts(cells: Sequence[Cell]) -> tuple[str, ...]:
    """How the heads of the columns end that a column of cells needs in CSV."""
    if any(isinstance(cell, Interval) for cell in cells):
        return "", " low", " high"
    return ("", " sd") if any(isinstance(cell, Spread) for cell in cells) else ("",)


def _safe(cell: Cell) -> str | float | int | None:
    value = middle(cell)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
