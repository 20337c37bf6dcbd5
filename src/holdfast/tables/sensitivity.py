"""The tables of ``sensitivity run``: POSIX by kind of variant, all indices, accuracy over wordings; and those of two
runs compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table

ALL = "all"
"""The view over all variants of a set."""

INDICES = {
    "psi": "how far log-probs move, nats per token",
    "psi_signed": "the same with its sign",
    "unique_responses": "distinct responses per set",
    "response_entropy": "entropy of the responses, nats",
    "logp_spread": "spread of log-probs of one response",
    "variation_ratio": "share of responses that are not the most frequent",
    "consistency_rate": "share of equal pairs of answers",
    "answered": "share of responses that could be read as an answer",
}
_TARGETS = {
    "avg_p": "mean accuracy",
    "max_p": "best variant",
    "spread": "best minus worst",
    "sat": "saturation",
    "cps": "combined (CPS)",
    "prompt_sensi_score": "PromptSensiScore",
}


def of_run(summary: dict[str, Any]) -> list[Table]:
    """Those of which there are rows."""
    views = views_of(summary)
    tables = (_posix(summary, views), _indices(summary, views), _accuracy(summary, views))
    return [table for table in tables if table.rows]


def of_comparison(summary: dict[str, Any]) -> list[Table]:
    """POSIX of both runs by kind of variant, and the sets that moved most."""
    failed = summary.get("failed")
    rows: list[list[Cell]] = []
    for kind, row in summary["by_kind"].items():
        change = Interval(row["difference"], row["low"], row["high"])
        judged = [] if failed is None else ["worse" if kind in failed else "ok"]
        rows.append([kind, row["a"], row["b"], change, row["p"], row["sets"], *judged])
    columns = [Column("kind"), Column("A", 4), Column("B", 4), Column("B - A", 4), Column("p", 4), Column("sets")]
    columns += [] if failed is None else [Column("verdict")]
    tables = [Table("POSIX of both", columns, rows, "Nats per token. In brackets: 95 % intervals over sets.")]
    keys = ("set_id", "kind", "a", "b", "difference")
    moved: list[list[Cell]] = [[row[key] for key in keys] for row in summary.get("moved_most", [])]
    columns = [Column("set", kind="code"), Column("kind"), Column("A", 4), Column("B", 4), Column("B - A", 4)]
    return [*tables, Table("Sets that moved most", columns, moved)] if moved else tables


def views_of(summary: dict[str, Any]) -> list[str]:
    """Views with an estimate; ``all`` is left out where it is the same as the only kind."""
    posix = summary.get("posix", {})
    kinds = [view for view in posix if view != ALL]
    return kinds if len(kinds) == 1 and posix.get(ALL) == posix[kinds[0]] else list(posix)


def _posix(summary: dict[str, Any], views: Sequence[str]) -> Table:
    rows: list[list[Cell]] = [[v, Interval.of(summary["posix"][v], "mean"), summary["posix"][v]["sets"]] for v in views]
    columns = [Column("variants"), Column("POSIX, nats per token", 4), Column("sets")]
    return Table("POSIX", columns, rows, "The mean of psi over sets. In brackets: 95 % bootstrap intervals over sets.")


def _indices(summary: dict[str, Any], views: Sequence[str]) -> Table:
    found = summary.get("indices", {})
    views = [view for view in views if view in found]
    names = [name for name in INDICES if any(name in found[view] for view in views)]
    rows: list[list[Cell]] = [
        [name, *(Interval.of(found[v].get(name), "mean") for v in views), INDICES[name]] for name in names
    ]
    columns = [Column("index", kind="code"), *(Column(v) for v in views), Column("what it is")]
    return Table("All indices", columns, rows, f"Means with 95 % bootstrap intervals over {summary.get('sets')} sets.")


def _accuracy(summary: dict[str, Any], views: Sequence[str]) -> Table:
    found = summary.get("targets", {})
    rows: list[list[Cell]] = [
        [v, found[v].get("items"), *(found[v].get(key) for key in _TARGETS)] for v in views if found.get(v)
    ]
    columns = [Column("variants"), Column("items"), *map(Column, _TARGETS.values())]
    return Table("Accuracy over wordings", columns, rows, "Shares of right answers; the same items in every wording.")
