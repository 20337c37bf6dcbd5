"""Hidden states -> how alike source and target are inside the model, per layer. Sums are kept, states are not.

For a source s, a target t and a layer l, over the test inputs x of t, with the mean state m_l of a sample of prompts
taken away:

    sim_l(s, t) = mean_x cos(h_l(a) - m_l, h_l(b) - m_l)
                  definitions: a, b = last tokens of D_s and of D_t
                  answers:     a, b = label of the demonstration and last token of the prompt

This definition is ours, because the paper says only that activations were compared. Without the mean taken away all
cosines are near 1.
Axes: L layers + 1 (embeddings first), D width, P position pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PAIRS: dict[str, tuple[int, int]] = {"definitions": (0, 1), "answers": (2, 3)}
"""Which hidden states of a prompt are compared: at the ends of source definition, target definition, label, prompt."""

Array = npt.NDArray[np.float64]


class Similarities:
    """Running sums of cosines per cell, with and without the mean state taken away."""

    def __init__(self, owners: Sequence[int], cells: int, centre_LD: Array) -> None:
        """``owners``: the cell of each request, or -1 for requests that do not count."""
        self.owners, self.centre_LD = owners, centre_LD
        self.centred = np.zeros((cells, len(PAIRS), len(centre_LD)))  # [cells, P, L]
        self.raw = np.zeros_like(self.centred)
        self.count = np.zeros(cells, np.int64)

    def add(self, request: int, states_4LD: npt.NDArray[np.float32]) -> None:
        """Count one prompt."""
        cell = self.owners[request]
        if cell < 0:
            return
        states = states_4LD.astype(np.float64)
        self.count[cell] += 1
        for p, (a, b) in enumerate(PAIRS.values()):
            self.raw[cell, p] += cosine(states[a], states[b])
            self.centred[cell, p] += cosine(states[a] - self.centre_LD, states[b] - self.centre_LD)


def cosine(a_LD: Array, b_LD: Array) -> Array:
    """Return the cosine per layer [L]; 0 where a state is 0."""
    norm = np.linalg.norm(a_LD, axis=-1) * np.linalg.norm(b_LD, axis=-1)
    return np.asarray(np.divide((a_LD * b_LD).sum(-1), norm, out=np.zeros(len(a_LD)), where=norm > 1e-12), np.float64)


def mean_state(score: Callable[..., Any], requests: Sequence[Any]) -> Array:
    """Return the mean state at each layer [L, D] over the prompts and hidden positions of a sample of requests."""
    total: list[Array] = []
    score(requests, on_hidden=lambda _, states_4LD: total.append(states_4LD.astype(np.float64).mean(0)))
    return np.asarray(np.mean(total, axis=0), np.float64)
