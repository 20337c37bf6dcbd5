"""The JSON of ``sensitivity compare`` or ``check`` -> differences with their intervals."""

from __future__ import annotations

from typing import Any

from holdfast.report.figures import Axis, Series, level, points
from holdfast.report.parts import Facts, Figure, Note, Part
from holdfast.report.reading import Run
from holdfast.tables import tables_of
from holdfast.tables.record import Interval
from holdfast.tables.text import number


def compared(run: Run, limit: int) -> list[Part]:
    """Two runs over the same sets, B against A."""
    found = run.summary
    notes = [Note(f"{note[0].upper()}{note[1:]}.") for note in map(str, found.get("notes", []))]
    facts = Facts([("A", str(found["run_a"])), ("B", str(found["run_b"]))])
    return [*_verdict(found), facts, *notes, _figure(found["by_kind"]), *tables_of(run.command, found)]


def _verdict(found: dict[str, Any]) -> list[Part]:
    """Only a check has one."""
    if "failed" not in found:
        return []
    tolerance = f"Tolerance: {number(found['max_increase'])} nats per token."
    if not found["failed"]:
        return [Note(f"No kind is worse beyond tolerance and noise. {tolerance}", "finding")]
    return [Note(f"Worse beyond tolerance and noise: {', '.join(map(str, found['failed']))}. {tolerance}", "warning")]


def _figure(by_kind: dict[str, Any]) -> Figure:
    kinds = list(by_kind)
    notes = [f"p = {number(row['p'], 4)}, {row['sets']} sets" for row in by_kind.values()]
    dots = Series("B - A", kinds, [_change(row) for row in by_kind.values()], notes, "dots", "@accent", size=11)
    caption = f"Change of POSIX by kind with 95 % intervals, paired over {by_kind[kinds[0]]['sets']} sets; below 0, B is steadier."
    axes = Axis("kind of variant", names=kinds), Axis("B - A, nats per token")
    return points("Change from A to B", caption, [dots], *axes, height=320, shapes=[level(0.0)])


def _change(row: dict[str, Any]) -> Interval:
    return Interval(row["difference"], row["low"], row["high"])
