"""A few labelled inputs and many unlabelled ones -> labels for all that the similarity graph can reach. No call of the
language model.

    knn       vote of the nearest labelled inputs, weighted by cosine and by the confidence of their labels
    spread    F_u = (I - a P_uu)^-1 a P_ul Y_l       labels clamped, P row-stochastic (Zhu et al. 2003; with damping a
    as Zhou et al. 2004)
    graph     a small graph attention network over (input, candidate label) nodes (GLIP, arXiv 2510.24528, stage 2), see
    ``glip``

A propagator takes a ``Problem`` and returns shares [N, Y]; a row of zeros is an abstention. Labelled rows come back as
they were.
Axes: N inputs, Y labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.encoders import Encoder
from holdfast.crosstask.graph import knn_graph, neighbours

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What a propagator gets. ``given`` [N]: place of the label, or -1; ``trust`` [N]: confidence of given labels,
    above 0.

    ``texts`` are the inputs, for propagators that look at (input, candidate) pairs.
    """

    vectors: Any
    given: npt.NDArray[np.int64]
    trust: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    texts: Sequence[str] = ()
    encode: Encoder | None = None
    neighbours: int = 20
    alpha: float = 0.95
    seed: int = 0

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """Places of the labelled inputs."""
        return np.flatnonzero(self.given >= 0)

    @property
    def onehot(self) -> Shares:
        """Given labels as shares [N, Y], rows of zeros elsewhere."""
        shares = np.zeros((len(self.given), len(self.labels)))
        shares[self.known, self.given[self.known]] = 1
        return shares


Propagator = Callable[[Problem], Shares]


def knn(problem: Problem) -> Shares:
    """Vote of the ``neighbours`` nearest labelled inputs."""
    known, shares = problem.known, problem.onehot
    unknown = np.flatnonzero(problem.given < 0)
    if not len(known) or not len(unknown):
        return shares
    places, cosines = neighbours(problem.vectors[known], problem.neighbours, problem.vectors[unknown])
    weights = cosines * problem.trust[known][places]
    for row, node in enumerate(unknown):
        np.add.at(shares[node], problem.given[known[places[row]]], weights[row])
    return _normalised(shares)


def spread(problem: Problem) -> Shares:
    """Closed-form propagation with clamped labels. An input that no labelled one can reach stays without a label."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    known, shares = problem.known, problem.onehot
    unknown = np.flatnonzero(problem.given < 0)
    if not len(known) or not len(unknown):
        return shares
    weights = knn_graph(problem.vectors, problem.neighbours)
    degree = np.asarray(weights.sum(1)).ravel()
    steps = (sparse.diags(np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)) @ weights).tocsr()
    trusted = shares[known] * problem.trust[known][:, None]
    system = sparse.identity(len(unknown), format="csc") - problem.alpha * steps[unknown][:, unknown]
    arriving = problem.alpha * (steps[unknown][:, known] @ trusted)
    shares[unknown] = np.maximum(spsolve(system.tocsc(), arriving).reshape(len(unknown), -1), 0)
    shares[unknown] = np.where(shares[unknown] < 1e-12, 0, shares[unknown])
    return _normalised(shares)


def graph(problem: Problem) -> Shares:
    """A graph attention network over candidates, trained on the labelled inputs."""
    from holdfast.crosstask.glip import glip  # imports torch

    return glip(problem)


PROPAGATORS: dict[str, Propagator] = {"knn": knn, "spread": spread, "graph": graph}


def _normalised(shares: Shares) -> Shares:
    total = shares.sum(1, keepdims=True)
    return np.asarray(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0), np.float64)
