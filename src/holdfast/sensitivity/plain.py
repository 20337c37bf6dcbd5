"""The plain way: one prompt, one pair at a time, no cache and no batch. The reference of every fast path, and what
``--exact`` runs.

log P(y | x) = sum_t log softmax(logits(x, y[:t]))[y_t]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from holdfast.lm.batched import check_finite
from holdfast.sensitivity.responses import Ids


@torch.inference_mode()
def respond(model: Any, prompt: Ids, max_new_tokens: int, stops: frozenset[int]) -> tuple[Ids, float]:
    """Greedy response from raw logits (ties: the lowest id), and its smallest margin between best and second token."""
    ids, margin = list(prompt), float("inf")
    while len(ids) < len(prompt) + max_new_tokens:
        logits_V = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
        check_finite(logits_V.logsumexp(-1))
        best, second = logits_V.topk(2).values.tolist()
        margin = min(margin, best - second)
        ids.append(int(logits_V.argmax()))
        if ids[-1] in stops:
            break
    return tuple(ids[len(prompt) :]), margin


@torch.inference_mode()
def cell(model: Any, prompt: Ids, response: Ids) -> npt.NDArray[np.float64]:
    """Log-prob of every response token after the prompt, nats, from one forward pass over the whole sequence."""
    ids = torch.tensor([prompt + response], device=model.device)
    logp_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    logp_T = logp_TV.gather(-1, ids[0, len(prompt) :, None])[:, 0]
    check_finite(logp_T)
    return np.asarray(logp_T.double().cpu().numpy())
