"""Requests for log-probs; where in the tree of their sequences each answer is found; how it is read from logits.

    log P(c | x) = sum_i log softmax(logits(x, c[:i]))[c[i]]

Axes: N positions whose distribution is wanted, V vocabulary, L layers + 1, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.lm.batched import check_finite
from holdfast.lm.tree import Node, holder
from holdfast.records import Ids

OnHidden = Callable[[int, npt.NDArray[np.float32]], None]
"""Takes the number of a request and its hidden states [positions, L, D]."""


@dataclass(frozen=True)
class Request:
    """A prompt, the continuations to score after it, and positions of the prompt whose hidden states are wanted."""

    prompt: Ids
    continuations: tuple[Ids, ...]
    hidden_at: tuple[int, ...] = ()

    def sequences(self) -> list[Ids]:
        """Return the ids that the model reads for each continuation (or once, if there are none). The last token of a
        continuation is left out, because it is only predicted.
        """
        return [self.prompt + c[:-1] for c in self.continuations] or [self.prompt]


@dataclass
class Scored:
    """The answer to a request.

    ``token_logprobs``: of each token of each continuation, nats; ``is_greedy``: whether greedy decoding would write the
    whole continuation; ``next_token`` and ``next_entropy``: the most probable token after the prompt, and the entropy
    of that distribution in nats.
    """

    token_logprobs: list[npt.NDArray[np.float64]]
    is_greedy: list[bool]
    next_token: int = -1
    next_entropy: float = 0.0

    @staticmethod
    def blank(request: Request) -> Scored:
        """Return an answer that is still to be filled in."""
        return Scored([np.zeros(len(c)) for c in request.continuations], [True] * len(request.continuations))

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """Log-prob of each continuation, nats."""
        return np.array([logprobs.sum() for logprobs in self.token_logprobs])


@dataclass
class Cost:
    """How much work a model has done."""

    tokens: int = 0
    """Token-forwards; padding and rows that have ended are left out."""
    padded: int = 0
    """Token-forwards, padding and ended rows included."""
    calls: int = 0
    """Forward calls."""
    head_rows: int = 0
    """Positions whose distribution was computed."""
    plain_tokens: int = 0
    """Tokens that one pass per prompt, without any reuse, would have needed; continuations are not counted."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def part(self, *names: str) -> dict[str, int]:
        """Return some of the counts, for a summary."""
        return {name: getattr(self, name) for name in names}

    def count(self, tokens: int, padded: int, head_rows: int) -> None:
        """Add one call."""
        self.tokens, self.padded = self.tokens + tokens, self.padded + padded
        self.calls, self.head_rows = self.calls + 1, self.head_rows + head_rows


@dataclass
class _Wanted:
    """What is asked of the distribution after one token of the tree.

    ``places``: (request, continuation, place) of each of ``ids``; ``ends``: requests whose prompt ends here.
    """

    ids: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


class Readout:
    """The answers to some requests, filled in as the model produces the distributions that they need.

    Positions in the tree are (node, offset); offset -1 of a root is the last token of a cached prompt.
    """

    def __init__(self, requests: Sequence[Request], on_hidden: OnHidden | None = None) -> None:
        self.requests, self.on_hidden = requests, on_hidden
        self.answers = [Scored.blank(request) for request in requests]
        self.wanted: dict[Node, dict[int, _Wanted]] = {}
        self.hidden: dict[Node, dict[int, Any]] = {}
        """Of positions whose states are wanted: the states [L, D], once they are there."""
        self._hidden_of: dict[int, list[tuple[Node, int]]] = {}

    def want(self, node: Node, request: int, continuation: int) -> None:
        """Record what a request asks for on the path from the root to the node at which its sequence ends."""
        asked = self.requests[request]
        last = len(asked.prompt) - 1
        ids = asked.continuations[continuation] if asked.continuations else ()
        for place in range(len(ids) - 1, -1, -1):
            node = holder(node, last + place)
            wanted = self._at(node, last + place)
            wanted.ids.append(ids[place])
            wanted.places.append((request, continuation, place))
        if continuation == 0:
            node = holder(node, last)
            self._at(node, last).ends.append(request)
            if self.on_hidden and asked.hidden_at:
                places = [(holder(node, position), position) for position in asked.hidden_at]
                self._hidden_of[request] = [(owner, position - owner.start) for owner, position in places]
                for owner, offset in self._hidden_of[request]:
                    self.hidden.setdefault(owner, {})[offset] = None

    def _at(self, node: Node, position: int) -> _Wanted:
        return self.wanted.setdefault(node, {}).setdefault(position - node.start, _Wanted())

    def read(self, logits_NV: Tensor, places: Sequence[tuple[Node, int]]) -> None:
        """Fill in what is asked of these distributions, a few rows at a time, so that the working memory fits the
        processor's cache.

        Raises:
            NotFiniteError: logits that are not finite.
        """
        chunk = max(1, 2**20 // logits_NV.shape[-1])
        for start in range(0, len(places), chunk):
            wanted = [self.wanted[node][offset] for node, offset in places[start : start + chunk]]
            self._read(logits_NV[start : start + chunk].float(), wanted)

    def _read(self, part_NV: Tensor, wanted: Sequence[_Wanted]) -> None:
        max_N = part_NV.amax(-1)
        norm_N = max_N + (part_NV - max_N[:, None]).exp_().sum(-1).log()  # log sum exp, and the maximum with it
        check_finite(norm_N)
        rows = [n for n, want in enumerate(wanted) for _ in want.ids]
        ids = [i for want in wanted for i in want.ids]
        logits = part_NV[rows, ids]
        check_finite(logits)
        best = (logits == max_N[rows]).tolist()
        ties = [i for i, is_best in enumerate(best) if is_best]  # greedy decoding takes the lowest of equal ids
        for i, token in zip(ties, part_NV[[rows[i] for i in ties]].argmax(-1).tolist(), strict=True):
            best[i] = token == ids[i]
        places = [place for want in wanted for place in want.places]
        logprobs = (logits - norm_N[rows]).tolist()
        for (request, continuation, place), is_best, value in zip(places, best, logprobs, strict=True):
            answer = self.answers[request]
            answer.token_logprobs[continuation][place] = value
            answer.is_greedy[continuation] &= is_best
        ends = [n for n, want in enumerate(wanted) if want.ends]
        if ends:
            entropies = torch.special.entr((part_NV[ends] - norm_N[ends, None]).exp()).sum(-1).tolist()
            for n, token, entropy in zip(ends, part_NV[ends].argmax(-1).tolist(), entropies, strict=True):
                for request in wanted[n].ends:
                    self._end(request, token, entropy)

    def _end(self, request: int, token: int, entropy: float) -> None:
        self.answers[request].next_token, self.answers[request].next_entropy = token, entropy
        if self.on_hidden and request in self._hidden_of:
            states = [self.hidden[node][offset] for node, offset in self._hidden_of.pop(request)]
            self.on_hidden(request, np.stack(states))


def states_at(hidden_states: Any, index: int) -> npt.NDArray[np.float32]:
    """Hidden states [L, D] of one position of the flattened batch."""
    states: npt.NDArray[np.float32] = (
        torch.stack([layer.flatten(0, 1)[index] for layer in hidden_states]).float().cpu().numpy()
    )
    return states
