"""Trial rows of a study -> every setting with intervals, the chosen one, and what may be claimed about it.

    dev scores  -> best setting -> simplest setting within one standard error of it (Breiman et al. 1984) = chosen
    test scores -> simultaneous intervals of the differences to conventional tuning (``statistics.compare``) = claim

The choice never reads the test split. The claim does, and for all settings: a training that noise favours is favoured
on both splits, so the noise that a setting was picked by on dev is on test, too. So the interval has to cover every
setting that could have been picked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
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
from holdfast.tables.text import counted


def select(
    rows: Sequence[Row], *, metric: str, higher_is_better: bool, seed: int = 0, root: str | Path | None = None
) -> dict[str, Any]:
    """Choose on dev, report on test.

    Args:
        rows: rows of one model and data set of a study. Only trials that are done count; in a halving search those of
            the last rung. The settings that it stopped earlier count among those that could have been chosen.
        metric: the name of a score of every trial's ``dev`` and ``test``.
        seed: of the simulations.
        root: the study directory, which holds the scores per item. Without it the noise of test items is left out.

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
    assert dev is not None  # gather keeps only settings with a dev score
    tried = any(row.get("kind") == "trial" and row["ratio"] == 0 for row in rows)
    stopped, unscored = stopped_settings(rows, settings), unscored_settings(rows, settings, left_out)
    choice = choose(dev, sign, stopped=stopped, unscored=unscored, lost=tried)
    compared = differences(test, choice, seed=seed)
    finding, claim = conclude(choice, compared, test, metric, sign)
    return {
        "settings": [
            {
                "setting": setting.fields,
                "setting_name": setting.name,
                "ratio": setting.ratio,
                "prompt_share": setting.prompt_share,
                "members": setting.members,
                "conventional": setting.conventional,
                "seeds": len(set(map(itemgetter("seed"), setting.runs))),
                "dev": _interval(dev, setting),
                "test": _interval(test, setting),
                "difference": vars(compared[setting.name]) if setting.name in compared else None,
            }
            for setting in settings
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
    """Choose by the one-standard-error rule: the simplest setting whose mean is within one standard error of the best.

    The standard error is that of the best setting's mean: the noise of a run, pooled over all settings and without the
    effect of the seed, which all settings share, over the root of the setting's number of seeds. The simplest setting
    has the smallest prompt share; among equal shares it is the better one.
    """
    settings, mean_K = dev.settings, sign * dev.fit.mean_K
    best = int(mean_K.argmax())
    error = math.sqrt(dev.fit.variance * float((dev.fit.estimate_KN[best] ** 2).sum())) if dev.fit.df else None
    margin = max(error or 0.0, st.ROUNDING * abs(mean_K[best]))  # a lead within rounding is none
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
    """Return the mean, sd over seeds, and 95 % interval for new seeds, and new items if there are scores per item."""
    if scores is None or setting not in scores.settings:
        return None
    k = scores.settings.index(setting)
    own, item_noise = scores.values(k), scores.item_noise(k)
    parts = [
        (scores.spread.variance / len(own), scores.spread.effective_df),
        *([(item_noise, scores.item_count - 1)] if item_noise else []),
    ]
    return {**st.mean_interval(float(own.mean()), parts), "sd": float(own.std(ddof=1)) if len(own) > 1 else None}


def _noise(scores: SplitScores) -> dict[str, float | int | None]:
    """Return the standard deviation between runs of one setting, pooled over settings."""
    spread = scores.spread
    return {"sd": math.sqrt(spread.variance) if spread.df else None, "df": spread.df}


def _naive(test: SplitScores, reference: TrainedSetting | None, sign: int, seed: int) -> dict[str, Any]:
    """Return the best setting on the test split, its gain over conventional tuning (positive: better), and the gain
    that noise alone would give. No one should report this setting, and the warning says so."""
    mean_K = np.array([test.values(k).mean() for k in range(len(test.settings))])
    best = int((sign * mean_K).argmax())
    figures: dict[str, Any] = {
        "setting_name": test.settings[best].name,
        "test": float(mean_K[best]),
        "gain": None,
        "luck": None,
    }
    warning = f"picked on the split it is reported on, from {counted(len(mean_K), 'setting')}"
    if len(mean_K) == 1:
        warning = "the only setting with a score on test"
    elif reference in test.settings:
        base = test.settings.index(reference)
        figures["gain"] = float(sign * (mean_K[best] - mean_K[base]))
        if test.noisy:
            figures["luck"] = st.winners_curse(test.fit, base, seed=seed)
            lead = f"{figures['luck']:.2g}"
            warning += f"; were all equal, the luckiest would still lead conventional tuning by {lead} on average"
    return {**figures, "warning": warning}
