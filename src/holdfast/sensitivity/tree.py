"""Responses -> a tree of tokens, laid out flat: what must pass through a model behind one prompt, shared beginnings
once.

y1 = a b c        nodes  a  b  d      (the last token of a response is only predicted, never fed)
y2 = a d e        seen   a: a   b: a b   d: a d
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.sensitivity.responses import Ids


@dataclass(frozen=True)
class Tree:
    """``ids`` [T] and ``depth`` [T] of the nodes, parents before children; ``seen`` [T, T]: which nodes a node attends
    to.

    ``targets``: (response, place, node, token) for every response token but the first: node predicts token. ``heads``:
    nodes that predict.
    """

    ids: npt.NDArray[np.int64]
    depth: npt.NDArray[np.int64]
    seen: npt.NDArray[np.bool_]
    targets: list[tuple[int, int, int, int]]
    heads: list[int]

    @property
    def size(self) -> int:
        """Tokens to feed."""
        return len(self.ids)

    @staticmethod
    def of(responses: Sequence[Ids]) -> Tree:
        """The tree of some responses, each of one token or more."""
        child: dict[tuple[int, int], int] = {}
        ids: list[int] = []
        parents: list[int] = []
        targets: list[tuple[int, int, int, int]] = []
        for number, response in enumerate(responses):
            node = -1
            for place, token in enumerate(response):
                if place:
                    targets.append((number, place, node, token))
                if place == len(response) - 1:
                    break
                if (node, token) not in child:
                    child[node, token] = len(ids)
                    ids.append(token)
                    parents.append(node)
                node = child[node, token]
        return _laid_out(ids, parents, targets)


def _laid_out(ids: list[int], parents: list[int], targets: list[tuple[int, int, int, int]]) -> Tree:
    depth = np.zeros(len(ids), np.int64)
    seen = np.eye(len(ids), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            depth[node] = depth[parent] + 1
            seen[node] |= seen[parent]
    return Tree(np.array(ids, np.int64), depth, seen, targets, sorted({node for _, _, node, _ in targets}))


def parts(responses: Sequence[Ids], row_tokens: int) -> list[list[int]]:
    """Cut responses into groups of about ``row_tokens`` tokens. Those that begin alike stay together, up to five times
    that.
    """
    groups: list[list[int]] = []
    room = 0
    for i in sorted(range(len(responses)), key=lambda i: responses[i]):
        together = groups and responses[groups[-1][-1]][:1] == responses[i][:1] and room > -4 * row_tokens
        if not groups or (len(responses[i]) > room and not together):
            groups.append([])
            room = row_tokens
        groups[-1].append(i)
        room -= len(responses[i])
    return groups
