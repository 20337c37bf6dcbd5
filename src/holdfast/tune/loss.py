"""The weighted loss: once plainly, once fast. Numerator and denominator travel apart; the caller divides once per optimizer step.

    L = sum_t w_t nll_t / divisor,   nll_t = -log softmax(z_t)[y_t],   z_t = f(c (W h_t + b))          (arXiv 2507.07817, eq. 2)
    dL/dz_t = (w_t / divisor) (softmax(z_t) - onehot(y_t)) f'

``weighted_nll`` works on full logits and is the oracle. ``weighted_linear_cross_entropy`` never holds more than one chunk of logits:
rows of zero weight do not reach the head, and because the divisor is known before the forward pass, the gradient is finished there
(6 T H V floating point operations for a trained head, 4 T H V for a frozen one, no recomputation).

Prior art, read and credited in docs/papers.md: Liger's fused linear cross entropy, mgmalek/efficient_cross_entropy, XTuner, TRL.

Axes: B batch, T tokens, V vocabulary, N rows (targets), H hidden, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class WeightedNLL(NamedTuple):
    """``total`` = sum of w * nll (nats); ``count`` = number of targets of non-zero weight. The paper's loss is total / count."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]


def token_nll(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Negative log-likelihood of each token given those before it, nats, [B, T]; column 0 is 0, as the first token is no target.

    Low-precision logits are raised to float32; float64 stays float64.
    """
    logits = logits_BTV[:, :-1]
    logp_BTV = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    nll_BT = -logp_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    return torch.nn.functional.pad(nll_BT, (1, 0))


def weighted_nll(logits_BTV: Tensor, ids_BT: Tensor, weights_BT: Tensor) -> WeightedNLL:
    """The weighted loss on full logits, unnormalised (arXiv 2507.07817, eq. 2, numerator and denominator).

    Args:
        logits_BTV: logits at every position; position t predicts token t + 1.
        ids_BT: token ids.
        weights_BT: weight of each token *as a target*; column 0 is ignored.

    Returns:
        WeightedNLL(total, count), both scalars; ``total`` carries the gradient.
    """
    weights = weights_BT[:, 1:]
    nll = token_nll(logits_BTV, ids_BT)[:, 1:]
    # where, not a product: an infinite NLL under zero weight must not become NaN
    return WeightedNLL(torch.where(weights != 0, weights * nll, 0).sum(), (weights != 0).sum())


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

    Returns:
        loss: scalar, sum(w * nll) / divisor, with gradients for hidden, head and bias where they require one. With no row left it
            is a zero that is still connected to the graph.
        nll_N: detached NLL per target in nats, 0 for rows of weight 0.
    """
    kept = weights_N.nonzero().squeeze(-1)
    whole = kept.numel() == weights_N.numel()
    rows, targets, weights = (hidden_ND, targets_N, weights_N) if whole else (hidden_ND[kept], targets_N[kept], weights_N[kept])
    dtype = torch.promote_types(rows.dtype, torch.float32)
    weights = divide(weights.to(dtype), divisor)
    grad = torch.is_grad_enabled()
    loss, nll = _WeightedHead.apply(  # type: ignore[no-untyped-call]
        rows, head_VD, bias_V, targets, weights, softcap, logit_scale, chunk_rows or default_chunk_rows(head_VD), grad
    )
    return loss, nll if whole else nll.new_zeros(weights_N.shape).index_copy_(0, kept, nll)


def default_chunk_rows(head_VD: Tensor) -> int:
    """Rows of logits alive at a time. A GPU needs thousands for its GEMMs to be compute-bound; a CPU some hundred, as every chunk reads
    and writes the whole gradient of the head."""
    vocabulary = head_VD.shape[0]
    if head_VD.device.type == "cpu":
        return min(512, max(256, 2**24 // vocabulary))
    return min(8192, max(1024, 2**28 // vocabulary))


class _WeightedHead(torch.autograd.Function):
    """Forward makes loss, NLL and, if wanted, the finished gradients; backward only multiplies by the incoming scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        weights_N: Tensor,
        softcap: float | None,
        logit_scale: float,
        chunk_rows: int,
        grad: bool,
    ) -> tuple[Tensor, Tensor]:
        device = hidden_ND.device.type
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head_VD.dtype
        want_hidden, want_head, want_bias = (grad and need for need in ctx.needs_input_grad[:3])
        with torch.autocast(device, enabled=False):
            head, rows = head_VD.to(compute), hidden_ND.to(compute)
            exact = torch.promote_types(compute, torch.float32)
            scale_N1 = (weights_N * logit_scale)[:, None]
            make = torch.empty if len(rows) else torch.zeros  # the first chunk overwrites
            d_hidden = torch.empty_like(rows) if want_hidden else None
            d_head = make(head.shape, dtype=exact, device=head.device) if want_head else None
            d_bias = make(head.shape[0], dtype=exact, device=head.device) if want_bias else None
            nll_N = torch.empty(len(rows), dtype=exact, device=rows.device)
            pieces = _pieces(len(rows), chunk_rows)
            buffer = rows.new_empty(max((p.stop - p.start for p in pieces), default=0), head.shape[0])
            for piece in pieces:
                rows_CD, scale_C1 = rows[piece], scale_N1[piece]
                logits_CV = torch.mm(rows_CD, head.T, out=buffer[: len(rows_CD)])
                z_CV, slope_CV = _transform(logits_CV.to(exact), bias_V, softcap, logit_scale, grad)
                nll_N[piece], p_CV = _softmax_nll(z_CV, targets_N[piece])
                if not grad:
                    continue
                # p becomes (p - onehot) times the slope of the soft-cap, in place. Weight and scale belong to the row, so they go on
                # the rows of the other factor and of the product, which are far shorter: one pass over the logits less
                p_CV[torch.arange(len(p_CV), device=p_CV.device), targets_N[piece]] -= 1
                if slope_CV is not None:
                    p_CV *= slope_CV
                d_logits = p_CV.to(compute)
                if d_hidden is not None:
                    torch.mm(d_logits, head, out=d_hidden[piece]).mul_(scale_C1)
                if d_head is not None:
                    _add_product(d_head, d_logits, (rows_CD * scale_C1).to(compute), first=piece.start == 0)
                if d_bias is not None:
                    _add_product(d_bias[:, None], p_CV, scale_C1, first=piece.start == 0)
            loss = weights_N @ nll_N
        ctx.mark_non_differentiable(nll_N)
        ctx.gradients = (
            None if d_hidden is None else d_hidden.to(hidden_ND.dtype),
            None if d_head is None else d_head.to(head_VD.dtype),
            None if d_bias is None or bias_V is None else d_bias.to(bias_V.dtype),
        )
        return loss, nll_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("weighted_linear_cross_entropy keeps its gradients for one backward pass only")
        if d_loss.device.type != "cpu" or d_loss.item() != 1.0:  # on a GPU, asking would wait for it
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(d_loss.to(gradient.dtype))
        return (*gradients, None, None, None, None, None, None)


def _pieces(rows: int, longest: int) -> list[slice]:
    """Slices of nearly equal length, as few as can be: a short last chunk would run its GEMMs far below their speed."""
    count = -(-rows // longest)
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def _transform(z_CV: Tensor, bias_V: Tensor | None, softcap: float | None, logit_scale: float, grad: bool) -> tuple[Tensor, Tensor | None]:
    """Bias, scale and soft-cap, in place; the slope of the soft-cap where a gradient will need it."""
    if bias_V is not None:
        z_CV += bias_V
    if logit_scale != 1.0:
        z_CV *= logit_scale
    if softcap is None:
        return z_CV, None
    tanh_CV = z_CV.div_(softcap).tanh_()
    slope_CV = 1 - tanh_CV * tanh_CV if grad else None
    return tanh_CV * softcap if grad else tanh_CV.mul_(softcap), slope_CV


def _softmax_nll(z_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """NLL per row and probabilities, from one fused softmax and two passes for a maximum.

    log sum exp(z - max) is read off the largest probability, which is exp(0) / sum. (``max`` with indices would save a pass, but is
    several times slower than ``amax`` on a CPU.)
    """
    at_target_C = z_CV.gather(1, targets_C[:, None]).squeeze(1)
    top_C = z_CV.amax(1)
    p_CV = torch.softmax(z_CV, -1, out=z_CV)
    return (top_C - at_target_C) - p_CV.amax(1).log(), p_CV


def _add_product(total_VD: Tensor, left_CV: Tensor, right_CD: Tensor, *, first: bool) -> None:
    """total += left^T right, accumulated in the type of ``total``; the ``first`` product overwrites what was there."""
    if left_CV.dtype == total_VD.dtype:
        total_VD.addmm_(left_CV.T, right_CD, beta=0 if first else 1)
        return
    product = torch.mm(left_CV.T, right_CD, out_dtype=total_VD.dtype) if left_CV.is_cuda else left_CV.T @ right_CD
    total_VD.copy_(product) if first else total_VD.add_(product)
