"""What a table of results supports.

In: the scores of one metric over settings (models, data sets) and cells (prompt weight, response weight),
``table.read_table``.
Out: figures, and one sentence of what is and is not supported.

    class      = cells of equal ratio: under AdamW without clipping the same training, so their scatter is noise
    gain       = 100 (score - score of conventional tuning) / score of conventional tuning, better is positive
    fixed cell = one cell for every setting; honest only if chosen on other settings than it is reported on, against the
    mean of all
                 conventional runs of those
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError
from holdfast.stats import holm
from holdfast.study import statistics as st
from holdfast.study.measures import direction
from holdfast.study.table import ResultTable, TableRun
from holdfast.tune.weights import share

Cell = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """One setting: its tuned runs, the mean score of every cell, and which cell is conventional tuning."""

    name: tuple[str, ...]
    runs: list[TableRun]
    score: dict[Cell, float]
    usual: Cell
    base: float | None

    def gain(self, value: float) -> float:
        """Relative to conventional tuning, in percent of it, before the sign of the metric."""
        return 100 * (value - self.score[self.usual]) / abs(self.score[self.usual])

    def steady_gain(self, value: float) -> float:
        """As ``gain``, against the mean of all runs that are conventional tuning: a reference with less luck in it."""
        mean = self.of_ratio(0.0)
        return 100 * (value - mean) / abs(mean)

    def of_ratio(self, ratio: float) -> float:
        """Mean over the cells of a ratio."""
        return statistics.fmean(v for c, v in self.score.items() if share(*c) == ratio)


def analyse(table: ResultTable, *, higher_is_better: bool, seed: int = 0) -> dict[str, Any]:
    """All figures, see the module; ``finding`` is the sentence.

    Raises:
        HoldfastError: a setting without a conventional run, or one that scores 0 (relative gains do not exist).
    """
    sign = 1.0 if higher_is_better else -1.0
    names = list(dict.fromkeys(r.setting for r in table.runs))
    lost = [name for name in names if _lost_reference(name, table)]
    if len(lost) == len(names):
        raise HoldfastError(
            "no setting has a run with prompt weight 0 and a score, so there is no conventional tuning to compare with",
            hint=f"the scores on lines {', '.join(str(run['line']) for run in table.without_score[:10])} are missing",
        )
    grids = [_grid(name, [r for r in table.runs if r.setting == name], table) for name in names if name not in lost]
    cells = [c for c in grids[0].score if all(c in g.score for g in grids)]
    if not cells:
        raise HoldfastError(
            "no pair of weights was run in every setting, so settings cannot be compared",
            hint="narrow down with --where",
        )
    fixed = {c: [sign * g.gain(g.score[c]) for g in grids] for c in cells}
    found: dict[str, Any] = {
        "metric": table.metric,
        "higher_is_better": higher_is_better,
        "setting_columns": list(table.columns),
        "columns": {"settings": list(table.settings), "scores": list(table.scores), "seeds": table.seeds},
        "about": table.about,
        "without_score": table.without_score,
        "without_reference": [" ".join(name) for name in lost],
        "cells": len({r.cell for g in grids for r in g.runs}),
        "classes": len({share(*r.cell) for g in grids for r in g.runs}),
        "settings": _with_holm([_one(g, sign, seed) for g in grids]),
        "fixed": _best_fixed(fixed),
        "identical": _identical(grids, sign),
        "left_out": _left_out(
            table.columns, grids, {c: [sign * g.steady_gain(g.score[c]) for g in grids] for c in cells}
        ),
        "ratios": _across(grids, sign, seed),
        "alike": all(st.alike(np.array([r.value for r in g.runs])) for g in grids),
    }
    return {**found, "finding": conclude(found)}


def conclude(found: dict[str, Any]) -> str:
    """One sentence of what is supported and one of what is not."""
    settings, fixed, identical = found["settings"], found["fixed"], found["identical"]
    clear = [s["setting"] for s in settings if s["p"] is not None and s["p"] <= 0.05]
    ratios = [r for r in found["ratios"] if r["low"] > 0]
    best = _percent(statistics.fmean(s["gain"] for s in settings))
    yes, no = [], []
    if found["classes"] == 1:
        return "Nothing is compared: the table has no other training than conventional tuning."
    if found["alike"]:
        return "Nothing can be said: all runs of a setting scored exactly alike."
    if not any(s["noise_sd"] for s in settings):
        why = _no_noise(settings)
        return f"Nothing is supported: {why}, so how much of it is luck is unknown (best cells gain {best} on average)."
    if clear:
        yes.append(
            f"in {len(clear)} of {len(settings)} settings a weighting beats conventional tuning beyond the noise of "
            "identical runs"
        )
    else:
        no.append("that any weighting beats conventional tuning in a setting")
    if len(settings) > 1:
        claim = "that one fixed weighting beats it across settings"
        if ratios:
            yes.append(f"{claim}: {', '.join(r['name'] for r in ratios)}")
        else:
            outside = found["left_out"][0]["gain"]
            no.append(
                f"{claim} ({fixed['name']} {_percent(fixed['gain'])} in hindsight, {_percent(outside)} when chosen on "
                "other settings)"
            )
    if identical["runs"] > 1 and any(s["gain"] > 0 for s in settings):
        no.append(
            f"the size of the best cells' gain ({best}; the best of {identical['runs']} identical runs gains "
            f"{_percent(identical['gain'])})"
        )
    silent = sum(not s["noise_sd"] for s in settings)
    if silent:
        no.append(
            f"anything of single settings where none is tested: in {silent} of {len(settings)} settings no noise can "
            "be seen"
        )
    parts = [f"Supported: {'; '.join(yes)}." if yes else "", f"Not supported: {'; '.join(no)}." if no else ""]
    return " ".join(filter(None, parts))


def _no_noise(settings: list[dict[str, Any]]) -> str:
    """Why there is no noise to be seen in any setting."""
    if any(s["shifted"] for s in settings):
        return (
            "runs of one ratio differ, but from seed to seed by the same at every ratio, to the last digit given: "
            "noise beyond the luck "
            "of a seed is hidden by rounding or absent"
        )
    if any(s["noise_df"] for s in settings):
        return "no noise is seen between runs of one ratio, which agree to the last digit given"
    return "no cell was run twice"


def as_text(found: dict[str, Any]) -> str:
    """The figures for people. The first line says what was read as what."""
    identical, fixed = found["identical"], found["fixed"]
    names = [s["setting"] or "all" for s in found["settings"]]
    width = max(7, *map(len, names))
    lines = [
        found["about"],
        f"{found['metric']} ({direction(found['higher_is_better'])}): {len(names)} settings, {found['cells']} pairs "
        "of weights, "
        f"{found['classes']} distinct trainings",
        *_left_without(found),
        "",
        f"{'setting':<{width}}  {'conv.':>8}  {'identical':>9}  {'best':>8}  {'at':<10}  {'gain %':>7}  "
        f"{'noise sd':>8}  {'p':>7}",
    ]
    for name, s in zip(names, found["settings"], strict=True):
        noise = "-" if s["noise_sd"] is None or s["shifted"] else f"{s['noise_sd']:.2g}"
        p = "-" if s["p"] is None else f"{s['p']:.4f}"
        note = "  re-run of conventional tuning" if s["rerun"] else ""
        note += (
            "" if s["conventional_name"] == "(0, 1)" else f"  conv. is {s['conventional_name']}, as there is no (0, 1)"
        )
        scores = f"{s['conventional']:8.4g}  {s['identical_mean']:9.4g}  {s['best']:8.4g}  {s['best_name']:<10}"
        lines.append(f"{name:<{width}}  {scores}  {s['gain']:+7.2f}  {noise:>8}  {p:>7}{note}")
    reruns = sum(s["rerun"] for s in found["settings"])
    lines += [
        "",
        "Pairs of equal ratio are one training. conv.: conventional tuning; identical: mean of all runs with prompt "
        "weight 0;",
        "noise sd: between runs of equal ratio; p: does any ratio beat conventional tuning, corrected for all ratios "
        "and settings.",
        "",
        f"settings whose best cell is a re-run of conventional tuning: {reruns} of {len(names)}",
        *(
            [f"best of {identical['runs']} identical runs (luck alone): {_percent(identical['gain'])}"]
            if identical["runs"] > 1
            else []
        ),
        f"best fixed cell, in hindsight: {fixed['name']} {_percent(fixed['gain'])} over {len(names)} settings",
        *(
            f"best fixed cell chosen without the {left['left_out']} it is tested on, against all identical runs: "
            f"{_percent(left['gain'])} "
            f"({_percent(left['lowest'])} to {_percent(left['highest'])})"
            for left in found["left_out"]
        ),
        *(
            f"ratio {r['name']}: {_percent(r['mean'])} over settings (95 % {r['low']:+.1f} to {r['high']:+.1f})"
            for r in _top(found["ratios"])
        ),
        "",
        found["finding"],
    ]
    return "\n".join(lines)


def _left_without(found: dict[str, Any]) -> list[str]:
    """Lines that name what has been left out."""
    lost, lines = found["without_score"], []
    if lost:
        named = [
            f"line {run['line']} "
            f"({' '.join(filter(None, (run['setting'], run['weights'], run['seed'] and 'seed ' + run['seed'])))}"
            f": '{run['value']}')"
            for run in lost
        ]
        lines.append(f"left out: {len(lost)} run{'s' * (len(lost) > 1)} without a score: {', '.join(named)}")
    return lines + [
        f"left out: {name}, as no conventional run of it has a score" for name in found["without_reference"]
    ]


def _lost_reference(name: tuple[str, ...], table: ResultTable) -> bool:
    """Whether a setting has no conventional run with a score, but one without."""
    if any(share(*r.cell) == 0 for r in table.runs if r.setting == name and any(r.cell)):
        return False
    return any(run["conventional"] and run["setting"] == " ".join(name) for run in table.without_score)


def _grid(name: tuple[str, ...], runs: list[TableRun], table: ResultTable) -> Grid:
    tuned = [r for r in runs if any(r.cell)]
    untuned = [r.value for r in runs if not any(r.cell)]
    score = {c: statistics.fmean(r.value for r in tuned if r.cell == c) for c in dict.fromkeys(r.cell for r in tuned)}
    where = " ".join(name) or "the table"
    usual = max((c for c in score if share(*c) == 0), key=lambda c: (c[1] == 1, c[1]), default=None)
    if usual is None:
        read = ", ".join(table.columns)
        raise HoldfastError(
            f"{where} has no run with prompt weight 0, so there is no conventional tuning to compare with",
            hint=f"'{where}' is a setting because these columns are read as settings: {read}" if read else None,
        )
    if score[usual] == 0:
        raise HoldfastError(f"{where}: conventional tuning scores 0 in {table.metric}, so relative gains do not exist")
    return Grid(name, tuned, score, usual, statistics.fmean(untuned) if untuned else None)


def _one(grid: Grid, sign: float, seed: int) -> dict[str, Any]:
    best = max(grid.score, key=lambda c: (sign * grid.score[c], c == grid.usual))
    fit = _ratios_fit(grid)
    p = None
    classes = sorted({share(*r.cell) for r in grid.runs})
    if fit.df and fit.variance > 0 and len(classes) > 1:
        compared = st.compare(fit, [(k, 0) for k in range(1, len(classes))], seed=seed)
        p = min((d.p for d in compared if sign * d.mean > 0), default=1.0)
    return {
        "setting": " ".join(grid.name),
        "base": grid.base,
        "conventional": grid.score[grid.usual],
        "conventional_name": _cell_name(grid.usual),
        "identical_mean": grid.of_ratio(0.0),
        "best": grid.score[best],
        "best_name": _cell_name(best),
        "best_cell": list(best),
        "rerun": share(*best) == 0 and best != grid.usual,
        "gain": sign * grid.gain(grid.score[best]) + 0.0,  # no -0.00
        "noise_sd": math.sqrt(fit.variance) if fit.df else None,
        "noise_df": fit.df,
        "shifted": _shifted(grid, fit),
        "p": p,
    }


def _shifted(grid: Grid, fit: st.Fit) -> bool:
    """Whether runs of one ratio differ and yet leave no noise, as every seed moves all ratios by the same."""
    if not fit.df or fit.variance > 0:
        return False
    values: dict[float, list[float]] = {}
    for run in grid.runs:
        values.setdefault(share(*run.cell), []).append(run.value)
    return any(len(own) > 1 and not st.alike(np.array(own)) for own in values.values())


def _ratios_fit(grid: Grid) -> st.Fit:
    """Scores fitted to classes of equal ratio, in the order of the ratio, and seeds where the table has them."""
    ratios = sorted({share(*r.cell) for r in grid.runs})
    seeds = sorted({r.seed for r in grid.runs})
    values, ratio_N = np.array([r.value for r in grid.runs]), [ratios.index(share(*r.cell)) for r in grid.runs]
    seed_N = [seeds.index(r.seed) for r in grid.runs]
    return st.fit(*(st.average_twins(values, ratio_N, seed_N) if len(seeds) > 1 else (values, ratio_N, seed_N)))


def _with_holm(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    known = [s for s in settings if s["p"] is not None]
    for s, p in zip(known, holm([s["p"] for s in known]), strict=True):
        s["p"] = p
    return settings


def _best_fixed(fixed: dict[Cell, list[float]]) -> dict[str, Any]:
    best = max(fixed, key=lambda c: statistics.fmean(fixed[c]))
    gains = {_cell_name(c): statistics.fmean(values) for c, values in fixed.items()}
    return {"name": _cell_name(best), "cell": list(best), "gain": gains[_cell_name(best)], "gains": gains}


def _identical(grids: list[Grid], sign: float) -> dict[str, Any]:
    """The best of the runs that are all conventional tuning, against the one that is called so."""
    best = [max(sign * g.gain(v) for c, v in g.score.items() if share(*c) == 0) for g in grids]
    return {"runs": min(sum(share(*c) == 0 for c in g.score) for g in grids), "gain": statistics.fmean(best)}


def _left_out(columns: tuple[str, ...], grids: list[Grid], fixed: dict[Cell, list[float]]) -> list[dict[str, Any]]:
    """Choose the fixed cell without a part of the settings, report it on that part: every setting in turn, then every
    value of a column.
    """
    parts: list[tuple[str, Callable[[Grid], Any]]] = [("setting", lambda g: g.name)]
    for place, column in enumerate(columns):
        values = {g.name[place] for g in grids}
        if 1 < len(values) < len(grids):
            parts.append((column, lambda g, place=place: g.name[place]))  # type: ignore[misc]
    made = []
    for name, part_of in parts if len(grids) > 1 else []:
        gains = []
        for part in dict.fromkeys(map(part_of, grids)):
            inside = [i for i, g in enumerate(grids) if part_of(g) != part]
            cell = max(fixed, key=lambda c: statistics.fmean(fixed[c][i] for i in inside))
            gains += [fixed[cell][i] for i, g in enumerate(grids) if part_of(g) == part]
        made.append({"left_out": name, "gain": statistics.fmean(gains), "lowest": min(gains), "highest": max(gains)})
    return made


def _across(grids: list[Grid], sign: float, seed: int) -> list[dict[str, Any]]:
    """Mean gain of every ratio over conventional tuning (all its runs), over settings, with intervals for all ratios at
    once.

    Settings are the draws here: the interval says what to expect of a further setting of this kind, on average.
    """
    ratios = [
        r
        for r in sorted({share(*r.cell) for r in grids[0].runs})
        if all(r in {share(*c) for c in g.score} for g in grids)
    ]
    if len(grids) < 2 or len(ratios) < 2:
        return []
    gain_SJ = np.array([[sign * grid.steady_gain(grid.of_ratio(ratio)) for ratio in ratios[1:]] for grid in grids])
    return [
        {"name": _ratio_name(grids[0], r), "ratio": r, **vars(d)}
        for r, d in zip(ratios[1:], st.compare_means(gain_SJ, seed=seed), strict=True)
    ]


def _top(ratios: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(ratios, key=lambda r: -r["mean"])[:1]


def _ratio_name(grid: Grid, ratio: float) -> str:
    return _cell_name(min((c for c in grid.score if share(*c) == ratio), key=sum))


def _cell_name(cell: Cell) -> str:
    return f"({cell[0]:g}, {cell[1]:g})"


def _percent(value: float) -> str:
    return f"{value:+.2f} %"
