"""The tables of ``bench run``: the score that counts of each benchmark, every score of every task; and that of two runs
compared. Each wing has a file of its own in this room, however short.
"""

from __future__ import annotations

from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table


def of_run(summary: dict[str, Any]) -> list[Table]:
    """Return benchmarks (also those without a score) and scores, each where there are rows of it."""
    tables = (_benchmarks(summary.get("benchmarks") or {}), _scores(summary.get("scores") or {}))
    return [table for table in tables if table.rows]


def of_comparison(summary: dict[str, Any]) -> list[Table]:
    """Return the difference of every benchmark, and the reason where it has no test."""
    rows: list[list[Cell]] = []
    for name, one in summary["benchmarks"].items():
        change = Interval(one["difference"], one.get("low"), one.get("high"))
        remark = one.get("no_test") if one["items"] else "no item has a score in both runs"
        scores = [one.get("a"), one.get("b"), change, one.get("p")]
        rows.append([name, directed(one["metric"], one), *scores, one["items"], remark])
    names = [Column("benchmark", kind="code"), Column("metric", kind="code")]
    columns = [*names, Column("A", 4), Column("B", 4), Column("B - A", 4), *map(Column, ("p", "items", "no test"))]
    return [Table("Comparison of benchmarks", columns, rows, "Paired by item. In brackets: 95 % intervals.")]


def directed(metric: Any, score: dict[str, Any]) -> Cell:
    """Return the metric, with the words that lower is better where that is so."""
    return f"{metric} (lower is better)" if metric and score.get("higher_is_better") is False else metric


def _benchmarks(benchmarks: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for name, one in benchmarks.items():
        rows.append([name, *_score(one.get("metric"), one), one.get("choice")])
    columns = [Column("benchmark", kind="code"), *_SCORE, Column("what was run")]
    return Table("Benchmarks", columns, rows, "The metric that counts for each benchmark. In brackets: 95 % intervals.")


def _scores(by_task: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for task, metrics in by_task.items():
        rows += [[task, *_score(metric, score)] for metric, score in metrics.items() if "value" in score]
    columns = [Column("task", kind="code"), *_SCORE]
    return Table("Scores", columns, rows, "In brackets: 95 % intervals.", filterable=len(rows) > 15)


_SCORE = (Column("metric"), Column("value", 4), Column("n"), Column("values"))


def _score(metric: Any, score: dict[str, Any]) -> list[Cell]:
    return [directed(metric, score), Interval.of(score), score.get("n"), score.get("values")]
