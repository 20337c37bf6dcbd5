"""What a table of results supports.

In: the scores of one metric over settings (models, data sets) and cells (prompt weight, response weight),
``table.read_table``.
Out: figures, and one sentence of what is and is not supported.

    class      = cells of equal ratio: under AdamW without clipping the same training, so their scatter is noise
    gain       = 100 (score - score of conventional tuning) / score of conventional tuning, better is positive
    fixed cell = one cell for every setting; honest only if it is chosen on other settings than it is reported on, and
                 compared with the mean of all conventional runs of those
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from holdfast.errors import HoldfastError
from holdfast.stats import holm
from holdfast.study import statistics as st
from holdfast.study.measures import direction
from holdfast.study.table import ResultTable, TableRun
from holdfast.tables import lines
from holdfast.tables.text import counted
from holdfast.tune.weights import share

Cell = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class SettingScores:
    """One setting: its tuned runs, the mean score of every cell, and which cell is conventional tuning."""

    name: tuple[str, ...]
    runs: list[TableRun]
    score: dict[Cell, float]
    usual: Cell
    base: float | None

    def gain(self, value: float) -> float:
        """Return the difference of a score to conventional tuning in percent; the sign of the metric comes later."""
        return 100 * (value - self.score[self.usual]) / abs(self.score[self.usual])

    def steady_gain(self, value: float) -> float:
        """Return the gain as ``gain`` does, but relative to the mean of all runs that are conventional tuning, which
        chance moves less.
        """
        mean = self.of_ratio(0.0)
        return 100 * (value - mean) / abs(mean)

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """Return the scores of its tuned runs."""
        return np.array([run.value for run in self.runs])

    @property
    def ratios(self) -> list[float]:
        """Return the shares of the prompt weight that were run, in order; each is one distinct training."""
        return sorted({share(*cell) for cell in self.score})

    def of_ratio(self, ratio: float) -> float:
        """Return the mean score over the cells of a ratio."""
        return statistics.fmean(v for c, v in self.score.items() if share(*c) == ratio)


def analyse(table: ResultTable, *, higher_is_better: bool, seed: int = 0) -> dict[str, Any]:
    """Return all figures (see the module), and under ``finding`` the sentence that they support.

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
    grids = [_grid(name, table) for name in names if name not in lost]
    cells = _in_all([list(grid.score) for grid in grids])
    if not cells:
        raise HoldfastError(
            "no pair of weights was run in every setting, so settings cannot be compared",
            hint="narrow down with --where",
        )
    fixed = {cell: [sign * grid.gain(grid.score[cell]) for grid in grids] for cell in cells}
    steady = {cell: [sign * grid.steady_gain(grid.score[cell]) for grid in grids] for cell in cells}
    run_cells = set().union(*(grid.score for grid in grids))
    result: dict[str, Any] = {
        "metric": table.metric,
        "higher_is_better": higher_is_better,
        "setting_columns": list(table.columns),
        "columns": {"settings": list(table.settings), "scores": list(table.scores), "seeds": table.seeds},
        "about": table.about,
        "without_score": table.without_score,
        "without_reference": [" ".join(name) for name in lost],
        "cells": len(run_cells),
        "classes": len({share(*cell) for cell in run_cells}),
        "settings": _with_holm([_one(grid, sign, seed) for grid in grids]),
        "fixed": _best_fixed(fixed),
        "identical": _identical(grids, sign),
        "left_out": _left_out(table.columns, grids, steady),
        "ratios": _across(grids, sign, seed),
        "alike": all(st.alike(grid.values) for grid in grids),
    }
    return {**result, "finding": conclude(result)}


