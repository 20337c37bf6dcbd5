"""Runs -> sections: which file of this room shows which command. It stands alone, as the one place where a new kind of
run is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.report.audit import audited
from holdfast.report.bench import benchmarked
from holdfast.report.beside import beside
from holdfast.report.command_line import command_line
from holdfast.report.crosstask import analysed, labelled, transferred
from holdfast.report.lead import four_facts
from holdfast.report.overlay import overlaid
from holdfast.report.parts import Part, Section
from holdfast.report.reading import ReadRun, anything
from holdfast.report.sensitivity import compared, measured
from holdfast.report.study import concluded, studied
from holdfast.report.terms import worded
from holdfast.report.tune import aligned, tuned

PAGES: dict[str, tuple[str, Callable[[ReadRun, int], list[Part]]]] = {
    "study run": ("Study", studied),
    "study best": ("Choice of weights", concluded),
    "sensitivity run": ("Sensitivity to wording", measured),
    "sensitivity compare": ("Comparison of sensitivity", compared),
    "sensitivity check": ("Check of sensitivity", compared),
    "crosstask run": ("Cross-task prompting", transferred),
    "crosstask label": ("Pseudo-labels", labelled),
    "crosstask analyse": ("Why a source helps", analysed),
    "tune": ("Tuning", tuned),
    "align": ("Preference tuning", aligned),
    "audit": ("Loss passport", audited),
    "bench run": ("Benchmarks", benchmarked),
}
"""Command -> the name of its section, and the function that makes the parts of it."""


def sections(runs: Sequence[ReadRun], limit: int) -> list[Section]:
    """Return one section per run in the given order, then those that take several runs together.

    Args:
        limit: how many prompt sets (and the like) are shown in full.
    """
    names = titles(runs)
    own = [_section(run, title, limit) for run, title in zip(runs, names, strict=True)]
    return [*own, *overlaid(runs, names), *beside(runs, own)]


def titles(runs: Sequence[ReadRun]) -> list[str]:
    """Return the last part of each path, or the whole path where that does not tell runs apart."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]


def _section(run: ReadRun, title: str, limit: int) -> Section:
    """A run that does not hold what its command writes is shown plainly, and the page says so."""
    kind, show = PAGES.get(run.command, (run.command, anything))
    lead: list[tuple[str, str]] = []
    opening = 0
    try:
        added = run.more_tables
        parts, problems = [*added, *show(run, limit)], run.problems
        lead, opening = four_facts(run), len(added)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        parts = anything(run, limit)
        reason = f"its files are not those that `{run.command}` writes ({type(error).__name__}: {error})"
        problems = [*run.problems, f"Shown plainly, as {reason}."]
    return Section(title, kind, str(run.path), worded(parts), problems, lead, command_line(run), opening=opening)
