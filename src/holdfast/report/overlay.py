"""Several sensitivity runs over the same sets -> one section that lays them over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.report.figures import Axis, Series, points
from holdfast.report.parts import Note, Part, Section
from holdfast.report.reading import ReadRun
from holdfast.report.sensitivity import ranked_sets
from holdfast.tables.record import Interval
from holdfast.tables.sensitivity import psi, shared_sets, views_of
from holdfast.tables.text import counted


@dataclass(frozen=True, eq=False)
class _Measured:
    run: ReadRun
    title: str
    psi: dict[str, float]
    """Psi of every set, by its id."""


def overlaid(runs: Sequence[ReadRun], titles: Sequence[str]) -> list[Section]:
    """Return a section for every group of sensitivity runs that have sets in common; none where no runs share a set."""
    left: list[_Measured] = []
    for run, title in zip(runs, titles, strict=True):
        if run.command == "sensitivity run":
            left.append(_Measured(run, title, {str(row["set_id"]): psi(row) for row in ranked_sets(run)}))
    sections = []
    while left:
        group = [one for one in left if one.psi.keys() & left[0].psi.keys()]
        left = [one for one in left[1:] if one not in group]
        if len(group) > 1:
            sections.append(_section(group))
    return sections


def _section(group: Sequence[_Measured]) -> Section:
    common = set(group[0].psi).intersection(*(one.psi for one in group[1:]))
    shared = [name for name in group[0].psi if name in common]
    parts: list[Part] = [_note([one.run for one in group]), *_estimates(group)]
    if shared:
        parts += [_pairs(group[0], other, shared) for other in group[1:]]
        parts.append(shared_sets([(one.title, one.psi) for one in group], shared))
    title = " and ".join(one.title for one in group)
    return Section(title, "Sensitivity, overlaid", f"{counted(len(shared), 'set')} in common", parts)


def _note(runs: Sequence[ReadRun]) -> Note:
    for key in ("max_new_tokens", "chat", "shots"):
        if len({run.config.get(key) for run in runs}) > 1:
            unlike = "These runs differ in response length, chat template or exemplars: their psi are not on one scale."
            return Note(unlike, "warning")
    return Note(
        "Intervals that overlap do not show that two runs are equal, nor the other way round: the sets are the same, "
        "so `holdfast sensitivity compare` pairs them and gives the interval of the difference."
    )


def _estimates(group: Sequence[_Measured]) -> list[Part]:
    views = next(filter(None, (views_of(one.run.summary) for one in group)), [])
    if not views:
        return []
    series = []
    for place, one in enumerate(group, start=1):
        posix = one.run.summary.get("posix", {})
        own = [view for view in views if view in posix]
        estimates = [Interval.of(posix[view], "mean") for view in own]
        shift, colour = (place - (len(group) + 1) / 2) * 0.14, f"@{(place - 1) % 6 + 1}"
        series.append(Series(one.title, own, estimates, look="dots", colour=colour, size=10, shift=shift))
    counts = ", ".join(f"{len(one.psi)} in {one.title}" for one in group)
    caption = f"POSIX by kind with 95 % bootstrap intervals over sets ({counts})."
    axes = Axis("kind of variant", names=views), Axis("psi, nats per token", {"rangemode": "tozero"})
    return [points("Kinds of change, side by side", caption, series, *axes, height=320)]


def _pairs(a: _Measured, b: _Measured, sets: Sequence[str]) -> Part:
    x, y = [a.psi[s] for s in sets], [b.psi[s] for s in sets]
    top = 1.05 * max(filter(math.isfinite, (*x, *y)), default=0.0) or 1.0
    ends = {"x0": 0, "y0": 0, "x1": top, "y1": top}
    diagonal = {"type": "line", "line": {"color": "@faint", "width": 1.5}, "layer": "below"} | ends
    lower = sum(v < u for u, v in zip(x, y))
    dots = Series("sets", x, y, notes=list(sets), look="dots", colour="@accent", size=9)
    below = f"{lower} lie below the line, where {b.title} is steadier"
    caption = f"Each of {len(sets)} sets in both runs (single values); {below}."
    axes = [Axis(f"psi in {one.title}", {"range": [0, top]}) for one in (a, b)]
    return points(f"Set by set: {a.title} against {b.title}", caption, [dots], *axes, height=440, shapes=[diagonal])
