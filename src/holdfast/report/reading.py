"""A directory -> ``ReadRun``: its config, rows and summary, whatever state it is in.

An unfinished run has no summary, and a crash may have cut its last row: what is there is read, and what is missing is
counted and said. A run of which no other file of this room knows more is shown as a table of what its summary says, and
never refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.errors import HoldfastError, redacted_values
from holdfast.report.parts import Note, Part
from holdfast.runs import read_json
from holdfast.tables import MORE_TABLES, tables_of
from holdfast.tables.record import Cell, Column, Interval, Table, from_json
from holdfast.tables.text import counted

# Files that commands without a run directory leave behind, and the command that made them.
_LONE = {"comparison.json": "sensitivity compare", "check.json": "sensitivity check", "best.json": "study best"}

_MOST_ROWS = 400
"""Entries of a summary that are shown of a run that is shown plainly."""


@dataclass(frozen=True)
class ReadRun:
    """What a run directory holds. ``summary`` is empty while the run is incomplete; ``problems`` are sentences for the
    page.
    """

    path: Path
    command: str
    config: dict[str, Any]
    resolved: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    problems: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of one kind, in the order in which they were written."""
        return [row for row in self.rows if row.get("kind") == kind]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Return the tables of its summary by title, in their order."""
        return {table.title: table for table in tables_of(self.command, self.summary)}

    @property
    def more_tables(self) -> list[Table]:
        """Return the tables that another command has added to the directory."""
        file = self.path / MORE_TABLES
        return list(map(from_json, read_json(file))) if file.is_file() else []

    def titled(self, *titles: str) -> list[Table]:
        """Return those of the titled tables that its summary has."""
        return [self.tables[title] for title in titles if title in self.tables]

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return self.path.resolve().name or str(self.path)


def read_run(directory: str) -> ReadRun:
    """Read a run directory.

    Raises:
        HoldfastError: it does not exist or holds no run.
    """
    path = Path(directory)
    if not path.is_dir():
        raise HoldfastError(f"{directory}: no such directory", hint="give the --output of a holdfast command")
    for name, command in _LONE.items():
        if (path / name).is_file() and not (path / "config.json").is_file():
            return ReadRun(path, command, {}, {}, [], _object(path / name))
    config = _object(path / "config.json") if (path / "config.json").is_file() else {}
    if not isinstance(config.get("command"), str):
        raise HoldfastError(
            f"{directory}: not a run directory (no config.json of a holdfast command)", hint=_nearby(path)
        )
    rows, problems = read_rows(path / "rows.jsonl")
    summary: dict[str, Any] = {}
    if (path / "summary.json").is_file():
        summary = _object(path / "summary.json")
    else:
        incomplete = (
            f"This run is not complete: it has no summary yet. Shown is what its {counted(len(rows), 'row')} hold."
        )
        problems.insert(0, incomplete)
    options, resolved = _dict(config.get("config")), _dict(config.get("resolved"))
    return ReadRun(path, config["command"], options, resolved, rows, summary, problems)


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a JSONL file (none if it is absent), and sentences on what was wrong with it."""
    problems: list[str] = []
    return runs.read_rows(path, problems=problems), problems


def anything(run: ReadRun, limit: int) -> list[Part]:
    """Return a table of the names and values of the summary, or of the config where there is no summary yet."""
    summary = {key: value for key, value in run.summary.items() if key != "tables"}  # tables repeat the rest of it
    what, values = ("Summary", summary) if run.summary else ("Configuration", run.config | run.resolved)
    rows: list[list[Cell]] = [[name, value] for name, value in _flat(values)]
    if not rows:
        return [Note("This directory holds neither a summary nor a configuration.")]
    caption = f"The first {_MOST_ROWS} of {len(rows):,} entries." if len(rows) > _MOST_ROWS else ""
    columns = [Column("name", kind="code"), Column("value", 4)]
    return [Table(what, columns, rows[:_MOST_ROWS], caption, filterable=len(rows) > 25)]


def _object(path: Path) -> dict[str, Any]:
    value = redacted_values(read_json(path))  # earlier versions wrote addresses down as they were given
    if not isinstance(value, dict):
        raise HoldfastError(f"{path}: not a JSON object")
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _nearby(path: Path) -> str:
    """Run directories one level below, which were probably meant."""
    below = sorted(str(file.parent) for file in path.glob("*/config.json"))[:3]
    return f"did you mean {', '.join(below)}?" if below else "give the --output of a holdfast command"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Cell]]:
    """Yield the leaves of nested values with their paths; an estimate with its ends is one leaf."""
    if isinstance(value, dict):
        main = "value" if "value" in value else "mean"
        ends = (main, "low", "high")
        if all(isinstance(value.get(key), int | float) for key in ends):
            yield name, Interval(*map(value.get, ends))
            value = {key: item for key, item in value.items() if key not in ends}
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{name}[{place}]")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, value
