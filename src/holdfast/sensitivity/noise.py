"""Answers that were asked for several times -> how much of their change is due to the wording, and how much is noise.

    differ   P(an answer to one wording and one to another differ), over pairs of wordings of a prompt
    noise    P(two answers to the same wording differ), over wordings; needs two repeats or more
    effect   differ - noise

With answers drawn from distributions p_v, the expectation of ``effect`` is half the mean squared distance
sum_c (p_v(c) - p_w(c))^2 between wordings: 0 exactly where all wordings have one distribution of answers, whatever the
temperature. Both shares are means over pairs of different draws, so that the estimate is unbiased for any number of
repeats; that of one prompt may lie below 0.

Axes: V wordings, K repeats.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import Any

from holdfast.stats import bootstrap_mean, wide_bootstrap

LEAST = {"differ": 0.0, "noise": 0.0, "effect": -1.0}
"""What is measured of a prompt, and the least that it may be; the most is 1."""
Labels = Sequence[Sequence[Hashable]]
"""Answers [V][K]; equal ones are equal values."""


def differ(labels_VK: Labels) -> float:
    """Return the share of pairs of answers to different wordings that differ, 0 to 1. Needs two wordings."""
    shares = [_unequal_between(one, other) for one, other in itertools.combinations(labels_VK, 2)]
    return fmean(shares)


def noise(labels_VK: Labels) -> float | None:
    """Return the share of pairs of answers to the same wording that differ; None with a single repeat."""
    return fmean(map(_unequal_within, labels_VK)) if min(map(len, labels_VK)) > 1 else None


def changes(labels_VK: Labels) -> dict[str, float | None]:
    """Return ``differ``, ``noise`` and ``effect`` of one prompt; the last two are None with a single repeat."""
    share, floor = differ(labels_VK), noise(labels_VK)
    return {"differ": share, "noise": floor, "effect": None if floor is None else share - floor}


def over_prompts(measured: Sequence[Mapping[str, float | None]], seed: int, draws: int) -> dict[str, Any]:
    """Return the means over prompts with 95 % intervals for few prompts, noise and wording of a prompt taken together.

    Args:
        measured: of every prompt, see ``changes``.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        An estimate for each name, None where it was not measured; ``changed``, how many prompts have two wordings
        with different answers; ``prompts``, how many there are.
    """
    summary: dict[str, Any] = {}
    for name, least in LEAST.items():
        values = [value for one in measured if (value := one[name]) is not None]
        summary[name] = _estimate(values, least, seed, draws) if values else None
    return summary | {"changed": sum(bool(one["differ"]) for one in measured), "prompts": len(measured)}


def _estimate(values: Sequence[float], least: float, seed: int, draws: int) -> dict[str, float]:
    low, high = wide_bootstrap(values, seed, draws)
    ends = {"low": max(low, least), "high": min(high, 1.0)}
    return {key: round(value, 6) for key, value in (bootstrap_mean(values, seed, draws) | ends).items()}


def _unequal_between(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    counts, others = Counter(one), Counter(other)
    equal = sum(count * others[label] for label, count in counts.items())
    return 1 - equal / (len(one) * len(other))


def _unequal_within(labels: Sequence[Hashable]) -> float:
    n = len(labels)
    return 1 - sum(count * (count - 1) for count in Counter(labels).values()) / (n * (n - 1))
