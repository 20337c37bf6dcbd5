"""The tables of a study: the settings of each model and data set with what the choice was made from, every trial; of
``study best``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.text import counted

_ABOUT = ("seed", "twin", "status", "rung")
"""Keys of a trial's row that are heads of columns, too."""


def of_study(summary: dict[str, Any]) -> list[Table]:
    """Return one table per group (base model and data set); where there are several, their titles name the groups."""
    metric, groups = summary.get("metric", ""), summary.get("groups") or {}
    if len(groups) < 2:
        selection = summary.get("selection") or {}
        return [settings(selection, metric)] if selection.get("settings") else []
    chosen = {name: (group or {}).get("selection") or {} for name, group in groups.items()}
    return [settings(one, metric, name) for name, one in chosen.items() if one.get("settings")]


def of_best(summary: dict[str, Any]) -> list[Table]:
    """Return for a study the settings that were chosen from; for a table of results from elsewhere its settings, and
    what one weighting for all of them gains.
    """
    if "fixed" in summary:
        return [_compared(summary), _one_for_all(summary)]
    return [settings(summary, summary.get("metric", ""))] if summary.get("settings") else []


def every_trial(rows: Sequence[dict[str, Any]]) -> Table:
    """Return every trial of a study in the order of its rows, the failed and the stopped ones too."""
    scores = list(itertools.product(metrics_of(rows), ("dev", "test")))
    columns = [
        Column("setting", kind="code"),
        Column("model and data", kind="code"),
        *map(Column, (*_ABOUT, "prompt share")),
        *(Column(f"{split} {name}", 4) for name, split in scores),
        *map(Column, ("steps", "tokens")),
        Column("train, s", 1),
        Column("measure, s", 1),
        Column("error", kind="code"),
        Column("trial", kind="code"),
    ]
    cells: list[list[Cell]] = []
    for row in rows:
        seconds = row.get("seconds") or {}
        values = [(row.get(split) or {}).get(name) for name, split in scores]
        cost = [row.get("steps"), row.get("tokens"), seconds.get("train"), seconds.get("measure")]
        head = [name_of(row), row.get("group"), *map(row.get, _ABOUT), row.get("prompt_share")]
        cells.append([*head, *values, *cost, row.get("error"), row.get("trial")])
    return Table("Every trial", columns, cells, f"{counted(len(cells), 'trial')}, as they finished.", filterable=True)


