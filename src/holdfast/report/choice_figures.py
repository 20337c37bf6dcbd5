"""The figures that a study's choice rests on: metric against prompt share, difference to conventional, fit against
steadiness.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from holdfast.report.figures import Axis, Series, level, level_name, points
from holdfast.report.parts import Figure, Part
from holdfast.report.settings import Setting, Study, with_unit
from holdfast.tables.record import Interval
from holdfast.tables.text import number


def share_figure(study: Study) -> Figure:
    """The metric against the prompt share of the weighted loss; the chosen and the conventional setting stand out."""
    known = sorted(
        (s for s in study.settings if s.x is not None and s.test.value is not None), key=lambda s: s.x or 0.0
    )
    chosen, conventional = study.named("chosen"), study.named("conventional")
    plain = [s for s in known if s not in (chosen, conventional)]
    groups = (("settings", plain, "@muted", 8), *_special(known, chosen, conventional))
    series = [
        Series(name, [s.x for s in found], [s.test for s in found], [s.about for s in found], "dots", colour, size=size)
        for name, found, colour, size in groups
        if found
    ]
    dev = [s for s in known if s.dev.value is not None]
    series.append(
        Series(
            "dev split",
            [s.x for s in dev],
            [s.dev.value for s in dev],
            [s.about for s in dev],
            look="rings",
            colour="@faint",
            size=7,
        )
    )
    more, away = _untuned(study, [v for one in series for v in one.values if v is not None])
    interval = "bars are 95 % intervals" if any(s.test.low is not None for s in known) else "no intervals yet"
    caption = (
        f"Filled dots are means on the test split over {study.seeds}, {interval}; rings are the dev split, on which "
        "the choice is made. "
        f"A flat band means that the weights do not matter here.{away}"
    )
    title = f"{study.metric} against the prompt share of the loss"
    return points(
        title,
        caption,
        series,
        _share_axis([s.x or 0.0 for s in known]),
        Axis(with_unit(study.metric)),
        height=420,
        **more,
    )


def differences(study: Study) -> list[Part]:
    """What each setting gains over the conventional one, on the test split."""
    known = sorted((s for s in study.settings if s.difference), key=lambda s: s.x or 0.0)
    if not known:
        return []
    found = [s.difference or {} for s in known]
    estimates = [Interval(d.get("mean"), d.get("low"), d.get("high")) for d in found]
    notes = [f"p = {number(d.get('p'), 4)}; {s.about}" for s, d in zip(known, found, strict=True)]
    names = [s.name for s in known]
    dots = Series("difference", names, estimates, notes, "dots", "@accent")
    side = "Below" if study.better(study.metric) == "lower" else "Above"
    caption = (
        f"Difference to the conventional setting on the test split over {study.seeds}, in order of prompt share, with "
        "95 % intervals that "
        f"hold for all {len(known)} comparisons at once. {side} 0 is better; an interval that holds 0 shows no "
        "difference."
    )
    axes = Axis("setting", names=names), Axis(f"difference in {with_unit(study.metric)}")
    return [points("Difference to conventional tuning", caption, [dots], *axes, shapes=[level(0.0)])]


def trade_off(study: Study) -> list[Part]:
    """Response NLL against POSIX, by setting; none where a study did not measure both."""
    known = [s for s in study.settings if s.all("response_nll") and s.all("posix")]
    if len(known) < 2:
        return []
    series = [_place("settings", known, look="dots", size=11, shade=("prompt share", [s.x for s in known]))]
    special = _special(known, study.named("chosen"), study.named("conventional"))
    series += [_place(name, found, look="rings", colour=colour, size=17) for name, found, colour, _ in special if found]
    caption = (
        f"Means of {len(known)} settings over {study.seeds} on the test split, shaded by prompt share; left fits "
        "better, down is steadier. "
        "The spread over seeds stands with the values."
    )
    axes = Axis("response NLL, nats per token"), Axis("POSIX, nats per token")
    legend = {"itemsizing": "constant"}
    return [points("Fit against steadiness", caption, series, *axes, height=420, legend=legend)]


def _special(
    known: Sequence[Setting], chosen: Setting | None, conventional: Setting | None
) -> list[tuple[str, list[Setting], str, int]]:
    """Name, settings, colour and size of what stands out; one entry where the conventional setting is the chosen
    one.
    """
    if chosen is not None and chosen is conventional:
        return [("chosen: conventional", [s for s in known if s is chosen], "@2", 13)]
    return [
        ("conventional", [s for s in known if s is conventional], "@1", 11),
        ("chosen", [s for s in known if s is chosen], "@2", 13),
    ]


def _place(name: str, settings: Sequence[Setting], **look: Any) -> Series:
    notes = [f"{s.about}; sd {_sd(s.all('response_nll'))} and {_sd(s.all('posix'))}" for s in settings]
    return Series(name, [s.mean("response_nll") for s in settings], [s.mean("posix") for s in settings], notes, **look)


def _untuned(study: Study, shown: Sequence[float]) -> tuple[dict[str, Any], str]:
    """A line for the untuned model where it is in reach of the others; otherwise a sentence."""
    base = (study.base.get("test") or {}).get(study.metric)
    if not isinstance(base, int | float) or not shown:
        return {}, ""
    reach = max(shown) - min(shown)
    if min(shown) - reach <= base <= max(shown) + reach:
        return {"shapes": [level(base)], "annotations": [level_name(base, "untuned model")]}, ""
    return {}, f" The untuned model ({number(base)}) is out of this picture."


def _share_axis(shares: Sequence[float]) -> Axis:
    """Logarithmic where shares come close to 0."""
    title = "prompt share of the weighted target mass"
    positive = [share for share in shares if share > 0]
    if positive and min(positive) < 0.04:
        return Axis(title, floor=min(positive) / 3, digits=4)
    reach = max([*positive, 0.1])
    return Axis(title, {"range": [-0.04 * reach, 1.05 * reach]})


def _sd(values: Sequence[float]) -> str:
    return number(statistics.stdev(values) if len(values) > 1 else None)
