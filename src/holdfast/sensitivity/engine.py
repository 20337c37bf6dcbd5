"""The fast way: every prompt passes through the model once, and its cache serves its own response and everybody else's.

    common prefix -> prefix of each set -> tails of the prompts -> greedy decoding -> all responses as one tree behind
    each prompt

A row of a batch is a prompt; behind its cached keys the distinct responses lie flat, as a tree in which a token sees
the prompt, its ancestors and itself (4-D mask, positions of its own sequence). So no cache is copied per response and
shared beginnings are computed once. The head runs on wanted positions only, ``logit - logsumexp`` in float32. ``plain``
is the same without any of this.

Axes: B rows, T new tokens of a row, K cached and new tokens, N wanted positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.lm import cache_argument
from holdfast.lm.batched import check_finite
from holdfast.packing import additive, only_rows
from holdfast.sensitivity.caches import Decoding, Warm, cache_of, joined_rows
from holdfast.sensitivity.responses import Ids
from holdfast.sensitivity.tree import Tree, parts

_WORTH_SHARING = 64
"""A shared prefix is a pass of its own only if that saves so many tokens."""

_ROW_TOKENS = 128
"""Tokens of responses in a row: a longer row wastes attention on what its tokens do not see, a shorter one repeats the
prompt's keys.
"""


@dataclass
class Cost:
    """What has passed through the model."""

    tokens: int = 0
    """Token-forwards, padding and finished rows left out."""
    padded: int = 0
    """Token-forwards, padding and finished rows counted."""
    calls: int = 0
    """Forward passes."""
    head_rows: int = 0
    """Positions whose distribution was computed."""

    def as_dict(self) -> dict[str, int]:
        """For the summary."""
        return dict(vars(self))


class Engine:
    """Runs one model.

    Args:
        context: largest number of tokens of a prompt and its response.
        token_budget: tokens per forward pass; changes speed and memory, never the result. Default: 1024 on a CPU, else
            16384.
    """

    def __init__(self, model: Any, context: int, token_budget: int | None = None) -> None:
        self.model, self.context, self.cost = model.eval(), context, Cost()
        vocabulary = model.get_output_embeddings().weight.shape[0]
        self.token_budget = token_budget or (1024 if model.device.type == "cpu" else 16384)
        self.head_budget = max(64, 2**26 // vocabulary)  # rows of logits at once: 256 MiB in float32

    @torch.inference_mode()
    def prefill(self, sets: Sequence[Sequence[Ids]]) -> Warm:
        """All prompts of the sets, in order, each distinct prefix once. Prompts must not be empty."""
        prompts = [p for prompts in sets for p in prompts]
        every = common_prefix(prompts)
        every = every if len(every) * (len(prompts) - 1) >= _WORTH_SHARING else ()
        shared = [common_prefix(prompts) for prompts in sets]
        warm = self._extend(Warm(), [0], [every]) if every else Warm()
        parents = [s for s, prompts in enumerate(sets) for _ in prompts]
        if (
            sum((len(prefix) - len(every)) * (len(prompts) - 1) for prefix, prompts in zip(shared, sets, strict=True))
            >= _WORTH_SHARING
        ):
            warm = self._extend(warm, [0] * len(sets), [prefix[len(every) :] for prefix in shared])
        else:
            shared, parents = [every] * len(sets), [0] * len(prompts)
        tails = [p[len(shared[s]) :] for s, prompts in enumerate(sets) for p in prompts]
        return self._extend(warm, parents, tails, last=True)

    @torch.inference_mode()
    def generate(self, warm: Warm, max_new_tokens: int, stops: frozenset[int]) -> list[tuple[Ids, float]]:
        """The greedy response of every row, with its smallest margin between the best and the second token."""
        assert warm.logits_BV is not None
        made: list[list[int]] = [[] for _ in warm.length_B]
        margins = [float("inf")] * len(made)
        live = list(range(len(made)))
        rows, logits_BV, past = live, warm.logits_BV, None
        while live:
            top_BN = logits_BV.topk(2).values
            check_finite(top_BN)
            best, second = top_BN.T.tolist()
            for at, (row, token) in enumerate(zip(rows, logits_BV.argmax(-1).tolist(), strict=True)):
                if row in live:
                    made[row].append(token)
                    margins[row] = min(margins[row], best[at] - second[at])
            live = [r for r in live if len(made[r]) < max_new_tokens and made[r][-1] not in stops]
            if not live:
                break
            if past is None:
                past, rows = Decoding(warm.rows(live), max_new_tokens), live
            elif len(live) <= len(rows) // 2:  # finished rows are dropped when they are half of the batch
                past.keep([rows.index(r) for r in live])
                rows = live
            logits_BV = self._decode(past, [made[r][-1] for r in rows], len(live))
        return [(tuple(ids), margin) for ids, margin in zip(made, margins, strict=True)]

    @torch.inference_mode()
    def cells(self, warm: Warm, wanted: Sequence[Sequence[Ids]]) -> list[list[npt.NDArray[np.float64]]]:
        """Log-prob of every token of the wanted responses of each row, behind its prompt."""
        assert warm.logits_BV is not None
        found = [[np.zeros(len(r)) for r in responses] for responses in wanted]
        self._first_tokens(warm.logits_BV, wanted, found)
        jobs = [
            (b, part, Tree.of([wanted[b][i] for i in part]))
            for b, w in enumerate(wanted)
            for part in parts(w, _ROW_TOKENS)
        ]
        jobs = sorted((job for job in jobs if job[2].size), key=lambda job: (-job[2].size, job[0]))
        while jobs:
            width, positions = jobs[0][2].size, max(1, max(len(job[2].targets) for job in jobs))
            count = max(1, min(self.token_budget // width, self.head_budget // positions))
            self._tree_pass(warm, sorted(jobs[:count], key=lambda job: job[0]), found)
            del jobs[:count]
        return found

    def _first_tokens(
        self, logits_BV: Tensor, wanted: Sequence[Sequence[Ids]], found: list[list[npt.NDArray[np.float64]]]
    ) -> None:
        norm_B = logits_BV.logsumexp(-1)
        places = [(b, i, response[0]) for b, responses in enumerate(wanted) for i, response in enumerate(responses)]
        if places:
            rows, tokens = [b for b, _, _ in places], [token for _, _, token in places]
            logp = logits_BV[rows, tokens] - norm_B[rows]
            check_finite(logp)
            for (b, i, _), value in zip(places, logp.tolist(), strict=True):
                found[b][i][0] = value

    def _tree_pass(
        self, warm: Warm, jobs: Sequence[tuple[int, list[int], Tree]], found: list[list[npt.NDArray[np.float64]]]
    ) -> None:
        past = warm.rows([b for b, _, _ in jobs])
        width, behind = max(tree.size for _, _, tree in jobs), past.seen_BK.shape[1]
        ids_BT = torch.zeros(len(jobs), width, dtype=torch.long)
        depth_BT = torch.zeros(len(jobs), width, dtype=torch.long)
        seen_BTK = torch.zeros(len(jobs), width, behind + width, dtype=torch.bool)
        seen_BTK[:, :, :behind] = past.seen_BK[:, None, :]
        seen_BTK[:, range(width), range(behind, behind + width)] = (
            True  # padding sees itself, so that its softmax is defined
        )
        for row, (_, _, tree) in enumerate(jobs):
            ids_BT[row, : tree.size] = torch.from_numpy(tree.ids)
            depth_BT[row, : tree.size] = torch.from_numpy(tree.depth)
            seen_BTK[row, : tree.size, behind : behind + tree.size] |= torch.from_numpy(tree.seen)
        heads = [row * width + node for row, (_, _, tree) in enumerate(jobs) for node in tree.heads]
        at = {place: n for n, place in enumerate(heads)}
        logits_NV = self._forward(ids_BT, past.length_B[:, None] + depth_BT, seen_BTK, cache_of(past), heads)
        norm_N = _logsumexp(logits_NV)
        targets = [
            (row, part[i], t, at[row * width + node], token)
            for row, (_, part, tree) in enumerate(jobs)
            for i, t, node, token in tree.targets
        ]
        rows, tokens = [n for *_, n, _ in targets], [token for *_, token in targets]
        logp = logits_NV[rows, tokens] - norm_N[rows]
        check_finite(logp)
        for (row, i, t, _, _), value in zip(targets, logp.tolist(), strict=True):
            found[jobs[row][0]][i][t] = value
        self._count(sum(tree.size for _, _, tree in jobs), ids_BT.numel(), len(heads))

    def _extend(self, warm: Warm, parents: Sequence[int], tokens: Sequence[Ids], last: bool = False) -> Warm:
        """Put tokens behind rows ``parents`` of ``warm``: batches of similar length. ``last``: the next-token logits
        are wanted.
        """
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        made: list[tuple[list[int], Warm]] = []
        while order:
            count = max(
                1, min(self.token_budget // max(1, len(tokens[order[0]])), self.head_budget if last else len(order))
            )
            batch, order = sorted(order[:count]), order[count:]
            made.append(
                (batch, self._extend_batch(warm.rows([parents[i] for i in batch]), [tokens[i] for i in batch], last))
            )
        return joined_rows(made)

    def _extend_batch(self, past: Warm, tokens: Sequence[Ids], last: bool) -> Warm:
        width, behind = max(map(len, tokens)), past.seen_BK.shape[1]
        ids_BT, real_BT = (
            torch.zeros(len(tokens), width, dtype=torch.long),
            torch.zeros(len(tokens), width, dtype=torch.bool),
        )
        for b, ids in enumerate(tokens):
            ids_BT[b, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            real_BT[b, : len(ids)] = True
        positions_BT = past.length_B[:, None] + torch.arange(width)
        causal_TT = torch.ones(width, width, dtype=torch.bool).tril()
        seen_BTK = (
            torch.cat([past.seen_BK[:, None, :].expand(-1, width, -1), causal_TT.expand(len(tokens), -1, -1)], 2)
            if behind
            else None
        )
        cache = cache_of(past)
        heads = [b * width + len(ids) - 1 for b, ids in enumerate(tokens)] if last else []
        logits_NV = self._forward(ids_BT, positions_BT, seen_BTK, cache, heads)
        self._count(sum(map(len, tokens)), ids_BT.numel(), len(heads))
        return Warm(
            [layer.keys for layer in cache.layers],
            [layer.values for layer in cache.layers],
            torch.cat([past.seen_BK, real_BT], 1),
            past.length_B + real_BT.sum(1),
            logits_NV if last else None,
        )

    def _decode(self, past: Decoding, tokens: Sequence[int], live: int) -> Tensor:
        positions_BT = past.length_B[:, None].clone()
        logits_BV = self._forward(
            torch.tensor(tokens)[:, None], positions_BT, past.step(), past.cache, list(range(len(tokens)))
        )
        self._count(live, len(tokens), len(tokens))
        return logits_BV

    def _forward(
        self, ids_BT: Tensor, positions_BT: Tensor, seen_BTK: Tensor | None, cache: Any, heads: list[int]
    ) -> Tensor:
        """Next-token logits [N, V], float32, at the flattened positions ``heads``; the new keys go into ``cache``."""
        device = self.model.device
        positions_BT = positions_BT.clamp(max=self.context - 1)  # only padding can lie beyond
        mask = None if seen_BTK is None else additive(seen_BTK, self.model.dtype).to(device)
        with only_rows(self.model, heads or [0], trim=len(heads) < ids_BT.numel()):
            out = self.model(
                input_ids=ids_BT.to(device),
                position_ids=positions_BT.to(device),
                attention_mask=mask,
                use_cache=True,
                **cache_argument(self.model, cache),
            )
        logits_NV: Tensor = out.logits[0].float()
        return logits_NV

    def _count(self, tokens: int, padded: int, head_rows: int) -> None:
        self.cost.tokens, self.cost.padded = self.cost.tokens + tokens, self.cost.padded + padded
        self.cost.calls, self.cost.head_rows = self.cost.calls + 1, self.cost.head_rows + head_rows


def common_prefix(prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with, leaving each at least one token of its own."""
    low, high = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    return low[: min(shared, min(map(len, prompts)) - 1)]


def _logsumexp(logits_NV: Tensor) -> Tensor:
    """Normaliser of each row, a few rows at a time: the working memory stays in the cache."""
    rows = max(1, 2**20 // logits_NV.shape[-1])
    return torch.cat([logits_NV[start : start + rows].logsumexp(-1) for start in range(0, len(logits_NV), rows)])
