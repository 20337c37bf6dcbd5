"""A ``sensitivity run`` -> POSIX by kind, sets ranked by psi, and for the sets that move most everything about them
(``sets``). The JSON of ``sensitivity compare`` or ``check`` -> differences with their intervals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, level, points
from holdfast.report.parts import FactList, Figure, Note, Part, Tabs
from holdfast.report.reading import ReadRun
from holdfast.report.sets import chosen_set, prompts_of
from holdfast.tables.record import Interval
from holdfast.tables.sensitivity import ALL, every_set, over_sets, psi, views_of
from holdfast.tables.text import counted, number


def measured(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of one measurement; ``limit`` sets, those that move most, are in full."""
    ranked = ranked_sets(run)
    parts: list[Part] = [*_finding(run), *_missing(run), _facts(run), *_by_kind(run)]
    if not ranked:
        return [*parts, Note("There are no sets in the rows."), *run.tables.values()]
    parts += [_ranking(ranked), every_set(ranked)]
    prompts = prompts_of(run)
    tabs: list[tuple[str, list[Part]]] = []
    for place, row in enumerate(ranked[:limit], start=1):
        tabs.append((f"{place}. {row['set_id']}  (psi {number(psi(row))})", chosen_set(run, row, prompts)))
    if tabs:
        rest = len(ranked) - len(tabs)
        more = f" The other {rest:,} are in the table above; --limit shows more." if rest else ""
        parts += [Note(f"In full, by how far they move: {counted(len(tabs), 'set')}.{more}"), Tabs("Set", tabs)]
    return [*parts, *run.tables.values()]


