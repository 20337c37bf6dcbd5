"""How sure a number is: intervals, the paired test, rank correlation with a permutation p-value. Plain functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def share(hits: int, count: int) -> dict[str, float]:
    """A share with its 95 % Wilson interval, in percent."""
    if count == 0:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "count": 0}
    z = 1.959963984540054
    p, n = hits / count, count
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"value": 100 * p, "low": max(0.0, 100 * (middle - half)), "high": min(100.0, 100 * (middle + half)), "count": count}


def paired_t(after: npt.ArrayLike, before: npt.ArrayLike) -> dict[str, float]:
    """One-tailed paired t-test that ``after`` is larger, over items (the paper's test, over 0/1 outcomes).

    Returns:
        difference of the means in points with its 95 % interval, t, p, count. Without any difference t = 0 and p = 0.5.
    """
    from scipy import stats

    d = np.asarray(after, float) - np.asarray(before, float)
    n, mean = len(d), float(d.mean())
    error = float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    half = float(stats.t.ppf(0.975, n - 1)) * error if n > 1 else math.nan
    p = float(stats.t.sf(t, n - 1)) if n > 1 else math.nan
    return {"difference": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half), "t": t, "p": p, "count": n}


def ratio_of_means(after: Sequence[float], before: Sequence[float]) -> float:
    """Relative gain in percent of the grand mean over the mean: what the paper's abstract reports (107 %, 18.6 %, 3.2 %)."""
    return 100 * (float(np.mean(after)) / float(np.mean(before)) - 1)


def mean_of_ratios(after: Sequence[float], before: Sequence[float]) -> float:
    """Mean of the relative gains per target, in percent: explodes where one baseline is tiny."""
    return 100 * float(np.mean(np.asarray(after, float) / np.asarray(before, float) - 1))


def spearman(x: Sequence[float] | Floats, y: Sequence[float] | Floats, *, permutations: int = 5000, seed: int = 0) -> tuple[float, float]:
    """Rank correlation and its two-sided permutation p-value; all orders are tried where there are at most ``permutations`` of them.

    Returns:
        (nan, nan) where one side does not vary.
    """
    from scipy import stats

    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a * a).sum() * (b * b).sum()))
    if norm == 0 or len(a) < 3:
        return math.nan, math.nan
    rho = float(a @ b) / norm
    if math.factorial(min(len(a), 12)) <= permutations:
        import itertools

        drawn = np.array(list(itertools.permutations(b)))
        hits, count = int((np.abs(drawn @ a) / norm >= abs(rho) - 1e-9).sum()), len(drawn)
        return rho, hits / count
    drawn = np.random.default_rng(seed).permuted(np.tile(b, (permutations, 1)), axis=1)
    hits = int((np.abs(drawn @ a) / norm >= abs(rho) - 1e-9).sum())
    return rho, (hits + 1) / (permutations + 1)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the false discovery rate over one family; nan stays nan and does not count."""
    p = np.asarray(p_values, float)
    known = np.flatnonzero(~np.isnan(p))
    adjusted = np.full(len(p), np.nan)
    order = known[np.argsort(p[known], kind="stable")]
    smallest = 1.0
    for rank in range(len(order), 0, -1):
        smallest = min(smallest, p[order[rank - 1]] * len(order) / rank)
        adjusted[order[rank - 1]] = smallest
    return [float(value) for value in adjusted]


def finite(value: Any) -> Any:
    """The same nested value with None for nan and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
