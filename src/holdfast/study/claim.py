"""Differences to conventional tuning on the test split -> the claim, and the sentence that states it.

The setting was chosen among all settings, so the intervals cover all of them. Without noise to be seen nothing is
claimed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.study import statistics as st
from holdfast.study.outcomes import SplitScores, TrainedSetting
from holdfast.tables.text import counted


@dataclass(frozen=True)
class DevChoice:
    """The setting that was chosen on dev, and what the sentence needs to know about the choice.

    standard_error: None without a noise estimate; then the best setting is chosen.
    stopped: settings that a search stopped early (``outcomes.stopped_settings``), which could have been chosen, too.
    unscored: settings of which no run has a score, each with the reason.
    alike: all runs scored the same on dev.
    lost: conventional tuning was tried and has no score.
    seeds: number of seeds on dev.
    alone: conventional tuning is the only setting with a score on dev.
    """

    best: TrainedSetting
    chosen: TrainedSetting
    reference: TrainedSetting | None
    standard_error: float | None
    stopped: tuple[dict[str, Any], ...] = ()
    unscored: tuple[str, ...] = ()
    alike: bool = False
    lost: bool = False
    seeds: int = 1
    alone: bool = False


def differences(test: SplitScores | None, choice: DevChoice, *, seed: int) -> dict[str, st.Difference]:
    """Return setting name -> difference to the conventional reference; empty without noise or without the reference.

    Where several settings are conventional (with several learning rates, say) the reference is the best of them on dev,
    and the intervals cover the comparisons with all of them.
    """
    reference = choice.reference
    if test is None or reference not in test.settings or not test.noisy:
        return {}
    usual = [k for k, setting in enumerate(test.settings) if setting.conventional]
    pairs = [(k, r) for r, k in itertools.product(usual, range(len(test.settings))) if k != r]
    if not pairs:
        return {}
    item_noise_J = np.array([test.item_noise(k, r) for k, r in pairs])
    compared = st.compare(test.fit, pairs, item_noise_J, test.item_count, stopped=len(choice.stopped), seed=seed)
    return {
        test.settings[k].name: d for (k, r), d in zip(pairs, compared, strict=True) if test.settings[r] is reference
    }


def conclude(
    choice: DevChoice, by_name: dict[str, st.Difference], test: SplitScores | None, metric: str, sign: int
) -> tuple[str, str]:
    """Return the sentence, and what it claims of the chosen setting against conventional tuning: better, worse or none.

    Settings that were not compared are named, and so are those that are better on test and were not chosen.

    Args:
        sign: 1 where more is better, -1 where less is.
    """
    passed_over = [] if test is None else _passed_over(choice, by_name, test, sign)
    sentence, claim = _of_the_chosen(choice, by_name, test, metric, sign, bool(passed_over))
    if passed_over and test is not None:
        figures = [
            f"{name} beats it by {_figures(by_name[name], name, choice, metric, len(by_name), test)}"
            for name in passed_over
        ]
        sentence += f" On test {'; '.join(figures)}; the choice, which looks at dev alone, is another."
    if choice.stopped and claim != "better":
        sentence += f" Stopped early: {'; '.join(map(_place, choice.stopped))}."
    if choice.unscored:
        sentence += f" Not compared: {', '.join(choice.unscored)}."
    return sentence, claim


def _of_the_chosen(
    choice: DevChoice,
    by_name: dict[str, st.Difference],
    test: SplitScores | None,
    metric: str,
    sign: int,
    passed_over: bool,
) -> tuple[str, str]:
    chosen = choice.chosen.name
    nothing = _nothing_to_say(choice, by_name, test)
    if nothing:
        return nothing, "none"
    if choice.chosen.conventional:
        return _conventional(choice, by_name, test, metric, passed_over), "none"
    assert test is not None
    difference = by_name[chosen]
    figures = _figures(difference, chosen, choice, metric, len(by_name), test)
    if difference.p > 0.05:
        beats = "shown to beat conventional tuning beyond noise"
        if passed_over:
            return f"{chosen}, chosen on dev, is not {beats}: it differs by {figures}.", "none"
        return f"{_whoever(choice)} is {beats}: {chosen}, chosen on dev, differs by {figures}.", "none"
    claim = "better" if sign * difference.mean > 0 else "worse"
    verb = "beats" if claim == "better" else "was chosen on dev but is worse than"
    return f"{chosen} {verb} conventional tuning on the test split by {figures}; this model and this data only.", claim


def _passed_over(choice: DevChoice, by_name: dict[str, st.Difference], test: SplitScores, sign: int) -> list[str]:
    """Return the settings that beat conventional tuning on test beyond noise and were not chosen; none if the chosen
    one does so, too."""
    better = [
        s.name
        for s in test.settings
        if s.name in by_name and by_name[s.name].p <= 0.05 and sign * by_name[s.name].mean > 0
    ]
    tuned = {s.name for s in test.settings if not s.conventional}
    return [] if choice.chosen.name in better else [name for name in better if name in tuned]


def _nothing_to_say(choice: DevChoice, by_name: dict[str, st.Difference], test: SplitScores | None) -> str | None:
    """Return the sentence for studies that support no comparison; None for others."""
    chosen, no_noise = choice.chosen.name, choice.standard_error is None
    cases = (  # (whether it applies, the sentence); the first that applies is taken
        (
            choice.alike,
            "All runs scored exactly alike on dev, so nothing can be said of any setting; "
            f"the simplest is taken: {chosen}.",
        ),
        (
            choice.reference is None and choice.lost,
            f"Conventional tuning failed, so nothing is compared with it; chosen on dev: {chosen}.",
        ),
        (
            choice.reference is None,
            "No setting that was trained has prompt weight 0, so nothing is compared with conventional tuning; "
            f"chosen on dev: {chosen}.",
        ),
        (
            choice.alone and choice.stopped,
            f"Only conventional tuning was trained to the end, so nothing is compared with it there; chosen: {chosen}.",
        ),
        (
            choice.alone and (choice.unscored or choice.seeds > 1),
            "Nothing is compared: conventional tuning is the only weighting with a score on dev; "
            f"chosen there: {chosen}.",
        ),
        (
            no_noise and choice.seeds > 1,
            "No setting has two runs with a score on dev, so no noise is seen and nothing is claimed; "
            f"best on dev: {chosen}.",
        ),
        (
            no_noise,
            f"One seed shows no noise, so nothing is claimed; best on dev: {chosen}. Two seeds or more would tell.",
        ),
        (
            not choice.chosen.conventional and chosen not in by_name,
            f"Nothing is claimed, because {_why_not(choice, test)}; chosen on dev: {chosen}.",
        ),
    )
    return next((sentence for applies, sentence in cases if applies), None)


def _why_not(choice: DevChoice, test: SplitScores | None) -> str:
    """Return why there are no differences to conventional tuning on test."""
    scored = {s.name for s in test.settings} if test is not None else set()
    if test is None or choice.reference is None or not {choice.chosen.name, choice.reference.name} <= scored:
        return (
            "conventional tuning has no score on test"
            if choice.chosen.conventional
            else "the test split does not have both scores"
        )
    if len(scored) == 1:
        return "no other setting has a score on test"
    if not test.fit.df:
        return "no setting has two runs with a score on test"
    return "every seed shows the same differences on test, so no noise is seen"


def _conventional(
    choice: DevChoice, by_name: dict[str, st.Difference], test: SplitScores | None, metric: str, passed_over: bool
) -> str:
    """Return the sentence for a study in which conventional tuning is chosen."""
    if not choice.standard_error:
        why = "every seed shows the same differences on dev, so no noise is seen there"
        return f"Nothing is claimed, because {why}; chosen on dev: {choice.chosen.name}."
    where = "the best"
    if choice.chosen is not choice.best:
        where = f"within one standard error ({choice.standard_error:.2g} {metric}) of the best, {choice.best.name}"
    if passed_over:
        return f"On dev conventional tuning is not beaten beyond noise: {choice.chosen.name} is {where}."
    if not by_name:
        who, why = _whoever(choice), _why_not(choice, test)
        at = f"{choice.chosen.name} is {where}; nothing is claimed of test, because {why}"
        return f"On dev {who[0].lower()}{who[1:]} beats conventional tuning beyond noise: {at}."
    return f"{_whoever(choice)} beats conventional tuning beyond noise: on dev {choice.chosen.name} is {where}."


def _whoever(choice: DevChoice) -> str:
    if choice.stopped:
        return "No setting that was trained to the end"
    return "No setting that has a score" if choice.unscored else "No setting"


def _place(stopped: dict[str, Any]) -> str:
    """Return where a search stopped a setting, and its gap to conventional tuning."""
    behind = stopped["behind"]
    at = f"{stopped['setting_name']} after {stopped['step']}"
    at += f" of {counted(stopped['steps'], 'step')}" if stopped["steps"] else " steps"
    if stopped["metric"] and stopped["score"] is None:
        return f"{at}, without a score in {stopped['metric']} on dev"
    if behind is None:
        return at
    side = "behind" if behind > 0 else "ahead of" if behind < 0 else "from"
    return f"{at}, {abs(behind):.2g} {side} conventional tuning in {stopped['metric']} on dev"


def _figures(
    difference: st.Difference, name: str, choice: DevChoice, metric: str, differences: int, test: SplitScores
) -> str:
    digits = max(0, 2 - math.ceil(math.log10(max(difference.high - difference.low, 1e-9))))
    count = differences + len(choice.stopped)
    many = f", all {count} comparisons covered" if count > 1 else ""
    interval = f"95 % interval {difference.low:+.{digits}f} to {difference.high:+.{digits}f}"
    return f"{difference.mean:+.{digits}f} {metric} ({interval}{many}; {_seeds(name, choice, test)})"


def _seeds(name: str, choice: DevChoice, test: SplitScores) -> str:
    """Return how many seeds a setting and the reference share, and of how many."""
    own: dict[str, set[int]] = {}
    for k, seed in zip(test.setting_N, test.seed_N, strict=True):
        own.setdefault(test.settings[k].name, set()).add(seed)
    every = len(set(test.seed_N))
    shared = len(own[name] & own[choice.reference.name]) if choice.reference else every
    return counted(every, "seed") if shared == every else f"{shared} of {counted(every, 'seed')}"
