"""A few labels, a graph: identities that propagation has to keep, and that it does find what is plainly there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdfast.crosstask.encoders import tfidf
from holdfast.crosstask.graph import knn_graph
from holdfast.crosstask.propagate import PROPAGATORS, Attention, Problem

WORDS = {"weather": ["rain", "snow", "wind", "storm", "cloud"], "food": ["bread", "soup", "rice", "cake", "plum"]}
LABELS = tuple(WORDS)
each = pytest.mark.parametrize("name", list(PROPAGATORS))


def problem(known: int = 3, seed: int = 0, extra: int = 0, **changes: Any) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = np.repeat([0, 1], 20)
    texts = [" ".join(rng.choice(WORDS[LABELS[g]], 3, replace=False)) + " today" for g in gold] + ["zzz"] * extra
    given = np.full(len(texts), -1)
    for g in (0, 1):
        given[rng.choice(np.flatnonzero(gold == g), known, replace=False)] = g
    vectors, _ = tfidf([*texts[:40], "zzz"], [])
    if extra == 0:
        vectors = vectors[:40]
    made = Problem(vectors, given, np.ones(len(texts)), LABELS, texts, tfidf, 8, **changes)
    return made, gold


@each
def test_the_plain_truth_is_found(name: str) -> None:
    found, gold = problem()
    shares = PROPAGATORS[name](found)
    assert (shares.argmax(1) == gold).mean() > 0.9
    assert np.allclose(shares.sum(1), 1)


@each
def test_with_all_labelled_the_labels_come_back(name: str) -> None:
    found, _ = problem()
    given = np.random.default_rng(3).integers(0, 2, 40)
    all_labelled = Problem(found.vectors, given, found.trust, LABELS, found.texts, tfidf, 8)
    assert (PROPAGATORS[name](all_labelled) == np.eye(2)[given]).all()


@each
def test_given_labels_are_kept(name: str) -> None:
    found, _ = problem()
    assert (PROPAGATORS[name](found)[found.labelled] == found.onehot[found.labelled]).all()


@pytest.mark.parametrize("name", ["knn", "spread"])
def test_an_isolated_input_changes_nothing_and_gets_nothing(name: str) -> None:
    found, _ = problem()
    more, _ = problem(extra=1)
    without, shares = PROPAGATORS[name](found), PROPAGATORS[name](more)
    assert np.allclose(shares[:40], without, atol=1e-9)
    assert (shares[40] == 0).all()


def test_spread_is_the_fixed_point_of_its_iteration() -> None:
    found, _ = problem()
    weights = knn_graph(found.vectors, 8).toarray()
    steps = weights / weights.sum(1, keepdims=True)
    iterated = found.onehot.copy()
    for _ in range(2000):
        iterated = 0.95 * steps @ iterated
        iterated[found.labelled] = found.onehot[found.labelled]
    assert np.allclose(PROPAGATORS["spread"](found), iterated / iterated.sum(1, keepdims=True), atol=1e-8)


@each
def test_it_does_not_depend_on_the_order_of_inputs(name: str) -> None:
    found, _ = problem()
    if name == "graph":
        pytest.skip("training starts from seeded weights, and sums run in another order")
    order = np.random.default_rng(5).permutation(40)
    turned = Problem(
        found.vectors[order], found.seeds[order], found.trust, LABELS, [found.texts[i] for i in order], tfidf, 8
    )
    assert (
        PROPAGATORS[name](turned).argmax(1) == PROPAGATORS[name](found)[order].argmax(1)
    ).mean() > 0.95  # ties of cosines aside


def test_labels_of_little_trust_weigh_little() -> None:
    found, _ = problem()
    wrong = found.seeds.copy()
    wrong[np.flatnonzero(found.seeds == 0)[0]] = 1
    trust = np.where(wrong != found.seeds, 1e-3, 1.0)
    trusted = Problem(found.vectors, wrong, np.ones(40), LABELS, found.texts, tfidf, 8)
    doubted = Problem(found.vectors, wrong, trust, LABELS, found.texts, tfidf, 8)
    for name in ("knn", "spread"):
        food = [PROPAGATORS[name](p)[found.seeds < 0, 1].sum() for p in (trusted, doubted)]
        assert food[1] < food[0]


def test_graph_attention_against_a_dense_softmax() -> None:
    import torch

    torch.manual_seed(0)
    layer, x = Attention(5, 3, 2), torch.randn(4, 5)
    edges = torch.tensor([[0, 1, 2, 3, 1, 0, 2], [0, 1, 2, 3, 0, 1, 3]])
    h = layer.project(x).view(4, 2, 3)
    score = torch.full((2, 4, 4), -torch.inf)  # head, to, from
    for start, end in edges.T.tolist():
        raw = (h[start] * layer.from_score).sum(-1) + (h[end] * layer.to_score).sum(-1)
        score[:, end, start] = torch.nn.functional.leaky_relu(raw, 0.2)
    dense = torch.einsum("hts,shd->thd", score.softmax(-1), h).flatten(1)
    assert torch.allclose(layer(x, edges), dense, atol=1e-6)
