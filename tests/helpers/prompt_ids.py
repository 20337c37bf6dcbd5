"""Prompts as token ids: of a grid of the cross-task wing, and of one set of the sensitivity wing."""

from __future__ import annotations

import random

import numpy as np

from holdfast.lm.engine import Request
from holdfast.records import Ids


def grid(seed: int = 0, labels: tuple[tuple[int, ...], ...] = ((5,), (6, 7), (6, 8, 9))) -> list[Request]:
    """Prompts shaped like those of a grid: source definition, demonstration, target definition, input."""
    rng = random.Random(seed)

    def piece(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(400) for _ in range(length))

    requests = []
    targets = [piece(6), piece(9)]
    for _ in range(3):
        definition, demos = piece(8), [piece(rng.randint(4, 20)) for _ in range(3)]
        for target in targets:
            for _ in range(6):
                prompt = definition + rng.choice(demos) + target + piece(rng.randint(2, 9))
                requests.append(Request(prompt, labels, (7, 10, len(prompt) - 1)))
    return requests


def ragged(lengths: tuple[int, ...] = (5, 3, 8, 6), shared: int = 0, seed: int = 1) -> list[Ids]:
    rng = np.random.default_rng(seed)
    head = rng.integers(5, 400, shared).tolist()
    return [(*head, *rng.integers(5, 400, n).tolist()) for n in lengths]
