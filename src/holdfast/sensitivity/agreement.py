"""Whether the fast way may be taken: a model that does not agree with its own plain forward pass on a small case is
scored plainly.
"""

from __future__ import annotations

import numpy as np
import torch

from holdfast.lm import LM
from holdfast.lm.batched import NotFiniteError
from holdfast.sensitivity import plain
from holdfast.sensitivity.engine import Engine


def agrees(lm: LM) -> bool:
    """Whether this model gives the same log-probs the fast way as the plain way: tried once, on a small case."""
    known: bool | None = getattr(lm.model, "_holdfast_shares_caches", None)
    if known is None:
        known = _windows_fit(lm) and _agrees(lm)
        lm.model._holdfast_shares_caches = known
    return known


def _windows_fit(lm: LM) -> bool:
    """Sliding-window attention has masks of its own, which ours would override: only a window as wide as the context is
    safe.
    """
    window = getattr(lm.model.config.get_text_config(), "sliding_window", None)
    used = getattr(lm.model.config.get_text_config(), "use_sliding_window", True)
    return not window or not used or window >= lm.context


def _agrees(lm: LM) -> bool:
    head = lm.model.get_output_embeddings()
    size = head.weight.shape[0] if head is not None else 0
    if size < 16:
        return False
    token = [i * (size // 16) for i in range(16)]
    prompts = [(*token[:3], token[5]), (*token[:3], token[6], token[7]), (token[1], token[9])]
    responses = [(token[4], token[8], token[11]), (token[4], token[12]), (token[13],)]
    tolerance = 2e-4 if lm.model.dtype in (torch.float32, torch.float64) else 0.1
    try:
        engine = Engine(lm.model, lm.context)
        warm = engine.prefill([prompts[:2], prompts[2:]])
        engine.generate(warm, 3, frozenset())
        for prompt, found in zip(prompts, engine.cells(warm, [responses] * 3), strict=True):
            for response, logp_T in zip(responses, found, strict=True):
                if not np.allclose(logp_T, plain.cell(lm.model, prompt, response), atol=tolerance, rtol=tolerance):
                    return False
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError):
        return False
    except NotFiniteError:
        return True  # a matter of the weights, which the real run will name
    return True