def metrics_of(trials: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of what was measured, in the order of the rows."""
    names: dict[str, None] = {}
    for trial, split in itertools.product(trials, ("test", "dev")):
        scores = trial.get(split) or {}
        names |= dict.fromkeys(name for name, value in scores.items() if isinstance(value, int | float))
    return list(names)


def name_of(trial: dict[str, Any]) -> str:
    """Return the name of a trial's setting."""
    return str(trial.get("setting_name") or json.dumps(trial.get("setting", {}), sort_keys=True))


def settings(selection: dict[str, Any], metric: str, group: str = "") -> Table:
    """Return the settings in order of their prompt share."""
    rows = [_row(one, selection) for one in sorted(selection["settings"], key=_place)]
    estimates = (f"dev {metric}", f"test {metric}", "to conventional")
    columns = [
        Column("setting", kind="code"),
        *map(Column, ("mark", "prompt share", "ratio", "seeds", *estimates)),
        Column("p", 4),
        Column("cells of the grid", kind="code"),
    ]
    caption = "The choice looks at dev only; test figures are for reading, not for choosing."
    title = f"Settings: {group}" if group else "Settings"
    return Table(title, columns, rows, f"{caption} In brackets: 95 % intervals.", filterable=len(rows) > 12)


def _place(one: dict[str, Any]) -> float:
    share, ratio = one.get("prompt_share"), one.get("ratio")
    return (share if share is not None else ratio) or 0.0


def _row(one: dict[str, Any], selection: dict[str, Any]) -> list[Cell]:
    name, difference = one["setting_name"], one.get("difference") or {}
    marks = [word for key, word in (("chosen", "chosen"), ("best_on_dev", "best on dev")) if selection.get(key) == name]
    marks += ["conventional"] * bool(one.get("conventional"))
    dev, test = (Interval.of(one.get(split), "mean") for split in ("dev", "test"))
    change = Interval.of(difference, "mean") if difference else None
    cells = ", ".join(f"({p:g}, {r:g})" for p, r in one.get("members") or [])
    about = [name, ", ".join(marks), one.get("prompt_share"), one.get("ratio"), one.get("seeds")]
    return [*about, dev, test, change, difference.get("p"), cells]


def _compared(summary: dict[str, Any]) -> Table:
    """Every setting of a table of results: conventional tuning, its identical runs, and the best pair of weights."""
    rows: list[list[Cell]] = []
    for one in summary["settings"]:
        remarks = ["re-run of conventional tuning"] if one["rerun"] else []
        if one["conventional_name"] != "(0, 1)":
            remarks.append(f"conv. is {one['conventional_name']}, as there is no (0, 1)")
        scores = [one["conventional"], one["identical_mean"], one["best"], one["best_name"], one["gain"]]
        noise = None if one.get("shifted") else one["noise_sd"]
        rows.append([one["setting"] or "all", *scores, noise, one["p"], "; ".join(remarks)])
    columns = [
        Column("setting", kind="code"),
        *map(Column, ("conv.", "identical", "best")),
        Column("at", kind="code"),
        Column("gain %", 2),
        Column("noise sd", None),
        Column("p", 4),
        Column("remark"),
    ]
    reruns = sum(one["rerun"] for one in summary["settings"])
    caption = (
        "Pairs of equal ratio are one training. conv.: conventional tuning; identical: mean of all runs with prompt "
        "weight 0; noise sd: between runs of equal ratio; p: does any ratio beat conventional tuning, corrected for "
        f"all ratios and settings. Settings whose best cell is a re-run of conventional tuning: {reruns} of "
        f"{len(rows)}."
    )
    return Table("Settings", columns, rows, caption, filterable=len(rows) > 12)


def _one_for_all(summary: dict[str, Any]) -> Table:
    """What one pair of weights for all settings gains, by how it was chosen, and what luck alone gains."""
    fixed, identical = summary["fixed"], summary["identical"]
    rows: list[list[Cell]] = [["best cell, in hindsight", None, fixed["name"], Interval(fixed["gain"]), None, None]]
    for left in summary["left_out"]:
        gains = [Interval(left["gain"]), left["lowest"], left["highest"]]
        rows.append(["best cell of the rest", left["left_out"], None, *gains])
    for ratio in sorted(summary["ratios"], key=lambda ratio: -ratio["mean"])[:1]:
        rows.append(["best ratio", None, ratio["name"], Interval.of(ratio, "mean"), None, None])
    if identical["runs"] > 1:
        luck = f"luck alone: best of {identical['runs']} identical runs"
        rows.append([luck, None, None, Interval(identical["gain"]), None, None])
    columns = [
        Column("weights for all settings"),
        Column("chosen without", kind="code"),
        Column("at", kind="code"),
        *(Column(title, 2) for title in ("gain %", "lowest %", "highest %")),
    ]
    caption = f"Mean gains over {counted(len(summary['settings']), 'setting')}."
    if summary["left_out"]:
        caption += (
            " Lowest and highest: of a single setting. The best cell of the rest is chosen without the setting, or "
            "without all settings of a value of the column, that it is tested on; it is compared with the mean of all "
            "identical runs."
        )
    if summary["ratios"]:
        caption += (
            " The best ratio is compared in the same way; in brackets: its 95 % interval, for all ratios at once."
        )
    return Table("One weighting for all settings", columns, rows, caption)
