"""The row kernel: everything that happens to a tile of logits between its two GEMMs.

    z = cap(scale (x + b));  nll = log sum exp(z) - z[y];  x <- w g (softmax(z) - onehot(y)) dz/dx

It takes one pass over memory and one over the cache. In: logits x as the head gives them, targets y, weights already
divided. Out: NLL and g per row; the tile holds its own gradient. Runs on GPUs, and anywhere under
``TRITON_INTERPRET=1``, which is how it is tested. ``row_ops.torch_rows`` is the same in plain torch. This module
imports Triton: import it late, after ``chunk.no_kernel``.

Axes: C rows of a chunk, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from holdfast.tune.adaptive import Adaptive
from holdfast.tune.row_ops import RowOp

_LONGEST_BLOCK = 8192


def triton_rows(
    op: RowOp, logits_CV: Tensor, targets_C: Tensor, weights_C: Tensor, adapts_C: Tensor | None
) -> tuple[Tensor, Tensor, None]:
    """NLL and g per row, float32; where a gradient is wanted, the logits (float32, bfloat16) are overwritten by theirs.

    Args:
        weights_C: float32 weight of each row over the divisor of the step.
        adapts_C: which rows g applies to, bool; None: all.
    """
    rows, vocabulary = logits_CV.shape
    nll_C = torch.empty(rows, dtype=torch.float32, device=logits_CV.device)
    g_C = torch.ones_like(nll_C)
    how = op.adaptive or Adaptive()
    entropy_C = how.entropy_factor(op.transformed(logits_CV.to(torch.float32, copy=True))) if how.entropy else None
    block = min(triton.next_power_of_2(vocabulary), _LONGEST_BLOCK)
    if rows:
        _rows[(rows,)](
            logits_CV, logits_CV.stride(0), targets_C, weights_C, op.bias_V, adapts_C, entropy_C, nll_C, g_C,
            vocabulary, float(op.logit_scale), float(op.softcap or 1.0), how.power, how.low, how.high,
            HAS_BIAS=op.bias_V is not None, HAS_CAP=op.softcap is not None, ADAPTIVE=op.adaptive is not None,
            SOME=adapts_C is not None, HAS_ENTROPY=entropy_C is not None, GRAD=op.grad,
            BLOCK=block, num_warps=max(4, min(32, block // 256)),
        )  # fmt: skip
    return nll_C, g_C, None


@triton.jit  # type: ignore[untyped-decorator]
def _transformed(  # type: ignore[no-untyped-def]
    x_ptr, bias_ptr, at, inside, scale, cap, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr
):  # fmt: skip
    z = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
    z *= scale
    if HAS_CAP:
        e = tl.exp(-2 * tl.abs(z / cap))
        z = tl.where(z < 0, -1.0, 1.0) * cap * (1 - e) / (1 + e)
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _rows(  # type: ignore[no-untyped-def]
    x_ptr, stride, target_ptr, weight_ptr, bias_ptr, adapts_ptr, entropy_ptr, nll_ptr, g_ptr, vocabulary,
    scale, cap, power, low, high,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, ADAPTIVE: tl.constexpr, SOME: tl.constexpr,
    HAS_ENTROPY: tl.constexpr, GRAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    x_ptr += number * stride
    target = tl.load(target_ptr + number)
    top = -float("inf")
    total = 0.0
    hit = 0.0
    for start in range(0, vocabulary, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < vocabulary
        z = _transformed(x_ptr, bias_ptr, at, inside, scale, cap, HAS_BIAS, HAS_CAP)
        hit += tl.sum(tl.where(at == target, z, 0.0), axis=0)
        z = tl.where(inside, z, -float("inf"))
        higher = tl.maximum(top, tl.max(z, axis=0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher), axis=0)
        top = higher
    norm = top + tl.log(total)
    nll = norm - hit
    tl.store(nll_ptr + number, nll)
    g = 1.0
    if ADAPTIVE:
        p = tl.exp(-nll)
        g = tl.where((p >= low) & (p <= high), tl.exp(-power * nll), 0.0)
        if HAS_ENTROPY:
            g *= tl.load(entropy_ptr + number)
        if SOME:
            g = tl.where(tl.load(adapts_ptr + number), g, 1.0)
        tl.store(g_ptr + number, g)
    if GRAD:
        factor = tl.load(weight_ptr + number) * g * scale
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < vocabulary
            z = _transformed(x_ptr, bias_ptr, at, inside, scale, cap, HAS_BIAS, HAS_CAP)
            d = (tl.exp(z - norm) - tl.where(at == target, 1.0, 0.0)) * factor
            if HAS_CAP:
                d *= 1 - (z / cap) * (z / cap)
            tl.store(x_ptr + at, d.to(x_ptr.dtype.element_ty), mask=inside)
