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
from holdfast.tables.sensitivity import (
    ALL,
    MEASURES,
    distinct_views,
    every_set,
    flips,
    has_answers_only,
    over_sets,
    psi,
    views_of,
)
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
        how, value = ("wordings differ", flips(row)) if has_answers_only(ranked) else ("psi", psi(row))
        tabs.append((f"{place}. {row['set_id']}  ({how} {number(value)})", chosen_set(run, row, prompts)))
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
    return [
        *_verdict(summary),
        runs,
        *notes,
        _changes(summary["by_kind"], summary.get("measure", "psi")),
        *run.tables.values(),
    ]


def ranked_sets(run: ReadRun) -> list[dict[str, Any]]:
    """Return the rows of sets, the one that moves most first and those without a finite psi last; of a chat endpoint by
    how often answers differ.
    """
    rows = [row for row in run.rows if row.get("indices")]
    moves = flips if has_answers_only(rows) else psi
    return sorted(rows, key=lambda row: value if math.isfinite(value := moves(row)) else -math.inf, reverse=True)


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
    if "answer_changes" in run.summary:
        return _changed_by_kind(run.summary["answer_changes"])
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


def _changed_by_kind(changes: dict[str, Any]) -> list[Part]:
    """Return how often answers change by kind of variant, less the noise where it was measured."""
    views = distinct_views(changes)
    if len(views) < 2:
        return []
    name = "effect" if all(changes[view]["effect"] for view in views) else "differ"
    estimates = [Interval.of(changes[view][name], "mean") for view in views]
    notes = [counted(changes[view]["prompts"], "set") for view in views]
    dots = Series(MEASURES[name][0], views, estimates, notes, "dots", "@accent", size=11)
    over = over_sets({view: changes[view]["prompts"] for view in views})
    caption = f"{MEASURES[name][0]}: share {MEASURES[name][1]}, by kind of variant, with 95 % intervals over {over}."
    axes = Axis("kind of variant", names=views), Axis("share of pairs of wordings", {"rangemode": "tozero"})
    return [points("Which kind of change matters", caption, [dots], *axes, height=320)]


def _ranking(ranked: Sequence[dict[str, Any]]) -> Figure:
    moves, what, unit = psi, "psi", "nats per token"
    if has_answers_only(ranked):
        moves, what, unit = flips, "answers that differ", "share of pairs of wordings"
    values = list(map(moves, ranked))
    notes = [f"{row['set_id']}, {counted(row.get('prompts') or 0, 'prompt')}" for row in ranked]
    size = 8 if len(values) < 80 else 5
    dots = Series("sets", list(range(1, len(values) + 1)), values, notes, "dots", "@accent", size=size)
    finite = [value for value in values if math.isfinite(value)]
    total = sum(finite)
    count = sum(mass < total / 2 for mass in itertools.accumulate(finite)) + 1
    carried = f"the first {count} of {len(finite):,} carry half of the sum" if total else f"all {len(finite):,} are 0"
    endless = len(values) - len(finite)
    lacking = f" {counted(endless, 'set')} without a finite {what} at the end." if endless else ""
    caption = f"Sets in order of {what} (one value per set, no interval): {carried}.{lacking}"
    ticks = {"dtick": 1} if len(values) <= 15 else {}
    axes = Axis("rank", ticks, 0), Axis(f"{what}, {unit}", {"rangemode": "tozero"})
    return points(f"Sets ranked by {what}", caption, [dots], *axes, height=300)


def _verdict(summary: dict[str, Any]) -> list[Part]:
    """Return the verdict of a check; a comparison has none."""
    if "failed" not in summary:
        return []
    tolerance = f"Tolerance: {number(summary['max_increase'])} {MEASURES[summary.get('measure', 'psi')][1]}."
    if not summary["failed"]:
        return [Note(f"No kind is worse beyond tolerance and noise. {tolerance}", "finding")]
    kinds = ", ".join(map(str, summary["failed"]))
    return [Note(f"Worse beyond tolerance and noise: {kinds}. {tolerance}", "warning")]


def _changes(by_kind: dict[str, Any], measure: str) -> Figure:
    """The change of POSIX, or of how often answers change, from A to B, for every kind of variant."""
    title, unit = MEASURES[measure]
    kinds, rows = list(by_kind), list(by_kind.values())
    notes = [f"p = {number(row['p'], 4)}, {counted(row['sets'], 'set')}" for row in rows]
    dots = Series("B - A", kinds, [Interval.of(row, "difference") for row in rows], notes, "dots", "@accent", size=11)
    over = f"paired over {over_sets({kind: row['sets'] for kind, row in by_kind.items()})}; below 0, B is steadier"
    caption = f"Change of {title if measure == 'psi' else title.lower()} by kind with 95 % intervals, {over}."
    axes = Axis("kind of variant", names=kinds), Axis(f"B - A, {unit if measure == 'psi' else 'share ' + unit}")
    return points("Change from A to B", caption, [dots], *axes, height=320, shapes=[level(0.0)])
