"""Scores of a set -> what its sensitivity is due to: which variants, which pairs, and which tokens of the responses.

The shares of the prompts, and of the responses, average to psi.   Axes: X prompts, Y responses, T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.sensitivity.index import psi_by_prompt, psi_by_response, shift
from holdfast.sensitivity.responses import Scores

Array = npt.NDArray[np.float64]


def token_shift(scores: Scores) -> Array:
    """Return the own log-prob of each token minus that after a foreign prompt [X, Y, T], nats; NaN after the end.

    Summed over T and divided by the length it is ``index.shift``.
    """
    own_YT = np.einsum("yyt->yt", scores.token_logp)
    return np.asarray(own_YT[None] - scores.token_logp)


def attribution(scores: Scores, names: Sequence[str], token_text: Callable[[int], str], top: int = 3) -> dict[str, Any]:
    """Return the shares of one set.

    Args:
        scores: of the set, complete.
        names: of the variants.
        token_text: token id -> text.
        top: pairs and responses to list.

    Returns:
        ``by_prompt`` and ``by_response`` (means over the other side, nats per token), the ``pairs`` with the largest
        shifts, and for the responses that moved most their ``tokens`` with the mean absolute shift of each over the
        foreign prompts.
    """
    shift_XY = shift(scores.logp_XY, scores.len_Y)
    by_response_Y = psi_by_response(scores.logp_XY, scores.len_Y)
    return {
        "by_prompt": dict(zip(names, _rounded(psi_by_prompt(scores.logp_XY, scores.len_Y)))),
        "by_response": dict(zip(names, _rounded(by_response_Y))),
        "pairs": [
            {"prompt": names[x], "response_of": names[y], "shift": round(float(shift_XY[x, y]), 6)}
            for x, y in _largest(shift_XY, top)
        ],
        "tokens": [_tokens(scores, int(y), names, token_text) for y in np.argsort(-by_response_Y, kind="stable")[:top]],
    }


def _tokens(scores: Scores, y: int, names: Sequence[str], token_text: Callable[[int], str]) -> dict[str, Any]:
    length = int(scores.len_Y[y])
    foreign = [x for x in range(len(names)) if x != y]
    shifts_T = np.abs(token_shift(scores)[foreign, y, :length]).mean(0)
    return {
        "response_of": names[y],
        "tokens": [[token_text(i), round(float(s), 6)] for i, s in zip(scores.responses[y].ids, shifts_T, strict=True)],
    }


def _largest(shift_XY: Array, top: int) -> list[tuple[int, int]]:
    order = np.argsort(-np.abs(shift_XY), axis=None, kind="stable")
    places = [divmod(int(i), len(shift_XY)) for i in order]
    return [(x, y) for x, y in places if x != y][:top]


def _rounded(values: Array) -> list[float]:
    return [round(float(v), 6) for v in values]
