"""What a page is made of. The files of this room that know a command turn its runs into these parts; ``html`` and
``export`` turn the parts into files.

Page -> Section per run -> Part: Note | FactList | Table | Figure | Passage | Tabs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.tables.record import Cell, Table


@dataclass(frozen=True)
class Note:
    """A sentence or two. A ``finding`` stands out; a ``warning`` stands out and begins with that word."""

    text: str
    tone: Literal["plain", "finding", "warning"] = "plain"


@dataclass(frozen=True)
class FactList:
    """Names and values, side by side."""

    pairs: Sequence[tuple[str, Cell]]
    title: str = "Details"
    """What the page folds it under."""

    @classmethod
    def of(cls, *pairs: tuple[str, Cell]) -> FactList:
        """Return the list of those pairs that have a value."""
        return cls([pair for pair in pairs if pair[1] is not None])


@dataclass(frozen=True)
class Figure:
    """A plotly figure as plain data. ``caption`` says in a sentence what to see, with n and interval; ``values`` is the
    table of the same values.

    Colours in ``data`` and ``layout`` are names such as ``@accent`` (see ``palette``), so that a figure follows the
    theme.
    """

    title: str
    caption: str
    data: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    values: Table
    height: int = 380


@dataclass(frozen=True)
class TextPiece:
    """A stretch of text in a passage: what it is (``role``, or ``heat`` in 0..1), and what a pointer over it says."""

    text: str
    role: str = ""
    heat: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Passage:
    """Running text whose pieces are coloured; ``legend`` explains the roles that occur."""

    title: str
    caption: str
    lines: Sequence[tuple[str, Sequence[TextPiece]]]
    """The name of each line, and its pieces."""
    legend: Sequence[tuple[str, str]] = ()
    """The roles that occur, each with its meaning."""


@dataclass(frozen=True)
class Tabs:
    """Several bundles of parts, by name, of which a reader looks at one at a time."""

    title: str
    options: Sequence[tuple[str, Sequence[Part]]]


Part = Note | FactList | Table | Figure | Passage | Tabs


@dataclass(frozen=True)
class Section:
    """One chapter of the page: one run, or a comparison of several."""

    title: str
    kind: str
    where: str
    parts: Sequence[Part] = field(default_factory=tuple)
    problems: Sequence[str] = field(default_factory=tuple)
    """Sentences on what was wrong or missing in the directory; they stand at the head of the section."""
    lead: Sequence[tuple[str, str]] = ()
    """The four questions that a run is asked first, with their answers."""
    command: str = ""
    """The command that made the run, as a line for a shell."""
    compares: bool = False
    """Its table sets runs side by side, one per column; a reader may pick two of them."""
    opening: int = 0
    """So many of the parts stand before the four facts, open: what another command has added, such as the demo."""
