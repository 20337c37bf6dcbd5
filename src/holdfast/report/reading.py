"""A directory -> ``Run``: its config, rows and summary, whatever state it is in.

An unfinished run has no summary and a crash may have cut its last row: what is there is read, what is not is counted
and said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.errors import HoldfastError, redacted_values
from holdfast.runs import read_json
from holdfast.tables import tables_of
from holdfast.tables.record import Table

# Files that commands without a run directory leave behind, and the command that made them.
_LONE = {"comparison.json": "sensitivity compare", "check.json": "sensitivity check"}


@dataclass(frozen=True)
class Run:
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
        """The rows of one kind, in the order in which they were written."""
        return [row for row in self.rows if row.get("kind") == kind]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables of its summary by title, in their order."""
        return {table.title: table for table in tables_of(self.command, self.summary)}

    def titled(self, *titles: str) -> list[Table]:
        """Those tables of its summary that there are."""
        return [self.tables[title] for title in titles if title in self.tables]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.resolve().name or str(self.path)


def read_run(directory: str) -> Run:
    """Read a run directory.

    Raises:
        HoldfastError: it does not exist or holds no run.
    """
    path = Path(directory)
    if not path.is_dir():
        raise HoldfastError(f"{directory}: no such directory", hint="give the --output of a holdfast command")
    for name, command in _LONE.items():
        if (path / name).is_file() and not (path / "config.json").is_file():
            return Run(path, command, {}, {}, [], _object(path / name))
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
        problems.insert(
            0, f"This run is not complete: it has no summary yet. Shown is what its {len(rows):,} rows hold."
        )
    return Run(
        path, config["command"], _dict(config.get("config")), _dict(config.get("resolved")), rows, summary, problems
    )


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a JSONL file (none if it is absent) and what was wrong with it."""
    problems: list[str] = []
    return runs.read_rows(path, problems=problems), problems


def _object(path: Path) -> dict[str, Any]:
    value = redacted_values(read_json(path))  # earlier versions wrote addresses down as they were given
    if not isinstance(value, dict):
        raise HoldfastError(f"{path}: not a JSON object")
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _nearby(path: Path) -> str:
    """Run directories one level below, which were probably meant."""
    found = sorted(p.parent.name for p in path.glob("*/config.json"))[:3]
    return (
        f"did you mean {', '.join(str(path / name) for name in found)}?"
        if found
        else "give the --output of a holdfast command"
    )
