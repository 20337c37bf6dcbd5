"""A ``bench run`` -> its scores with their intervals, task by task; before them what the run itself says about them."""

from __future__ import annotations

from typing import Any

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import Cell, Column, Facts, Figure, Interval, Note, Part, Table
from holdfast.report.plain import anything
from holdfast.report.reading import Run
from holdfast.report.text import counted, number

Scores = list[tuple[str, str, dict[str, Any]]]
"""Task, metric, and value with its ends and n."""


def benchmarked(run: Run, limit: int) -> list[Part]:
    """A dot and a row per task and metric; a run without scores is shown plainly."""
    by_task = run.summary.get("scores") or {}
    scores = [(task, metric, score) for task, metrics in by_task.items() for metric, score in metrics.items() if "value" in score]
    if not scores:
        return anything(run, limit)
    rows: list[list[Cell]] = [[task, _directed(metric, score), _interval(score), score.get("n")] for task, metric, score in scores]
    columns = [Column("task", kind="code"), Column("metric"), Column("value"), Column("n")]
    table = Table("Scores", columns, rows, "In brackets: 95 % intervals.", filterable=len(rows) > 15)
    metrics = dict.fromkeys(metric for _, metric, _ in scores)
    figures = (_dots(metric, [s for s in scores if s[1] == metric]) for metric in metrics)
    return [*_notes(run), _facts(run), *_benchmarks(run), *figures, table]


def _notes(run: Run) -> list[Part]:
    """What may make the scores mean less than they seem to: prompts that were cut, answers that were empty."""
    said = [str(note) for note in run.summary.get("notes") or [] if note]
    return [Note(f"{note[:1].upper()}{note[1:].rstrip('.')}.", "warning") for note in said]


def _facts(run: Run) -> Facts:
    averages = run.summary.get("averages") or {}
    pairs: list[tuple[str, Cell]] = [
        *((key, run.config.get(key)) for key in ("model", "limit", "seed")),
        ("items", run.summary.get("items")),
        (f"mean of {counted(len(averages.get('of') or []), 'benchmark')}, %", averages.get("mean")),
        ("the paper's average: sum of its five over four, %", averages.get("paper_average")),
    ]
    return Facts([(name, value) for name, value in pairs if value is not None])


def _benchmarks(run: Run) -> list[Part]:
    """The score that counts of each benchmark, and how it was asked; also of one that came out without a score."""
    found = run.summary.get("benchmarks") or {}
    rows: list[list[Cell]] = [
        [name, _directed(one.get("metric"), one), _interval(one), one.get("n"), one.get("choice")] for name, one in found.items()
    ]
    columns = [Column("benchmark", kind="code"), Column("metric"), Column("value"), Column("n"), Column("what was run")]
    caption = "The metric that counts for each benchmark. In brackets: 95 % intervals."
    return [Table("Benchmarks", columns, rows, caption)] if rows else []


def _dots(metric: str, scores: Scores) -> Figure:
    tasks = [task for task, _, _ in scores]
    estimates = [_interval(score) for _, _, score in scores]
    sizes = sorted(score["n"] for _, _, score in scores if isinstance(score.get("n"), int))
    span = [f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1]))] if sizes else []
    n = f"{' to '.join(span)} items per task" if span else "an unknown number of items"
    ends = "with 95 % intervals" if any(e.low is not None for e in estimates) else "without intervals, as none are stored"
    notes = [f"{number(score.get('n'))} items" for _, _, score in scores]
    dots = Series(metric, tasks, estimates, notes, "dots", "@accent", size=10)
    caption = f"{metric} by task over {n}, {ends}."
    return points(f"Scores: {metric}", caption, [dots], Axis("task", names=tasks), Axis(metric), height=340)


def _directed(metric: Any, score: dict[str, Any]) -> Cell:
    """The metric, and that lower is better where it is."""
    return f"{metric} (lower is better)" if metric and score.get("higher_is_better") is False else metric


def _interval(score: dict[str, Any]) -> Interval:
    return Interval(score.get("value"), score.get("low"), score.get("high"))
