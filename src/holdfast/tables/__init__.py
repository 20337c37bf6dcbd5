"""The tables of every command. Pure functions of its summary make them, the command writes them into the summary, and
they look alike wherever they are shown.

summary -> [Table] -> summary["tables"] -> terminal, HTML, Markdown, CSV
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from holdfast.tables import audit, bench, crosstask, demo, sensitivity, study, tune
from holdfast.tables.record import Table, from_json, to_json
from holdfast.tables.render import as_text

__all__ = ["MORE_TABLES", "lines", "tables_of", "with_tables"]

MORE_TABLES = "tables.json"
"""File in a run directory with tables that another command than the run's own has added; the report shows them, too."""

_MAKERS: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
    "tune": tune.of_tuning,
    "align": tune.of_preferences,
    "sensitivity run": sensitivity.of_run,
    "sensitivity compare": sensitivity.of_comparison,
    "sensitivity check": sensitivity.of_comparison,
    "crosstask run": crosstask.of_run,
    "crosstask label": crosstask.of_labels,
    "crosstask analyse": crosstask.of_analysis,
    "audit": audit.of_audit,
    "bench run": bench.of_run,
    "bench compare": bench.of_comparison,
    "study run": study.of_study,
    "study best": study.of_best,
    "demo": demo.of_demo,
}
"""Command -> the tables of its summary."""
_LONGEST = 48
"""The letters of a cell for which a terminal has room."""


def with_tables(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with its tables under the key ``tables``."""
    return summary | {"tables": [to_json(table) for table in _MAKERS[summary["command"]](summary)]}


def tables_of(command: str, summary: dict[str, Any]) -> list[Table]:
    """Return the tables that a command's summary holds. For a summary that an earlier version wrote without any, they
    are made now.
    """
    if "tables" in summary:
        return [from_json(table) for table in summary["tables"]]
    return _MAKERS[command](summary) if summary and command in _MAKERS else []


def lines(summary: dict[str, Any], *beginnings: str) -> str:
    """Return the tables of a summary as text for stdout; ``beginnings`` of titles choose some of them. Long cells are
    cut only where stdout is a terminal.
    """
    longest = _LONGEST if sys.stdout.isatty() else None
    tables = tables_of(summary["command"], summary)
    chosen = [table for table in tables if not beginnings or table.title.startswith(beginnings)]
    return "\n\n".join("\n".join(as_text(table, longest)) for table in chosen)
