"""The noise of a comparison of few runs.

In: one score per run with its setting and seed, and scores per item where there are any. Out: the noise between runs,
and simultaneous intervals of the differences to a reference setting.

    (1) score[k, s] = mean[k] + effect[s] + noise[k, s]         effect: the runs of one seed see the data in one order
    (2) T_k = (mean[k] - mean[ref]) / sqrt(a_k sigma^2 + W_k)   sigma^2: pooled over settings; W_k: noise of test items
    (3) V_k = max(a_k sigma^2, variance of the difference over its own seeds)
    (4) interval_k = (mean[k] - mean[ref]) ± c sqrt(V_k + W_k)  c: 95 % quantile of max_k |T_k| under equal settings

Runs of one seed and of neighbouring weights have correlated noise (0.7 to 0.99 on pocket). So the pooled variance is
too small for settings that move together against the reference, which is why (4) takes V_k; and a study has seen fewer
draws of the noise than it has runs. The chosen setting is picked by the noise of the very runs that are compared, so c
covers all comparisons at once (many to one, Dunnett 1955).

The distribution of the maximum is simulated three times, and the largest quantile counts: with normal noise; with the
residuals of the study (residual bootstrap), because runs fail in ways that are not normal; and with noise that is
correlated over settings as the seeds of the study are (multiplier bootstrap).

Axes: N runs, K settings, J comparisons, B draws, S seeds, I items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Pairs = Sequence[tuple[int, int]]

DRAWS = 4999
ROUNDING = 1e-5
"""Share of a score that is rounding. Equal float32 trainings that add up in another order differ by a tenth of it."""
_FEWEST_FOR_BOOTSTRAP = 4
"""Degrees of freedom. Fewer residuals say nothing about tails, and then the t quantile is wide enough."""


@dataclass(frozen=True)
class Fit:
    """Least-squares fit of scores to settings, and to seeds where their effects can be told from those of settings.

    mean_K: mean of every setting, as if every seed had been run with every setting; ``estimate_KN @ scores_N``.
    residual_N: what the fit leaves, ``leave_NN @ scores_N``.
    df: degrees of freedom of the residuals.
    run_of: (setting, seed) -> run, where seeds are part of the fit; else empty.
    """

    mean_K: Array
    estimate_KN: Array
    residual_N: Array
    leave_NN: Array
    df: int
    run_of: dict[tuple[int, int], int]

    @property
    def variance(self) -> float:
        """Return sigma^2 of (2), the pooled variance of the noise of one run; NaN without degrees of freedom."""
        return float(self.residual_N @ self.residual_N) / self.df if self.df else math.nan


@dataclass(frozen=True)
class Difference:
    """One comparison: the mean of a setting minus that of the reference, with a 95 % interval and a p-value that hold
    for all comparisons at once."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Spread:
    """Variance between runs of one setting, its degrees of freedom, and those that an interval may count on."""

    variance: float
    df: int
    effective_df: float


def average_twins(
    scores_N: Array, setting_N: Sequence[int], seed_N: Sequence[int]
) -> tuple[Array, list[int], list[int]]:
    """Return one score per setting and seed. Runs that share both share their data order, too, so they are one draw of
    the noise, not two."""
    cells: dict[tuple[int, int], list[float]] = {}
    for score, cell in zip(scores_N, zip(setting_N, seed_N, strict=True), strict=True):
        cells.setdefault(cell, []).append(float(score))
    return np.array([np.mean(v) for v in cells.values()]), [k for k, _ in cells], [s for _, s in cells]


def fit(scores_N: Array, setting_N: Sequence[int], seed_N: Sequence[int]) -> Fit:
    """Fit (1). Seeds are left out where they cannot be told from settings, or where no noise would be left to see.

    Args:
        setting_N: 0..K-1, every one present.
    """
    of_setting = _dummies(setting_N)
    design = np.hstack([of_setting, _dummies(seed_N)[:, 1:]])
    rank = int(np.linalg.matrix_rank(design))
    if rank < design.shape[1] or rank == len(scores_N):
        design, rank = of_setting, of_setting.shape[1]
    solve = np.linalg.pinv(design)
    settings = of_setting.shape[1]
    paired = design.shape[1] > settings
    seeds = design[:, settings:].mean(0) if paired else np.zeros(0)
    estimate_KN = np.asarray(solve[:settings] + seeds @ solve[settings:], np.float64)
    leave_NN: Array = np.eye(len(scores_N)) - design @ solve
    residual_N = leave_NN @ scores_N
    if _rounding(residual_N, scores_N):
        residual_N = np.zeros(len(scores_N))
    run_of = {cell: n for n, cell in enumerate(zip(setting_N, seed_N, strict=True))} if paired else {}
    return Fit(estimate_KN @ scores_N, estimate_KN, residual_N, leave_NN, len(scores_N) - rank, run_of)


