"""The tables of ``tune`` and ``align``: target tokens by role; preferences before and after; where the model comes
from. Each wing has a file of its own in this room, however short.
"""

from __future__ import annotations

from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table


def of_tuning(summary: dict[str, Any]) -> list[Table]:
    """Return how many target tokens each role has, and its part in the weighted mass that the gradient comes from."""
    counts = summary.get("data_report", {}).get("targets_per_role")
    if not isinstance(counts, dict) or not sum(counts.values()):
        return []
    weights = summary.get("weights") or {}
    total, mass = sum(counts.values()), sum(n * weights.get(role, 0.0) for role, n in counts.items())
    rows: list[list[Cell]] = []
    for role, n in counts.items():
        if n:
            part = 100 * n * weights.get(role, 0.0) / mass if mass else None
            rows.append([role, weights.get(role), n, 100 * n / total, part])
    shares = [Column("% of targets", 1), Column("% of weighted mass", 1)]
    columns = [Column("role"), Column("weight", 2), Column("target tokens"), *shares]
    return [Table("Target tokens by role", columns, rows)]


def of_preferences(summary: dict[str, Any]) -> list[Table]:
    """Return held-out measures before and after where there are any, and the trainings that the model comes from."""
    return [table for table in (_preferences(summary), _lineage(summary)) if table.rows]


def _preferences(summary: dict[str, Any]) -> Table:
    before, after = (summary.get(key) or {} for key in ("before", "after"))
    names = [name for name in after if name != "pairs" and (after[name] is not None or before.get(name) is not None)]
    rows: list[list[Cell]] = [
        [name.replace("_", " "), _estimate(before.get(name)), _estimate(after[name])] for name in names
    ]
    caption = f"On {after.get('pairs')} held-out pairs; in brackets: 95 % intervals."
    return Table("Preferences before and after", [Column("measure"), Column("before"), Column("after")], rows, caption)


def _estimate(value: Any) -> Cell:
    return Interval.of(value) if isinstance(value, dict) else value


def _lineage(summary: dict[str, Any]) -> Table:
    steps = summary.get("lineage")
    rows: list[list[Cell]] = []
    for place, step in enumerate(steps if isinstance(steps, list) else (), start=1):
        rows.append([place, "; ".join(f"{k} {v}" for k, v in step.items()) if isinstance(step, dict) else str(step)])
    return Table("Where the model comes from", [Column("step"), Column("what", kind="code")], rows)
