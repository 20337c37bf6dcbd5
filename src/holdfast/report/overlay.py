"""Several sensitivity runs over the same sets -> one section that lays them over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import Note, Part, Section
from holdfast.report.reading import Run
from holdfast.report.sensitivity import psi, ranked_sets
from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.sensitivity import views_of


def overlaid(runs: Sequence[Run], titles: Sequence[str]) -> list[Section]:
    """A section for every group of sensitivity runs that share sets."""
    left = [
        _Measured(run, title, {str(row["set_id"]): psi(row) for row in ranked_sets(run)})
        for run, title in zip(runs, titles, strict=True)
        if run.command == "sensitivity run"
    ]
    made = []
    while left:
        group = [one for one in left if one.psi.keys() & left[0].psi.keys()]
        left = [one for one in left[1:] if one not in group]
        if len(group) > 1:
            made.append(_section(group))
    return made


@dataclass(frozen=True, eq=False)
class _Measured:
    run: Run
    title: str
    psi: dict[str, float]
    """By set."""


def _section(group: Sequence[_Measured]) -> Section:
    first, names = group[0], [one.title for one in group]
    both = [s for s in first.psi if all(s in one.psi for one in group)]
    parts: list[Part] = [_note([one.run for one in group]), *_estimates(group)]
    if both:
        parts += [_pairs(first, other, both) for other in group[1:]]
        rows: list[list[Cell]] = [[s, *(one.psi[s] for one in group)] for s in both]
        columns = [Column("set", kind="code"), *(Column(name) for name in names)]
        parts.append(Table("Psi of every shared set", columns, rows, filterable=len(rows) > 8))
    return Section(" and ".join(names), "Sensitivity, overlaid", f"{len(both)} sets in common", parts)


def _note(runs: Sequence[Run]) -> Note:
    settings = [{run.config.get(key) for run in runs} for key in ("max_new_tokens", "chat", "shots")]
    if any(len(values) > 1 for values in settings):
        return Note(
            "These runs differ in response length, chat template or exemplars: their psi are not on one scale.",
            "warning",
        )
    return Note(
        "Intervals that overlap do not show that two runs are equal, nor the other way round: the sets are the same, "
        "so "
        "`holdfast sensitivity compare` pairs them and gives the interval of the difference."
    )


def _estimates(group: Sequence[_Measured]) -> list[Part]:
    views = next((found for one in group if (found := views_of(one.run.summary))), [])
    series = []
    for place, one in enumerate(group, start=1):
        posix = one.run.summary.get("posix", {})
        mine = [view for view in views if view in posix]
        estimates = [Interval(posix[v]["mean"], posix[v]["low"], posix[v]["high"]) for v in mine]
        shift = (place - (len(group) + 1) / 2) * 0.14
        series.append(
            Series(one.title, mine, estimates, look="dots", colour=f"@{(place - 1) % 6 + 1}", size=10, shift=shift)
        )
    if not views:
        return []
    counts = ", ".join(f"{len(one.psi)} in {one.title}" for one in group)
    caption = f"POSIX by kind with 95 % bootstrap intervals over sets ({counts})."
    axes = Axis("kind of variant", names=views), Axis("psi, nats per token", {"rangemode": "tozero"})
    return [points("Kinds of change, side by side", caption, series, *axes, height=320)]


def _pairs(a: _Measured, b: _Measured, sets: Sequence[str]) -> Part:
    x, y = [a.psi[s] for s in sets], [b.psi[s] for s in sets]
    top = 1.05 * max((v for v in (*x, *y) if math.isfinite(v)), default=0.0) or 1.0
    diagonal = {
        "type": "line",
        "x0": 0,
        "y0": 0,
        "x1": top,
        "y1": top,
        "line": {"color": "@faint", "width": 1.5},
        "layer": "below",
    }
    lower = sum(v < u for u, v in zip(x, y))
    dots = Series("sets", x, y, notes=list(sets), look="dots", colour="@accent", size=9)
    caption = f"Each of {len(sets)} sets in both runs (single values); {lower} lie below the line, where {b.title} is steadier."
    axes = [Axis(f"psi in {one.title}", {"range": [0, top]}) for one in (a, b)]
    return points(f"Set by set: {a.title} against {b.title}", caption, [dots], *axes, height=440, shapes=[diagonal])
