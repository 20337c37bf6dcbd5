"""A few labelled inputs and many unlabelled ones -> labels for all that the similarity graph can reach.

    knn       vote of the nearest labelled inputs, weighted by cosine and by the confidence of their labels
    spread    F_u = (I - a P_uu)^-1 a P_ul Y_l       labels clamped, P row-stochastic (Zhu et al. 2003), with the
              damping a of Zhou et al. 2004
    graph     a small graph attention network over (input, candidate label) nodes (GLIP, arXiv 2510.24528, stage 2)

A propagator takes a ``Problem`` and returns shares [N, Y]; a row of zeros is an abstention. Labelled rows come back as
they were. The language model is not called.
Axes: N inputs, Y labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from holdfast.crosstask.encoders import Encoder, Places, Vectors
from holdfast.crosstask.graph import dense, knn_graph, neighbours
from holdfast.errors import HoldfastError

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What a propagator gets.

    ``seeds`` [N]: the place of each input's label, or -1; ``trust`` [N]: how far a label is trusted, above 0.
    ``texts`` are the inputs, for propagators that look at (input, candidate) pairs.
    """

    vectors: Vectors
    seeds: npt.NDArray[np.int64]
    trust: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    texts: Sequence[str] = ()
    encode: Encoder | None = None
    neighbours: int = 20
    alpha: float = 0.95
    seed: int = 0

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Places of the labelled inputs."""
        return np.flatnonzero(self.seeds >= 0)

    @property
    def unlabelled(self) -> npt.NDArray[np.int64]:
        """Places of the inputs without a label."""
        return np.flatnonzero(self.seeds < 0)

    @property
    def onehot(self) -> Shares:
        """The labels so far as shares [N, Y], rows of zeros elsewhere."""
        shares = np.zeros((len(self.seeds), len(self.labels)))
        shares[self.labelled, self.seeds[self.labelled]] = 1
        return shares


Propagator = Callable[[Problem], Shares]


def knn(problem: Problem) -> Shares:
    """Return the vote of the ``neighbours`` nearest labelled inputs."""
    labelled, unlabelled, shares = problem.labelled, problem.unlabelled, problem.onehot
    if not len(labelled) or not len(unlabelled):
        return shares
    places, cosines = neighbours(problem.vectors[labelled], problem.neighbours, problem.vectors[unlabelled])
    weights = cosines * problem.trust[labelled][places]
    for row, node in enumerate(unlabelled):
        np.add.at(shares[node], problem.seeds[labelled[places[row]]], weights[row])
    return _normalised(shares)


def spread(problem: Problem) -> Shares:
    """Return closed-form propagation with clamped labels. What no labelled input can reach stays without a label."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    labelled, unlabelled, shares = problem.labelled, problem.unlabelled, problem.onehot
    if not len(labelled) or not len(unlabelled):
        return shares
    weights = knn_graph(problem.vectors, problem.neighbours)
    degree = np.asarray(weights.sum(1)).ravel()
    steps = (sparse.diags(np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)) @ weights).tocsr()
    trusted = shares[labelled] * problem.trust[labelled][:, None]
    # F_u = (I - a P_uu)^-1 a P_ul Y_l, solved as a linear system
    system = sparse.identity(len(unlabelled), format="csc") - problem.alpha * steps[unlabelled][:, unlabelled]
    arriving = problem.alpha * (steps[unlabelled][:, labelled] @ trusted)
    solved = spsolve(system.tocsc(), arriving).reshape(len(unlabelled), -1)
    shares[unlabelled] = np.where(solved < 1e-12, 0, solved)
    return _normalised(shares)


class Attention(nn.Module):
    """One graph attention layer (Velickovic et al. 2018): [N, width] -> [N, heads * out], or the mean of the heads."""

    def __init__(self, width: int, out: int, heads: int, *, mean: bool = False) -> None:
        super().__init__()
        self.heads, self.out, self.mean = heads, out, mean
        self.project = nn.Linear(width, heads * out, bias=False)
        self.from_score = nn.Parameter(torch.empty(heads, out))
        self.to_score = nn.Parameter(torch.empty(heads, out))
        for weight in (self.project.weight, self.from_score, self.to_score):
            nn.init.xavier_uniform_(weight)

    def forward(self, x_ND: Tensor, edges_2E: Tensor) -> Tensor:
        """``edges_2E``: from, to; every node needs a loop."""
        h = self.project(x_ND).view(-1, self.heads, self.out)
        start, end = edges_2E
        score = nn.functional.leaky_relu((h * self.from_score).sum(-1)[start] + (h * self.to_score).sum(-1)[end], 0.2)
        weight = (score - score.detach().amax(0)).exp()
        total = torch.zeros(len(h), self.heads).index_add_(0, end, weight)
        mixed = torch.zeros_like(h).index_add_(0, end, weight[..., None] * h[start]) / total.clamp_min(1e-12)[..., None]
        return mixed.mean(1) if self.mean else mixed.flatten(1)


