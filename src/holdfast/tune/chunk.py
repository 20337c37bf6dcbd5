"""Head and loss over chunks of rows: never more than one tile of logits, and the gradient finished in the forward pass.

    for each chunk:   x = h W^T                                              [GEMM 1]
                      rows: x -> nll, dx = w g (softmax(z) - onehot) in place, z = cap(scale (x + b))
                      dh = dx W                                              [GEMM 2]
                      dW += dx^T h                                           [GEMM 3]

6 N H V operations for a trained head, 4 for a frozen one, 2 without gradients. What lies between the GEMMs is a
``RowOp``: the Triton kernel (``kernel.py``) on GPUs, plain torch elsewhere, compiled where bfloat16 on a CPU makes it
the bottleneck.

Axes: N rows (targets), C rows of a chunk, V vocabulary, D width of the hidden states.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from holdfast.tune.row_ops import RowOp, Rows, fusable_rows, torch_rows

_TILE_BYTES = 2**30


class WeightedHead(torch.autograd.Function):
    """Loss and NLL of a head; the gradients are finished in the forward pass.

    Backward only multiplies them by the gradient of the loss.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        weights_N: Tensor,
        adapts_N: Tensor | None,
        op: RowOp,
        rows_of: Callable[[torch.device, torch.dtype], Rows],
        chunk_rows: int,
    ) -> tuple[Tensor, Tensor]:
        """Loss and NLL [N]."""
        device = hidden_ND.device
        compute = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else head_VD.dtype
        rows_fn = rows_of(device, compute)
        want_hidden, want_head, want_bias = (op.grad and need for need in ctx.needs_input_grad[:3])
        with torch.autocast(device.type, enabled=False):
            head, rows = head_VD.to(compute), hidden_ND.to(compute)
            exact = torch.promote_types(compute, torch.float32)
            make = torch.empty if len(rows) else torch.zeros  # the first chunk overwrites
            d_hidden = torch.empty_like(rows) if want_hidden else None
            d_head = make(head.shape, dtype=exact, device=device) if want_head else None
            d_bias = torch.zeros(head.shape[0], dtype=exact, device=device) if want_bias else None
            nll_N = torch.empty(len(rows), dtype=exact, device=device)
            g_N = torch.ones_like(nll_N)
            pieces = _pieces(len(rows), chunk_rows)
            buffer = rows.new_empty(max((p.stop - p.start for p in pieces), default=0), head.shape[0])
            for piece in pieces:
                x_CV = torch.mm(rows[piece], head.T, out=buffer[: piece.stop - piece.start])
                adapts_C = None if adapts_N is None else adapts_N[piece]
                nll_N[piece], g_N[piece], left_C1 = rows_fn(op, x_CV, targets_N[piece], weights_N[piece], adapts_C)
                if d_hidden is not None:
                    torch.mm(x_CV, head, out=d_hidden[piece])
                    if left_C1 is not None:
                        d_hidden[piece].mul_(left_C1)
                if d_head is not None:
                    right_CD = rows[piece] if left_C1 is None else (rows[piece] * left_C1).to(compute)
                    _add_product(d_head, x_CV, right_CD, first=piece.start == 0)
                if d_bias is not None:
                    d_bias += x_CV.sum(0, dtype=exact) if left_C1 is None else x_CV.to(exact).T @ left_C1[:, 0]
            # eq. 2 of arXiv 2507.07817: the weights come divided, so this sum is the loss itself
            loss = (weights_N * g_N) @ nll_N
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
        """The gradients times that of the loss."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("weighted_linear_cross_entropy keeps its gradients for one backward pass only")
        if d_loss.device.type != "cpu" or d_loss.item() != 1.0:  # on a GPU, asking would wait for it
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(d_loss.to(gradient.dtype))
        return (*gradients, None, None, None, None, None, None)


def choose(head: str, device: torch.device, compute: torch.dtype) -> Rows:
    """The row operation for ``--head``: auto, torch or triton.

    Raises:
        HoldfastError: the kernel was asked for and cannot run here.
    """
    if head == "triton" or (head == "auto" and device.type == "cuda" and compute in (torch.float32, torch.bfloat16)):
        reason = no_kernel(device.type, compute)
        if reason is None:
            from holdfast.tune.kernel import triton_rows

            return triton_rows
        if head == "triton":
            from holdfast.errors import HoldfastError

            raise HoldfastError(f"--head triton: {reason}", hint="--head auto takes the kernel where it runs")
    return (
        _compiled_rows()
        if head == "auto" and device.type == "cpu" and compute == torch.bfloat16 and _compiles()
        else torch_rows
    )


@functools.cache
def no_kernel(device: str, compute: torch.dtype = torch.float32) -> str | None:
    """Why the Triton kernel cannot run on this kind of device; None if it can."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return 'Triton is not installed (pip install "holdfast[kernels]")'
    if compute not in (torch.float32, torch.bfloat16):
        return f"the kernel computes in float32 and bfloat16, not in {compute}"
    if device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"Triton has no back end for {device} here (TRITON_INTERPRET=1 interprets the kernel, slowly)"


def default_chunk_rows(head_VD: Tensor) -> int:
    """Rows of logits alive at a time. A GPU needs thousands for its GEMMs to be compute-bound, in a tile of 1 GiB; a
    CPU some hundred, as every chunk reads and writes the whole gradient of the head."""
    vocabulary = head_VD.shape[0]
    if head_VD.device.type == "cpu":
        return min(512, max(256, 2**24 // vocabulary))
    return min(8192, max(1024, _TILE_BYTES // (vocabulary * head_VD.element_size())))


@functools.cache
def _compiles() -> bool:
    """Whether compiling pays on this CPU: it is fast at bfloat16, and there is a compiler.

    Where its products are fast, the element-wise passes between them are the bottleneck.
    """
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return bool(fast) and (shutil.which("g++") or shutil.which("clang++")) is not None


@functools.cache
def _compiled_rows() -> Rows:
    """Return ``fusable_rows``, compiled into passes that take half the time.

    The compilation takes about 12 s per kind of ``RowOp``, once.
    """
    return torch.compile(fusable_rows, dynamic=True)  # type: ignore[no-any-return]


def _pieces(rows: int, longest: int) -> list[slice]:
    """Slices of nearly equal length, as few as can be: a short last chunk would run its GEMMs far below their speed."""
    count = -(-rows // longest)
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def _add_product(total_VD: Tensor, left_CV: Tensor, right_CD: Tensor, *, first: bool) -> None:
    """total += left^T right, accumulated in the type of ``total``; the ``first`` product overwrites what was there."""
    beta = 0 if first else 1
    if left_CV.dtype == total_VD.dtype:
        total_VD.addmm_(left_CV.T, right_CD, beta=beta)
    elif left_CV.is_cuda and torch.__version__ >= "2.8":  # float32 sums of bfloat16 products, in one call
        torch.addmm(total_VD, left_CV.T, right_CD, beta=beta, out_dtype=total_VD.dtype, out=total_VD)
    else:
        product = left_CV.T @ right_CD
        total_VD.copy_(product) if first else total_VD.add_(product)
