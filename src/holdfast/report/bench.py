"""A ``bench run`` -> its scores with their intervals, task by task."""

from __future__ import annotations

from typing import Any

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import Cell, Column, Facts, Figure, Interval, Part, Table
from holdfast.report.plain import anything
from holdfast.report.reading import Run
from holdfast.report.text import number

Scores = list[tuple[str, str, dict[str, Any]]]
"""Task, metric, and value with its ends and n."""


def benchmarked(run: Run, limit: int) -> list[Part]:
    """A dot and a row per task and metric; a run without scores is shown plainly."""
    by_task = run.summary.get("scores") or {}
    scores = [(task, metric, score) for task, metrics in by_task.items() for metric, score in metrics.items() if "value" in score]
    if not scores:
        return anything(run, limit)
    facts: list[tuple[str, Cell]] = [(key, run.config.get(key)) for key in ("model", "limit", "seed") if run.config.get(key) is not None]
    rows: list[list[Cell]] = [[task, metric, _interval(score), score.get("n")] for task, metric, score in scores]
    columns = [Column("task", kind="code"), Column("metric"), Column("value"), Column("n")]
    table = Table("Scores", columns, rows, "In brackets: 95 % intervals.", filterable=len(rows) > 15)
    metrics = dict.fromkeys(metric for _, metric, _ in scores)
    return [Facts(facts), *(_dots(metric, [s for s in scores if s[1] == metric]) for metric in metrics), table]


def _dots(metric: str, scores: Scores) -> Figure:
    tasks = [task for task, _, _ in scores]
    estimates = [_interval(score) for _, _, score in scores]
    sizes = sorted(score["n"] for _, _, score in scores if isinstance(score.get("n"), int))
    n = f"{sizes[0]:,} to {sizes[-1]:,} items per task" if sizes else "an unknown number of items"
    ends = "with 95 % intervals" if any(e.low is not None for e in estimates) else "without intervals, as none are stored"
    notes = [f"{number(score.get('n'))} items" for _, _, score in scores]
    dots = Series(metric, tasks, estimates, notes, "dots", "@accent", size=10)
    caption = f"{metric} by task over {n}, {ends}."
    return points(f"Scores: {metric}", caption, [dots], Axis("task", names=tasks), Axis(metric), height=340)


def _interval(score: dict[str, Any]) -> Interval:
    return Interval(score["value"], score.get("low"), score.get("high"))
