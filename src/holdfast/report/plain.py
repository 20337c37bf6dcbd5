"""Any run -> a table of what its summary says. What no other file of this room knows better is shown like this, never
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.report.parts import Note, Part
from holdfast.report.reading import Run
from holdfast.tables.record import Cell, Column, Interval, Table

_MOST_ROWS = 400


def anything(run: Run, limit: int) -> list[Part]:
    """The summary as names and values; without one, the config."""
    what, found = (
        ("Summary", _without_tables(run.summary)) if run.summary else ("Configuration", run.config | run.resolved)
    )
    rows: list[list[Cell]] = [[name, value] for name, value in _flat(found)]
    if not rows:
        return [Note("This directory holds neither a summary nor a configuration.")]
    caption = f"The first {_MOST_ROWS} of {len(rows):,} entries." if len(rows) > _MOST_ROWS else ""
    return [
        Table(
            what,
            [Column("name", kind="code"), Column("value", 4)],
            rows[:_MOST_ROWS],
            caption,
            filterable=len(rows) > 25,
        )
    ]


def _without_tables(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "tables"}  # they repeat the rest of it


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Cell]]:
    """Leaves of nested values with their paths; an estimate with its ends is one leaf."""
    if isinstance(value, dict):
        main = "value" if "value" in value else "mean"
        if {main, "low", "high"} <= value.keys() and all(
            isinstance(value[k], int | float) for k in (main, "low", "high")
        ):
            yield name, Interval(value[main], value["low"], value["high"])
            value = {k: v for k, v in value.items() if k not in (main, "low", "high")}
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{name}[{place}]")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, value
