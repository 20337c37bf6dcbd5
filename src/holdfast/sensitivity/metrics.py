"""Indices that need right answers. Plain functions of ``score_QK``, the score (0 to 1) of item q under variant k.

NaN marks a variant that an item does not have; means leave it out. Axes: Q items (sets), K variants (prompts), C
classes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def accuracy_by_variant(score_QK: Array) -> Array:
    """Return the mean score of every variant over the items [K]."""
    with _quiet():
        return np.asarray(np.nanmean(np.asarray(score_QK, np.float64), 0))


def prompt_sensi_score(score_QK: Array) -> float:
    """Return PSS: mean over items of the mean over pairs of variants of |s_i - s_j| (ProSA, arXiv 2410.12405).

    For right-or-wrong scores with c of K right, an item has 2 c (K - c) / (K (K - 1)). Items with fewer than two
    variants are left out.
    """
    per_item = []
    for row in np.asarray(score_QK, np.float64):
        s = row[~np.isnan(row)]
        if len(s) > 1:
            per_item.append(np.abs(s[:, None] - s[None, :]).sum() / (len(s) * (len(s) - 1)))
    return float(np.mean(per_item)) if per_item else float("nan")


def spread(score_QK: Array) -> float:
    """Return best minus worst accuracy over the variants (FormatSpread, arXiv 2310.11324)."""
    accuracy_K = accuracy_by_variant(score_QK)
    return float(np.nanmax(accuracy_K) - np.nanmin(accuracy_K))


def combined_performance(score_QK: Array) -> dict[str, float]:
    """Return MaxP, AvgP, saturation 1 - (MaxP - AvgP) and CPS = saturation x MaxP (arXiv 2401.00595)."""
    accuracy_K = accuracy_by_variant(score_QK)
    best, mean = float(np.nanmax(accuracy_K)), float(np.nanmean(accuracy_K))
    return {"max_p": best, "avg_p": mean, "sat": 1 - (best - mean), "cps": (1 - (best - mean)) * best}


def per_case(score_QK: Array) -> dict[str, float]:
    """Return worst, best, mean and sd over the variants, taken per item and then averaged (arXiv 2406.10248)."""
    statistics: dict[str, Callable[..., Any]]
    statistics = {"worst": np.nanmin, "best": np.nanmax, "mean": np.nanmean, "sd": np.nanstd}
    with _quiet():
        return {name: float(np.nanmean(statistic(score_QK, axis=1))) for name, statistic in statistics.items()}


def performance_drop(score_QK: Array, original: int = 0) -> Array:
    """Return PDR of every variant [K]: 1 - score(variant) / score(original), summed over the items (arXiv 2306.04528).

    Only items that have both count. NaN where the original scores 0.
    """
    score_QK = np.asarray(score_QK, np.float64)
    both_QK = ~np.isnan(score_QK) & ~np.isnan(score_QK[:, [original]])
    base_K = np.where(both_QK, score_QK[:, [original]], 0).sum(0)
    kept_K = np.where(both_QK, score_QK, 0).sum(0)
    return np.where(base_K > 0, 1 - kept_K / np.where(base_K > 0, base_K, 1), np.nan)


def class_sensitivity(answers_Q: Sequence[Sequence[Hashable]], classes: Sequence[Hashable]) -> float:
    """Return the mean over items of the entropy of the predicted classes, divided by ln C (arXiv 2406.12334, eq. 1)."""
    p_QC = _class_shares(answers_Q, classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_QC = np.where(p_QC > 0, p_QC * np.log(p_QC), 0.0)
    return float(np.mean(-terms_QC.sum(1)) / np.log(len(classes)) + 0.0) if len(classes) > 1 else 0.0


def class_consistency(
    answers_Q: Sequence[Sequence[Hashable]], gold_Q: Sequence[Hashable], classes: Sequence[Hashable]
) -> dict[str, float]:
    """Return per gold class the mean over pairs of its items of 1 - total variation of predictions (arXiv 2406.12334).

    Classes with fewer than two items are left out. The authors' code also counts each item with itself; this does not.
    """
    p_QC = _class_shares(answers_Q, classes)
    consistency: dict[str, float] = {}
    for label in dict.fromkeys(gold_Q):
        p_MC = p_QC[[q for q, gold in enumerate(gold_Q) if gold == label]]
        if len(p_MC) > 1:
            distance_MM = np.abs(p_MC[:, None] - p_MC[None, :]).sum(-1) / 2
            consistency[str(label)] = float(1 - distance_MM.sum() / (len(p_MC) * (len(p_MC) - 1)))
    return consistency


def _class_shares(answers_Q: Sequence[Sequence[Hashable]], classes: Sequence[Hashable]) -> Array:
    """Return the share of each class among the answers to each item [Q, C]."""
    shares = []
    for answers in answers_Q:
        counts = Counter(answers)
        shares.append([counts[c] / len(answers) for c in classes])
    return np.array(shares)


class _quiet(warnings.catch_warnings):
    """A variant that no item has gives NaN without a warning."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", RuntimeWarning)
