"""The load-balancing loss of a mixture of experts.

It is added where a model's config asks for it, as the model's own ``forward`` would add it.

    config: output_router_logits: true, router_aux_loss_coef: C      loss = weighted NLL + C x router loss

Every family of transformers computes it (Switch, arXiv 2101.03961) by a function of one name from what its routers
said. That function is called here, with a mask of what is no padding, whatever the layout of the batch. A probe shows
that it gives what ``forward`` gives.
"""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holdfast.errors import HoldfastError
from holdfast.tune.head import unwrapped


@dataclass(frozen=True)
class RouterLoss:
    """The router loss of one model, and how much of it enters the loss."""

    model: Any
    coefficient: float

    def __call__(self, router_logits: Any, mask_BT: Tensor) -> Tensor:
        """Return the loss of the logits of all routers; ``mask_BT`` says which tokens count.

        Where all experts get the same share of the tokens, it is the number of experts per token.
        """
        function = _function(self.model)
        values = {
            "gate_logits": router_logits,
            "router_logits": router_logits,
            "num_experts": self.model.num_experts,
            "num_keys": math.isqrt(self.model.num_experts),  # Doge
            "top_k": self.model.num_experts_per_tok,
            "attention_mask": mask_BT,
        }
        wanted = inspect.signature(function).parameters
        loss: Tensor = function(**{name: value for name, value in values.items() if name in wanted})
        return loss


def router_loss(model: Any) -> RouterLoss | None:
    """The router loss of a causal LM (which may be wrapped by PEFT), or None where its config asks for none.

    Raises:
        HoldfastError: the config asks for one that cannot be computed here as the model computes it.
    """
    causal = unwrapped(model)
    config = causal.config.get_text_config()
    coefficient = _coefficient(causal, config)
    if not getattr(config, "output_router_logits", False) or not coefficient:
        return None
    router = RouterLoss(causal, coefficient)
    own, reason = _probe(router)
    if own is None and reason is None:
        return None  # a dense model of such a family
    if reason is not None:
        raise HoldfastError(
            f"the model's config asks for a router loss (output_router_logits), and {reason}",
            hint="set output_router_logits to false in its config.json to train without one",
        )
    return router


def _coefficient(causal: Any, config: Any) -> float:
    for owner, name in ((config, "router_aux_loss_coef"), (causal, "router_aux_loss_coef"), (causal, "aux_loss_coef")):
        value = getattr(owner, name, None)
        if value is not None:
            return float(value)
    return 0.0


def _function(causal: Any) -> Any:
    """The function by which the model's family computes its router loss."""
    modules = (sys.modules[kind.__module__] for kind in type(causal).__mro__)
    return next((f for module in modules if (f := getattr(module, "load_balancing_loss_func", None)) is not None), None)


@torch.no_grad()
def _probe(router: RouterLoss) -> tuple[float | None, str | None]:
    """Return the model's own router loss on two short inputs, and why ours differs, if it does.

    One input is padded. The loss is None for a model that has none.
    """
    embeddings = router.model.get_input_embeddings()
    ids_BT = (torch.arange(12, device=embeddings.weight.device).view(2, 6) * 7919 + 11) % embeddings.num_embeddings
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, 4:] = 0
    was_training = router.model.training
    router.model.eval()
    own = None
    try:
        out = router.model(input_ids=ids_BT, attention_mask=mask_BT, output_router_logits=True, use_cache=False)
        if getattr(out, "aux_loss", None) is None:
            return None, None
        own = float(out.aux_loss)
        ours = float(router(out.router_logits, mask_BT))
    except Exception as error:  # a model may fail in any way on arguments that it does not know
        return own, f"it cannot be computed for this model ({type(error).__name__}: {str(error)[:120]})"
    finally:
        router.model.train(was_training)
    return own, None if math.isclose(ours, own, rel_tol=1e-3) else f"ours is {ours:.4g} where the model's is {own:.4g}"
