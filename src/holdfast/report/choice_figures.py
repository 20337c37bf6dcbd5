"""The figures that a study's choice rests on: metric against prompt share, difference to conventional, fit against
steadiness.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, Value, level, level_name, points
from holdfast.report.parts import Figure, Part
from holdfast.report.settings import Study, TunedSetting
from holdfast.report.terms import as_title, in_words, with_unit
from holdfast.tables.record import Interval
from holdfast.tables.text import counted, number


def share_figure(study: Study) -> Figure:
    """Return the metric against the prompt share of the weighted loss; the chosen and the conventional setting stand
    out.
    """
    placed = sorted(
        (s for s in study.settings if s.x is not None and s.test.value is not None), key=lambda s: s.x or 0.0
    )
    chosen, conventional = study.named("chosen"), study.named("conventional")
    plain = [s for s in placed if s not in (chosen, conventional)]
    series = []
    for name, settings, colour, size in (("settings", plain, "@muted", 8), *_special(placed, chosen, conventional)):
        if settings:
            x, notes = [s.x for s in settings], [s.about for s in settings]
            series.append(Series(name, x, [s.test for s in settings], notes, "dots", colour, size=size))
    dev = [s for s in placed if s.dev.value is not None]
    x, values, notes = [s.x for s in dev], [s.dev.value for s in dev], [s.about for s in dev]
    series.append(Series("dev split", x, values, notes, look="rings", colour="@faint", size=7))
    more, away = _untuned(study, list(itertools.chain.from_iterable(one.values for one in series)))
    interval = "bars are 95 % intervals" if any(s.test.low is not None for s in placed) else "no intervals yet"
    caption = (
        f"Filled dots are means on the test split over {study.seeds}, {interval}; rings are the dev split, on which "
        f"the choice is made. A flat band means that the weights do not matter here.{away}"
    )
    title = f"{as_title(in_words(study.metric))} against the prompt share of the loss"
    axes = _share_axis([s.x or 0.0 for s in placed]), Axis(with_unit(study.metric))
    return points(title, caption, series, *axes, height=420, **more)


def differences(study: Study) -> list[Part]:
    """Return a figure of what each setting gains over the conventional one on the test split, if there is any."""
    compared = sorted((s for s in study.settings if s.difference), key=lambda s: s.x or 0.0)
    if not compared:
        return []
    estimates = [Interval.of(s.difference, "mean") for s in compared]
    notes = [f"p = {number((s.difference or {}).get('p'), 4)}; {s.about}" for s in compared]
    names = [s.name for s in compared]
    dots = Series("difference", names, estimates, notes, "dots", "@accent")
    side = "Below" if study.better(study.metric) == "lower" else "Above"
    caption = (
        f"Difference to the conventional setting on the test split over {study.seeds}, in order of prompt share, with "
        f"95 % intervals that hold for all {len(compared)} comparisons at once. {side} 0 is better; an interval that "
        "holds 0 shows no difference."
    )
    axes = Axis("setting", names=names), Axis(f"difference in {with_unit(study.metric)}")
    return [points("Difference to conventional tuning", caption, [dots], *axes, shapes=[level(0.0)])]


def trade_off(study: Study) -> list[Part]:
    """Return response NLL against POSIX, by setting; none where a study has not measured both."""
    measured = [s for s in study.settings if s.all("response_nll") and s.all("posix")]
    if len(measured) < 2:
        return []
    series = [_place("settings", measured, look="dots", size=11, shade=("prompt share", [s.x for s in measured]))]
    for name, settings, colour, _ in _special(measured, study.named("chosen"), study.named("conventional")):
        if settings:
            series.append(_place(name, settings, look="rings", colour=colour, size=17))
    caption = (
        f"Means of {counted(len(measured), 'setting')} over {study.seeds} on the test split, shaded by "
        "prompt share; left fits "
        "better, down is steadier. The spread over seeds stands with the values."
    )
    axes = Axis(with_unit("response_nll")), Axis(with_unit("posix"))
    legend = {"itemsizing": "constant"}
    return [points("Fit against steadiness", caption, series, *axes, height=420, legend=legend)]


def _special(
    settings: Sequence[TunedSetting], chosen: TunedSetting | None, conventional: TunedSetting | None
) -> list[tuple[str, list[TunedSetting], str, int]]:
    """Return name, settings, colour and size of what stands out: two entries, or one where the conventional setting is
    also the chosen one.
    """
    named = [("conventional", conventional, "@1", 11), ("chosen", chosen, "@2", 13)]
    if chosen is not None and chosen is conventional:
        named = [("chosen: conventional", chosen, "@2", 13)]
    return [
        (name, [one] if one is not None and one in settings else [], colour, size) for name, one, colour, size in named
    ]


def _place(name: str, settings: Sequence[TunedSetting], **look: Any) -> Series:
    notes = [f"{s.about}; sd {_sd(s.all('response_nll'))} and {_sd(s.all('posix'))}" for s in settings]
    return Series(name, [s.mean("response_nll") for s in settings], [s.mean("posix") for s in settings], notes, **look)


def _untuned(study: Study, others: Sequence[Value]) -> tuple[dict[str, Any], str]:
    """Return a line for the untuned model where its value is near the others, so that they stay apart; otherwise a
    sentence.
    """
    base = (study.base.get("test") or {}).get(study.metric)
    values = [value for value in others if value is not None]
    if not isinstance(base, int | float) or not values:
        return {}, ""
    reach = max(values) - min(values)
    if min(values) - reach <= base <= max(values) + reach:
        return {"shapes": [level(base)], "annotations": [level_name(base, "untuned model")]}, ""
    return {}, f" The untuned model ({number(base)}) is out of this picture."


def _share_axis(shares: Sequence[float]) -> Axis:
    """Return the axis of prompt shares; it is logarithmic where shares come close to 0."""
    title = "prompt share of the weighted target mass"
    positive = [share for share in shares if share > 0]
    if positive and min(positive) < 0.04:
        return Axis(title, floor=min(positive) / 3, digits=4)
    reach = max([*positive, 0.1])
    return Axis(title, {"range": [-0.04 * reach, 1.05 * reach]})


def _sd(values: Sequence[float]) -> str:
    return number(statistics.stdev(values) if len(values) > 1 else None)
