"""Sections -> Markdown, CSV and PNG beside the page: tables for papers and model cards, pictures of every figure."""

from __future__ import annotations

import csv
import io
import math
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.report.files import numbered_path
from holdfast.report.palette import THEMES, paint
from holdfast.report.parts import Cell, Choice, Column, Facts, Figure, Interval, Note, Part, Passage, Section, Table, without_empty
from holdfast.report.text import clipped, label, number, slug, visible

_SIZE = {"format": "png", "width": 820, "scale": 2}


def markdown(title: str, sections: Sequence[Section], pictures: dict[int, str]) -> str:
    """Notes, facts and tables as Markdown; figures as links to their ``pictures`` (by ``id`` of the figure), or their captions alone."""
    lines = [f"# {_plain(title)}", ""]
    for section in sections:
        lines += [f"## {_plain(section.kind)}: {_plain(section.title)}", "", f"Run directory: {_plain(section.where)}", ""]
        lines += [line for problem in section.problems for line in (f"> **Note.** {_plain(problem)}", "")]
        for part in section.parts:
            lines += _markdown(part, pictures)
    return "\n".join(lines).rstrip() + "\n"


def names(sections: Sequence[Section], formats: Sequence[str]) -> list[str]:
    """How the names of the tables and pictures of these formats end, in the order of the page."""
    pictured = ((name, ending) for name, part in _named(sections) for ending in (("png", "csv") if isinstance(part, Figure) else ("csv",)))
    return [f"{name}.{ending}" for name, ending in pictured if ending in formats]


def tables(sections: Sequence[Section]) -> Iterator[tuple[str, str]]:
    """Name and CSV of every table, and of the values of every figure, in the order of the page."""
    for name, part in _named(sections):
        yield f"{name}.csv", _csv(part.values if isinstance(part, Figure) else part)


def figures_and_tables(parts: Sequence[Part]) -> Iterator[Figure | Table]:
    """Those among the parts, also inside choices."""
    for part in parts:
        if isinstance(part, Choice):
            for _, inner in part.options:
                yield from figures_and_tables(inner)
        elif isinstance(part, Figure | Table):
            yield part


def pictures(sections: Sequence[Section], stem: Path) -> dict[int, Path]:
    """Write a PNG of every figure, in light colours; returns their paths by ``id`` of the figure.

    Raises:
        HoldfastError: kaleido is missing, or finds no Chrome or Chromium, or that does not start.
    """
    found = {name: part for name, part in _named(sections) if isinstance(part, Figure)}
    paths = {id(figure): numbered_path(stem, f"{name}.png") for name, figure in found.items()}
    try:
        import kaleido
        from kaleido.errors import BrowserFailedError, ChromeNotFoundError, KaleidoError
    except ImportError as error:
        raise HoldfastError(
            "--format png needs the package kaleido 1.0 or newer, which is not installed",
            hint='pip install "holdfast[png]"; a Chrome or Chromium is needed, too',
        ) from error
    wanted = [
        {"fig": picture(figure), "path": str(paths[id(figure)]), "opts": _SIZE | {"height": figure.height + 60}}
        for figure in found.values()
    ]
    try:
        kaleido.write_fig_from_object_sync(wanted, kopts={"n": 1, "mathjax": False})
    except ChromeNotFoundError as error:
        raise HoldfastError(
            "--format png needs a Chrome or Chromium, and none was found",
            hint="install one (Debian: apt install chromium), or let the variable BROWSER_PATH name it",
        ) from error
    except (BrowserFailedError, KaleidoError, OSError) as error:
        reason = str(error.args[0] if error.args else type(error).__name__)
        raise HoldfastError(f"--format png: Chrome or Chromium could not draw the figures ({reason})") from error
    return paths


def _named(sections: Sequence[Section]) -> Iterator[tuple[str, Figure | Table]]:
    """Figures and tables with the ends of their files' names: place on the page, run, title."""
    found = ((section, part) for section in sections for part in figures_and_tables(section.parts))
    for place, (section, part) in enumerate(found, start=1):
        yield f"{place:02d}-{slug(section.title)}-{slug(part.title)}", part


