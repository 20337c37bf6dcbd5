"""From a model to its fused head: which model families transform their logits how, and proof that we do the same.

``attach`` gives a causal LM's ``forward`` one more keyword, ``loss_rows``: with it the model returns the weighted loss
instead of logits. Going through ``forward`` keeps DDP, FSDP, DeepSpeed and PEFT wrappers at work; the head's own
``forward`` makes the loss, so that what gathers a sharded head (FSDP2, ZeRO-3) sees it called. Before that, one short
input is put through both paths; a model whose head we do not understand fails this check and is sent to the plain path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.tune.adaptive import Adaptive
from holdfast.tune.loss import weighted_linear_cross_entropy


@dataclass(frozen=True)
class LossRows:
    """What the loss needs beside the hidden states: ids and weights [B, T], and the divisor of the step.

    Column 0 of the weights is 0.
    """

    ids_BT: Tensor
    weights_BT: Tensor
    divisor: Tensor | float
    kept_M: Tensor | None = None
    """Places of the weights that are not 0, in the flattened weights without column 0; None: look for them.

    Looking waits for the GPU.
    """
    adaptive: Adaptive | None = None
    adapts_BT: Tensor | None = None
    """Targets that ``adaptive`` applies to, bool; None: all."""
    head: str = "auto"
    """What works on the logits: auto, torch or triton."""


def attach(model: Any) -> str | None:
    """Teach the causal LM inside ``model`` (which may be wrapped by PEFT) the keyword ``loss_rows``.

    Returns:
        None on success, else the reason why this model needs the plain path.
    """
    causal = unwrapped(model)
    if hasattr(causal, "holdfast_forward"):
        return None
    reason = _unsupported(causal)
    if reason is None:
        patched = ((causal, _forward), (causal.get_output_embeddings(), _head_forward))
        for module, forward in patched:
            module.holdfast_forward, module.forward = module.forward, MethodType(forward, module)
        if not _agrees(causal):
            for module, _ in patched:
                module.forward = module.holdfast_forward
                del module.holdfast_forward
            reason = "its logits are not the product of hidden states and head that the fused path assumes"
    return reason


def unwrapped(model: Any) -> Any:
    """The causal LM itself, which PEFT may have wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logit_transform(config: Any) -> tuple[float, float | None]:
    """(scale, softcap) by which a model family transforms the head's output, from its config. (1, None) for most."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)  # Falcon-H1
    scale *= float(getattr(config, "output_multiplier", None) or 1.0)
    divide = getattr(config, "logits_scaling", None)  # Granite divides, HyperCLOVA X multiplies
    if divide:
        scale *= float(divide) if config.model_type == "hyperclovax" else 1 / float(divide)
    return scale, getattr(config, "final_logit_softcapping", None)  # Gemma


def _unsupported(model: Any) -> str | None:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is not nn.Linear:
        return f"its head is {type(head).__name__}, not a plain linear layer"
    if _decoder(model) is None:
        return "its decoder could not be found"
    return None


def _decoder(model: Any) -> nn.Module | None:
    decoder = getattr(model, getattr(model, "base_model_prefix", "") or "model", None)
    return decoder if isinstance(decoder, nn.Module) else None


def _forward(self: Any, *args: Any, loss_rows: LossRows | None = None, **kwargs: Any) -> Any:
    if loss_rows is None:
        return self.holdfast_forward(*args, **kwargs)
    kwargs |= {"use_cache": False, "return_dict": True}
    out = _decoder(self)(*args, **kwargs)  # type: ignore[misc]
    hidden_BTD = out.last_hidden_state
    scale, softcap = logit_transform(self.config)
    adapts_BT = loss_rows.adapts_BT
    loss_of = partial(
        weighted_linear_cross_entropy,
        targets_N=loss_rows.ids_BT[:, 1:].reshape(-1),
        weights_N=loss_rows.weights_BT[:, 1:].reshape(-1),
        divisor=loss_rows.divisor,
        softcap=softcap,
        logit_scale=scale,
        adaptive=loss_rows.adaptive,
        adapts_N=None if adapts_BT is None else adapts_BT[:, 1:].reshape(-1),
        kept_M=loss_rows.kept_M,
        head=loss_rows.head,
    )
    loss, nll_N = self.get_output_embeddings()(hidden_BTD[:, :-1].reshape(-1, hidden_BTD.shape[-1]), loss_of=loss_of)
    nll_BT = nn.functional.pad(nll_N.view(len(hidden_BTD), -1), (1, 0))
    outputs = {"loss": loss, "nll": nll_BT}
    return outputs | {"router_logits": out.router_logits} if kwargs.get("output_router_logits") else outputs


def _head_forward(self: Any, hidden: Tensor, loss_of: Callable[..., Any] | None = None) -> Any:
    if loss_of is None:
        return self.holdfast_forward(hidden)
    weight, bias = (x.full_tensor() if hasattr(x, "full_tensor") else x for x in (self.weight, self.bias))
    return loss_of(hidden_ND=hidden, head_VD=weight, bias_V=bias)


@torch.no_grad()
def _agrees(model: Any) -> bool:
    """Whether both paths give the same NLL on one short input, up to the rounding of the model's type."""
    from holdfast.lm.batched import token_nll

    device, dtype = model.get_output_embeddings().weight.device, model.get_output_embeddings().weight.dtype
    vocabulary = model.get_output_embeddings().weight.shape[0]
    ids_BT = torch.arange(8, device=device)[None] * (vocabulary // 8)
    was_training = model.training
    model.eval()
    try:
        ours = model(input_ids=ids_BT, loss_rows=LossRows(ids_BT, torch.ones(1, 8, device=device), 1.0))["nll"]
        plain = token_nll(model.holdfast_forward(input_ids=ids_BT).logits, ids_BT)
    except (TypeError, AttributeError, RuntimeError):
        return False
    finally:
        model.train(was_training)
    tolerance = 1e-3 if dtype in (torch.float32, torch.float64) else 0.1
    return bool(torch.allclose(ours.double(), plain.double(), atol=tolerance, rtol=tolerance))
