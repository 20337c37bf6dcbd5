"""Which candidate answer is right, learned on a graph of (input, candidate label) nodes from a few pseudo-labels.

    features         encoder of the input with the candidate written behind its cue: every task has candidates with
    features of their own
    positive edges   nearest neighbours, never two candidates of one input, in both directions
    negative edges   all pairs of candidates of one input
    loss             sum_i c_i CE(node i) / sum_i c_i  +  0.4 * mean over negative edges of p_i . p_j      p: softmax,
    so between 0 and 1

After GLIP, stage 2 of arXiv 2510.24528: two attention layers (2 heads of 64; then 2 classes: wrong, right), 25 epochs
of Adam. What differs from the released code differs on purpose: the loss takes logits (softmax once), its second term
is bounded, edges are symmetric, and seeds are pseudo-labels weighted by confidence c.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.crosstask.encoders import Encoder, Vectors
from holdfast.crosstask.graph import dense, knn_graph
from holdfast.crosstask.propagate import Problem, Shares
from holdfast.crosstask.retrieve import Places
from holdfast.errors import HoldfastError


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


def glip(problem: Problem, *, epochs: int = 25, repulsion: float = 0.4) -> Shares:
    """Shares of labels for all inputs [N, Y]; labelled inputs keep theirs.

    Raises:
        HoldfastError: no encoder, or no labelled input.
    """
    if problem.encode is None or not len(problem.known):
        raise HoldfastError("propagation over candidates needs an encoder and at least one labelled input")
    n, y = len(problem.texts), len(problem.labels)
    features = _features(problem, problem.encode)
    x = torch.tensor(dense(features)[0], dtype=torch.float32)
    owner = np.repeat(np.arange(n), y)
    edges = torch.from_numpy(_positive(features, owner, problem.neighbours + y))
    negative = torch.from_numpy(
        np.array([(i * y + a, i * y + b) for i in range(n) for a in range(y) for b in range(a)], np.int64).T
    )
    nodes = torch.from_numpy((problem.known[:, None] * y + np.arange(y)).ravel())
    right = torch.from_numpy((problem.given[problem.known][:, None] == np.arange(y)).ravel().astype(np.int64))
    trust = torch.tensor(np.repeat(problem.trust[problem.known], y), dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        first, second = Attention(x.shape[1], 64, 2), Attention(128, 2, 1, mean=True)
    weights = [*first.parameters(), *second.parameters()]
    optimizer = torch.optim.Adam(weights, lr=5e-3, weight_decay=5e-4)
    for _ in range(epochs):
        logits = second(nn.functional.elu(first(x, edges)), edges)
        p = logits.softmax(-1)
        fit = (nn.functional.cross_entropy(logits[nodes], right, reduction="none") * trust).sum() / trust.sum()
        loss = fit + repulsion * (p[negative[0]] * p[negative[1]]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = second(nn.functional.elu(first(x, edges)), edges)
    shares = logits.softmax(-1)[:, 1].view(n, y).double().numpy()
    shares = shares / shares.sum(1, keepdims=True)
    shares[problem.known] = problem.onehot[problem.known]
    return np.asarray(shares)


def _features(problem: Problem, encode: Encoder) -> Vectors:
    """Vectors of the candidates [N * Y, width]. Bags of words cannot relate a label to an input: they get a block of
    columns per label.
    """
    features, _ = encode([f"{text} {label}" for text in problem.texts for label in problem.labels], [])
    if not hasattr(features, "toarray"):
        return features
    from scipy import sparse

    return sparse.kron(problem.vectors, sparse.identity(len(problem.labels)), format="csr").astype(np.float32)


def _positive(features: object, owner: Places, k: int) -> Places:
    """Edges [2, E] between near candidates of different inputs, both ways, and a loop on every node."""
    found = knn_graph(features, k).tocoo()
    apart = owner[found.row] != owner[found.col]
    loops = np.arange(len(owner))
    return np.stack([np.concatenate([found.row[apart], loops]), np.concatenate([found.col[apart], loops])]).astype(
        np.int64
    )
