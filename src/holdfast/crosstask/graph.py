"""Similarity graphs: a demonstration is alike not only if its text is, but if its neighbourhood is (GraphSim, arXiv
2510.24528, stage 1).

    A = D^-1 (W + I)          W: cosines to the k nearest nodes, made symmetric
    seven views of a node     X, AX, A^2 X, and four random graph convolutions  relu(A H R)  of depth 1, 1, 2, 2, never
    trained
    similarity                mean over the views of the cosine

A query is attached to its nearest target inputs for its own answer only: the graph stays as it is, so the order of
queries means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.retrieve import Places, Search, top

Matrix = npt.NDArray[np.float64]
NEIGHBOURS = 20
_DEPTHS = (1, 1, 2, 2)
_WIDTH = 384
_ROUND = 6


def neighbours(vectors: Any, k: int, queries: Any = None) -> tuple[npt.NDArray[np.int64], Matrix]:
    """The k most similar rows of ``vectors`` and their cosines (negative ones are 0), for each row itself left out, or
    for each query.

    Returns:
        places and cosines [rows, min(k, possible)].
    """
    itself = queries is None
    left = vectors if itself else queries
    count = vectors.shape[0] - itself
    k = min(k, count)
    places = np.zeros((left.shape[0], k), np.int64)
    cosines = np.zeros((left.shape[0], k))
    for start in range(0, left.shape[0], 512):
        product = left[start : start + 512] @ vectors.T
        block = np.round(np.asarray(product.toarray() if hasattr(product, "toarray") else product, float), _ROUND)
        for i, row in enumerate(block, start):
            if itself:
                row[i] = -np.inf
            places[i] = top(row, k)
            cosines[i] = row[places[i]]
    return places, np.maximum(cosines, 0)


def knn_graph(vectors: Any, k: int) -> Any:
    """Symmetric sparse matrix [N, N] of cosines between neighbours, nothing on the diagonal."""
    from scipy import sparse

    places, cosines = neighbours(vectors, k)
    n = vectors.shape[0]
    rows = np.repeat(np.arange(n), places.shape[1])
    one_way = sparse.csr_matrix((cosines.ravel(), (rows, places.ravel())), shape=(n, n))
    return one_way.maximum(one_way.T)


def graph_similarity(search: Search) -> Matrix:
    """GraphSim of queries and pool [Q, P]."""
    pool, context, queries = dense(
        search.pool, search.queries if search.context is None else search.context, search.queries
    )
    pool_layers = _layers(pool, _averaging(pool))
    context_layers = _layers(context, _averaging(context))
    attached = _attach(context, queries)
    views = zip(_views(pool_layers), _views(_query_layers(queries, attached, context_layers)), strict=True)
    return np.asarray(np.mean([_unit(q) @ _unit(p).T for p, q in views], axis=0))


def graph(search: Search) -> Places:
    """Retriever: the pool items with the highest GraphSim."""
    similarity = np.round(graph_similarity(search), _ROUND)
    return np.array([top(row, search.k) for row in similarity], np.int64).reshape(len(search.texts), search.k)


def dense(pool: Any, *others: Any) -> list[Matrix]:
    """Dense vectors of length 1 [N, width]; sparse ones are projected on the pool's leading singular vectors."""
    if not hasattr(pool, "toarray"):
        return [np.asarray(matrix, float) for matrix in (pool, *others)]
    from sklearn.decomposition import TruncatedSVD

    width = min(_WIDTH, min(pool.shape) - 1)
    if width < 2:
        return [np.asarray(matrix.toarray(), float) for matrix in (pool, *others)]
    svd = TruncatedSVD(width, random_state=0).fit(pool)
    return [_unit(svd.transform(matrix)) for matrix in (pool, *others)]


def _averaging(vectors: Matrix) -> Any:
    """Row-stochastic adjacency with self loops [N, N], sparse."""
    from scipy import sparse

    weights = knn_graph(vectors, NEIGHBOURS) + sparse.identity(len(vectors), format="csr")
    return sparse.diags(1 / np.asarray(weights.sum(1)).ravel()) @ weights


def _attach(context: Matrix, queries: Matrix) -> tuple[npt.NDArray[np.int64], Matrix, Matrix]:
    """Neighbours of each query in the graph, their weights, and the weight of the query's own loop; weights of a query
    add up to 1.
    """
    places, cosines = neighbours(context, NEIGHBOURS, queries)
    total = 1 + cosines.sum(1, keepdims=True)
    return places, cosines / total, 1 / total


def _random_weights(width: int) -> list[list[Matrix]]:
    """Weights of the four untrained networks, the same for every graph."""
    drawn = [np.random.default_rng(seed) for seed in range(len(_DEPTHS))]
    return [
        [rng.normal(0, 1 / np.sqrt(width), (width, width)) for _ in range(depth)] for rng, depth in zip(drawn, _DEPTHS)
    ]


def _layers(x: Matrix, a: Any) -> list[list[Matrix]]:
    """Every layer of every view: the plain powers (X, AX, A^2 X), then each network's layers from X on."""
    stacks = [[x, a @ x, a @ (a @ x)]]
    for weights in _random_weights(x.shape[1]):
        stack = [x]
        for weight in weights:
            stack.append(np.maximum(a @ stack[-1] @ weight, 0))
        stacks.append(stack)
    return stacks


def _query_layers(
    queries: Matrix, attached: tuple[Any, Matrix, Matrix], context: list[list[Matrix]]
) -> list[list[Matrix]]:
    """As ``_layers``, for nodes outside the graph: each layer averages the neighbours' and the query's own state in the
    layer below.
    """
    places, weights, own = attached

    def average(below: Matrix, mine: Matrix) -> Matrix:
        return np.asarray(own * mine + np.einsum("qk,qkd->qd", weights, below[places]))

    powers = [queries]
    for below in context[0][:-1]:
        powers.append(average(below, powers[-1]))
    stacks = [powers]
    for stack, matrices in zip(context[1:], _random_weights(queries.shape[1])):
        mine = [queries]
        for below, matrix in zip(stack, matrices):
            mine.append(np.maximum(average(below, mine[-1]) @ matrix, 0))
        stacks.append(mine)
    return stacks


def _views(stacks: Sequence[Sequence[Matrix]]) -> list[Matrix]:
    return [*stacks[0], *(stack[-1] for stack in stacks[1:])]


def _unit(x: Matrix) -> Matrix:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), float)
