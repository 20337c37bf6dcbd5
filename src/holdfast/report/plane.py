"""Settings of a study -> the plane of prompt weight and response weight.

Under AdamW without clipping only the ratio of the weights matters, so all cells on a ray from the origin are the same
training. They get one value, one colour, and a line through them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.report.figures import estimate
from holdfast.report.heatmap import Matrix, Noise, frame, noise_map
from holdfast.report.lead import seen_noise
from holdfast.report.parts import Figure
from holdfast.report.settings import Study, TunedSetting
from holdfast.report.terms import METRICS, in_words, with_unit
from holdfast.tables.record import Interval
from holdfast.tables.text import counted, label, number

_FEWEST_CELLS = 6

Places = Mapping[tuple[float, float], tuple[int, int]]
"""Cell (prompt weight, response weight) -> its column and row in the figure."""


def planes(study: Study, metric: str) -> list[Figure]:
    """Return one plane for every combination of the other options that are varied, the one with the chosen setting
    first, and six at most. There is none where only one of the two weights was varied, nor of fewer than six cells:
    those are read faster in the table of settings.
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
    if len(across) < 2 or len(up) < 2 or len(cells) < _FEWEST_CELLS:
        return None
    places = {(p, r): (across.index(p), up.index(r)) for p, r in cells}
    values: list[list[float | Interval | None]] = [[None] * len(across) for _ in up]
    bands: list[list[float | None]] = [[None] * len(across) for _ in up]
    notes = [[""] * len(across) for _ in up]
    spread = _spread(study, metric)
    for cell, s in cells.items():
        column, row = places[cell]
        values[row][column] = _value(study, metric, s)
        bands[row][column] = _band(study, metric, s, spread)
        notes[row][column] = _note(study, metric, s)
    title = f"Weight plane: {in_words(metric)}" + (
        f" ({others})" if len({s.others for s in study.settings}) > 1 else ""
    )
    axes = ("response weight", "prompt weight", with_unit(metric))
    matrix = Matrix(values, [f"{r:g}" for r in up], [f"{p:g}" for p in across], notes, axes, _digits(values))
    frames = _frames(study, settings, places)
    reference = _reference(study, metric, cells)
    unit = f"difference, {METRICS[metric][1]}" if metric in METRICS else "difference"
    noise = Noise([reference] * len(across), bands, study.better(metric) == "lower", unit)
    caption = f"{_caption(study, metric, settings)} {_colours(study, metric, spread)}"
    figure = noise_map(title, caption, matrix, noise, shapes=frames, showlegend=False)
    data, height = [*figure.data, *_rays(settings, places)], max(300, 130 + 48 * len(up))
    return dataclasses.replace(figure, data=data, height=height)


def _caption(study: Study, metric: str, settings: Sequence[TunedSetting]) -> str:
    said = (
        f"Mean {in_words(metric)} on the test split ({study.better(metric)} is better) over {study.seeds} per "
        f"training: {counted(sum(len(s.members) for s in settings), 'cell')} are "
        f"{counted(len(settings), 'distinct training')}"
    )
    if _merged(settings):
        said += "; lines join the cells of equal ratio, which are one and the same run"
    has_ends = metric == study.metric and any(s.test.low is not None for s in settings)
    ends = "95 % intervals stand with the values." if has_ends else "No intervals are shown."
    return " ".join([f"{said}.", *_legend(study, settings), ends])


def _spread(study: Study, metric: str) -> float | None:
    """The standard deviation between trainings that differ in their seed alone, pooled over settings; None where no
    setting has two, or where they do not differ at all.
    """
    if metric == study.metric and "noise" in study.selection:
        return seen_noise(study)
    by_setting = [s.all(metric) for s in study.settings]
    groups = [values for values in by_setting if len(values) > 1]
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(v) * (len(v) - 1) for v in groups) / freedom) or None


def _band(study: Study, metric: str, setting: TunedSetting, spread: float | None) -> float | None:
    """How far a setting must be from conventional tuning to be more than noise: half the study's own interval of the
    difference, or two standard errors of it where the study has none.
    """
    if spread is None:
        return None
    difference = Interval.of(setting.difference, "mean") if metric == study.metric else Interval(None)
    if difference.low is not None and difference.high is not None:
        return (difference.high - difference.low) / 2
    conventional = study.named("conventional")
    counts = [max(1, len(one.all(metric))) for one in (setting, conventional or setting)]
    return 2 * spread * math.sqrt(sum(1 / count for count in counts))


def _reference(study: Study, metric: str, cells: Mapping[tuple[float, float], TunedSetting]) -> float | None:
    """The value of conventional tuning, or the middle one of the plane where a study has none."""
    conventional = study.named("conventional")
    if conventional is not None:
        return estimate(_value(study, metric, conventional))
    estimates = [estimate(_value(study, metric, s)) for s in cells.values()]
    values = [value for value in estimates if value is not None]
    return statistics.median(values) if values else None


def _colours(study: Study, metric: str, spread: float | None) -> str:
    if spread is None:
        why = "one seed shows no noise" if max(len(s.trials) for s in study.settings) < 2 else "no noise was seen"
        return f"All cells have one neutral shade, as {why} and nothing is shown."
    other = "conventional tuning" if study.named("conventional") else "the middle cell"
    return (
        f"Green is better than {other} and orange worse, beyond the noise between seeds (standard deviation "
        f"{number(spread)}); cells that noise explains have one neutral shade."
    )


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
