"""Sections -> Markdown, CSV and PNG beside the page: tables for papers and model cards, pictures of every figure. Cells
are written whole.
"""

from __future__ import annotations

import itertools
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.report.files import numbered_path
from holdfast.report.palette import THEMES, paint
from holdfast.report.parts import FactList, Figure, Note, Part, Passage, Section, Tabs, TextPiece
from holdfast.tables.record import Table
from holdfast.tables.render import as_csv, as_markdown, markdown_cell, plain
from holdfast.tables.text import label, slug, visible

_SIZE = {"format": "png", "width": 820, "scale": 2}


def markdown(title: str, sections: Sequence[Section], pictures: dict[int, str]) -> str:
    """Return the report as Markdown: notes, facts and tables, and for figures links to their ``pictures`` (by ``id`` of
    the figure) and their captions.
    """
    lines = [f"# {plain(title)}", ""]
    for section in sections:
        lines += [f"## {plain(section.kind)}: {plain(section.title)}", "", f"Run directory: {plain(section.where)}", ""]
        lines += [f"> **Note.** {plain(problem)}\n" for problem in section.problems]
        lines += [f"- **{question}** {_answer(answer)}" for question, answer in section.lead] + [""] * bool(
            section.lead
        )
        lines += ["Made by:", "", f"    {visible(section.command)}", ""] if section.command else []
        lines += _all_markdown(section.parts, pictures)
    return "\n".join(lines).rstrip() + "\n"


def names(sections: Sequence[Section], formats: Sequence[str]) -> list[str]:
    """Return how the names of the tables and pictures of these formats end, in the order of the page."""
    pairs = itertools.product(_named(sections), ("png", "csv"))
    wanted = [(name, ending) for (name, part), ending in pairs if ending == "csv" or isinstance(part, Figure)]
    return [f"{name}.{ending}" for name, ending in wanted if ending in formats]


def tables(sections: Sequence[Section]) -> Iterator[tuple[str, str]]:
    """Yield name and CSV of every table, and of the values of every figure, in the order of the page."""
    for name, part in _named(sections):
        yield f"{name}.csv", as_csv(part.values if isinstance(part, Figure) else part)


def figures_and_tables(parts: Sequence[Part]) -> Iterator[Figure | Table]:
    """Yield the figures and tables among the parts, also those inside tabs."""
    for part in parts:
        if isinstance(part, Tabs):
            for _, inner in part.options:
                yield from figures_and_tables(inner)
        elif isinstance(part, Figure | Table):
            yield part


def pictures(sections: Sequence[Section], stem: Path) -> dict[int, Path]:
    """Write a PNG of every figure, in light colours; returns their paths by ``id`` of the figure.

    Raises:
        HoldfastError: kaleido is missing, or finds no Chrome or Chromium, or that does not start.
    """
    try:
        import kaleido
        from kaleido.errors import BrowserFailedError, ChromeNotFoundError, KaleidoError
    except ImportError as error:
        raise HoldfastError(
            "--format png needs the package kaleido 1.0 or newer, which is not installed",
            hint='pip install "holdfast[png]"; a Chrome or Chromium is needed, too',
        ) from error
    paths: dict[int, Path] = {}
    wanted = []
    for name, part in _named(sections):
        if isinstance(part, Figure):
            paths[id(part)] = numbered_path(stem, f"{name}.png")
            size = _SIZE | {"height": part.height + 60}
            wanted.append({"fig": picture(part), "path": str(paths[id(part)]), "opts": size})
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
    """Yield figures and tables with the ends of their files' names: place on the page, run, title."""
    place = itertools.count(1)
    for section in sections:
        for part in figures_and_tables(section.parts):
            yield f"{next(place):02d}-{slug(section.title)}-{slug(part.title)}", part


def picture(figure: Figure) -> dict[str, Any]:
    """Return a figure as plotly takes it, in light colours, with the title that the page has around it."""
    colours = THEMES["light"]
    layout = paint(figure.layout, colours)
    soft = {"gridcolor": colours["@grid"], "zeroline": False, "automargin": True}
    axes = {key: soft | layout.get(key, {}) for key in ("xaxis", "yaxis")}
    around = {
        "title": {"text": label(figure.title, 90), "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "font": {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 12.5, "color": colours["@ink"]},
        "paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"} | layout.get("legend", {}),
    }  # fmt: skip
    margin = {"margin": {"l": 60, "r": 20, "t": 80, "b": 55}}
    return {"data": paint(figure.data, colours), "layout": layout | axes | around | margin}


def _all_markdown(parts: Sequence[Part], pictures: dict[int, str]) -> list[str]:
    return list(itertools.chain.from_iterable(_markdown(part, pictures) for part in parts))


def _markdown(part: Part, pictures: dict[int, str]) -> list[str]:
    match part:
        case Note():
            lead = {"plain": "", "finding": "**Finding.** ", "warning": "**Warning.** "}[part.tone]
            return [lead + plain(part.text), ""]
        case FactList():
            return [*(f"- {plain(name)}: {markdown_cell(value, None)}" for name, value in part.pairs), ""]
        case Table():
            caption = [plain(part.caption), ""] if part.caption else []
            return [f"### {plain(part.title)}", "", *caption, *as_markdown(part), ""]
        case Figure():
            file = pictures.get(id(part))
            link = [f"![{plain(part.title)}]({urllib.parse.quote(file)})", ""] if file else []
            return [f"### {plain(part.title)}", "", *link, plain(part.caption), ""]
        case Passage():
            lines = [f"    {visible(name)}: {''.join(map(_marked, pieces))}" for name, pieces in part.lines]
            return [f"### {plain(part.title)}", "", plain(part.caption), "", *lines, ""]
        case Tabs():
            panels = [[f"**{plain(name)}**", "", *_all_markdown(inner, pictures)] for name, inner in part.options]
            return list(itertools.chain.from_iterable(panels))


def _answer(text: str) -> str:
    """What stands between backticks is a command."""
    pieces = text.split("`")
    return "".join(f"`{visible(piece)}`" if place % 2 else plain(piece) for place, piece in enumerate(pieces))


def _marked(piece: TextPiece) -> str:
    before, after = {"removed": ("[-", "-]"), "added": ("{+", "+}")}.get(piece.role, ("", ""))
    return visible(f"{before}{piece.text}{after}")
