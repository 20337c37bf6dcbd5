"""The weighted loss: once plainly, once fast.

    L = sum_t w_t nll_t / divisor                                             (arXiv 2507.07817, eq. 2)
    nll_t = -log softmax(z_t)[y_t],   z_t = f(c (W h_t + b))
    dL/dz_t = (w_t / divisor) (softmax(z_t) - onehot(y_t)) f'

Numerator and denominator travel apart; the caller divides once per optimizer step.

``weighted_nll`` works on full logits: the plain path, and the oracle. ``weighted_linear_cross_entropy`` never holds
more than one chunk of logits: rows of zero weight do not reach the head, and because the divisor is known before the
forward pass, the gradient is finished there (``chunk.py``: 6 T H V floating point operations for a trained head, 4 T H
V for a frozen one, no recomputation).

Prior art, read and credited in docs/papers.md: Liger's fused linear cross entropy, mgmalek/efficient_cross_entropy,
XTuner, TRL.

Axes: B batch, T tokens, V vocabulary, N rows (targets), H hidden, C rows of a chunk.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.lm.batched import token_nll
from holdfast.tune.adaptive import Adaptive
from holdfast.tune.chunk import WeightedHead, choose, default_chunk_rows
from holdfast.tune.row_ops import RowOp


class WeightedNLL(NamedTuple):
    """The two parts of the loss, undivided, and what they are made of.

    ``total`` = sum of w * g * nll in nats; ``count`` = number of targets of non-zero weight w; ``nll_BT`` = NLL of
    every token.

    The paper's loss is total / count.
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]
    nll_BT: Tensor


def weighted_nll(
    logits_BTV: Tensor,
    ids_BT: Tensor,
    weights_BT: Tensor,
    adaptive: Adaptive | None = None,
    adapts_BT: Tensor | None = None,
) -> WeightedNLL:
    """The weighted loss on full logits, unnormalised (arXiv 2507.07817, eq. 2, numerator and denominator).

    Args:
        logits_BTV: logits at every position; position t predicts token t + 1.
        ids_BT: token ids.
        weights_BT: weight of each token *as a target*; column 0 is ignored.
        adaptive: factor g that looks at the token and carries no gradient; None: 1.
        adapts_BT: targets that it applies to, bool; None: all.

    Returns:
        WeightedNLL(total, count, nll_BT), two scalars and column 0 of the third 0; ``total`` carries the gradient.

    >>> import torch
    >>> from holdfast import weighted_nll
    >>> logits, ids = torch.zeros(1, 3, 8), torch.tensor([[5, 1, 2]])  # 8 tokens, all equally likely: ln 8 nats each
    >>> total, count, nll = weighted_nll(logits, ids, torch.tensor([[0.0, 0.2, 0.8]]))
    >>> round((total / count).item(), 4), nll.shape
    (1.0397, torch.Size([1, 3]))
    """
    nll_BT = token_nll(logits_BTV, ids_BT)
    weights_BT = torch.nn.functional.pad(weights_BT[:, 1:], (1, 0))
    count = (weights_BT != 0).sum()
    if adaptive is not None:
        factor_BT = adaptive_factor(adaptive, logits_BTV, nll_BT)
        weights_BT = weights_BT * (factor_BT if adapts_BT is None else torch.where(adapts_BT, factor_BT, 1.0))
    # eq. 2 of arXiv 2507.07817: sum_t w_t nll_t, and how many w_t are not 0 (``count``). ``where``, not a product,
    # because an infinite NLL under zero weight must not become NaN.
    return WeightedNLL(torch.where(weights_BT != 0, weights_BT * nll_BT, 0).sum(), count, nll_BT)


@torch.no_grad()
def adaptive_factor(adaptive: Adaptive, logits_BTV: Tensor, nll_BT: Tensor) -> Tensor:
    """Return the factor g of every token as a target, [B, T], on full logits; column 0 is 1.

    ``nll_BT`` is that of ``token_nll``.
    """
    z_BTV = logits_BTV[:, :-1]
    entropy_BT = adaptive.entropy_factor(z_BTV.to(torch.promote_types(z_BTV.dtype, torch.float32)))
    return torch.nn.functional.pad(adaptive.factor(nll_BT[:, 1:], entropy_BT), (1, 0), value=1.0)


def divide(total: Tensor, divisor: Tensor | float) -> Tensor:
    """total / divisor, where a divisor of 0 (a step without targets) leaves the zero that ``total`` is then."""
    divisor = torch.as_tensor(divisor, device=total.device).to(total.dtype)
    return total / divisor.clamp(min=torch.finfo(total.dtype).tiny)


def weighted_linear_cross_entropy(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
    *,
    divisor: Tensor | float,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    chunk_rows: int | None = None,
    adaptive: Adaptive | None = None,
    adapts_N: Tensor | None = None,
    kept_M: Tensor | None = None,
    head: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Head and weighted loss in one, without the matrix of logits.

    Args:
        hidden_ND: hidden states that predict the targets (already shifted).
        head_VD: weight of the LM head.
        targets_N: target ids.
        weights_N: weights; rows of weight 0 cost nothing.
        divisor: what the weighted sum is divided by, for the whole optimizer step (see ``weights.NORMALIZERS``).
        bias_V: bias of the head.
        softcap: logits become softcap * tanh(logits / softcap) (Gemma).
        logit_scale: what the head gives is multiplied by this before the soft-cap (Cohere, Granite).
        chunk_rows: rows of logits alive at a time; default from the size of the vocabulary and the device.
        adaptive: factor g that looks at the token; the loss is then sum(w * g * nll) / divisor, and g carries no
            gradient.
        adapts_N: which rows it applies to, bool; default all.
        kept_M: numbers of the rows of non-zero weight, where the caller knows them: finding them waits for the GPU.
        head: what works on the logits: auto, torch or triton.

    Returns:
        loss: scalar, sum(w * nll) / divisor, with gradients for hidden, head and bias where they require one. With no
            row left it is a zero that is still connected to the graph.
        nll_N: detached NLL per target in nats, 0 for rows of weight 0.

    >>> import torch
    >>> from holdfast import weighted_linear_cross_entropy
    >>> hidden, head = torch.zeros(2, 4, requires_grad=True), torch.zeros(8, 4, requires_grad=True)
    >>> weights = torch.tensor([0.2, 0.8])
    >>> loss, nll = weighted_linear_cross_entropy(hidden, head, torch.tensor([1, 2]), weights, divisor=2)
    >>> loss.backward()
    >>> round(loss.item(), 4), head.grad.shape
    (1.0397, torch.Size([8, 4]))
    """
    kept = weights_N.nonzero().squeeze(-1) if kept_M is None else kept_M
    whole = kept.numel() == weights_N.numel()
    rows, targets, weights = (
        (hidden_ND, targets_N, weights_N) if whole else (hidden_ND[kept], targets_N[kept], weights_N[kept])
    )
    adapts = adapts_N if adapts_N is None or whole else adapts_N[kept]
    weights = divide(weights.to(torch.promote_types(rows.dtype, torch.float32)), divisor)
    op = RowOp(bias_V, softcap, logit_scale, adaptive, torch.is_grad_enabled())
    loss, nll = WeightedHead.apply(  # type: ignore[no-untyped-call]
        rows,
        head_VD,
        bias_V,
        targets,
        weights,
        adapts,
        op,
        partial(choose, head),
        chunk_rows or default_chunk_rows(head_VD),
    )
    return loss, nll if whole else nll.new_zeros(weights_N.shape).index_copy_(0, kept, nll)