def compared(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of a comparison of two runs over the same sets, B against A."""
    summary = run.summary
    notes = [Note(f"{note[0].upper()}{note[1:]}.") for note in map(str, summary.get("notes", []))]
    runs = FactList([("A", str(summary["run_a"])), ("B", str(summary["run_b"]))])
    return [*_verdict(summary), runs, *notes, _changes(summary["by_kind"]), *run.tables.values()]


def ranked_sets(run: ReadRun) -> list[dict[str, Any]]:
    """Return the rows of sets, the one that moves most first and those without a finite psi last."""
    return sorted(
        (row for row in run.rows if row.get("indices")),
        key=lambda row: psi(row) if math.isfinite(psi(row)) else -math.inf,
        reverse=True,
    )


def _finding(run: ReadRun) -> list[Part]:
    """Say what the run says in words, then POSIX of the three kinds that move answers most."""
    words: list[Part] = [_note(str(text)) for text in run.summary.get("in_words") or []]
    posix = run.summary.get("posix", {})
    views = views_of(run.summary)
    if not views:
        return words
    said = []
    for view in sorted(views, key=lambda view: -(posix[view]["mean"] or 0.0))[:3]:
        mean, low, high = (number(posix[view][key]) for key in ("mean", "low", "high"))
        over = f"{view if view != ALL else 'all'} variants"
        ends = f"95 % interval {low} to {high}, {counted(posix[view]['sets'], 'set')}"
        said.append(f"{mean} nats per token over {over} ({ends})")
    return [*words, Note(f"POSIX is {'; '.join(said)}. 0 means that the wording does not matter.", "finding")]


def _note(sentence: str) -> Note:
    """Return a sentence of a run as a note; a warning without that word, which the page puts before it."""
    text = sentence.removeprefix("Warning: ")
    return Note(text[:1].upper() + text[1:], "finding" if text == sentence else "warning")


def _missing(run: ReadRun) -> list[Part]:
    """Return a warning where the summary was made over more sets than the rows hold."""
    sets, rows = run.summary.get("sets"), len(run.rows)
    if not isinstance(sets, int) or rows >= sets:
        return []
    text = f"The summary is over {counted(sets, 'set')}, but the rows hold {rows:,}: the others cannot be shown."
    return [Note(text, "warning")]


def _facts(run: ReadRun) -> FactList:
    summary, config = run.summary, run.config
    return FactList.of(
        ("model", config.get("model")),
        ("sets", summary.get("sets", len(run.rows))),
        ("prompts", summary.get("prompts")),
        ("longest response, tokens", config.get("max_new_tokens")),
        ("chat template", "yes" if config.get("chat") else "no"),
        ("exemplars (shots)", config.get("shots")),
        ("definition", summary.get("definition")),
        ("seconds", summary.get("seconds")),
        ("token-forwards", summary.get("cost", {}).get("tokens")),
        ("largest audit difference, nats", summary.get("audit", {}).get("max_difference")),
        ("sets skipped", summary.get("skipped", {}).get("count")),
        ("way of scoring", summary.get("way")),
    )


def _by_kind(run: ReadRun) -> list[Part]:
    posix, views = run.summary.get("posix", {}), views_of(run.summary)
    if len(views) < 2:
        return []
    estimates = [Interval.of(posix[v], "mean") for v in views]
    notes = [counted(posix[v]["sets"], "set") for v in views]
    dots = Series("POSIX", views, estimates, notes, "dots", "@accent", size=11)
    over = over_sets({v: posix[v]["sets"] for v in views})
    caption = (
        f"Mean psi by kind of variant with 95 % bootstrap intervals over {over}; "
        "the higher, the more this kind of change moves answers."
    )
    axes = Axis("kind of variant", names=views), Axis("psi, nats per token", {"rangemode": "tozero"})
    return [points("Which kind of change matters", caption, [dots], *axes, height=320)]


def _ranking(ranked: Sequence[dict[str, Any]]) -> Figure:
    values = [psi(row) for row in ranked]
    notes = [f"{row['set_id']}, {counted(row.get('prompts') or 0, 'prompt')}" for row in ranked]
    size = 8 if len(values) < 80 else 5
    dots = Series("sets", list(range(1, len(values) + 1)), values, notes, "dots", "@accent", size=size)
    finite = [value for value in values if math.isfinite(value)]
    total = sum(finite)
    count = sum(mass < total / 2 for mass in itertools.accumulate(finite)) + 1
    carried = f"the first {count} of {len(finite):,} carry half of the sum" if total else f"all {len(finite):,} are 0"
    endless = len(values) - len(finite)
    lacking = f" {counted(endless, 'set')} without a finite psi at the end." if endless else ""
    caption = f"Sets in order of psi (one value per set, no interval): {carried}.{lacking}"
    ticks = {"dtick": 1} if len(values) <= 15 else {}
    axes = Axis("rank", ticks, 0), Axis("psi, nats per token", {"rangemode": "tozero"})
    return points("Sets ranked by psi", caption, [dots], *axes, height=300)


def _verdict(summary: dict[str, Any]) -> list[Part]:
    """Return the verdict of a check; a comparison has none."""
    if "failed" not in summary:
        return []
    tolerance = f"Tolerance: {number(summary['max_increase'])} nats per token."
    if not summary["failed"]:
        return [Note(f"No kind is worse beyond tolerance and noise. {tolerance}", "finding")]
    kinds = ", ".join(map(str, summary["failed"]))
    return [Note(f"Worse beyond tolerance and noise: {kinds}. {tolerance}", "warning")]


def _changes(by_kind: dict[str, Any]) -> Figure:
    """The change of POSIX from A to B, for every kind of variant."""
    kinds, rows = list(by_kind), list(by_kind.values())
    notes = [f"p = {number(row['p'], 4)}, {counted(row['sets'], 'set')}" for row in rows]
    dots = Series("B - A", kinds, [Interval.of(row, "difference") for row in rows], notes, "dots", "@accent", size=11)
    over = f"paired over {over_sets({kind: row['sets'] for kind, row in by_kind.items()})}; below 0, B is steadier"
    caption = f"Change of POSIX by kind with 95 % intervals, {over}."
    axes = Axis("kind of variant", names=kinds), Axis("B - A, nats per token")
    return points("Change from A to B", caption, [dots], *axes, height=320, shapes=[level(0.0)])
