"""What happens to the logits of a row between the two products with the head: the plain operation, and one to compile.

    z = cap(scale (x + b));  nll = log sum exp(z) - z[y];  x <- w g (softmax(z) - onehot(y)) dz/dx

In: logits x as the head gives them, targets y, weights w over the divisor of the step. Out: NLL and g per row, and the
gradient in place of the logits. ``kernel.py`` does the same in one Triton kernel.

Axes: C rows of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.tune.adaptive import Adaptive


@dataclass(frozen=True)
class RowOp:
    """How logits are transformed, how rows are weighted, and whether a gradient is wanted."""

    bias_V: Tensor | None = None
    softcap: float | None = None
    logit_scale: float = 1.0
    adaptive: Adaptive | None = None
    grad: bool = True

    def transformed(self, x_CV: Tensor) -> Tensor:
        """z = cap(scale (x + b)), in place."""
        if self.bias_V is not None:
            x_CV += self.bias_V
        if self.logit_scale != 1.0:
            x_CV *= self.logit_scale
        return x_CV if self.softcap is None else x_CV.div_(self.softcap).tanh_().mul_(self.softcap)


Rows = Callable[[RowOp, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]
"""(op, logits_CV, targets_C, weights_C, adapts_C) -> (nll_C, g_C, left_C1). With ``op.grad`` the logits become their
gradient, but for a factor ``left_C1`` per row that is left to the products, whose rows are far shorter; None: nothing
is left."""


def torch_rows(
    op: RowOp, x_CV: Tensor, targets_C: Tensor, weights_C: Tensor, adapts_C: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The row operation in plain torch, float32 or better whatever the type of the logits."""
    # in float32 these are the logits themselves, not a copy
    z_CV = op.transformed(x_CV.to(torch.promote_types(x_CV.dtype, torch.float32)))
    entropy_C = op.adaptive.entropy_factor(z_CV) if op.adaptive else None
    slope_CV = 1 - (z_CV / op.softcap).square_() if op.softcap is not None and op.grad else None
    nll_C, p_CV = _softmax_nll(z_CV, targets_C)
    g_C = torch.ones_like(nll_C)
    if op.adaptive is not None:
        g_C = op.adaptive.factor(nll_C, entropy_C)
        g_C = g_C if adapts_C is None else torch.where(adapts_C, g_C, 1.0)
    if op.grad:
        p_CV[torch.arange(len(p_CV), device=p_CV.device), targets_C] -= 1
        if slope_CV is not None:
            p_CV *= slope_CV
        if p_CV.dtype != x_CV.dtype:
            x_CV.copy_(p_CV)
    return nll_C, g_C, (weights_C * g_C * op.logit_scale)[:, None]


def fusable_rows(
    op: RowOp, x_CV: Tensor, targets_C: Tensor, weights_C: Tensor, adapts_C: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same as ``torch_rows`` without library calls between the passes, so that a compiler can fuse them.

    Without a compiler it is the slower one.
    """
    z_CV = op.transformed(x_CV.to(torch.promote_types(x_CV.dtype, torch.float32), copy=True))
    entropy_C = op.adaptive.entropy_factor(z_CV) if op.adaptive else None
    top_C1 = z_CV.amax(1, keepdim=True)
    norm_C1 = top_C1 + (z_CV - top_C1).exp().sum(1, keepdim=True).log()
    nll_C = (norm_C1 - z_CV.gather(1, targets_C[:, None])).squeeze(1)
    g_C = op.adaptive.factor(nll_C, entropy_C) if op.adaptive else torch.ones_like(nll_C)
    g_C = g_C if adapts_C is None or op.adaptive is None else torch.where(adapts_C, g_C, 1.0)
    if op.grad:
        hit_CV = torch.arange(z_CV.shape[1], device=z_CV.device) == targets_C[:, None]
        d_CV = (z_CV - norm_C1).exp() - hit_CV.to(z_CV.dtype)
        d_CV = d_CV if op.softcap is None else d_CV * (1 - (z_CV / op.softcap).square())
        x_CV.copy_(d_CV * (weights_C * g_C * op.logit_scale)[:, None])
    return nll_C, g_C, None


def _softmax_nll(z_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """NLL per row and probabilities, from one fused softmax and two passes for a maximum.

    log sum exp(z - max) is read off the largest probability, which is exp(0) / sum. (``max`` with indices would save a
    pass, but is several times slower than ``amax`` on a CPU.)
    """
    at_target_C = z_CV.gather(1, targets_C[:, None]).squeeze(1)
    top_C = z_CV.amax(1)
    p_CV = torch.softmax(z_CV, -1, out=z_CV)
    return (top_C - at_target_C) - p_CV.amax(1).log(), p_CV
