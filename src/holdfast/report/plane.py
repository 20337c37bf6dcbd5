"""Settings of a study -> the plane of prompt weight and response weight.

Under AdamW without clipping only the ratio of the weights matters, so all cells on a ray from the origin are the same
training. They get one value, one colour, and a line through them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.report.figures import estimate
from holdfast.report.heatmap import Matrix, frame, heat_map
from holdfast.report.parts import Figure
from holdfast.report.settings import Study, TunedSetting, with_unit
from holdfast.tables.record import Interval
from holdfast.tables.text import label, number

Places = Mapping[tuple[float, float], tuple[int, int]]
"""Cell (prompt weight, response weight) -> its column and row in the figure."""


def planes(study: Study, metric: str) -> list[Figure]:
    """Return one plane for every combination of the other options that are varied, the one with the chosen setting
    first, and six at most. There is none where only one of the two weights was varied.
    """
    chosen = study.named("chosen")
    groups = dict.fromkeys(s.others for s in sorted(study.settings, key=lambda s: s is not chosen))
    return list(itertools.islice(filter(None, (_plane(study, metric, others) for others in groups)), 6))


def _plane(study: Study, metric: str, others: str) -> Figure | None:
    settings = [s for s in study.settings if s.others == others]
    cells: dict[tuple[float, float], TunedSetting] = {}
    for s in settings:
        cells |= dict.fromkeys(s.members, s)
    across, up = sorted({p for p, _ in cells}), sorted({r for _, r in cells}, reverse=True)
    if len(across) < 2 or len(up) < 2:
        return None
    places = {(p, r): (across.index(p), up.index(r)) for p, r in cells}
    values: list[list[float | Interval | None]] = [[None] * len(across) for _ in up]
    notes = [[""] * len(across) for _ in up]
    for cell, s in cells.items():
        column, row = places[cell]
        values[row][column] = _value(study, metric, s)
        notes[row][column] = _note(study, metric, s)
    title = f"Weight plane: {metric}" + (f" ({others})" if len({s.others for s in study.settings}) > 1 else "")
    axes = ("response weight", "prompt weight", with_unit(metric))
    matrix = Matrix(values, [f"{r:g}" for r in up], [f"{p:g}" for p in across], notes, axes, _digits(values))
    frames = _frames(study, settings, places)
    figure = heat_map(title, _caption(study, metric, settings), matrix, shapes=frames, showlegend=False)
    data, height = [*figure.data, *_rays(settings, places)], max(300, 130 + 48 * len(up))
    return dataclasses.replace(figure, data=data, height=height)


def _caption(study: Study, metric: str, settings: Sequence[TunedSetting]) -> str:
    said = (
        f"Mean {metric} on the test split ({study.better(metric)} is better) over {study.seeds} per training: "
        f"{sum(len(s.members) for s in settings)} cells are {len(settings)} distinct trainings"
    )
    if _merged(settings):
        said += "; lines join the cells of equal ratio, which are one and the same run"
    has_ends = metric == study.metric and any(s.test.low is not None for s in settings)
    ends = "95 % intervals stand with the values." if has_ends else "No intervals are shown."
    return " ".join([f"{said}.", *_legend(study, settings), ends])


def _legend(study: Study, settings: Sequence[TunedSetting]) -> list[str]:
    chosen, conventional = study.named("chosen"), study.named("conventional")
    if chosen is not None and chosen is conventional:
        return ["Framed: the conventional setting, which is also the chosen one."] if chosen in settings else []
    frames = ((chosen, "Solid frame: chosen."), (conventional, "Dotted frame: conventional."))
    return [text for setting, text in frames if setting in settings]


def _value(study: Study, metric: str, setting: TunedSetting) -> float | Interval | None:
    return setting.test if metric == study.metric and setting.test.value is not None else setting.mean(metric)


def _note(study: Study, metric: str, setting: TunedSetting) -> str:
    said = [f"training {setting.name}, {setting.seeds}"]
    if metric == study.metric and setting.test.low is not None:
        said.append(f"95 % interval {number(setting.test.low)} to {number(setting.test.high)}")
    if setting.share is not None:
        said.append(f"prompt share {number(setting.share)}")
    return "; ".join(said)


def _merged(settings: Sequence[TunedSetting]) -> list[TunedSetting]:
    """Return the settings that stand for several cells of equal ratio."""
    return [s for s in settings if len(s.members) > 1]


def _rays(settings: Sequence[TunedSetting], places: Places) -> list[dict[str, Any]]:
    """Return a line with a light rim for each training that stands for several cells. It passes their numbers."""
    rays = []
    for s in _merged(settings):
        cells = [places[cell] for cell in sorted(s.members)]
        right, down = _beside(cells)
        line: dict[str, Any] = {"x": [x + right for x, _ in cells], "y": [y + down for _, y in cells]}
        line |= {"name": label(s.name), "hoverinfo": "skip"}
        for colour, width, size in (("@paper", 3.5, 8), ("@ink", 1.2, 5)):
            style = {"line": {"color": colour, "width": width}, "marker": {"size": size, "color": colour}}
            rays.append({"type": "scatter", "mode": "lines+markers"} | line | style)
    return rays


def _beside(cells: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """How far a ray is moved within its cells so that it passes their numbers, and those of the cells between them."""
    (x0, y0), (x1, y1) = cells[0], cells[-1]
    if x0 == x1:
        return -0.32, 0.0
    slope = abs((y1 - y0) / (x1 - x0))
    return (0.05, 0.38) if slope > 1 else (-0.3, 0.4) if 0 < slope < 1 else (0.0, 0.3)


def _frames(study: Study, settings: Sequence[TunedSetting], places: Places) -> list[dict[str, Any]]:
    """Return frames: solid around the cells of the chosen training, dotted around those of the conventional one."""
    chosen, conventional = study.named("chosen"), study.named("conventional")
    frames = []
    for setting, colour, dash in ((conventional, "@ink", "dot"), (chosen, "@2", "solid")):
        if setting is not None and setting in settings and not (dash == "dot" and setting is chosen):
            frames += [frame(*places[cell], colour, dash) for cell in setting.members]
    return frames


def _digits(values: Sequence[Sequence[float | Interval | None]]) -> int:
    """Return how many digits are needed to tell the cells apart."""
    numbers = [v for v in map(estimate, itertools.chain.from_iterable(values)) if v is not None]
    reach = max(numbers, default=1.0) - min(numbers, default=0.0)
    return 1 if reach > 20 else 2 if reach > 0.5 else 3
