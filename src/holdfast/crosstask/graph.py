"""Vectors -> similarity graphs -> how alike two inputs and their neighbourhoods are (GraphSim, arXiv 2510.24528).

    A = D^-1 (W + I)        W: cosines to the k nearest nodes, made symmetric
    7 views of a node       X, AX, A^2 X, and four random graph convolutions relu(A H R) of depth 1, 1, 2, 2
    similarity              mean over the views of the cosine

This is stage 1 of the paper; nothing is trained. A query is attached to its nearest target inputs for its own answer
only. The graph itself does not change, so the order of the queries does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.encoders import Places, Vectors, cosines, top

Matrix = npt.NDArray[np.float64]
NEIGHBOURS = 20
_DEPTHS = (1, 1, 2, 2)
_WIDTH = 384
_DIGITS = 6


def neighbours(vectors: Vectors, k: int, queries: Vectors = None) -> tuple[Places, Matrix]:
    """Return the k rows of ``vectors`` that are most similar to each query, and their cosines (negative ones are 0).

    Without queries the neighbours of every row are returned, the row itself left out.

    Returns:
        places and cosines [rows, min(k, possible)].
    """
    among_themselves = queries is None
    left = vectors if among_themselves else queries
    k = min(k, vectors.shape[0] - among_themselves)
    places = np.zeros((left.shape[0], k), np.int64)
    near = np.zeros((left.shape[0], k))
    for start in range(0, left.shape[0], 512):
        for i, row in enumerate(cosines(left[start : start + 512], vectors), start):
            if among_themselves:
                row[i] = -np.inf
            places[i] = top(row, k)
            near[i] = row[places[i]]
    return places, np.maximum(near, 0)


def knn_graph(vectors: Any, k: int) -> Any:
    """Return the symmetric sparse matrix [N, N] of cosines between neighbours, with nothing on the diagonal."""
    from scipy import sparse

    places, near = neighbours(vectors, k)
    n = vectors.shape[0]
    rows = np.repeat(np.arange(n), places.shape[1])
    one_way = sparse.csr_matrix((near.ravel(), (rows, places.ravel())), shape=(n, n))
    return one_way.maximum(one_way.T)


def graph_similarity(pool: Vectors, queries: Vectors, context: Vectors = None) -> Matrix:
    """Return GraphSim of queries and pool [Q, P], rounded so that equal texts tie.

    Args:
        context: vectors of unlabelled inputs of the target; without them, the queries are each other's neighbourhood.
    """
    pool, context, queries = dense(pool, queries if context is None else context, queries)
    pool_layers = _layers(pool, _averaging(pool))
    context_layers = _layers(context, _averaging(context))
    attached = _attach(context, queries)
    views = zip(_views(pool_layers), _views(_query_layers(queries, attached, context_layers)), strict=True)
    similarity = np.mean([_unit(q) @ _unit(p).T for p, q in views], axis=0)
    return np.asarray(np.round(similarity, _DIGITS))


def dense(pool: Any, *others: Any) -> list[Matrix]:
    """Return dense vectors of length 1 [N, width]; sparse ones are projected on the pool's leading singular vectors."""
    if not hasattr(pool, "toarray"):
        return [np.asarray(matrix, float) for matrix in (pool, *others)]
    from sklearn.decomposition import TruncatedSVD

    width = min(_WIDTH, min(pool.shape) - 1)
    if width < 2:
        return [np.asarray(matrix.toarray(), float) for matrix in (pool, *others)]
    svd = TruncatedSVD(width, random_state=0).fit(pool)
    return [_unit(svd.transform(matrix)) for matrix in (pool, *others)]


def _averaging(vectors: Matrix) -> Any:
    """Return the row-stochastic adjacency with self loops [N, N], sparse."""
    from scipy import sparse

    weights = knn_graph(vectors, NEIGHBOURS) + sparse.identity(len(vectors), format="csr")
    return sparse.diags(1 / np.asarray(weights.sum(1)).ravel()) @ weights


def _attach(context: Matrix, queries: Matrix) -> tuple[npt.NDArray[np.int64], Matrix, Matrix]:
    """Return each query's neighbours in the graph, their weights, and the weight of its own loop; they add up to 1."""
    places, cosines = neighbours(context, NEIGHBOURS, queries)
    total = 1 + cosines.sum(1, keepdims=True)
    return places, cosines / total, 1 / total


def _random_weights(width: int) -> list[list[Matrix]]:
    """Return the weights of the four untrained networks, the same for every graph."""
    networks = []
    for seed, depth in enumerate(_DEPTHS):
        rng = np.random.default_rng(seed)
        networks.append([rng.normal(0, 1 / np.sqrt(width), (width, width)) for _ in range(depth)])
    return networks


def _layers(x: Matrix, a: Any) -> list[list[Matrix]]:
    """Return every layer of every view: the plain powers (X, AX, A^2 X), then each network's layers from X on."""
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
    """Return what ``_layers`` returns, for nodes outside the graph.

    Each layer averages the states of the neighbours and the query's own state in the layer below.
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