def picture(figure: Figure) -> dict[str, Any]:
    """A figure in light colours with everything on it that the page says around it, as plotly takes it."""
    colours = THEMES["light"]
    layout = paint(figure.layout, colours)
    soft = {"gridcolor": colours["@grid"], "zeroline": False, "automargin": True}
    axes = {key: soft | layout.get(key, {}) for key in ("xaxis", "yaxis")}
    shown = {
        "title": {"text": label(figure.title, 90), "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "font": {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 12.5, "color": colours["@ink"]},
        "paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"} | layout.get("legend", {}),
    }  # fmt: skip
    return {"data": paint(figure.data, colours), "layout": layout | axes | shown | {"margin": {"l": 60, "r": 20, "t": 80, "b": 55}}}


def _markdown(part: Part, pictures: dict[int, str]) -> list[str]:
    match part:
        case Note():
            lead = {"plain": "", "finding": "**Finding.** ", "warning": "**Warning.** "}[part.tone]
            return [lead + _plain(part.text), ""]
        case Facts():
            return [*(f"- {_plain(name)}: {_cell(value, Column(name, None))}" for name, value in part.pairs), ""]
        case Table():
            return [f"### {_plain(part.title)}", "", *([_plain(part.caption), ""] if part.caption else []), *_rows(part), ""]
        case Figure():
            link = [f"![{_plain(part.title)}]({urllib.parse.quote(pictures[id(part)])})", ""] if id(part) in pictures else []
            return [f"### {_plain(part.title)}", "", *link, _plain(part.caption), ""]
        case Passage():
            lines = [
                "    " + f"{visible(name)}: " + "".join(visible(_marked(p.text, p.role)) for p in pieces) for name, pieces in part.lines
            ]
            return [f"### {_plain(part.title)}", "", _plain(part.caption), "", *lines, ""]
        case Choice():
            return [
                line
                for name, inner in part.options
                for line in (f"**{_plain(name)}**", "", *(x for p in inner for x in _markdown(p, pictures)))
            ]


def _marked(text: str, role: str) -> str:
    return f"[-{text}-]" if role == "removed" else f"{{+{text}+}}" if role == "added" else text


def _rows(table: Table) -> list[str]:
    table = without_empty(table)
    align = ["---:" if _numbers(table, i) else "---" for i in range(len(table.columns))]
    rows = [[_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    return [_line([_plain(c.title) for c in table.columns]), _line(align), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _numbers(table: Table, place: int) -> bool:
    return all(not isinstance(row[place], str) for row in table.rows)


def _cell(cell: Cell, column: Column) -> str:
    if isinstance(cell, Interval):
        low, high = (_plain(number(end, column.digits)) for end in (cell.low, cell.high))
        ends = f" [{low}, {high}]" if cell.low is not None else ""
        return _plain(number(cell.value, column.digits)) + ends
    return _plain(cell if isinstance(cell, str) else number(cell, column.digits))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: its own marks and those of HTML are escaped, line breaks are made visible."""
    made = visible(clipped(text)).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|`*_[]#!":
        made = made.replace(mark, "\\" + mark)
    return made


def _csv(table: Table) -> str:
    """Full precision; an interval is three columns. Text that a spreadsheet would take for a formula gets an apostrophe."""
    table = without_empty(table)
    spread = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [[c.title, f"{c.title} low", f"{c.title} high"] if wide else [c.title] for c, wide in zip(table.columns, spread)]
    writer.writerow([_safe(head) for group in heads for head in group])
    for row in table.rows:
        cells = [_values(cell) if wide else [cell] for cell, wide in zip(row, spread)]
        writer.writerow([_safe(cell) for group in cells for cell in group])
    return out.getvalue()


def _values(cell: Cell) -> list[Cell]:
    return [cell.value, cell.low, cell.high] if isinstance(cell, Interval) else [cell, None, None]


def _safe(cell: Cell) -> str | float | int | None:
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if not isinstance(cell, str):
        return cell if not isinstance(cell, Interval) else cell.value
    made = visible(cell)
    return f"'{made}" if made.startswith(("=", "+", "-", "@")) else made
