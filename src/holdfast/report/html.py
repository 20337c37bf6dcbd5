"""Sections -> one HTML file that needs nothing else: style, script, plotly.js and data are inside it, and it may load nothing.

The Content-Security-Policy names the two scripts by their hashes, so that nothing that a run holds could ever act as one. Figures travel
as JSON in a data block; every other piece of text goes through ``text.escape``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import math
import string
from collections.abc import Sequence
from typing import Any

import holdfast
from holdfast.report.elements import facts, note, passage, table
from holdfast.report.palette import THEMES
from holdfast.report.parts import Choice, Facts, Figure, Note, Part, Passage, Section, Table
from holdfast.report.text import escape, slug

GENERATOR = "Holdfast report"
_VALUES_SHOWN = 300
"""Rows of the table behind a figure; more are in the CSV."""


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    from plotly.offline import get_plotlyjs

    body = _Body()
    main = "".join(body.section(section, place) for place, section in enumerate(sections, start=1))
    contents = "".join(
        f'<li><a href="#run-{place}"><span>{escape(section.kind)}</span><bdi>{escape(section.title)}</bdi></a></li>'
        for place, section in enumerate(sections, start=1)
    )
    plotly, script = get_plotlyjs().replace("\r", ""), _file("page.js")
    return string.Template(_file("page.html")).substitute(
        policy=_policy(plotly, script),
        generator=f"{GENERATOR} {holdfast.__version__}",
        title=escape(title),
        style=_file("page.css"),
        contents=contents,
        main=main,
        data=_data_block({"figures": body.figures, "themes": THEMES}),
        plotly=plotly,
        script=script,
    )


class _Body:
    """Writes parts and collects their figures on the way."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []
        self.anchors: set[str] = set()

    def section(self, section: Section, place: int) -> str:
        problems = "".join(f'<p class="note warning" role="note"><b>Note.</b> {escape(problem)}</p>\n' for problem in section.problems)
        return (
            f'<section id="run-{place}" aria-labelledby="run-{place}-title">\n<header><p class="kind">{escape(section.kind)}</p>'
            f'<h2 id="run-{place}-title"><bdi>{escape(section.title)}</bdi></h2>'
            f'<p class="where"><bdi>{escape(section.where)}</bdi></p></header>\n'
            f"{problems}{self.parts(section.parts, place)}</section>\n"
        )

    def parts(self, parts: Sequence[Part], place: int) -> str:
        return "".join(self.part(part, place) for part in parts)

    def part(self, part: Part, place: int) -> str:
        match part:
            case Note():
                return note(part)
            case Facts():
                return facts(part)
            case Table():
                return f'<div class="part">{self._heading(part.title, place)}{table(part)}</div>\n'
            case Figure():
                return self._figure(part, place)
            case Passage():
                return f'<div class="part">{self._heading(part.title, place)}{passage(part)}</div>\n'
            case Choice():
                return self._choice(part, place)

    def _figure(self, figure: Figure, place: int) -> str:
        self.figures.append({"data": figure.data, "layout": figure.layout})
        values = figure.values
        cut = len(values.rows) - _VALUES_SHOWN
        rest = f"<p>{cut:,} more rows are in the CSV (--format csv).</p>" if cut > 0 else ""
        return (
            f'<figure class="part">{self._heading(figure.title, place)}<div class="plot" data-figure="{len(self.figures) - 1}" '
            f'style="height:{figure.height}px" role="group" aria-label="{escape(figure.title)}. {escape(figure.caption)}">'
            "<noscript>The values of this figure are in the table below.</noscript></div>\n"
            f'<figcaption>{escape(figure.caption)}</figcaption>\n<details class="values"><summary>Values</summary>'
            f"{table(Table('', values.columns, values.rows[:_VALUES_SHOWN]))}{rest}</details></figure>\n"
        )

    def _choice(self, choice: Choice, place: int) -> str:
        key = self._anchor(f"choose-{place}-{slug(choice.title)}")
        names = [escape(name) for name, _ in choice.options]
        options = "".join(f'<option value="{i}">{name}</option>' for i, name in enumerate(names))
        panels = "".join(
            f'<div class="panel" data-panel="{i}"><p class="panel-name">{escape(choice.title)}, {i + 1} of {len(names)}: '
            f"<bdi>{names[i]}</bdi></p>\n{self.parts(parts, place)}</div>\n"
            for i, (_, parts) in enumerate(choice.options)
        )
        return (
            f'<div class="choice"><p class="chooser" hidden><label for="{key}">{escape(choice.title)}</label> '
            f'<select id="{key}">{options}</select></p>\n{panels}</div>\n'
        )

    def _heading(self, title: str, place: int) -> str:
        return f'<h3 id="{self._anchor(f"part-{place}-{slug(title)}")}">{escape(title)}</h3>\n'

    def _anchor(self, wanted: str) -> str:
        made, again = wanted, 2
        while made in self.anchors:
            made, again = f"{wanted}-{again}", again + 1
        self.anchors.add(made)
        return made


def _data_block(value: Any) -> str:
    """JSON that cannot end its script element: ``<`` is escaped, and numbers are finite and short."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _policy(*scripts: str) -> str:
    """Only these scripts run; only styles and pictures that are inside the file are used; nothing is fetched or sent."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def _file(name: str) -> str:
    return importlib.resources.files("holdfast.report").joinpath(name).read_text(encoding="utf-8")