def conclude(result: dict[str, Any]) -> str:
    """Return one sentence of what is supported and one of what is not."""
    settings, fixed, identical = result["settings"], result["fixed"], result["identical"]
    clear = sum(s["p"] is not None and s["p"] <= 0.05 for s in settings)
    ratios = [r["name"] for r in result["ratios"] if r["low"] > 0]
    best = _percent(statistics.fmean(s["gain"] for s in settings))
    yes, no = [], []
    if result["classes"] == 1:
        return "Nothing is compared: the table has no other training than conventional tuning."
    if result["alike"]:
        return "Nothing can be said: all runs of a setting scored exactly alike."
    if not any(s["noise_sd"] for s in settings):
        why = _no_noise(settings)
        return f"Nothing is supported: {why}, so how much of it is luck is unknown (best cells gain {best} on average)."
    if clear:
        many = f"in {clear} of {counted(len(settings), 'setting')}"
        yes.append(f"{many} a weighting beats conventional tuning beyond the noise of identical runs")
    else:
        no.append("that any weighting beats conventional tuning in a setting")
    if len(settings) > 1:
        claim = "that one fixed weighting beats it across settings"
        if ratios:
            yes.append(f"{claim}: {', '.join(ratios)}")
        else:
            hindsight = f"{fixed['name']} {_percent(fixed['gain'])} in hindsight"
            outside = _percent(result["left_out"][0]["gain"])
            no.append(f"{claim} ({hindsight}, {outside} when chosen on other settings)")
    if identical["runs"] > 1 and any(s["gain"] > 0 for s in settings):
        luck = f"the best of {identical['runs']} identical runs gains {_percent(identical['gain'])}"
        no.append(f"the size of the best cells' gain ({best}; {luck})")
    if silent := sum(not s["noise_sd"] for s in settings):
        unseen = f"in {silent} of {counted(len(settings), 'setting')} no noise can be seen"
        no.append(f"anything of single settings where none is tested: {unseen}")
    parts = [f"Supported: {'; '.join(yes)}." if yes else "", f"Not supported: {'; '.join(no)}." if no else ""]
    return " ".join(filter(None, parts))


def _no_noise(settings: list[dict[str, Any]]) -> str:
    """Say why there is no noise to be seen in any setting."""
    if any(s["shifted"] for s in settings):
        return (
            "runs of one ratio differ, but from seed to seed by the same at every ratio, to the last digit given: "
            "noise beyond the luck of a seed is hidden by rounding or absent"
        )
    if any(s["noise_df"] for s in settings):
        return "no noise is seen between runs of one ratio, which agree to the last digit given"
    return "no cell was run twice"


def as_text(result: dict[str, Any]) -> str:
    """Return the result of ``analyse`` for people: what was read as what, what was left out, the tables, and the
    finding.
    """
    counts = f"{counted(len(result['settings']), 'setting')}, {result['cells']} pairs of weights, {result['classes']}"
    head = f"{result['metric']} ({direction(result['higher_is_better'])}): {counts} distinct trainings"
    tables = lines(result | {"command": "study best"})
    return "\n".join([result["about"], head, *_left_without(result), "", tables, "", result["finding"]])


def _left_without(result: dict[str, Any]) -> list[str]:
    """Return lines that name what has been left out."""
    names = []
    for run in result["without_score"]:
        what = (run["setting"], run["weights"], run["seed"] and f"seed {run['seed']}")
        names.append(f"line {run['line']} ({' '.join(filter(None, what))}: '{run['value']}')")
    left = [f"left out: {counted(len(names), 'run')} without a score: {', '.join(names)}"] if names else []
    return left + [
        f"left out: {name}, as no conventional run of it has a score" for name in result["without_reference"]
    ]


def _lost_reference(name: tuple[str, ...], table: ResultTable) -> bool:
    """Return whether a setting has no conventional run with a score, but one without."""
    if any(share(*r.cell) == 0 for r in table.runs if r.setting == name and any(r.cell)):
        return False
    return any(run["conventional"] and run["setting"] == " ".join(name) for run in table.without_score)


def _grid(name: tuple[str, ...], table: ResultTable) -> SettingScores:
    tuned: list[TableRun] = []
    untuned: list[float] = []
    values: dict[Cell, list[float]] = {}
    for run in table.runs:
        if run.setting == name and any(run.cell):
            tuned.append(run)
            values.setdefault(run.cell, []).append(run.value)
        elif run.setting == name:
            untuned.append(run.value)
    score = {cell: statistics.fmean(own) for cell, own in values.items()}
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
    return SettingScores(name, tuned, score, usual, statistics.fmean(untuned) if untuned else None)


def _one(grid: SettingScores, sign: float, seed: int) -> dict[str, Any]:
    best = max(grid.score, key=lambda c: (sign * grid.score[c], c == grid.usual))
    fit = _ratios_fit(grid)
    p = None
    if fit.df and fit.variance > 0 and len(grid.ratios) > 1:
        compared = st.compare(fit, [(k, 0) for k in range(1, len(grid.ratios))], seed=seed)
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


def _shifted(grid: SettingScores, fit: st.Fit) -> bool:
    """Return whether runs of one ratio differ and yet leave no noise, as every seed moves all ratios alike."""
    if not fit.df or fit.variance > 0:
        return False
    values: dict[float, list[float]] = {}
    for run in grid.runs:
        values.setdefault(share(*run.cell), []).append(run.value)
    return any(len(own) > 1 and not st.alike(np.array(own)) for own in values.values())


