"""The tables of ``audit``: what the loss looks at, by role, and what is wrong with that."""

from __future__ import annotations

from typing import Any

from holdfast.tables.record import Cell, Column, Table

ROLES = "What the loss looks at, by role"
"""Title of the table of roles."""
FINDINGS = "Findings"
"""Title of the table of findings."""


def of_audit(summary: dict[str, Any]) -> list[Table]:
    """Return the roles with their part in the weighted targets, and the findings where there are any."""
    return [table for table in (_roles(summary), _findings(summary)) if table.rows]


def _roles(summary: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for line in summary["roles"]:
        side = "is given" if line["is_given"] else "writes" if line["role"] != "unknown" else ""
        mean = line["mass"] / line["tokens"]
        share = None if line["share"] is None else 100 * line["share"]
        rows.append([line["role"], side, line["tokens"], line["paid"], mean, share])
    columns = [
        Column("role", kind="code"), Column("the model"), Column("targets"), Column("of these paid"),
        Column("mean weight", 2), Column("% of the weighted targets", 1),
    ]  # fmt: skip
    caption = "Shares are of the sum of the weights, not of measured losses: no model was run."
    return Table(ROLES, columns, rows, caption)


def _findings(summary: dict[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for finding in summary["findings"]:
        first = finding["rows"][0] if finding["rows"] else None
        rows.append(
            [finding["kind"], finding["sentence"], finding["count"], finding["tokens"] or None, first, finding["cure"]]
        )
    columns = [
        Column("kind", kind="code"), Column("what"), Column("rows"), Column("tokens"), Column("first row"),
        Column("cure"),
    ]  # fmt: skip
    return Table(FINDINGS, columns, rows)
