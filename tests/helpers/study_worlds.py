"""Synthetic studies whose truth is known: rows as a study writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


MEASURED = np.array(
    [
        [1.20, 0.55, 0.61, 0.66, 0.16, -0.40, -3.73],
        [0.24, 0.07, 0.01, -0.07, 0.43, 1.17, 1.40],
        [-0.74, -0.15, -0.20, -0.20, -0.86, -1.11, -0.07],
        [0.34, 0.21, 0.10, -0.07, -0.07, 0.70, 2.82],
        [-0.98, -0.78, -0.49, -0.28, 0.26, 0.16, 0.02],
        [1.30, 1.36, 1.27, 1.25, 0.91, -0.12, -1.51],
        [-0.16, 0.39, 0.33, 0.03, 0.20, 0.78, 0.24],
        [-1.19, -1.67, -1.63, -1.32, -1.03, -1.18, 0.82],
    ]
)
"""What real noise is like: response NLL of pocket on test less the mean of its setting, in units of its sd; 8 seeds,
ratios 0, 0.01, 0.03,
0.1, 0.2, 0.4 and 0.7 (320 examples in batches of 16). Neighbouring ratios of one seed go together."""


def noise(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Luck of training [K, S]: normal, t3 (heavy tails), spiky (one run in twenty is six times as noisy), slope (a seed
    suits prompt weights more or less), measured (the covariance of ``MEASURED``, for 7 settings)."""
    if kind == "measured":
        return (rng.standard_normal((shape[1], len(MEASURED))) @ MEASURED / np.sqrt(len(MEASURED))).T
    if kind == "slope":
        return rng.standard_normal(shape[1]) * np.linspace(0, 1, shape[0])[:, None]
    if kind == "t3":
        return rng.standard_t(3, shape) / np.sqrt(3)
    drawn = rng.standard_normal(shape)
    return drawn * np.where(rng.random(shape) < 0.05, 6, 1) if kind == "spiky" else drawn


def world(
    settings: int,
    seeds: int,
    rng: np.random.Generator,
    *,
    kind: str = "normal",
    training: float = 1.0,
    items: float = 0.0,
    seed_luck: float = 0.0,
    effect: Array | None = None,
) -> list[dict[str, Any]]:
    """Rows of a study. The luck of a training is the same on dev and test; ``items`` is what the two splits do not
    share.
    """
    mean = (np.zeros(settings) if effect is None else effect)[:, None] + seed_luck * rng.standard_normal(seeds)
    trained = mean + training * noise(kind, (settings, seeds), rng)
    dev, test = (trained + items * rng.standard_normal(trained.shape) for _ in "12")
    return rows(dev, test)


def rows(dev: Any, test: Any = None) -> list[dict[str, Any]]:
    """Trial rows of scores per setting and seed, [K][S]. Setting k has the ratio k / K; setting 0 is conventional."""
    test = dev if test is None else test
    return [
        trial(k / len(dev), s, float(dev[k][s]), float(test[k][s]), name="conventional" if k == 0 else f"setting {k}")
        for k in range(len(dev))
        for s in range(len(dev[k]))
    ]


def trial(ratio: float, seed: int, dev: float, test: float, **other: Any) -> dict[str, Any]:
    """One finished trial."""
    cell = other.pop("cell", [ratio, 1 - ratio])
    name = other.pop("name", f"({cell[0]:g}, {cell[1]:g})")
    return {
        "kind": "trial",
        "trial": f"{name} {seed}",
        "status": "done",
        "setting": {"prompt_weight": cell[0], "response_weight": cell[1]} | other.pop("fields", {}),
        "setting_name": name,
        "ratio": ratio,
        "prompt_share": ratio,
        "members": [cell],
        "seed": seed,
        "rung": None,
        "dev": {"score": dev},
        "test": {"score": test},
        "items": None,
        **other,
    }
