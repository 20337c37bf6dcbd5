"""What is known of a set after scoring: the responses, and the log-prob of each after every prompt.

    prompts -> responses (greedy)      cells (prompt, response) -> log-prob per token      Scores = the matrix of them

Ids decide what is equal: prompts with equal ids are one prompt, responses with equal ids are one response, and each is
scored once.
Axes: X prompts, Y responses (Y = X), T tokens of the longest response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.records import Ids

Cells = dict[tuple[Ids, Ids], npt.NDArray[np.float64]]
"""(prompt ids, response ids) -> log-prob of each response token, nats."""


@dataclass(frozen=True)
class Response:
    """A greedy response. ``ids`` hold the end-of-sequence token if it was reached, and nothing after it."""

    ids: Ids
    text: str
    margin: float | None
    """Smallest gap (nats) between the best and the second token on the way: near 0, another kernel may give another
    response. None where a server does not say."""


@dataclass(frozen=True)
class Scores:
    """``logp_XY[i, j]``: log-prob (nats, float64) of response j after prompt i; NaN where a pair was not asked for.

    ``len_Y``: tokens of each response. ``token_logp`` [X, Y, T]: the same per token, NaN after the end of the response.
    """

    logp_XY: npt.NDArray[np.float64]
    len_Y: npt.NDArray[np.int64]
    responses: list[Response]
    token_logp: npt.NDArray[np.float64]

    def part(self, index: Sequence[int]) -> Scores:
        """The scores of some of the prompts and their own responses."""
        rows = np.asarray(index)
        return Scores(
            self.logp_XY[np.ix_(rows, rows)],
            self.len_Y[rows],
            [self.responses[i] for i in index],
            self.token_logp[np.ix_(rows, rows)],
        )


def assemble(prompts: Sequence[Ids], responses: Mapping[Ids, Response], cells: Cells) -> Scores:
    """Put cells into the matrix of a set; prompts and responses that occur more than once share their cells."""
    own = [responses[p] for p in prompts]
    longest = max(len(r.ids) for r in own)
    token_logp = np.full((len(prompts), len(prompts), longest), np.nan)
    logp_XY = np.full((len(prompts), len(prompts)), np.nan)
    for x, prompt in enumerate(prompts):
        for y, response in enumerate(own):
            cell = cells.get((prompt, response.ids))
            if cell is not None:
                token_logp[x, y, : len(cell)] = cell
                logp_XY[x, y] = cell.sum()
    return Scores(logp_XY, np.array([len(r.ids) for r in own]), own, token_logp)
