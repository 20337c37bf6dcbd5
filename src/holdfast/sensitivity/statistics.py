"""Intervals and tests over sets. The variants of a set are not independent, so whole sets are drawn, never prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def bootstrap_mean(values: Sequence[float], seed: int, draws: int = 2000) -> dict[str, float | int]:
    """Mean over sets with a 95 % percentile bootstrap interval and the standard deviation (ddof 1; 0 for one set)."""
    x = np.asarray(values, np.float64)
    low, high = np.quantile(_resampled_means(x, seed, draws), (0.025, 0.975))
    return {
        "mean": float(x.mean()),
        "low": float(low),
        "high": float(high),
        "sd": float(x.std(ddof=1)) if len(x) > 1 else 0.0,
        "median": float(np.median(x)),
        "sets": len(x),
    }


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int, draws: int = 2000) -> dict[str, float | int]:
    """Mean of b - a over the same sets, its bootstrap interval, and the two-sided p-value of a sign-flip permutation test.

    The test asks how often random signs give a mean at least as far from 0; exact where all 2^n flips are few enough.
    """
    x = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    low, high = np.quantile(_resampled_means(x, seed, draws), (0.025, 0.975))
    return {"difference": float(x.mean()), "low": float(low), "high": float(high), "p": _sign_flip(x, seed, draws), "sets": len(x)}


def _resampled_means(x: Array, seed: int, draws: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.array([x[rng.integers(0, len(x), len(x))].mean() for _ in range(draws)])


def _sign_flip(x: Array, seed: int, draws: int) -> float:
    seen = abs(x.mean()) - 1e-12
    if 2 ** len(x) <= 4 * draws:
        signs = 1 - 2 * ((np.arange(2 ** len(x))[:, None] >> np.arange(len(x))) & 1)
        return float((np.abs(signs @ x) / len(x) >= seen).mean())
    rng = np.random.default_rng(seed)
    hits = sum(abs((rng.choice((-1.0, 1.0), len(x)) * x).mean()) >= seen for _ in range(draws))
    return float((hits + 1) / (draws + 1))
