"""Intervals and significance tests for every wing, built on scipy.

In: arrays of values, one per independent unit (an item, or a set of prompts). Out: plain dicts of floats.

    proportion         Wilson's interval
    mean               bootstrap over whole units, or the normal interval
    paired difference  bootstrap and sign flips; exact sign test (McNemar); Student's t
    several tests      Holm (family-wise error), Benjamini and Hochberg (false discovery rate)

All values of one unit are drawn together, because the variants of a set, or the instructions of an item, are not
independent. Intervals are 95 %. The same seed gives the same draws. Comparing the few runs of a study needs other
methods: see ``study/statistics.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
DRAWS = 2000
FEW = 30
"""Units (held-out examples, items) of which fewer are said to be few: their interval is wider than a third of the
spread."""
_BATCH_VALUES = 2_000_000
"""How many values resampling holds in memory at a time. It affects nothing else."""


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the proportion hits / count (Wilson 1927); (nan, nan) when count is 0.

    >>> low, high = wilson(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    from scipy.stats import binomtest

    if count == 0:
        return math.nan, math.nan
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def proportion(hits: int, count: int) -> dict[str, float]:
    """Return a proportion with Wilson's interval: value, low, high."""
    low, high = wilson(hits, count)
    return {"value": hits / count if count else math.nan, "low": low, "high": high}


def percentage(hits: int, count: int) -> dict[str, float]:
    """Return what ``proportion`` returns, in percent and with the count."""
    return {key: 100 * value for key, value in proportion(hits, count).items()} | {"count": count}


