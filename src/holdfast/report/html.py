"""Sections -> one HTML file that needs nothing else: style, script, plotly.js and data are inside it, and it may load
nothing from elsewhere.

``page.html`` and ``parts.html`` are the templates. The Content-Security-Policy names the two scripts by their hashes,
so that nothing that a run holds could ever act as one. Figures travel as JSON in a data block; every other piece of
text goes through ``text.escape``.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.report.palette import THEMES
from holdfast.report.parts import Section
from holdfast.report.terms import TERMS, marked
from holdfast.tables.record import Cell, Column, middle, numeric, without_empty
from holdfast.tables.render import cell_text
from holdfast.tables.text import escape, slug

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = "Holdfast report"
_VALUES_SHOWN = 300
"""The most rows of the table behind a figure that a page holds; the CSV holds all."""
_LONG = 30
"""The letters of a cell from which on its column is made wide."""


def page(title: str, sections: Sequence[Section]) -> str:
    """Return the whole file."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = _environment()
    loader = environment.loader
    assert loader is not None
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    plotly = get_plotlyjs().replace("\r", "")
    values = {
        "title": title,
        "sections": sections,
        "generator": f"{GENERATOR} {holdfast.__version__}",
        "most_values": _VALUES_SHOWN,
    }
    trusted = {"policy": _policy(plotly, script), "style": style, "plotly": plotly, "script": script}
    return environment.get_template("page.html").render(
        values | {name: Markup(text) for name, text in trusted.items()},
        figures=[],  # the templates put figures here on their way, and the terms that they explain there
        words={},
        term_texts={term: sentence for term, (_, sentence) in TERMS.items()},
        anchor=_Anchors().new,
        data=lambda figures: Markup(_data_block({"figures": figures, "themes": THEMES})),
    )


@functools.cache
def _environment() -> Environment:
    """Where the templates live: any text that they print goes through ``escape``, and a name that does not exist is an
    error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def printed(value: Any) -> Any:
        return Markup(escape(value)) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("holdfast.report", ""), autoescape=True, undefined=StrictUndefined, finalize=printed,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "kind": lambda part: type(part).__name__,
        "slug": slug,
        "cell_text": cell_text,
        "classes": _classes,
        "sort_key": _sort_key,
        "numeric": numeric,
        "without_empty": without_empty,
        "head": lambda table, most: dataclasses.replace(table, title="", caption="", rows=table.rows[:most]),
        "marked": marked,
        "with_breaks": lambda text: Markup(escape(text, lines=True)),
    }
    return environment


class _Anchors:
    """Names of places on a page, each given once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def new(self, wanted: str) -> str:
        """The name, or the name with the first number that makes it a new one."""
        name, again = wanted, 2
        while name in self.taken:
            name, again = f"{wanted}-{again}", again + 1
        self.taken.add(name)
        return name


def _classes(place: tuple[Cell, Column, bool]) -> str | None:
    cell, column, is_numeric = place
    if is_numeric:
        return "n"
    return ("c" * (column.kind == "code") + " long" * (len(str(cell)) > _LONG)).strip() or None


def _sort_key(cell: Cell) -> str | None:
    """What the page's script sorts by, where the text of a number is rounded."""
    value = middle(cell)
    return repr(value) if isinstance(value, float) and math.isfinite(value) else None


def _data_block(value: Any) -> str:
    """JSON that cannot end its script element: ``<`` is escaped, and numbers are finite and short."""
    return json.dumps(_short(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value


def _policy(*scripts: str) -> str:
    """Only these scripts run; only styles and pictures that are inside the file are used; nothing is fetched or
    sent.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    own = " ".join(map("'sha256-{}'".format, digests))
    return (
        f"default-src 'none'; script-src {own}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