def graph(problem: Problem, *, epochs: int = 25, repulsion: float = 0.4) -> Shares:
    """Return the shares of a graph attention network over (input, candidate label) nodes, trained on the labelled ones.

    features          encoder of the input with the candidate written behind its cue, so each candidate has its own
    positive edges    nearest neighbours in both directions, never two candidates of one input
    negative edges    all pairs of candidates of one input
    loss              sum_i c_i CE(node i) / sum_i c_i  +  repulsion * mean over negative edges of p_i . p_j

    After GLIP, stage 2 of arXiv 2510.24528: two attention layers (2 heads of 64, then 2 classes, wrong and right) and
    25 epochs of Adam. This differs from the released code on purpose: the loss takes logits, so that softmax is applied
    once; p is a softmax, so that the second term is bounded; edges are symmetric; seeds are weighted by confidence c.

    Raises:
        HoldfastError: no encoder, or no labelled input.
    """
    if problem.encode is None or not len(problem.labelled):
        raise HoldfastError("propagation over candidates needs an encoder and at least one labelled input")
    n, y = len(problem.texts), len(problem.labels)
    features = _features(problem, problem.encode)
    x = torch.tensor(dense(features)[0], dtype=torch.float32)
    owner = np.repeat(np.arange(n), y)
    edges = torch.from_numpy(_positive(features, owner, problem.neighbours + y))
    one_input = np.stack(np.tril_indices(y, -1))  # pairs of candidates of the first input
    negative = torch.from_numpy((one_input[:, None] + y * np.arange(n)[:, None]).reshape(2, -1))
    nodes = torch.from_numpy((problem.labelled[:, None] * y + np.arange(y)).ravel())
    right = torch.from_numpy((problem.seeds[problem.labelled][:, None] == np.arange(y)).ravel().astype(np.int64))
    trust = torch.tensor(np.repeat(problem.trust[problem.labelled], y), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        first, second = Attention(x.shape[1], 64, 2), Attention(128, 2, 1, mean=True)
    weights = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.Adam(weights, lr=5e-3, weight_decay=5e-4)
    for _ in range(epochs):
        logits = second(nn.functional.elu(first(x, edges)), edges)
        p = logits.softmax(-1)
        fit = (nn.functional.cross_entropy(logits[nodes], right, reduction="none") * trust).sum() / trust.sum()
        # the loss above: weighted cross-entropy of the seeds, and the repulsion of candidates of one input
        loss = fit + repulsion * (p[negative[0]] * p[negative[1]]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = second(nn.functional.elu(first(x, edges)), edges)
    shares = logits.softmax(-1)[:, 1].view(n, y).double().numpy()
    shares = shares / shares.sum(1, keepdims=True)
    shares[problem.labelled] = problem.onehot[problem.labelled]
    return np.asarray(shares)


def _features(problem: Problem, encode: Encoder) -> Vectors:
    """Return vectors of the candidates [N * Y, width].

    Bags of words cannot relate a label to an input, so there each label has a block of columns of its own.
    """
    candidates = [f"{text} {label}" for text, label in itertools.product(problem.texts, problem.labels)]
    features, _ = encode(candidates, [])
    if not hasattr(features, "toarray"):
        return features
    from scipy import sparse

    return sparse.kron(problem.vectors, sparse.identity(len(problem.labels)), format="csr").astype(np.float32)


def _positive(features: object, owner: Places, k: int) -> Places:
    """Return edges [2, E] between near candidates of different inputs, both ways, and a loop on every node."""
    near = knn_graph(features, k).tocoo()
    apart = owner[near.row] != owner[near.col]
    loops = np.arange(len(owner))
    ends = [np.concatenate([side[apart], loops]) for side in (near.row, near.col)]
    return np.stack(ends).astype(np.int64)


PROPAGATORS: dict[str, Propagator] = {"knn": knn, "spread": spread, "graph": graph}


def _normalised(shares: Shares) -> Shares:
    total = shares.sum(1, keepdims=True)
    return np.asarray(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0), np.float64)
