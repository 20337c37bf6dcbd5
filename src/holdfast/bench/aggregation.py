"""The items of a metric -> one number by the task's own aggregation, with intervals and paired tests over drawn items.

The harness computes the number of a run; here the same aggregation is applied to drawn items. A group is the weighted
mean of its tasks. Aggregations are recorded under the harness's names, so that ``bench compare`` can apply them to a
run's files.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MEAN, OWN, GROUP = "mean", "function of the task's own", "mean of its tasks"
Function = Callable[[Sequence[Any]], Any]
Indices = list[npt.NDArray[np.int64]]
_DRAWS, _FEW_DRAWS = 500, 200
_FAST = (
    "f1",
    "matthews_corrcoef",
    "perplexity",
    "weighted_perplexity",
    "bits_per_byte",
    "brier_score",
    "median",
    "nanmean",
)
"""Aggregations that are fast enough for many draws. Text metrics take seconds over a corpus, and a function of a task's
own may."""
_TRIED = 20
"""How often a function of a task's own must give the mean before it is taken for it."""


@dataclass(frozen=True)
class Part:
    """The values of a task's items in one metric, their aggregation, and the weight of the task in a group."""

    values: Sequence[Any]
    name: str
    function: Function | None
    weight: float = 1.0


def aggregation_of(task: Any, metric: str, values: Sequence[Any]) -> tuple[str, Function | None]:
    """Return name and function of a task's aggregation. A function of its own that gives the mean is ``mean``."""
    from lm_eval.api.metrics import mean

    function = (task.aggregation() or {}).get(metric) or mean  # the harness's own choice where a task names none
    name = next((name for name, other in _registered().items() if other is function), OWN)
    return (MEAN, mean) if name == OWN and _is_mean(function, values) else (name, function)


def function_of(name: str) -> Function | None:
    """Return the harness's function of this name; None for one of a task's own, which only the task's files have."""
    return _registered().get(name)


def flat(values: Sequence[Any]) -> list[npt.NDArray[np.float64]] | None:
    """Return every item's values as an array of numbers; None if a value is no number."""
    lists = [value if isinstance(value, list | tuple | np.ndarray) else [value] for value in values]
    if not all(isinstance(v, int | float | np.number | np.bool_) for v in itertools.chain.from_iterable(lists)):
        return None
    return [np.asarray(own, np.float64) for own in lists]


def total(parts: Sequence[Part], drawn: Indices | None = None) -> float:
    """Return the weighted mean of the parts' numbers, over all items or over those drawn of each part.

    Raises:
        Exception: whatever the task's own function raises.
    """
    numbers = [_number(part, None if drawn is None else drawn[k]) for k, part in enumerate(parts)]
    weights = [part.weight for part in parts]
    return sum(n * w for n, w in zip(numbers, weights, strict=True)) / sum(weights)


def interval(parts: Sequence[Part], value: float, seed: int) -> tuple[float, float] | None:
    """Return the 95 % percentile interval over draws of items within each task.

    None where draws say nothing: the function does not give the harness's value, fails on a draw, or never changes.
    """
    if not _gives(parts, value) or all(len(part.values) < 2 for part in parts):
        return None
    rng = np.random.default_rng(seed)
    ends = quantiles(
        numbers_over(lambda drawn: total(parts, drawn), (_indices(parts, rng) for _ in range(_draws(parts, _DRAWS))))
    )
    return None if ends is None or ends[0] == ends[1] else ends


def paired(
    a: Sequence[Part], b: Sequence[Part], seed: int, draws: int
) -> tuple[tuple[float, float] | None, float | None]:
    """Return the interval of B - A over draws of items, the same items of both, and the p-value of a permutation test
    that swaps the answers of items between A and B at random.

    The p-value is two-sided and counts the data as one of the draws, as ``stats.sign_flips`` does.
    """
    if all(len(part.values) < 2 for part in a):
        return None, None
    rng = np.random.default_rng(seed)
    draws = _draws(a, draws)
    ends = quantiles(
        numbers_over(lambda drawn: total(b, drawn) - total(a, drawn), (_indices(a, rng) for _ in range(draws)))
    )
    difference = abs(total(b) - total(a))
    swaps = (_swaps(a, rng) for _ in range(draws))
    moved = numbers_over(lambda swap: total(_swapped(b, a, swap)) - total(_swapped(a, b, swap)), swaps)
    if moved is None:
        return ends, None
    hits = sum(abs(number) >= difference - 1e-12 * max(1.0, difference) for number in moved)
    return ends, (hits + 1) / (draws + 1)


def numbers_over(number: Callable[[Any], float], draws: Any) -> list[float] | None:
    """Return the number of every draw; None if one of them has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a draw may lack a label, and metrics warn of that
            numbers = [float(number(drawn)) for drawn in draws]
    except Exception:  # a function may raise anything on a combination of items that it does not expect
        return None
    return numbers if np.isfinite(numbers).all() else None


def quantiles(numbers: list[float] | None) -> tuple[float, float] | None:
    """Return the 2.5 % and the 97.5 % quantile."""
    if numbers is None:
        return None
    low, high = np.quantile(numbers, (0.025, 0.975))
    return float(low), float(high)


def same(a: float, b: float) -> bool:
    """Return whether two numbers are equal but for rounding."""
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def _gives(parts: Sequence[Part], value: float) -> bool:
    numbers = numbers_over(lambda _: total(parts), [None])
    return numbers is not None and same(numbers[0], value)


def _number(part: Part, drawn: npt.NDArray[np.int64] | None) -> float:
    values = part.values if drawn is None else [part.values[i] for i in drawn]
    if part.name == MEAN:
        return float(np.concatenate(flat(values) or []).mean())
    return float(part.function(values))  # type: ignore[misc]


def _indices(parts: Sequence[Part], rng: np.random.Generator) -> Indices:
    return [rng.integers(0, len(part.values), len(part.values)) for part in parts]


def _swaps(parts: Sequence[Part], rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
    return [rng.random(len(part.values)) < 0.5 for part in parts]


def _swapped(own: Sequence[Part], other: Sequence[Part], swap: Sequence[npt.NDArray[np.bool_]]) -> list[Part]:
    """Return the parts of one run with some items taken from the other."""
    mixed = []
    for mine, theirs, changed in zip(own, other, swap, strict=True):
        values = [b if change else a for a, b, change in zip(mine.values, theirs.values, changed, strict=True)]
        mixed.append(Part(values, mine.name, mine.function, mine.weight))
    return mixed


def _draws(parts: Sequence[Part], most: int) -> int:
    return most if all(part.name in (MEAN, *_FAST) for part in parts) else min(most, _FEW_DRAWS)


def _is_mean(function: Function, values: Sequence[Any]) -> bool:
    """Return whether a function of the task's own gives the mean over all values, for these items and for random zeros
    and ones in their place."""
    lists = flat(values)
    if not lists:
        return False
    rng = np.random.default_rng(0)
    numbered = all(np.ndim(value) == 0 for value in values)
    for n in range(_TRIED):
        tried = lists if n == 0 else [rng.integers(0, 2, len(own)).astype(np.float64) for own in lists]
        asked = list(values) if n == 0 else [float(own[0]) if numbered else own.tolist() for own in tried]
        numbers = numbers_over(function, [asked])
        if numbers is None or not same(numbers[0], float(np.concatenate(tried).mean())):
            return False
    return True


def _registered() -> dict[str, Function]:
    import lm_eval.api.metrics  # noqa: F401  # the import fills the registry
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    return dict(AGGREGATION_REGISTRY.items())
