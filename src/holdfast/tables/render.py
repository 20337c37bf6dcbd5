"""Tables -> lines of a terminal, Markdown and CSV. HTML is made by the templates of the report, from the same texts of
cells.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from holdfast.tables.record import Cell, Interval, Table, numeric, without_empty
from holdfast.tables.text import MINUS, clipped, number, shorten, visible

_LONGEST = 48
"""Letters of a cell on a terminal."""
_TYPED = str.maketrans({MINUS: "-", "\N{EN DASH}": "-"})


def cell_text(cell: Cell, digits: int | None) -> tuple[str, str]:
    """A cell's text, and the ends of its interval in brackets: the one place where a number in a table is made text."""
    if not isinstance(cell, Interval):
        return cell if isinstance(cell, str) else number(cell, digits), ""
    return number(
        cell.value, digits
    ), f"[{number(cell.low, digits)}, {number(cell.high, digits)}]" if cell.low is not None else ""


def as_text(table: Table) -> list[str]:
    """Lines of a terminal: title, heads, rows in columns, caption."""
    table = without_empty(table)
    lines = [[visible(column.title) for column in table.columns]]
    lines += [
        [_typed(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    right = numeric(table)
    aligned = (
        (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True))
        for line in lines
    )
    caption = [f"  {visible(table.caption)}"] if table.caption else []
    return [visible(table.title), *(f"  {'  '.join(line)}".rstrip() for line in aligned), *caption]


def as_markdown(table: Table) -> list[str]:
    """Lines of a Markdown table, without its title and caption."""
    table = without_empty(table)
    align = ["---:" if right else "---" for right in numeric(table)]
    heads = [plain(column.title) for column in table.columns]
    rows = [
        [markdown_cell(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    return [f"| {' | '.join(cells)} |" for cells in (heads, align, *rows)]


def markdown_cell(cell: Cell, digits: int | None) -> str:
    """A cell in Markdown; brackets of an interval are no link."""
    value, ends = cell_text(cell, digits)
    return plain(value) + (f" [{plain(ends[1:-1])}]" if ends else "")


def plain(text: str) -> str:
    """Text that Markdown shows as it is: its own marks and those of HTML are escaped, line breaks are made visible."""
    made = visible(clipped(text)).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|`*_[]#!":
        made = made.replace(mark, "\\" + mark)
    return made


def as_csv(table: Table) -> str:
    """Full precision; an interval is three columns. Text that a spreadsheet would take for a formula gets an
    apostrophe.
    """
    table = without_empty(table)
    spread = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [
        [c.title, f"{c.title} low", f"{c.title} high"] if wide else [c.title] for c, wide in zip(table.columns, spread)
    ]
    writer.writerow([_safe(head) for group in heads for head in group])
    for row in table.rows:
        cells = [_values(cell) if wide else [cell] for cell, wide in zip(row, spread)]
        writer.writerow([_safe(cell) for group in cells for cell in group])
    return out.getvalue()


def _typed(cell: Cell, digits: int | None) -> str:
    """Numbers with the signs of a keyboard, text without what moves a cursor."""
    value, ends = cell_text(cell, digits)
    if isinstance(cell, str):
        return visible(shorten(value, _LONGEST))
    return f"{value} {ends}".strip().translate(_TYPED) if cell is not None else ""


def _values(cell: Cell) -> Sequence[Cell]:
    return [cell.value, cell.low, cell.high] if isinstance(cell, Interval) else [cell, None, None]


def _safe(cell: Cell) -> str | float | int | None:
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if not isinstance(cell, str):
        return cell if not isinstance(cell, Interval) else cell.value
    made = visible(cell)
    return f"'{made}" if made.startswith(("=", "+", "-", "@")) else made
