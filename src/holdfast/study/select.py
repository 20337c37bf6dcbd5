"""Which setting to use, and what may be claimed about it.

In: the trial rows of a study. Out: every setting with intervals, the chosen one, differences to conventional tuning, a
sentence.

    dev scores  -> best setting -> simplest setting within one standard error of it = chosen         (Breiman et al.
    1984)
    test scores -> differences to conventional tuning, all intervals at once -> what may be claimed
    (``statistics.compare``)

The choice never reads the test split. The claim does, and not for the chosen setting alone: a lucky training is lucky
on both splits, so a setting picked on dev arrives with its luck on test, and the interval has to cover every setting
that could have been picked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.study import statistics as st
from holdfast.study.claim import DevChoice, conclude, differences
from holdfast.study.outcomes import (
    Row,
    SplitScores,
    TrainedSetting,
    gather,
    split_scores,
    stopped_settings,
    unscored_settings,
)


def select(
    rows: Sequence[Row], *, metric: str, higher_is_better: bool, seed: int = 0, root: str | Path | None = None
) -> dict[str, Any]:
    """Choose on dev, report on test.

    Args:
        rows: rows of one model and data set of a study; only trials that are done count, and of a halving search those
            of the last rung; settings that it stopped earlier are counted among those that could have been chosen.
        metric: the name of a score of every trial's ``dev`` and ``test``.
        seed: of the simulations.
        root: the study directory, where the files of scores per item lie. Without it the luck of the test items is not
            counted.

    Returns:
        ``settings`` (mean, sd and 95 % interval per split, ``difference`` to conventional on test with simultaneous 95
        % interval and adjusted p), ``chosen``, ``best_on_dev``, ``one_standard_error`` (None: no noise to be seen),
        ``conventional``, ``noise``, ``naive`` (best on test, which nobody should report), ``finding``, ``claim``
        (better, worse or none), ``left_out`` (trial ids), ``stopped`` (where a search stopped which setting, and its
        gap to conventional tuning).

    Raises:
        HoldfastError: no finished trial, or a trial without the metric.
    """
    settings, left_out = gather(rows, metric)
    sign = 1 if higher_is_better else -1
    dev, test = (split_scores(settings, split, metric, root) for split in ("dev", "test"))
    assert dev is not None  # gather has seen to it
    lost = any(row.get("kind") == "trial" and row["ratio"] == 0 for row in rows)
    stopped, unscored = stopped_settings(rows, settings), unscored_settings(rows, settings, left_out)
    choice = choose(dev, sign, stopped=stopped, unscored=unscored, lost=lost)
    differences_by_name = differences(test, choice, seed=seed)
    finding, claim = conclude(choice, differences_by_name, test, metric, sign)
    return {
        "settings": [
            {
                "setting": s.fields,
                "setting_name": s.name,
                "ratio": s.ratio,
                "prompt_share": s.prompt_share,
                "members": s.members,
                "conventional": s.conventional,
                "seeds": len({run["seed"] for run in s.runs}),
                "dev": _interval(dev, s),
                "test": _interval(test, s),
                "difference": vars(differences_by_name[s.name]) if s.name in differences_by_name else None,
            }
            for s in settings
        ],
        "chosen": choice.chosen.name,
        "best_on_dev": choice.best.name,
        "one_standard_error": choice.standard_error,
        "conventional": choice.reference.name if choice.reference else None,
        "noise": _noise(test or dev),
        "naive": _naive(test, choice.reference, sign, seed) if test else None,
        "finding": finding,
        "claim": claim,
        "left_out": left_out,
        "stopped": stopped,
    }


def choose(
    dev: SplitScores,
    sign: int,
    *,
    stopped: Sequence[dict[str, Any]] = (),
    unscored: Sequence[str] = (),
    lost: bool = False,
) -> DevChoice:
    """The one-standard-error rule.

    The standard error is that of the best setting's mean: the noise of a run, pooled over all settings after the luck
    of each seed (which all settings share) is taken off, over the root of the setting's number of seeds. Simplest is
    the smallest prompt share; among settings of one share the better.
    """
    settings, mean_K = dev.settings, sign * dev.fit.mean_K
    best = int(mean_K.argmax())
    error = math.sqrt(dev.fit.variance * float((dev.fit.estimate_KN[best] ** 2).sum())) if dev.fit.df else None
    margin = max(error or 0.0, st.ROUNDING * abs(mean_K[best]))  # rounding decides nothing
    near = [k for k in range(len(settings)) if mean_K[k] >= mean_K[best] - margin]
    chosen = min(near, key=lambda k: (settings[k].prompt_share, -mean_K[k]))
    usual = [k for k, s in enumerate(settings) if s.conventional]
    reference = settings[max(usual, key=lambda k: mean_K[k])] if usual else None
    return DevChoice(
        best=settings[best],
        chosen=settings[chosen],
        reference=reference,
        standard_error=error,
        stopped=tuple(stopped),
        unscored=tuple(unscored),
        alike=st.alike(dev.value_N),
        lost=lost and reference is None,
        seeds=len(set(dev.seed_N)),
        alone=all(s.conventional for s in settings),
    )


def _interval(scores: SplitScores | None, setting: TrainedSetting) -> dict[str, float | None] | None:
    """Mean, sd over seeds, and the 95 % interval for new seeds (and new items, where scores per item are known)."""
    if scores is None or setting not in scores.settings:
        return None
    k = scores.settings.index(setting)
    own, luck = scores.values(k), scores.item_luck(k)
    parts = [
        (scores.spread.variance / len(own), scores.spread.effective_df),
        *([(luck, scores.item_count - 1)] if luck else []),
    ]
    return {**st.mean_interval(float(own.mean()), parts), "sd": float(own.std(ddof=1)) if len(own) > 1 else None}


def _noise(scores: SplitScores) -> dict[str, float | int | None]:
    """Standard deviation between runs of one setting, pooled over settings."""
    spread = scores.spread
    return {"sd": math.sqrt(spread.variance) if spread.df else None, "df": spread.df}


def _naive(test: SplitScores, reference: TrainedSetting | None, sign: int, seed: int) -> dict[str, Any]:
    """The best setting on the test split, its gain (positive: better) over conventional, and how much of that luck
    alone would give.
    """
    mean_K = np.array([test.values(k).mean() for k in range(len(test.settings))])
    best = int((sign * mean_K).argmax())
    figures: dict[str, Any] = {
        "setting_name": test.settings[best].name,
        "test": float(mean_K[best]),
        "gain": None,
        "luck": None,
    }
    warning = f"picked on the split it is reported on, from {len(mean_K)} settings"
    if len(mean_K) == 1:
        warning = "the only setting with a score on test"
    elif reference in test.settings:
        base = test.settings.index(reference)
        figures["gain"] = float(sign * (mean_K[best] - mean_K[base]))
        if test.noisy:
            figures["luck"] = st.luck_of_the_best(test.fit, base, seed=seed)
            warning += f"; were all equal, the luckiest would still lead conventional tuning by {figures['luck']:.2g} on average"
    return {**figures, "warning": warning}
