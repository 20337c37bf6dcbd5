"""A matrix of log-probs -> the prompt sensitivity index and other numbers. Plain functions of arrays.

In: ``logp_XY``, entry [i, j] the log-prob (nats) of response j after prompt i, and ``len_Y``, tokens of response j.
Out: numbers. POSIX (arXiv 2410.02185), eq. 1:

                     1        N   N    1
    psi(X)  =  -----------   SUM SUM  ---  | log P(y_j | x_i) - log P(y_j | x_j) |
                N (N - 1)    i=1 j=1  L_j

The differences run down a column: one response under different prompts. Adding a constant to a column changes nothing.
Axes: X prompts (conditions), Y responses, T response tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[Any]


def psi(logp_XY: Array, len_Y: Ints) -> float:
    """Return the prompt sensitivity of one set, in nats per token (POSIX, eq. 1). 0: the wording does not matter.

    Args:
        logp_XY: log-prob of response Y after prompt X [N, N], N >= 2, all finite.
        len_Y: true number of tokens of each response [N], the end-of-sequence token included.

    Raises:
        ValueError: fewer than two prompts, shapes that do not fit, a length below 1, or an entry that is not finite.

    >>> import numpy
    >>> from holdfast import psi
    >>> logp = numpy.array([[-2.0, -7.0], [-4.0, -3.0]])  # response j (columns) after prompt i (rows)
    >>> psi(logp, numpy.array([2, 4]))  # |-4 + 2| / 2 and |-7 + 3| / 4
    1.0
    """
    return _off_diagonal_mean(np.abs(shift(logp_XY, len_Y)))  # eq. 1


def shift(logp_XY: Array, len_Y: Ints) -> Array:
    """Return how much less likely, per token, response Y is after prompt X than after its own prompt [N, N]."""
    logp_XY, len_Y = np.asarray(logp_XY, np.float64), np.asarray(len_Y)
    if logp_XY.ndim != 2 or logp_XY.shape[0] != logp_XY.shape[1] or logp_XY.shape[1:] != len_Y.shape:
        raise ValueError(
            f"a square matrix and one length per column are needed, not shapes {logp_XY.shape} and {len_Y.shape}"
        )
    if len(len_Y) < 2 or (len_Y < 1).any():
        raise ValueError("psi needs two prompts or more, and responses of one token or more")
    if not np.isfinite(logp_XY).all():
        raise ValueError("a log-prob is not finite, so that psi is undefined")
    # the summand of eq. 1: (log P(y_j | x_j) - log P(y_j | x_i)) / L_j
    return np.asarray((np.diag(logp_XY)[None, :] - logp_XY) / len_Y[None, :])


def psi_signed(logp_XY: Array, len_Y: Ints) -> float:
    """Return ``psi`` without the absolute value: mean drop of log-prob per token under a foreign prompt, nats.

    For sampled responses its expectation is a length-scaled KL divergence between the prompts' response distributions.
    Negative where foreign prompts are more confident of a response than its own.
    """
    return _off_diagonal_mean(shift(logp_XY, len_Y))


def psi_released(logp_XY: Array, max_new_tokens: int) -> float:
    """Return the index of the package prompt-sensitivity-index 0.0.1: row differences, divided by ``max_new_tokens``.

    This is not the definition, because it compares different responses under one prompt. It is kept so that numbers of
    that package can be compared.
    """
    logp_YX = np.asarray(logp_XY, np.float64).T
    return psi(logp_YX, np.full(len(logp_YX), max_new_tokens))


def psi_by_prompt(logp_XY: Array, len_Y: Ints) -> Array:
    """Return the share of each conditioning prompt [X]: mean shift of foreign responses after it. Averages to psi."""
    return np.asarray(np.abs(shift(logp_XY, len_Y)).sum(1) / (len(len_Y) - 1))


def psi_by_response(logp_XY: Array, len_Y: Ints) -> Array:
    """Return the share of each response [Y]: mean shift of it after foreign prompts. Averages to psi."""
    return np.asarray(np.abs(shift(logp_XY, len_Y)).sum(0) / (len(len_Y) - 1))


def unique_responses(responses: Sequence[Hashable]) -> int:
    """Return the number of different responses (POSIX, figure 1a)."""
    return len(set(responses))


def response_entropy(responses: Sequence[Hashable]) -> float:
    """Return the entropy of the frequencies of the responses, nats, 0 to ln N (POSIX, figure 1b)."""
    share = np.array(list(Counter(responses).values())) / len(responses)
    return float(-(share * np.log(share)).sum() + 0.0)


def logp_spread(logp_XY: Array, len_Y: Ints) -> float:
    """Return the mean over responses of the sd (ddof 0) over prompts of the log-prob per token, nats (figure 1d)."""
    return float((np.asarray(logp_XY, np.float64) / np.asarray(len_Y)[None, :]).std(0).mean())


def variation_ratio(responses: Sequence[Hashable]) -> float:
    """Return the share of responses that are not the most frequent one (Freeman 1965)."""
    return 1.0 - Counter(responses).most_common(1)[0][1] / len(responses)


def consistency_rate(answers: Sequence[Hashable]) -> float:
    """Return the share of unordered pairs of prompts with equal answers (SCORE, after arXiv 2403.14221)."""
    n = len(answers)
    return sum(c * (c - 1) for c in Counter(answers).values()) / (n * (n - 1))


def _off_diagonal_mean(values_XY: Array) -> float:
    n = len(values_XY)
    return float((values_XY.sum() - np.trace(values_XY)) / (n * (n - 1)))
