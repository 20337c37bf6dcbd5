"""A ``bench run`` -> its scores with their intervals, task by task; before them what the run itself says about them. It
stands alone, as no other command has scores by task and metric.
"""

from __future__ import annotations

from typing import Any

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import FactList, Figure, Note, Part
from holdfast.report.reading import ReadRun, anything
from holdfast.tables.record import Interval
from holdfast.tables.text import counted, number

Scores = list[tuple[str, dict[str, Any]]]
"""Tasks, and a value with its ends and n of each."""


def benchmarked(run: ReadRun, limit: int) -> list[Part]:
    """Return a figure per metric with a dot for every task, and the tables; a run without scores is shown plainly."""
    by_task = run.summary.get("scores") or {}
    by_metric: dict[str, Scores] = {}
    for task, metrics in by_task.items():
        for metric, score in metrics.items():
            if "value" in score:
                by_metric.setdefault(metric, []).append((task, score))
    if not by_metric:
        return anything(run, limit)
    figures = [_dots(metric, scores) for metric, scores in by_metric.items()]
    return [*_notes(run), _facts(run), *run.titled("Benchmarks"), *figures, *run.titled("Scores")]


def _notes(run: ReadRun) -> list[Part]:
    """Return warnings of what may make the scores mean less than they seem to, such as cut prompts or empty answers."""
    said = [str(note) for note in run.summary.get("notes") or [] if note]
    return [Note(f"{note[:1].upper()}{note[1:].rstrip('.')}.", "warning") for note in said]


def _facts(run: ReadRun) -> FactList:
    averages = run.summary.get("averages") or {}
    return FactList.of(
        *((key, run.config.get(key)) for key in ("model", "limit", "seed")),
        ("items", run.summary.get("items")),
        (f"mean of {counted(len(averages.get('of') or []), 'benchmark')}, %", averages.get("mean")),
        ("the paper's average: sum of its five over four, %", averages.get("paper_average")),
    )


def _dots(metric: str, scores: Scores) -> Figure:
    tasks = [task for task, _ in scores]
    estimates = [Interval.of(score) for _, score in scores]
    sizes = sorted(score["n"] for _, score in scores if isinstance(score.get("n"), int))
    span = [f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1]))] if sizes else []
    n = f"{' to '.join(span)} items per task" if span else "an unknown number of items"
    has_ends = any(e.low is not None for e in estimates)
    ends = "with 95 % intervals" if has_ends else "without intervals, as none are stored"
    notes = [f"{number(score.get('n'))} item{'s' * (score.get('n') != 1)}" for _, score in scores]
    dots = Series(metric, tasks, estimates, notes, "dots", "@accent", size=10)
    caption = f"{metric} by task over {n}, {ends}."
    return points(f"Scores: {metric}", caption, [dots], Axis("task", names=tasks), Axis(metric), height=340)
