"""Single parts -> HTML. All text of a run passes through ``escape`` here; ``bdi`` keeps its writing direction to itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.report.parts import Cell, Column, Facts, Interval, Note, Passage, Piece, Table, without_empty
from holdfast.report.text import escape, number, slug

_LONG_TABLE = 25
_LONG = 30


def note(part: Note) -> str:
    """A paragraph."""
    lead = "<b>Warning.</b> " if part.tone == "warning" else ""
    return f'<p class="note {part.tone}">{lead}{escape(part.text)}</p>\n'


def facts(part: Facts) -> str:
    """A list of names and values."""
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{_shown(value, Column(name, None))}</dd></div>" for name, value in part.pairs)
    return f'<dl class="facts">{"".join(pairs)}</dl>\n'


def table(part: Table) -> str:
    """A table with a button in every head; what sorts and filters is the page's script."""
    part = without_empty(part)
    numeric = [_is_numeric(part.rows, place) for place in range(len(part.columns))]
    head = "".join(
        f'<th scope="col"{_class("n" if is_number else "")}{_hint(column.hint)}><button type="button">{escape(column.title)}</button></th>'
        for column, is_number in zip(part.columns, numeric, strict=True)
    )
    body = "\n".join(_row(part.columns, row, numeric) for row in part.rows)
    caption = f"<caption>{escape(part.caption)}</caption>" if part.caption else ""
    box = '<p class="filter" hidden><label>Filter <input type="search" autocomplete="off"></label> <output></output></p>'
    scroll = "scroll long" if len(part.rows) > _LONG_TABLE else "scroll"
    return (
        f'<div class="table">{box if part.filterable else ""}<div class="{scroll}" tabindex="0" role="region" '
        f'aria-label="{escape(part.title or "Values")}"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def passage(part: Passage) -> str:
    """Lines of coloured text under a legend."""
    legend = "".join(f"<li>{_piece(Piece(role, role))} {escape(meaning)}</li>" for role, meaning in part.legend)
    lines = "\n".join(
        f'<div class="line"><span class="who"><bdi>{escape(name)}</bdi></span>'
        f'<span class="said"><bdi>{"".join(map(_piece, pieces))}</bdi></span></div>'
        for name, pieces in part.lines
    )
    shown = f'<ul class="legend">{legend}</ul>' if legend else ""
    return f'{shown}<div class="passage">{lines}</div><p class="caption">{escape(part.caption)}</p>'


def _row(columns: Sequence[Column], row: Sequence[Cell], numeric: Sequence[bool]) -> str:
    cells = []
    for place, (column, cell) in enumerate(zip(columns, row, strict=True)):
        value = cell.value if isinstance(cell, Interval) else cell
        key = f' data-v="{value!r}"' if isinstance(value, float) and math.isfinite(value) else ""
        kind = "n" if numeric[place] else "c" * (column.kind == "code") + " long" * (len(str(cell)) > _LONG)
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        cells.append(f"<{tag}{scope}{_class(kind.strip())}{key}>{_shown(cell, column)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _shown(cell: Cell, column: Column) -> str:
    if isinstance(cell, str):
        return f"<bdi>{escape(cell)}</bdi>"
    if isinstance(cell, Interval):
        ends = f"[{number(cell.low, column.digits)}, {number(cell.high, column.digits)}]" if cell.low is not None else ""
        return escape(number(cell.value, column.digits)) + (f" <small>{escape(ends)}</small>" if ends else "")
    return escape(number(cell, column.digits))


def _is_numeric(rows: Sequence[Sequence[Cell]], place: int) -> bool:
    found = [row[place] for row in rows if row[place] is not None]
    return bool(found) and not any(isinstance(cell, str | bool) for cell in found)


def _piece(piece: Piece) -> str:
    tag = {"removed": "del", "added": "ins"}.get(piece.role, "span")
    kind = f"piece {slug(piece.role)}" if piece.role else "piece heat" if piece.heat is not None else ""
    style = f' style="--heat:{min(1.0, max(0.0, piece.heat)):.3f}"' if piece.heat is not None else ""
    return f"<{tag}{_class(kind)}{style}{_hint(piece.hint)}>{escape(piece.text, lines=True)}</{tag}>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _hint(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""
