"""The same answers as the engine's, computed in the plainest way: one sequence at a time, no cache and no batch.

This is the reference that every fast path is tested against, what ``--exact`` runs, and the fallback for models that
the engine does not support.

    log P(c | x) = sum_i log softmax(logits(x, c[:i]))[c[i]]

Axes: T tokens, N positions after the prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from holdfast.lm.batched import check_finite
from holdfast.lm.score import Cost, OnHidden, Request, Scored
from holdfast.records import Ids


@torch.inference_mode()
def score(
    model: Any, requests: Sequence[Request], *, on_hidden: OnHidden | None = None, cost: Cost | None = None
) -> list[Scored]:
    """Return what ``Engine.score`` returns, with one whole sequence per forward pass and the model's own head on every
    position.
    """
    answers = [Scored.blank(request) for request in requests]
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        for index, ids in enumerate(request.sequences()):
            states = bool(on_hidden and request.hidden_at and not index)
            out = model(
                input_ids=torch.tensor([ids], device=model.device), output_hidden_states=states, use_cache=False
            )
            logits_NV = out.logits[0, len(request.prompt) - 1 :].float()
            logp_NV = logits_NV.log_softmax(-1)
            check_finite(logits_NV.logsumexp(-1))
            if request.continuations:
                check_finite(logp_NV[range(len(request.continuations[index])), request.continuations[index]])
            if cost is not None:
                cost.count(len(ids), len(ids), len(ids))
            if not index:
                answer.next_token = int(logits_NV[0].argmax())
                answer.next_entropy = float(torch.special.entr(logp_NV[0].exp()).sum())
            if on_hidden and states:
                picked = [layer[0, list(request.hidden_at)] for layer in out.hidden_states]
                on_hidden(number, torch.stack(picked, 1).float().cpu().numpy())
            for place, token in enumerate(request.continuations[index] if request.continuations else ()):
                answer.token_logprobs[index][place] = float(logp_NV[place, token])
                answer.is_greedy[index] &= token == int(logits_NV[place].argmax())
        if cost is not None:
            cost.plain_tokens += len(request.prompt)
    return answers


@torch.inference_mode()
def respond(
    model: Any, prompt: Ids, max_new_tokens: int, stops: frozenset[int], cost: Cost | None = None
) -> tuple[Ids, float]:
    """Return the greedy response from raw logits (ties: the lowest id), and its smallest margin between best and second
    token.
    """
    ids, margin = list(prompt), float("inf")
    while len(ids) < len(prompt) + max_new_tokens:
        logits_V = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
        check_finite(logits_V.logsumexp(-1))
        if cost is not None:
            cost.count(len(ids), len(ids), len(ids))
        best, second = logits_V.topk(2).values.tolist()
        margin = min(margin, best - second)
        ids.append(int(logits_V.argmax()))
        if ids[-1] in stops:
            break
    return tuple(ids[len(prompt) :]), margin


def cell(model: Any, prompt: Ids, response: Ids) -> npt.NDArray[np.float64]:
    """Return the log-prob of every token of one response after one prompt, nats."""
    return score(model, [Request(prompt, (response,))])[0].token_logprobs[0]


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Ids],
    max_new_tokens: int,
    stops: frozenset[int],
    ended: Callable[[Ids], bool] | None = None,
    cost: Cost | None = None,
    batch_size: int = 32,
) -> list[tuple[Ids, float]]:
    """Return what ``respond`` returns, by the model's own ``generate`` and cache. Prompts of one length go together, so
    nothing is padded.
    """
    import transformers

    answers: dict[Ids, tuple[Ids, float]] = {}
    waiting = sorted(set(prompts), key=len)
    configured, model.generation_config = model.generation_config, transformers.GenerationConfig()
    try:
        while waiting:
            width = len(waiting[0])
            batch = [prompt for prompt in waiting[:batch_size] if len(prompt) == width]
            del waiting[: len(batch)]
            out = model.generate(
                input_ids=torch.tensor(batch, device=model.device),
                attention_mask=torch.ones(len(batch), width, dtype=torch.long, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=sorted(stops) or None,
                pad_token_id=0,
                stopping_criteria=[_criterion(ended, width)] if ended else None,
                output_logits=True,
                return_dict_in_generate=True,
            )
            top_TB2 = torch.stack([logits_BV.float().topk(2).values for logits_BV in out.logits])
            check_finite(top_TB2)
            for row, prompt in enumerate(batch):
                ids = tuple(out.sequences[row, width:].tolist())
                ids = next((ids[:n] for n in range(1, len(ids)) if _over(ids[:n], stops, ended)), ids)
                margins_T = top_TB2[: len(ids), row, 0] - top_TB2[: len(ids), row, 1]
                answers[prompt] = ids, float(margins_T.min())
            if cost is not None:
                steps = out.sequences.shape[1] - width
                cost.count(len(batch) * (width + steps - 1), len(batch) * (width + steps - 1), len(batch) * steps)
    finally:
        model.generation_config = configured
    return [answers[prompt] for prompt in prompts]


def _over(ids: Ids, stops: frozenset[int], ended: Callable[[Ids], bool] | None) -> bool:
    return ids[-1] in stops or (ended is not None and ended(ids))


def _criterion(ended: Callable[[Ids], bool], width: int) -> Callable[..., torch.Tensor]:
    def over(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.tensor([ended(tuple(row)) for row in ids[:, width:].tolist()], device=ids.device)

    return over
