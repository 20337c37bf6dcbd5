"""Sections -> one HTML file that needs nothing else: style, script, plotly.js and data are inside it, and it may load nothing.

The Content-Security-Policy names the two scripts by their hashes, so that nothing a run holds could ever run as one. Figures travel as
JSON in a data block; every other piece of text goes through ``text.escape``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import holdfast
from holdfast.report.palette import THEMES
from holdfast.report.parts import Cell, Choice, Column, Facts, Figure, Interval, Note, Part, Passage, Piece, Section, Table
from holdfast.report.text import escape, number, slug

GENERATOR = "Holdfast report"
_VALUES_SHOWN = 300  # rows of the table behind a figure; more are in the CSV


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    from plotly.offline import get_plotlyjs

    body = _Body()
    main = "".join(body.section(section, number) for number, section in enumerate(sections, start=1))
    data = _data_block({"figures": body.figures, "themes": THEMES})
    plotly, script = get_plotlyjs().replace("\r", ""), _file("page.js")
    return "".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="'
            f'{_policy(plotly, script)}">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
            f'<meta name="generator" content="{GENERATOR} {holdfast.__version__}">\n<title>{escape(title)}</title>\n'
            f'<link rel="icon" href="data:,">\n<style>{_file("page.css")}</style>\n</head>\n<body>\n',
            '<a class="skip" href="#main">Skip to the content</a>\n',
            f'<header class="top"><p class="brand">Holdfast <span>report</span></p><h1>{escape(title)}</h1>'
            '<button type="button" id="theme" hidden>Dark</button></header>\n',
            f'<div class="frame">{_contents(sections)}<main id="main" tabindex="-1">{main}</main></div>\n',
            f"<footer>Made by holdfast {holdfast.__version__}. This page is one file and loads nothing from elsewhere.</footer>\n",
            f'<script type="application/json" id="data">{data}</script>\n<script>{plotly}</script>\n<script>{script}</script>\n</body>\n</html>\n',
        ]
    )


class _Body:
    """Writes parts and collects their figures on the way."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []
        self.anchors: set[str] = set()

    def section(self, section: Section, place: int) -> str:
        problems = "".join(f'<p class="note warning" role="note"><b>Note.</b> {escape(p)}</p>' for p in section.problems)
        parts = "".join(self.part(part, place) for part in section.parts)
        return (
            f'<section id="run-{place}" aria-labelledby="run-{place}-title"><header><p class="kind">{escape(section.kind)}</p>'
            f'<h2 id="run-{place}-title"><bdi>{escape(section.title)}</bdi></h2><p class="where"><bdi>{escape(section.where)}</bdi></p></header>'
            f"{problems}{parts}</section>\n"
        )

    def part(self, part: Part, place: int) -> str:
        match part:
            case Note():
                lead = "<b>Warning.</b> " if part.tone == "warning" else ""
                return f'<p class="note {part.tone}">{lead}{escape(part.text)}</p>\n'
            case Facts():
                pairs = "".join(
                    f"<div><dt>{escape(name)}</dt><dd>{_shown(value, Column(name, None))}</dd></div>" for name, value in part.pairs
                )
                return f'<dl class="facts">{pairs}</dl>\n'
            case Table():
                return f'<div class="part">{self._heading(part.title, place)}{_table(part)}</div>\n'
            case Figure():
                return self._figure(part, place)
            case Passage():
                return f'<div class="part">{self._heading(part.title, place)}{_passage(part)}</div>\n'
            case Choice():
                return self._choice(part, place)

    def _figure(self, figure: Figure, place: int) -> str:
        self.figures.append({"data": figure.data, "layout": figure.layout})
        shown = Table("", figure.values.columns, figure.values.rows[:_VALUES_SHOWN])
        cut = len(figure.values.rows) - len(shown.rows)
        rest = f"<p>{cut:,} more rows are in the CSV (--format csv).</p>" if cut > 0 else ""
        return (
            f'<figure class="part">{self._heading(figure.title, place)}'
            f'<div class="plot" data-figure="{len(self.figures) - 1}" style="height:{figure.height}px" role="img" '
            f'aria-label="{escape(figure.title)}. {escape(figure.caption)}"><noscript>The values of this figure are in the table below.</noscript></div>'
            f"<figcaption>{escape(figure.caption)}</figcaption>"
            f'<details class="values"><summary>Values</summary>{_table(shown)}{rest}</details></figure>\n'
        )

    def _choice(self, choice: Choice, place: int) -> str:
        key = self._anchor(f"choose-{place}-{slug(choice.title)}")
        options = "".join(f'<option value="{i}">{escape(name)}</option>' for i, (name, _) in enumerate(choice.options))
        panels = "".join(
            f'<div class="panel" data-panel="{i}"><p class="panel-name"><bdi>{escape(name)}</bdi></p>{"".join(self.part(p, place) for p in parts)}</div>'
            for i, (name, parts) in enumerate(choice.options)
        )
        return (
            f'<div class="choice"><p class="chooser" hidden><label for="{key}">{escape(choice.title)}</label> <select id="{key}">{options}</select></p>'
            f"{panels}</div>\n"
        )

    def _heading(self, title: str, place: int) -> str:
        return f'<h3 id="{self._anchor(f"part-{place}-{slug(title)}")}">{escape(title)}</h3>' if title else ""

    def _anchor(self, wanted: str) -> str:
        made, again = wanted, 2
        while made in self.anchors:
            made, again = f"{wanted}-{again}", again + 1
        self.anchors.add(made)
        return made


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(
        f'<li><a href="#run-{i}"><span>{escape(s.kind)}</span><bdi>{escape(s.title)}</bdi></a></li>'
        for i, s in enumerate(sections, start=1)
    )
    return f'<nav aria-label="Contents"><h2>Contents</h2><ol>{links}</ol></nav>'


