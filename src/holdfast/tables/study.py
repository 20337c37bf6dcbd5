"""The tables of ``study run``: the settings of each model and data set, with what the choice was made from."""

from __future__ import annotations

from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table


def of_study(summary: dict[str, Any]) -> list[Table]:
    """One table per group (base model and data set); with several, the titles name them."""
    metric, groups = summary.get("metric", ""), summary.get("groups") or {}
    if len(groups) < 2:
        selection = summary.get("selection") or {}
        return [settings(selection, metric)] if selection.get("settings") else []
    chosen = {name: (group or {}).get("selection") or {} for name, group in groups.items()}
    return [settings(one, metric, name) for name, one in chosen.items() if one.get("settings")]


def settings(selection: dict[str, Any], metric: str, group: str = "") -> Table:
    """The settings in order of their prompt share."""
    rows = [_row(one, selection) for one in sorted(selection["settings"], key=_place)]
    columns = [
        Column("setting", kind="code"),
        Column("mark"),
        Column("prompt share"),
        Column("ratio"),
        Column("seeds"),
        Column(f"dev {metric}"),
        Column(f"test {metric}"),
        Column("to conventional"),
        Column("p", 4),
        Column("cells of the grid", kind="code"),
    ]
    caption = (
        "The choice looks at dev only; test figures are for reading, not for choosing. In brackets: 95 % intervals."
    )
    return Table(f"Settings: {group}" if group else "Settings", columns, rows, caption, filterable=len(rows) > 12)


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
