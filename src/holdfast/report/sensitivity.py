"""A ``sensitivity run`` -> POSIX by kind, sets ranked by psi, and for the sets that move most everything about them
(``sets``).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import Choice, Facts, Figure, Note, Part
from holdfast.report.reading import Run
from holdfast.report.sets import chosen_set, prompts_of
from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.sensitivity import ALL, views_of
from holdfast.tables.text import counted, number, shorten


def measured(run: Run, limit: int) -> list[Part]:
    """What one measurement shows. ``limit``: sets shown in full."""
    ranked = ranked_sets(run)
    parts: list[Part] = [*_finding(run), *_missing(run), _facts(run), *_by_kind(run)]
    if not ranked:
        return [*parts, Note("There are no sets in the rows."), *run.tables.values()]
    parts += [_ranking(ranked), _ranked_table(ranked)]
    shown = ranked[:limit] if limit else []
    prompts = prompts_of(run)
    options = [
        (f"{place + 1}. {row['set_id']}  (psi {number(psi(row))})", chosen_set(run, row, prompts))
        for place, row in enumerate(shown)
    ]
    if options:
        rest = len(ranked) - len(options)
        more = f" The other {rest:,} are in the table above; --limit shows more." if rest else ""
        parts += [Note(f"In full, by how far they move: {counted(len(options), 'set')}.{more}"), Choice("Set", options)]
    return [*parts, *run.tables.values()]


def psi(row: dict[str, Any]) -> float:
    """Over all variants of a set; the mean over its kinds where only pairs within a kind were scored; NaN where one has
    none.
    """
    views = row["indices"]
    found = [views[ALL]["psi"]] if ALL in views else [view["psi"] for view in views.values()]
    return math.nan if None in found else statistics.fmean(found)


def ranked_sets(run: Run) -> list[dict[str, Any]]:
    """Rows of sets, the one that moves most first; those without a finite psi last."""
    return sorted(
        (row for row in run.rows if row.get("indices")),
        key=lambda row: psi(row) if math.isfinite(psi(row)) else -math.inf,
        reverse=True,
    )


def _finding(run: Run) -> list[Part]:
    """POSIX of the most and the least harmful kind, in words."""
    posix = run.summary.get("posix", {})
    views = views_of(run.summary)
    if not views:
        return []
    said = [
        f"{number(posix[v]['mean'])} nats per token over {v if v != ALL else 'all'} variants "
        f"(95 % interval {number(posix[v]['low'])} to {number(posix[v]['high'])}, {counted(posix[v]['sets'], 'set')})"
        for v in sorted(views, key=lambda v: -(posix[v]["mean"] or 0.0))
    ]
    return [Note(f"POSIX is {'; '.join(said[:3])}. 0 means that the wording does not matter.", "finding")]


def _missing(run: Run) -> list[Part]:
    """A warning where a summary was made over more sets than the rows hold."""
    sets, rows = run.summary.get("sets"), len(run.rows)
    if not isinstance(sets, int) or rows >= sets:
        return []
    return [
        Note(
            f"The summary is over {counted(sets, 'set')}, but the rows hold {rows:,}: the others cannot be shown.",
            "warning",
        )
    ]


def _facts(run: Run) -> Facts:
    found, config = run.summary, run.config
    pairs: list[tuple[str, Cell]] = [
        ("model", config.get("model")),
        ("sets", found.get("sets", len(run.rows))),
        ("prompts", found.get("prompts")),
        ("longest response, tokens", config.get("max_new_tokens")),
        ("chat template", "yes" if config.get("chat") else "no"),
        ("exemplars (shots)", config.get("shots")),
        ("definition", found.get("definition")),
        ("seconds", found.get("seconds")),
        ("token-forwards", found.get("cost", {}).get("tokens")),
        ("largest audit difference, nats", found.get("audit", {}).get("max_difference")),
        ("sets skipped", found.get("skipped", {}).get("count")),
        ("way of scoring", found.get("way")),
    ]
    return Facts([(name, value) for name, value in pairs if value is not None])


def _by_kind(run: Run) -> list[Part]:
    posix, views = run.summary.get("posix", {}), views_of(run.summary)
    if len(views) < 2:
        return []
    estimates = [Interval(posix[v]["mean"], posix[v]["low"], posix[v]["high"]) for v in views]
    dots = Series(
        "POSIX", views, estimates, [counted(posix[v]["sets"], "set") for v in views], "dots", "@accent", size=11
    )
    over = counted(posix[views[0]]["sets"], "set")
    caption = (
        f"Mean psi by kind of variant with 95 % bootstrap intervals over {over}; "
        "the higher, the more this kind of change moves answers."
    )
    axes = Axis("kind of variant", names=views), Axis("psi, nats per token", {"rangemode": "tozero"})
    return [points("Which kind of change matters", caption, [dots], *axes, height=320)]


def _ranking(ranked: Sequence[dict[str, Any]]) -> Figure:
    values = [psi(row) for row in ranked]
    notes = [f"{row['set_id']}, {row.get('prompts', '?')} prompts" for row in ranked]
    size = 8 if len(values) < 80 else 5
    dots = Series("sets", list(range(1, len(values) + 1)), values, notes, "dots", "@accent", size=size)
    finite = [value for value in values if math.isfinite(value)]
    total, count, mass = sum(finite), 0, 0.0
    while mass < total / 2:
        mass, count = mass + finite[count], count + 1
    carried = f"the first {count} of {len(finite):,} carry half of the sum" if total else f"all {len(finite):,} are 0"
    lacking = (
        f" {counted(len(values) - len(finite), 'set')} without a finite psi at the end."
        if len(finite) < len(values)
        else ""
    )
    caption = f"Sets in order of psi (one value per set, no interval): {carried}.{lacking}"
    axes = (
        Axis("rank", {"dtick": 1} if len(values) <= 15 else {}, 0),
        Axis("psi, nats per token", {"rangemode": "tozero"}),
    )
    return points("Sets ranked by psi", caption, [dots], *axes, height=300)


def _ranked_table(ranked: Sequence[dict[str, Any]]) -> Table:
    kinds = [view for view in ranked[0]["indices"] if view != ALL]
    kinds = kinds if len(kinds) > 1 else []
    columns = [
        Column("set", kind="code"),
        Column("psi"),
        *(Column(f"psi, {kind}") for kind in kinds),
        Column("prompts"),
        Column("distinct responses", 0),
        Column("right answers"),
        Column("most frequent response", kind="code"),
    ]
    rows: list[list[Cell]] = []
    for row in ranked:
        whole = row["indices"].get(ALL) or next(iter(row["indices"].values()))
        variants = row.get("variants", [])
        right = [v["right"] for v in variants if v.get("right") is not None]
        by_kind = [row["indices"].get(kind, {}).get("psi") for kind in kinds]
        answers = f"{sum(right)} of {len(right)}" if right else None
        response = _most_frequent([str(v.get("response", "")) for v in variants])
        rows.append(
            [
                str(row["set_id"]),
                psi(row),
                *by_kind,
                row.get("prompts"),
                whole.get("unique_responses"),
                answers,
                response,
            ]
        )
    return Table("All sets", columns, rows, filterable=len(rows) > 8)


def _most_frequent(responses: Sequence[str]) -> str | None:
    return shorten(max(dict.fromkeys(responses), key=responses.count), 80) if responses else None