def _table(table: Table) -> str:
    numeric = [_is_numeric(table.rows, place) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col" class="{"n" if is_number else "t"}"{_hint(column.hint)}><button type="button">{escape(column.title)}</button></th>'
        for column, is_number in zip(table.columns, numeric)
    )
    body = "".join(_row(table.columns, row, numeric) for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    search = (
        '<p class="filter" hidden><label>Filter <input type="search" autocomplete="off"></label> <output></output></p>'
        if table.filterable
        else ""
    )
    long = " long" if len(table.rows) > 25 else ""
    name = escape(table.title or "Values")
    return (
        f'<div class="table">{search}<div class="scroll{long}" tabindex="0" role="region" aria-label="{name}">'
        f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _row(columns: Sequence[Column], row: Sequence[Cell], numeric: Sequence[bool]) -> str:
    cells = []
    for place, (column, cell) in enumerate(zip(columns, row, strict=True)):
        value = cell.value if isinstance(cell, Interval) else cell
        key = f' data-v="{value!r}"' if isinstance(value, float) and math.isfinite(value) else ""
        code = "c long" if len(str(cell)) > 30 else "c"
        kind = ' class="n"' if numeric[place] else f' class="{code}"' if column.kind == "code" else ""
        tag = "th scope=row" if place == 0 else "td"
        cells.append(f"<{tag}{kind}{key}>{_shown(cell, column)}</{tag[:2]}>")
    return f"<tr>{''.join(cells)}</tr>"


def _shown(cell: Cell, column: Column) -> str:
    if isinstance(cell, str):
        return f"<bdi>{escape(cell)}</bdi>"
    if isinstance(cell, Interval):
        ends = f" <small>[{number(cell.low, column.digits)}, {number(cell.high, column.digits)}]</small>" if cell.low is not None else ""
        return number(cell.value, column.digits) + ends
    return number(cell, column.digits)


def _is_numeric(rows: Sequence[Sequence[Cell]], place: int) -> bool:
    found = [row[place] for row in rows if row[place] is not None]
    return bool(found) and not any(isinstance(cell, str | bool) for cell in found)


def _passage(passage: Passage) -> str:
    legend = "".join(
        f'<li><span class="piece {slug(role)}">{escape(role)}</span> {escape(meaning)}</li>' for role, meaning in passage.legend
    )
    lines = "".join(
        f'<div class="line"><span class="who"><bdi>{escape(name)}</bdi></span><span class="said"><bdi>{"".join(map(_piece, pieces))}</bdi></span></div>'
        for name, pieces in passage.lines
    )
    return f'{f"<ul class=legend>{legend}</ul>" if legend else ""}<div class="passage">{lines}</div><p class="caption">{escape(passage.caption)}</p>'


def _piece(piece: Piece) -> str:
    tag = {"removed": "del", "added": "ins"}.get(piece.role, "span")
    style = f' style="--heat:{min(1.0, max(0.0, piece.heat)):.3f}"' if piece.heat is not None else ""
    kind = f"piece {slug(piece.role)}" if piece.role else "piece heat" if piece.heat is not None else ""
    return f"<{tag}{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}{style}{_hint(piece.hint)}>{escape(piece.text, lines=True)}</{tag}>"


def _hint(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""


def _data_block(value: Any) -> str:
    """JSON that cannot end its script element: ``<`` is escaped, and numbers are finite and short."""
    made = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return made.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _file(name: str) -> str:
    return importlib.resources.files("holdfast.report").joinpath(name).read_text(encoding="utf-8")


def all_figures(parts: Sequence[Part]) -> Iterator[Figure]:
    """Figures among the parts, those inside choices too."""
    for part in parts:
        if isinstance(part, Figure):
            yield part
        elif isinstance(part, Choice):
            for _, inner in part.options:
                yield from all_figures(inner)
