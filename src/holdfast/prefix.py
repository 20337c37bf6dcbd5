"""The model room, second door: log-probs of given ids after given prompts, with every shared prefix computed once.

In: prompts and continuations as ids. Out: the log-prob of every continuation token, and what the model itself would say
next.

    log P(c | x) = sum_i log softmax(logits(x, c[:i]))[c[i]]

The sequences become a tree (``holdfast.trie``); a token of a packed row sees the cached prefix, its own ancestors and
itself through a 4-D attention mask, and carries its position in its own sequence. The head is computed on the rows that
are asked for, in float32. ``score_plain`` is the same, one sequence at a time; a model that does not agree with it on a
small case is always scored plainly.
Axes: B rows, T tokens of a row, K tokens of prefix and row, N positions whose distribution is wanted, V vocabulary, D
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from holdfast.errors import HoldfastError
from holdfast.lm import LM
from holdfast.lm.batched import check_finite
from holdfast.packing import Cost, OnStates, Request, Run, Scores, blank, ids_of
from holdfast.trie import build, plan

__all__ = ["Cost", "OnStates", "Request", "Scores", "packs", "score", "score_plain"]


def score(
    lm: LM,
    requests: Sequence[Request],
    *,
    token_budget: int | None = None,
    row_tokens: int = 512,
    on_states: OnStates | None = None,
) -> tuple[list[Scores], Cost]:
    """Score all continuations, each distinct prefix once.

    Args:
        requests: any number, in any order; the order changes nothing.
        token_budget: tokens per forward pass, padding included. Changes speed and memory only. Default: 1024 on a CPU,
            whose caches hold no more, 16384 elsewhere.
        row_tokens: longest packed row, unless a single sequence is longer. Changes speed only.
        on_states: called once per request with taps.

    Raises:
        HoldfastError: a sequence longer than the model's context, an empty prompt, or logits that are not finite.
    """
    _check(lm, requests)
    if not packs(lm, max((len(r.prompt) + max(map(len, r.continuations), default=1) for r in requests), default=0)):
        return score_plain(lm, requests, on_states=on_states)
    budget = token_budget or (1024 if lm.model.device.type == "cpu" else 16_384)
    return _score_packed(lm, requests, budget, row_tokens, on_states)


@torch.inference_mode()
def score_plain(lm: LM, requests: Sequence[Request], *, on_states: OnStates | None = None) -> tuple[list[Scores], Cost]:
    """As ``score``, one whole sequence per forward pass: the reference. The head is the model's own, on every
    position.
    """
    _check(lm, requests)
    lm.model.eval()
    answers, cost = blank(requests), Cost()
    for number, request in enumerate(requests):
        cost.plain_tokens += len(request.prompt)
        for index, continuation in enumerate(request.continuations or ((),)):
            ids = request.prompt + continuation[:-1]
            out = lm.model(
                input_ids=torch.tensor([ids], device=lm.model.device),
                output_hidden_states=bool(on_states and request.taps and not index),
            )
            logits_NV = out.logits[0, len(request.prompt) - 1 :].float()
            check_finite(logits_NV)
            logp_NV = logits_NV.log_softmax(-1)
            if not index:
                answers[number].top = int(logp_NV[0].argmax())
                answers[number].entropy = float(-(logp_NV[0].exp() * logp_NV[0]).sum())
                if on_states and request.taps:
                    on_states(
                        number,
                        torch.stack([h[0, list(request.taps)] for h in out.hidden_states], 1).float().cpu().numpy(),
                    )
            for place, token in enumerate(continuation):
                answers[number].token_logp[index][place] = float(logp_NV[place, token])
            cost.tokens, cost.padded, cost.calls = cost.tokens + len(ids), cost.padded + len(ids), cost.calls + 1
    return answers, cost


def packs(lm: LM, longest: int = 0) -> bool:
    """Whether this model scores packed rows as it scores plain ones: tried once on a small case. Sliding windows must
    not bite.
    """
    window = getattr(lm.model.config.get_text_config(), "sliding_window", None)
    if window is not None and longest > window:
        return False
    known: bool | None = getattr(lm.model, "_holdfast_packs", None)
    if known is None:
        known = _agrees(lm)
        lm.model._holdfast_packs = known
    return known


def _agrees(lm: LM) -> bool:
    size = lm.model.get_output_embeddings().weight.shape[0] if lm.model.get_output_embeddings() is not None else 0
    if size < 16:
        return False
    tokens = [i * (size // 16) for i in range(16)]
    requests = [Request((*tokens[:5], tokens[i]), ((tokens[7],), (tokens[8], tokens[9]))) for i in (5, 6, 10)]
    tolerance = 2e-4 if lm.model.dtype in (torch.float32, torch.float64) else 0.1
    try:
        plain, _ = score_plain(lm, requests)
        for row_tokens in (1, 64):  # through caches, and through the mask
            ours, _ = _score_packed(lm, requests, 64, row_tokens, None, worth=1)
            if any(not np.allclose(a.total, b.total, atol=tolerance, rtol=tolerance) for a, b in zip(ours, plain)):
                return False
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
        return False
    return True


@torch.inference_mode()
def _score_packed(
    lm: LM,
    requests: Sequence[Request],
    token_budget: int,
    row_tokens: int,
    on_states: OnStates | None,
    worth: int | None = None,
) -> tuple[list[Scores], Cost]:
    lm.model.eval()
    owners = [(r, c) for r, request in enumerate(requests) for c in range(max(1, len(request.continuations)))]
    root = build([requests[r].prompt + ids_of(requests[r], c)[:-1] for r, c in owners])
    passes = plan(root, row_tokens) if worth is None else plan(root, row_tokens, worth)
    run = Run(lm, requests, on_states)
    run.locate(passes, owners)
    for step in passes:
        run.step(step, token_budget)
    return run.answers, run.cost


def _check(lm: LM, requests: Sequence[Request]) -> None:
    for number, request in enumerate(requests):
        if not request.prompt:
            raise HoldfastError(
                f"prompt {number} is empty, and the tokenizer adds no BOS", hint="a model needs one token to start from"
            )
        longest = len(request.prompt) + max((len(c) for c in request.continuations), default=1) - 1
        if longest > lm.context:
            raise HoldfastError(
                f"prompt {number} and its continuation have {longest} tokens; the model takes {lm.context}"
            )