def alike(scores_N: Array) -> bool:
    """Return whether there are several scores, equal but for rounding."""
    return len(scores_N) > 1 and _rounding(scores_N - scores_N[0], scores_N)


def _rounding(deviation_N: Array, scores_N: Array) -> bool:
    return bool(np.abs(deviation_N).max() <= ROUNDING * np.abs(scores_N).max())


def compare(
    fitted: Fit, pairs: Pairs, items_J: Array | None = None, item_count: int = 0, *, stopped: int = 0, seed: int = 0
) -> list[Difference]:
    """Return the differences of pairs of settings, with the intervals (4) that hold for all pairs at once.

    Args:
        fitted: the fit; it needs at least one degree of freedom and some noise.
        pairs: (setting, reference) per comparison.
        items_J: W of (2), the variance that the choice of test items adds to each difference (``item_variance``).
        item_count: number of items behind it.
        stopped: number of settings that a search stopped before the end. The noise could have favoured them as well, so
            the intervals cover them, too.
        seed: of the simulation.

    Source: C. W. Dunnett, JASA 50 (1955); the studentised residual bootstrap of the maximum: Romano and Wolf,
    Econometrica 73 (2005).
    """
    contrast_JN = np.array([fitted.estimate_KN[k] - fitted.estimate_KN[r] for k, r in pairs])
    difference_J = np.array([fitted.mean_K[k] - fitted.mean_K[r] for k, r in pairs])
    items_J = np.zeros(len(pairs)) if items_J is None else items_J
    # The root of V_k + W_k as in (4), with V_k of (3); the sum of squared contrasts is a_k.
    error_J = np.sqrt(np.maximum(fitted.variance * (contrast_JN**2).sum(1), _own_variance(fitted, pairs)) + items_J)
    rng = np.random.default_rng(seed)
    noises = [rng.normal(0, math.sqrt(fitted.variance), (DRAWS, len(fitted.residual_N)))]
    if fitted.df >= _FEWEST_FOR_BOOTSTRAP:
        noises.append(rng.choice(_standardised(fitted), noises[0].shape))
    if fitted.run_of:
        whole = _share_of_seeds(fitted)
        noises.append(
            math.sqrt(whole) * _noise_of_seeds(fitted, rng) + math.sqrt(1 - whole) * rng.permutation(noises[0])
        )
    tops = []
    for noise_BN in noises:
        others_B = _largest_stopped(noise_BN, fitted, pairs[0][1], stopped, rng)
        tops.append(np.sort(np.maximum(_largest_t(noise_BN, fitted, contrast_JN, items_J, item_count, rng), others_B)))
    quantile = max(map(_quantile, tops))
    differences = []
    for difference, error in zip(difference_J, error_J, strict=True):
        p = max(_p_value(top_B, abs(difference) / error) for top_B in tops)
        low, high = difference - quantile * error, difference + quantile * error
        differences.append(Difference(float(difference), float(low), float(high), p))
    return differences


