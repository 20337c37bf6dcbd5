"""Synthetic studies whose truth is known: rows as a study writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Luck of training: normal, t3 (heavy tails), or spiky (one run in twenty is six times as noisy)."""
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
    """Rows of a study. The luck of a training is the same on dev and test; ``items`` is what the two splits do not share."""
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
