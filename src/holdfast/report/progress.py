"""The trials of a study -> learning curves, prompt and response NLL on held-out data; and what the trials cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, bars, points
from holdfast.report.parts import FactList, Figure, Part
from holdfast.report.reading import ReadRun, read_rows
from holdfast.report.settings import Study, TunedSetting
from holdfast.report.tune import step_axis, thinned
from holdfast.tables.record import Cell, Column, Table
from holdfast.tables.text import duration

_MOST_SETTINGS = 40
_MOST_POINTS = 60
_MOST_BARS = 24
_TIMES = {"time from start to end": "seconds", "spent training": "train", "spent measuring": "measure"}

_WHAT = {"response_nll": "Response NLL", "prompt_nll": "Prompt NLL"}
_FEWEST_POINTS = 3
"""A line through two points would claim to know what lies between them."""

Curve = dict[int, list[float]]
"""Step -> the values of all seeds at that step."""


def learning(study: Study) -> list[Part]:
    """Return the learning curves of response and prompt NLL; none if the trials have left no rows.

    They are drawn from the training batches that were logged, or from held-out data where it was measured more often.
    Trials that have left two points or fewer have no curve: a table says where they began and ended.
    """
    curves = [(s, _curves(study, s)) for s in _some(study)]
    parts: list[Part] = []
    for key, what in _WHAT.items():
        series = [_series(study, s, curve[key]) for s, curve in curves if len(curve[key]) >= _FEWEST_POINTS]
        if series:
            parts.append(_figure(study, what, series))
    return parts or _ends(curves)


def _ends(curves: Sequence[tuple[TunedSetting, dict[str, Curve]]]) -> list[Part]:
    """Return a table of the first and the last value of each setting."""
    rows: list[list[Cell]] = []
    for setting, curve in curves:
        cells: list[Cell] = []
        for key in _WHAT:
            steps = sorted(curve[key])
            cells += [statistics.fmean(curve[key][step]) for step in (steps[0], steps[-1])] if steps else [None, None]
        if any(cell is not None for cell in cells):
            rows.append([setting.name, *cells])
    columns = [Column("setting", kind="code")]
    for what in _WHAT.values():
        columns += [Column(f"{what} at the first step"), Column(f"{what} at the last step")]
    caption = (
        "Means over seeds, in nats per token. The trials have left two points or fewer each, which make no curve; a "
        "smaller log_steps in the study file would."
    )
    return [Table("Before and after training", columns, rows, caption)] if rows else []


def cost(run: ReadRun) -> list[Part]:
    """Return facts on what the time of all trials was spent on."""
    costs = run.summary.get("cost") or {}
    slots = costs.get("slots")
    # Slots work at the same time, so the sum of their times may be longer than the whole.
    over = f", over {slots} slots" if isinstance(slots, int) and slots > 1 else ""
    titles = {name if key == "seconds" else name + over: costs.get(key) for name, key in _TIMES.items()}
    times = [(title, duration(time)) for title, time in titles.items() if isinstance(time, int | float)]
    outside, disk = costs.get("outside_share"), costs.get("disk_bytes")
    facts = FactList.of(
        *times,
        ("% outside both", 100 * outside if isinstance(outside, int | float) else None),
        ("tokens trained on", costs.get("tokens")),
        ("disk, MB", disk / 1e6 if isinstance(disk, int | float) else None),
    )
    return [FactList(facts.pairs, "Cost")] if facts.pairs else []


def cost_of_trials(study: Study) -> list[Part]:
    """Return a figure of what the time of one trial is spent on, by setting; none where no trial was timed."""
    timed = [s for s in study.settings if any(map(_timed, s.trials))]
    timed.sort(key=lambda s: -_seconds(s, "train") - _seconds(s, "measure"))
    drawn = timed[:_MOST_BARS]
    if not drawn:
        return []
    parts = (("train", "@accent"), ("measure", "@5"), ("other", "@faint"))
    series = [Series(name, [], list(map(_seconds, drawn, itertools.repeat(name))), colour=c) for name, c in parts]
    cut = f" The {len(drawn)} most expensive of {len(timed)} settings." if len(drawn) < len(timed) else ""
    caption = f"Seconds of one trial by what they went into, means over {study.seeds} (no intervals).{cut}"
    return [bars("Cost of a trial", caption, [s.name for s in drawn], series, Axis("seconds", digits=1))]


def _timed(trial: dict[str, Any]) -> bool:
    return bool(trial.get("seconds"))


def _seconds(setting: TunedSetting, part: str) -> float:
    seconds = [float((t.get("seconds") or {}).get(part) or 0.0) for t in setting.trials]
    return statistics.fmean(seconds) if seconds else 0.0


def _figure(study: Study, what: str, series: Sequence[Series]) -> Figure:
    cut = f" {len(series)} of {len(study.settings)} settings are drawn." if len(series) < len(study.settings) else ""
    caption = (
        f"{what} while training, on training batches or, where that was measured more often, on held-out data; mean "
        f"over {study.seeds} of each setting (no intervals). The chosen and the conventional setting stand out, the "
        f"values name the others.{cut}"
    )
    title = f"Learning curves: {what[0].lower()}{what[1:]}"
    return points(title, caption, series, step_axis(series), Axis("nats per token"), height=340, showlegend=True)


def _some(study: Study) -> list[TunedSetting]:
    """Return at most ``_MOST_SETTINGS`` settings, spread over the prompt share. The chosen and the conventional one are
    always among them; they come last and are drawn on top.
    """
    named = (study.named("conventional"), study.named("chosen"))
    special = dict.fromkeys(s for s in named if s is not None)
    rest = sorted((s for s in study.settings if s not in special), key=lambda s: (s.x or 0.0, s.name))
    return [*thinned(rest, _MOST_SETTINGS - len(special)), *special]


def _curves(study: Study, setting: TunedSetting) -> dict[str, Curve]:
    """Values by step over the seeds of a setting, of the rows that make the longer curve."""
    kinds: dict[str, dict[str, Curve]] = {"train": _no_curves(), "eval": _no_curves()}
    for trial in setting.trials:
        for row in _rows(study, trial):
            _add(kinds[row["kind"]], row)
    train, held_out = kinds["train"], kinds["eval"]
    return {key: max(train[key], held_out[key], key=len) for key in _WHAT}


def _no_curves() -> dict[str, Curve]:
    return {key: {} for key in _WHAT}


def _add(curves: dict[str, Curve], row: dict[str, Any]) -> None:
    for key, curve in curves.items():
        if isinstance(row.get(key), int | float) and isinstance(row.get("step"), int):
            curve.setdefault(row["step"], []).append(float(row[key]))


def _rows(study: Study, trial: dict[str, Any]) -> list[dict[str, Any]]:
    path = trial.get("path")
    if not isinstance(path, str):
        return []
    rows, _ = read_rows(study.run.path / path / "rows.jsonl")
    return [row for row in rows if row.get("kind") in ("train", "eval")]


def _series(study: Study, setting: TunedSetting, curve: Curve) -> Series:
    steps = thinned(sorted(curve), _MOST_POINTS)
    values = [statistics.fmean(curve[step]) for step in steps]
    names = [key for key in ("chosen", "conventional") if setting is study.named(key)]
    if names:
        name, colour = f"{' and '.join(names)} {setting.name}", "@2" if "chosen" in names else "@1"
        return Series(name, steps, values, colour=colour, width=2.6)
    return Series(setting.name, steps, values, colour="@faint", width=1.1, legend=False)