def compare_means(values_SJ: Array, *, seed: int = 0) -> list[Difference]:
    """Return means over rows against 0, with intervals that hold for all columns at once. Rows are independent draws;
    the columns of a row may be correlated in any way.

        T_j = mean_j / (sd_j / sqrt(S))      quantile of max_j |T_j| over normal rows with the covariance of the data

    Source: multiplier bootstrap of the maximum: Chernozhukov, Chetverikov and Kato, Annals of Statistics 41 (2013).
    """
    rows = len(values_SJ)
    mean_J, error_J = values_SJ.mean(0), values_SJ.std(0, ddof=1) / math.sqrt(rows)
    _, size_R, direction_RJ = np.linalg.svd((values_SJ - mean_J) / math.sqrt(rows - 1), full_matrices=False)
    drawn_BSJ = np.random.default_rng(seed).standard_normal((DRAWS, rows, len(size_R))) @ (
        size_R[:, None] * direction_RJ
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        t_BJ = np.abs(drawn_BSJ.mean(1)) / (drawn_BSJ.std(1, ddof=1) / math.sqrt(rows))
        t_J = np.nan_to_num(np.abs(mean_J) / error_J, posinf=np.inf)
    top_B = np.sort(np.nan_to_num(t_BJ, nan=0.0, posinf=np.inf).max(1))
    half_J = _quantile(top_B) * error_J
    return [
        Difference(float(m), float(m - h), float(m + h), _p_value(top_B, t))
        for m, h, t in zip(mean_J, half_J, t_J, strict=True)
    ]


def winners_curse(fitted: Fit, reference: int, *, seed: int = 0) -> float:
    """Return the mean lead of the best setting over the reference that noise alone would give if all were equal."""
    noise_BN = np.random.default_rng(seed).normal(0, math.sqrt(fitted.variance), (DRAWS, len(fitted.residual_N)))
    mean_BK = noise_BN @ fitted.estimate_KN.T
    return float((mean_BK.max(1) - mean_BK[:, reference]).mean())


def item_variance(values_SI: Array) -> float:
    """Return the variance of the mean that comes from which items were drawn, without what the scatter over seeds
    contains already; at least 0.

    var(mean over seeds, per item) / I - (seed x item residual mean square) / (S I). One seed: no subtraction.
    """
    seeds, items = len(values_SI), len(values_SI[0])
    if items < 2:
        return 0.0
    per_item = float(values_SI.mean(0).var(ddof=1)) / items
    if seeds < 2:
        return per_item
    rest = values_SI - values_SI.mean(0) - values_SI.mean(1, keepdims=True) + values_SI.mean()
    return max(0.0, per_item - float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items))


def spread_within(fitted: Fit, scores_N: Array, setting_N: Sequence[int]) -> Spread:
    """Return the scatter between runs of one setting, pooled over settings.

    The effect of a seed moves all settings together, so a study sees one draw of it per seed, but one draw of the noise
    per run. So the effective degrees of freedom are those of a sum of two variances (Satterthwaite 1946).
    """
    plain = fit(scores_N, setting_N, [0] * len(scores_N))
    if not plain.df:
        return Spread(math.nan, 0, 0.0)
    noise, total = float(fitted.residual_N @ fitted.residual_N), float(plain.residual_N @ plain.residual_N)
    parts = ((noise, fitted.df), (max(0.0, total - noise), plain.df - fitted.df))
    return Spread(
        total / plain.df, plain.df, _satterthwaite([(part, df) for part, df in parts if df > 0]) or float(plain.df)
    )


