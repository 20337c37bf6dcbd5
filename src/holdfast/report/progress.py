"""The trials of a study -> learning curves, prompt and response NLL on held-out data; and what the trials cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, bars, points
from holdfast.report.parts import Facts, Figure, Part
from holdfast.report.reading import Run, read_rows
from holdfast.report.settings import Setting, Study
from holdfast.report.tune import step_axis, thinned
from holdfast.tables.record import Cell
from holdfast.tables.text import duration

_MOST_SETTINGS = 40
_MOST_POINTS = 60
_MOST_BARS = 24
_TIMES = {"time from start to end": "seconds", "spent training": "train", "spent measuring": "measure"}

Curve = dict[int, list[float]]
"""Step -> values of the seeds."""


def learning(study: Study) -> list[Part]:
    """Two figures, or none if the trials left no rows."""
    settings = _some(study)
    found = {s.name: _curves(study, s) for s in settings}
    made = []
    for key, what in (("response_nll", "Response NLL"), ("prompt_nll", "Prompt NLL")):
        series = [_series(study, s, found[s.name][key]) for s in settings if found[s.name].get(key)]
        if series:
            made.append(_figure(study, what, series))
    return list(made)


def cost(run: Run) -> list[Part]:
    """Where the time of all trials went."""
    found = run.summary.get("cost") or {}
    slots = found.get("slots")
    over = (
        f", over {slots} slots" if isinstance(slots, int) and slots > 1 else ""
    )  # so their sum may be longer than the whole
    times = {
        name if key == "seconds" else name + over: duration(found[key])
        for name, key in _TIMES.items()
        if isinstance(found.get(key), int | float)
    }
    outside, disk = found.get("outside_share"), found.get("disk_bytes")
    pairs: list[tuple[str, Cell]] = [
        *times.items(),
        ("% outside both", 100 * outside if isinstance(outside, int | float) else None),
        ("tokens trained on", found.get("tokens")),
        ("disk, MB", disk / 1e6 if isinstance(disk, int | float) else None),
    ]
    known = [(name, value) for name, value in pairs if value is not None]
    return [Facts(known)] if known else []


def cost_of_trials(study: Study) -> list[Part]:
    """Where the time of one trial goes, by setting."""
    known = [s for s in study.settings if any(t.get("seconds") for t in s.trials)]
    known.sort(key=lambda s: -_seconds(s, "train") - _seconds(s, "measure"))
    shown = known[:_MOST_BARS]
    if not shown:
        return []
    parts = (("train", "@accent"), ("measure", "@5"), ("other", "@faint"))
    series = [Series(name, [], [_seconds(s, name) for s in shown], colour=colour) for name, colour in parts]
    cut = f" The {len(shown)} most expensive of {len(known)} settings." if len(shown) < len(known) else ""
    caption = f"Seconds of one trial by what they went into, means over {study.seeds} (no intervals).{cut}"
    return [bars("Cost of a trial", caption, [s.name for s in shown], series, Axis("seconds", digits=1))]


def _seconds(setting: Setting, part: str) -> float:
    found = [float((t.get("seconds") or {}).get(part) or 0.0) for t in setting.trials]
    return statistics.fmean(found) if found else 0.0


def _figure(study: Study, what: str, series: Sequence[Series]) -> Figure:
    cut = f" {len(series)} of {len(study.settings)} settings are drawn." if len(series) < len(study.settings) else ""
    caption = (
        f"{what} on held-out data while training, mean over {study.seeds} of each setting (no intervals). The chosen "
        "and the conventional "
        f"setting stand out, the values name the others.{cut}"
    )
    title = f"Learning curves: {what[0].lower()}{what[1:]}"
    return points(title, caption, series, step_axis(series), Axis("nats per token"), height=340, showlegend=True)


def _some(study: Study) -> list[Setting]:
    """Not too many, spread over the prompt share; those with a name in the selection always, and last, so that they lie
    on top.
    """
    special = dict.fromkeys(s for key in ("conventional", "chosen") if (s := study.named(key)) is not None)
    rest = sorted((s for s in study.settings if s not in special), key=lambda s: (s.x or 0.0, s.name))
    return [*thinned(rest, _MOST_SETTINGS - len(special)), *special]


def _curves(study: Study, setting: Setting) -> dict[str, Curve]:
    """Held-out values by step over the seeds of a setting; training batches where nothing was held out."""
    made: dict[str, Curve] = {"response_nll": {}, "prompt_nll": {}}
    for trial in setting.trials:
        for row in _rows(study, trial):
            for key, curve in made.items():
                if isinstance(row.get(key), int | float) and isinstance(row.get("step"), int):
                    curve.setdefault(row["step"], []).append(float(row[key]))
    return made


def _rows(study: Study, trial: dict[str, Any]) -> list[dict[str, Any]]:
    path = trial.get("path")
    if not isinstance(path, str):
        return []
    rows, _ = read_rows(study.run.path / path / "rows.jsonl")
    held_out = [row for row in rows if row.get("kind") == "eval"]
    return held_out if len(held_out) > 1 else [row for row in rows if row.get("kind") == "train"]


def _series(study: Study, setting: Setting, curve: Curve) -> Series:
    steps = thinned(sorted(curve), _MOST_POINTS)
    values = [statistics.fmean(curve[step]) for step in steps]
    names = [key for key in ("chosen", "conventional") if setting is study.named(key)]
    if names:
        return Series(
            f"{' and '.join(names)} {setting.name}",
            steps,
            values,
            colour="@2" if "chosen" in names else "@1",
            width=2.6,
        )
    return Series(setting.name, steps, values, colour="@faint", width=1.1, legend=False)