def _ratios_fit(grid: SettingScores) -> st.Fit:
    """Return the fit of scores to classes of equal ratio, in the order of the ratio, and to seeds if any."""
    seeds = sorted({run.seed for run in grid.runs})
    ratio_N = [grid.ratios.index(share(*run.cell)) for run in grid.runs]
    seed_N = [seeds.index(run.seed) for run in grid.runs]
    runs = (grid.values, ratio_N, seed_N)
    return st.fit(*(st.average_twins(*runs) if len(seeds) > 1 else runs))


def _with_holm(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings, after correcting those p-values that there are for each other."""
    tested = [one for one in settings if one["p"] is not None]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p"] = p
    return settings


def _best_fixed(fixed: dict[Cell, list[float]]) -> dict[str, Any]:
    best = max(fixed, key=lambda c: statistics.fmean(fixed[c]))
    gains = {_cell_name(c): statistics.fmean(values) for c, values in fixed.items()}
    return {"name": _cell_name(best), "cell": list(best), "gain": gains[_cell_name(best)], "gains": gains}


def _identical(grids: list[SettingScores], sign: float) -> dict[str, Any]:
    """Return how much luck alone gains: the best of the runs that are all conventional tuning, against the one that is
    named so.
    """
    gains = [_gains_of_identical(grid, sign) for grid in grids]
    return {"runs": min(map(len, gains)), "gain": statistics.fmean(map(max, gains))}


def _gains_of_identical(grid: SettingScores, sign: float) -> list[float]:
    return [sign * grid.gain(value) for cell, value in grid.score.items() if share(*cell) == 0]


def _left_out(
    columns: tuple[str, ...], grids: list[SettingScores], gains: dict[Cell, list[float]]
) -> list[dict[str, Any]]:
    """Choose the fixed cell without a part of the settings, and report it on that part: every setting in turn, then
    every value of a column. Nothing where there is only one setting.
    """
    names = [grid.name for grid in grids]
    by_column = zip(columns, zip(*names, strict=True), strict=True)
    parts = [(column, part_N) for column, part_N in by_column if 1 < len(set(part_N)) < len(names)]
    if len(names) < 2:
        return []
    return [{"left_out": name} | _chosen_without(part_N, gains) for name, part_N in [("setting", names), *parts]]


def _chosen_without(part_N: Sequence[Any], gains: dict[Cell, list[float]]) -> dict[str, float]:
    """Return mean, lowest and highest gain of settings when the cell for each part is the best of all other parts."""
    outside: list[float] = []
    for part in dict.fromkeys(part_N):
        inside = [place for place, other in enumerate(part_N) if other != part]
        cell = max(gains, key=lambda c: statistics.fmean(map(gains[c].__getitem__, inside)))
        outside += [gain for gain, other in zip(gains[cell], part_N, strict=True) if other == part]
    return {"gain": statistics.fmean(outside), "lowest": min(outside), "highest": max(outside)}


def _across(grids: list[SettingScores], sign: float, seed: int) -> list[dict[str, Any]]:
    """Return the mean gain of every ratio over conventional tuning (all its runs) over settings, with intervals that
    hold for all ratios at once.

    Settings are the draws here: the interval says what to expect of a further setting of this kind, on average.
    """
    ratios = _in_all([grid.ratios for grid in grids])
    if len(grids) < 2 or len(ratios) < 2:
        return []
    gain_SJ = np.array([[sign * grid.steady_gain(grid.of_ratio(ratio)) for ratio in ratios[1:]] for grid in grids])
    means = zip(ratios[1:], st.compare_means(gain_SJ, seed=seed), strict=True)
    return [{"name": _ratio_name(grids[0], ratio), "ratio": ratio, **vars(mean)} for ratio, mean in means]


def _in_all(groups: Sequence[Sequence[T]]) -> list[T]:
    """Return what every group holds, in the order of the first."""
    shared = set(groups[0]).intersection(*groups[1:])
    return [item for item in groups[0] if item in shared]


def _ratio_name(grid: SettingScores, ratio: float) -> str:
    return _cell_name(min((c for c in grid.score if share(*c) == ratio), key=sum))


def _cell_name(cell: Cell) -> str:
    return f"({cell[0]:g}, {cell[1]:g})"


def _percent(value: float) -> str:
    return f"{value:+.2f} %"