def mean_interval(mean: float, parts: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Return the 95 % t interval of a mean; its bounds are None if a part has no degrees of freedom.

    Args:
        parts: (variance, degrees of freedom) of everything that makes the mean uncertain. Their sum gets degrees of
            freedom after Satterthwaite.
    """
    from scipy import stats

    if any(df <= 0 for _, df in parts):
        return {"mean": mean, "low": None, "high": None}
    variance = sum(v for v, _ in parts)
    half = float(stats.t.ppf(0.975, _satterthwaite(parts))) * math.sqrt(variance) if variance else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of variances v_i with df_i: (sum v_i)^2 / sum (v_i^2 / df_i), which is at
    least the smallest df_i; 0 where the sum is 0."""
    total = sum(v for v, _ in parts)
    return 1 / sum((v / total) ** 2 / df for v, df in parts) if total else 0.0


def _share_of_seeds(fitted: Fit) -> float:
    """Return the share of the noise that is drawn as whole seeds. The more seeds, the better V_k of (3) covers them, so
    the smaller the share. If it were 1, a study of two seeds would have no power."""
    return min(0.85, 1 / (len({seed for _, seed in fitted.run_of}) - 1))


def _noise_of_seeds(fitted: Fit, rng: np.random.Generator) -> Array:
    """Return noise [B, N] whose covariance over settings is that of the residuals. Every drawn seed mixes the seeds of
    the study with normal multipliers."""
    seeds = sorted({seed for _, seed in fitted.run_of})
    residual_SK = np.zeros((len(seeds), len(fitted.mean_K)))
    for (k, seed), n in fitted.run_of.items():
        residual_SK[seeds.index(seed), k] = fitted.residual_N[n]
    drawn_BSK = rng.standard_normal((DRAWS, len(seeds), len(seeds))) @ residual_SK / math.sqrt(len(seeds) - 1)
    noise_BN: Array = np.empty((DRAWS, len(fitted.residual_N)))
    for (k, seed), n in fitted.run_of.items():
        noise_BN[:, n] = drawn_BSK[:, seeds.index(seed), k]
    return noise_BN


def _own_variance(fitted: Fit, pairs: Pairs) -> Array:
    """Return the variance of every difference over the seeds that both settings have; 0 where these are not two."""
    variance_J = np.zeros(len(pairs))
    for j, (k, r) in enumerate(pairs):
        shared = [s for setting, s in fitted.run_of if setting == k and (r, s) in fitted.run_of]
        if len(shared) > 1:
            own_S, other_S = [fitted.run_of[k, s] for s in shared], [fitted.run_of[r, s] for s in shared]
            difference_S = fitted.residual_N[own_S] - fitted.residual_N[other_S]
            variance_J[j] = difference_S.var(ddof=1) / len(shared)
    return variance_J


def _dummies(labels: Sequence[int]) -> Array:
    same: Array = (np.asarray(labels)[:, None] == np.unique(labels)).astype(np.float64)
    return same


def _standardised(fitted: Fit) -> Array:
    """Return residuals scaled to the size of the noise. A run that alone stands for its setting has none."""
    room_N = np.diag(fitted.leave_NN)
    free = room_N > 1e-9
    return fitted.residual_N[free] / np.sqrt(room_N[free])


def _largest_t(noise_BN: Array, fitted: Fit, contrast_JN: Array, items_J: Array, item_count: int, rng: Any) -> Array:
    """Return max_k |T_k| of (2) for every draw under equal settings. The noise of items is drawn for each comparison
    apart, which makes the intervals a little too wide."""
    difference_BJ = noise_BN @ contrast_JN.T
    variance_B = ((noise_BN @ fitted.leave_NN) ** 2).sum(1) / fitted.df
    variance_BJ = variance_B[:, None] * (contrast_JN**2).sum(1)
    if items_J.any():
        difference_BJ = difference_BJ + np.sqrt(items_J) * rng.standard_normal(difference_BJ.shape)
        variance_BJ = variance_BJ + items_J * (rng.chisquare(item_count - 1, difference_BJ.shape) / (item_count - 1))
    return _largest_of_rows(difference_BJ, variance_BJ)


def _largest_stopped(noise_BN: Array, fitted: Fit, reference: int, stopped: int, rng: np.random.Generator) -> Array:
    """Return max |T| over settings outside the fit, with the noise and the mean number of runs of the others."""
    if not stopped:
        return np.zeros(len(noise_BN))
    runs = max(1, round(noise_BN.shape[1] / len(fitted.mean_K)))
    theirs_BU = rng.choice(noise_BN.ravel(), (len(noise_BN), stopped, runs)).mean(2)
    difference_BU = theirs_BU - (noise_BN @ fitted.estimate_KN[reference])[:, None]
    variance_B = (
        ((noise_BN @ fitted.leave_NN) ** 2).sum(1) / fitted.df * (1 / runs + (fitted.estimate_KN[reference] ** 2).sum())
    )
    return _largest_of_rows(difference_BU, variance_B[:, None])


def _quantile(top_B: Array) -> float:
    """Return the 95 % quantile of sorted draws, with the study itself as one more."""
    return float(top_B[-math.ceil(0.05 * (DRAWS + 1))])


def _largest_of_rows(difference: Array, variance: Array) -> Array:
    """Return the largest |difference| / sd of every row. Nothing over nothing is 0, and something over it infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(difference) / np.sqrt(variance)
    return np.asarray(np.nan_to_num(t, nan=0.0, posinf=np.inf).max(1))


def _p_value(top_B: Array, t: float) -> float:
    """Return the share of draws, with the study itself as one of them, whose largest |T| is at least ``t``."""
    return float(len(top_B) - np.searchsorted(top_B, t) + 1) / (len(top_B) + 1)
