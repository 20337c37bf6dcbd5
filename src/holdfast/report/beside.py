"""Several runs of a kind -> a section that sets their facts and figures side by side, with the difference of two.

The table holds all of them; on the page a reader picks two, and the script shows those and what lies between.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

from holdfast.report.lead import figures_of
from holdfast.report.parts import FactList, Note, Part, Section, Tabs
from holdfast.report.reading import ReadRun
from holdfast.tables.record import Cell, Column, Table, middle

_CAPTION = (
    "Facts and figures of each run. A difference here is of two single numbers: it has no interval, and alone shows "
    "nothing beyond noise."
)


def beside(runs: Sequence[ReadRun], sections: Sequence[Section]) -> list[Section]:
    """Return a section for every kind of which the page has two runs or more.

    Args:
        runs: the runs of the page.
        sections: the section of each of them, in the same order.
    """
    by_command: dict[str, list[tuple[ReadRun, Section]]] = {}
    for run, section in zip(runs, sections, strict=True):
        by_command.setdefault(run.command, []).append((run, section))
    return [_section(pairs) for pairs in by_command.values() if len(pairs) > 1]


def _section(pairs: Sequence[tuple[ReadRun, Section]]) -> Section:
    by_run = [dict(figures_of(run)) | _facts(section.parts) for run, section in pairs]
    names = dict.fromkeys(itertools.chain.from_iterable(by_run))
    rows: list[list[Cell]] = [[name, *map(operator.methodcaller("get", name), by_run)] for name in names]
    columns = [Column("fact"), *(Column(section.title) for _, section in pairs)]
    if len(pairs) == 2:
        columns.append(Column("difference"))
        rows = [[*row, _difference(*row[1:])] for row in rows]
    kind = pairs[0][1].kind
    parts: list[Part] = [Note(_CAPTION), Table(f"Side by side: {kind}", columns, rows)]
    title = " and ".join(section.title for _, section in pairs[:3]) + " and more" * (len(pairs) > 3)
    return Section(title, f"{kind}, side by side", f"{len(pairs)} runs", parts, compares=True)


def _facts(parts: Sequence[Part]) -> dict[str, Cell]:
    """The facts of a section; of models and data sets that are tabs, the first is taken only where there is but one."""
    facts: dict[str, Cell] = {}
    for part in parts:
        if isinstance(part, FactList):
            facts |= dict(part.pairs)
        elif isinstance(part, Tabs) and len(part.options) == 1:
            facts |= _facts(part.options[0][1])
    return facts


def _difference(a: Cell, b: Cell) -> Cell:
    """The second number less the first; none where one of them is no number."""
    first, second = middle(a), middle(b)
    if isinstance(first, str | bool | None) or isinstance(second, str | bool | None):
        return None
    return second - first