def bootstrap(
    values: Sequence[float] | Array, seed: int, draws: int = DRAWS, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean over draws of whole units.

    With a single unit there is no spread, so both bounds are its value.
    """
    return bootstrap_of((np.asarray(values, np.float64),), lambda x, axis: x.mean(axis), seed, draws, level)


def bootstrap_of(
    samples: Sequence[Array], statistic: Callable[..., Any], seed: int, draws: int = DRAWS, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of units.

    Args:
        samples: arrays [N] that are drawn together, unit by unit.
        statistic: of these arrays, reducing along the keyword ``axis``.
        seed: of the draws.
        level: share of the draws that lie inside.

    Raises:
        ValueError: no unit.
    """
    from scipy.stats import bootstrap as resample

    n = len(samples[0])
    if n == 0:
        raise ValueError("an interval needs a value")
    if n == 1:
        value = float(statistic(*samples, axis=-1))
        return value, value
    interval = resample(
        tuple(samples), statistic, paired=len(samples) > 1, vectorized=True, method="percentile", n_resamples=draws,
        confidence_level=level,
        batch=max(1, _BATCH_VALUES // n), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def wide_bootstrap(values: Sequence[float] | Array, seed: int, draws: int = DRAWS) -> tuple[float, float]:
    """Return a 95 % interval of the mean that is wide enough for few units: at each end the wider of two.

    A percentile interval of n units is too short by sqrt((n - 1) / n) and takes the normal quantile for Student's. The
    one interval is Student's; the other takes the percentiles that make up for both (Hesterberg 2015), so that it leans
    to the side to which the values are skewed. BCa, which mends the skewness alone, is no wider for few units.
    """
    from scipy.stats import norm, t

    x = np.asarray(values, np.float64)
    n = len(x)
    if n == 1:
        return float(x[0]), float(x[0])
    quantile = float(t.ppf(0.975, n - 1))
    half = quantile * float(x.std(ddof=1)) / math.sqrt(n)
    low, high = bootstrap(x, seed, draws, 1 - 2 * float(norm.cdf(-quantile * math.sqrt(n / (n - 1)))))
    return min(low, float(x.mean()) - half), max(high, float(x.mean()) + half)


def bootstrap_mean(values: Sequence[float], seed: int, draws: int = DRAWS) -> dict[str, float | int]:
    """Return the mean over sets with its bootstrap interval, standard deviation, median and number of sets.

    The standard deviation has ddof 1, and is 0 for one set.
    """
    x = np.asarray(values, np.float64)
    low, high = bootstrap(x, seed, draws)
    return {
        "mean": float(x.mean()),
        "low": low,
        "high": high,
        "sd": float(x.std(ddof=1)) if len(x) > 1 else 0.0,
        "median": float(np.median(x)),
        "sets": len(x),
    }


def normal_mean(values: Array) -> dict[str, float | None]:
    """Return a mean with its normal 95 % interval; with a single value there is no interval."""
    value = float(values.mean())
    if len(values) < 2:
        return {"value": value, "low": None, "high": None}
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {"value": value, "low": value - half, "high": value + half}


def smallest_shown(count: int) -> float:
    """Return the smallest mean difference of so many units whose 95 % interval (Student's t) leaves out zero, in
    standard deviations of the difference; infinite for fewer than two.

    >>> round(smallest_shown(2), 1), round(smallest_shown(400), 1)
    (9.0, 0.1)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1)) / math.sqrt(count) if count > 1 else math.inf


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int, draws: int = DRAWS) -> dict[str, float | int]:
    """Return the mean of b - a over the same sets, its bootstrap interval, and a two-sided p-value.

    The p-value is that of a sign-flip permutation test.

    The test asks how often random signs give a mean at least as far from 0; exact where all 2^n flips are few enough (4
    x ``draws``).
    """
    x = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    low, high = bootstrap(x, seed, draws)
    return {"difference": float(x.mean()), "low": low, "high": high, "p": sign_flips(x, seed, draws), "sets": len(x)}


def sign_flips(x: Array, seed: int, draws: int = DRAWS) -> float:
    """Return the two-sided p-value of a mean under random signs of its values (Fisher's randomisation test).

    See ``paired_difference``.
    """
    from scipy.stats import permutation_test

    if len(x) == 1 or not np.any(x):
        return 1.0
    test = permutation_test(
        (x,), lambda values, axis: np.abs(values.mean(axis)), permutation_type="samples", alternative="greater",
        vectorized=True, n_resamples=4 * draws if 2 ** len(x) <= 4 * draws else draws,
        batch=max(1, _BATCH_VALUES // len(x)),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(test.pvalue)


def sign_test(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of the items gained and lost, under the hypothesis that both are equally
    likely (McNemar 1947).

    It is 1 if no item has changed.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_t(after: npt.ArrayLike, before: npt.ArrayLike) -> dict[str, float]:
    """One-tailed paired t-test that ``after`` is larger, over items (the test of arXiv 2405.10548, over 0/1 outcomes).

    Returns:
        difference of the means in points with its two-sided 95 % interval, t, p, count. Without any difference t = 0
        and p = 0.5.
    """
    from scipy.stats import ttest_rel

    x, y = np.asarray(after, float), np.asarray(before, float)
    n, mean = len(x), float((x - y).mean())
    if n < 2 or np.ptp(x - y) == 0:  # no scatter to divide by
        t, p = (math.copysign(math.inf, mean) if mean else 0.0), math.nan if n < 2 else 0.5 - 0.5 * float(np.sign(mean))
        low, high = (math.nan, math.nan) if n < 2 else (mean, mean)
    else:
        two_sided = ttest_rel(x, y)
        t, p = float(two_sided.statistic), float(ttest_rel(x, y, alternative="greater").pvalue)
        low, high = (float(bound) for bound in two_sided.confidence_interval(0.95))
    return {"difference": 100 * mean, "low": 100 * low, "high": 100 * high, "t": t, "p": p, "count": n}


def spearman(
    x: Sequence[float] | Array, y: Sequence[float] | Array, *, permutations: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Return the rank correlation and its two-sided permutation p-value.

    All orders are tried where there are at most ``permutations`` of them.

    Returns:
        (nan, nan) where one side does not vary, or with fewer than three points.
    """
    from scipy.stats import permutation_test, rankdata, spearmanr

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan
    ranks_x, ranks_y = rankdata(x), rankdata(y)
    centred = ranks_y - ranks_y.mean()
    # |rho| up to a factor that no permutation changes
    test = permutation_test(
        (ranks_x,), lambda ranks, axis: np.abs((ranks * centred).sum(axis)), permutation_type="pairings",
        alternative="greater", vectorized=True, n_resamples=permutations, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(spearmanr(x, y).statistic), float(test.pvalue)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the false discovery rate over one family (Benjamini and Hochberg 1995).

    nan stays nan and does not count.
    """
    from scipy.stats import false_discovery_control

    p = np.asarray(p_values, float)
    tested = ~np.isnan(p)
    adjusted = np.full(len(p), np.nan)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    return [float(value) for value in adjusted]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the family-wise error over tests with any dependence (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def ratio_of_means(after: Sequence[float], before: Sequence[float]) -> float:
    """Return the relative gain in percent of the grand mean over the mean.

    It is what the abstract of arXiv 2405.10548 reports (107 %, 18.6 %, 3.2 %).
    """
    return 100 * (float(np.mean(after)) / float(np.mean(before)) - 1)


def mean_of_ratios(after: Sequence[float], before: Sequence[float]) -> float:
    """Return the mean of the relative gains per target, in percent. It explodes where one baseline is tiny."""
    return 100 * float(np.mean(np.asarray(after, float) / np.asarray(before, float) - 1))
