"""What may be said: differences to conventional tuning on the test split, and the sentence.

The choice was made among all settings, so the intervals cover all of them. Where noise cannot be seen, nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.study import statistics as st
from holdfast.study.outcomes import Scores, Setting


@dataclass(frozen=True)
class Choice:
    """What the dev split says. ``standard_error`` is None without any noise estimate; then the best is chosen. ``alike``: all runs scored
    the same there.

    ``stopped`` counts the settings that a search has stopped before the end: they too could have been chosen. ``lost``: conventional tuning
    was tried and has no score.
    """

    best: Setting
    chosen: Setting
    reference: Setting | None
    standard_error: float | None
    stopped: int = 0
    alike: bool = False
    lost: bool = False


def differences(test: Scores | None, choice: Choice, *, seed: int) -> dict[str, st.Difference]:
    """Setting name -> difference to the conventional reference; empty without noise or without the reference.

    Where several settings are conventional (at other learning rates, say) the reference is the best of them on dev, and the intervals
    cover the comparisons with all of them.
    """
    reference = choice.reference
    if test is None or reference not in test.settings or not test.noisy:
        return {}
    usual = [k for k, s in enumerate(test.settings) if s.conventional]
    pairs = [(k, r) for r in usual for k in range(len(test.settings)) if k != r]
    if not pairs:
        return {}
    luck = np.array([test.item_luck(k, r) for k, r in pairs])
    found = st.compare(test.fit, pairs, luck, test.item_count, stopped=choice.stopped, seed=seed)
    return {test.settings[k].name: d for (k, r), d in zip(pairs, found, strict=True) if test.settings[r] is reference}


def conclude(choice: Choice, found: dict[str, st.Difference], test: Scores | None, metric: str, sign: int) -> tuple[str, str]:
    """The sentence, and what it claims of the chosen setting against conventional tuning: better, worse or none.

    Args:
        sign: 1 where more is better, -1 where less is.
    """
    chosen = choice.chosen.name
    nothing = _nothing_to_say(choice, found, test)
    if nothing:
        return nothing, "none"
    if choice.chosen.conventional:
        return _conventional(choice, metric), "none"
    assert test is not None
    difference = found[chosen]
    figures = _figures(difference, metric, len(found) + choice.stopped, test)
    if difference.p > 0.05:
        return f"No setting is shown to beat conventional tuning beyond noise: {chosen}, chosen on dev, differs by {figures}.", "none"
    claim = "better" if sign * difference.mean > 0 else "worse"
    verb = "beats" if claim == "better" else "was chosen on dev but is worse than"
    return f"{chosen} {verb} conventional tuning on the test split by {figures}; this model and this data only.", claim


def _nothing_to_say(choice: Choice, found: dict[str, st.Difference], test: Scores | None) -> str | None:
    chosen = choice.chosen.name
    if choice.alike:
        return f"All runs scored exactly alike on dev, so nothing can be said of any setting; the simplest is taken: {chosen}."
    if choice.reference is None and choice.lost:
        return f"Conventional tuning failed, so nothing is compared with it; chosen on dev: {chosen}."
    if choice.reference is None:
        return f"No setting has prompt weight 0, so nothing is compared with conventional tuning; chosen on dev: {chosen}."
    if choice.standard_error is None:
        return f"One seed shows no noise, so nothing is claimed; best on dev: {chosen}. Two seeds or more would tell."
    if choice.chosen.conventional or chosen in found:
        return None
    both = test is not None and {choice.chosen.name, choice.reference.name} <= {s.name for s in test.settings}
    why = "every seed shows the same differences on test, so no noise is seen" if both else "the test split does not have both scores"
    return f"Nothing is claimed, because {why}; chosen on dev: {chosen}."


def _conventional(choice: Choice, metric: str) -> str:
    where = "the best"
    if choice.chosen is not choice.best:
        where = f"within one standard error ({choice.standard_error:.2g} {metric}) of the best, {choice.best.name}"
    return f"No setting beats conventional tuning beyond noise: on dev {choice.chosen.name} is {where}."


def _figures(found: st.Difference, metric: str, count: int, test: Scores) -> str:
    digits = max(0, 2 - math.ceil(math.log10(max(found.high - found.low, 1e-9))))
    many = f", all {count} comparisons covered" if count > 1 else ""
    interval = f"95 % interval {found.low:+.{digits}f} to {found.high:+.{digits}f}"
    return f"{found.mean:+.{digits}f} {metric} ({interval}{many}; {len(set(test.seed_N))} seeds)"
