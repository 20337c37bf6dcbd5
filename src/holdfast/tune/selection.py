"""Scores of tokens -> which to keep -> runs of characters. Pure arithmetic, for ``holdfast weigh``. Axis: N tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from holdfast.records import CharWeights

Floats = npt.NDArray[np.float64]


def keep_highest(scores: Sequence[Floats], share: float, scope: str) -> list[npt.NDArray[np.bool_]]:
    """Which tokens to keep: the ``share`` with the highest scores, of all (``global``) or of each array (``sample``).

    The count is rounded half up, at least one; among equal scores the earlier token is kept. NaN scores stand outside:
    kept, not counted.
    """
    if scope == "sample":
        return [_keep(s, share) for s in scores]
    ends = np.cumsum([len(s) for s in scores])[:-1]
    return np.split(_keep(np.concatenate([*scores, np.empty(0)]), share), ends)


def _keep(scores_N: Floats, share: float) -> npt.NDArray[np.bool_]:
    known = np.flatnonzero(~np.isnan(scores_N))
    kept = np.isnan(scores_N)
    count = max(int(share * len(known) + 0.5), min(1, len(known)))
    kept[known[np.argsort(-scores_N[known], kind="stable")[:count]]] = True
    return kept


def char_runs(chars_N2: npt.NDArray[np.int64], kept_N: npt.NDArray[np.bool_], rest: float) -> CharWeights:
    """Runs of characters whose tokens were not kept, merged. Where tokens share a character, it counts as kept if one
    of them is.
    """
    if not len(chars_N2):
        return ()
    weights = np.full(int(chars_N2[:, 1].max()) + 1, np.nan)
    for (first, last), keep in zip(chars_N2.tolist(), kept_N.tolist(), strict=True):
        piece = weights[first : last + 1]
        weights[first : last + 1] = np.fmax(piece, 1.0 if keep else rest)
    weights = np.nan_to_num(weights, nan=1.0)
    edges = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    return tuple((a, b, float(weights[a])) for a, b in pairwise(edges) if weights[a] != 1)
