"""Attention that stays inside documents, and proof that a model's does.

In: rows in which several documents stand behind one another. Position ids that begin anew at every document say where
they begin. ``keep_inside`` makes a model ready for such rows; ``leaks`` puts three documents through it, apart and in
common rows, and compares.

A dense mask would cost the square of a row's tokens. ``document_attention`` costs the sum of the squares of its
documents: a varlen kernel on GPUs, one call per document elsewhere. Its contract with transformers is that of flash
attention: no mask; document bounds (``cu_seq_lens_q``) or position ids, and a sliding window if the layer has one.

Axes: B rows, T tokens, H heads, D head width, N = B * T.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from holdfast.errors import HoldfastError
from holdfast.tune.head import unwrapped
from holdfast.tune.layouts import LAYOUTS, Layout, MakeRows, lay_out

NAME = "holdfast_documents"


class _Documents(NamedTuple):
    """Where documents begin among the N tokens, and the end; tokens of the longest; how a layer attends inside them."""

    bounds: Tensor
    longest: int
    window: int | None
    scale: float | None
    dropout: float


def document_attention(
    module: Any, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend causally inside documents: a function for ``transformers.AttentionInterface``.

    With a mask it does what ``sdpa`` does.

    Returns:
        outputs [B, T, H, D] and None for the attention weights.

    Raises:
        NotImplementedError: a layer wants a soft-cap, sinks or a position bias, which this function does not know.
    """
    if attention_mask is not None or query_BHTD.shape[2] != key_BHTD.shape[2]:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward as plain

        return plain(module, query_BHTD, key_BHTD, value_BHTD, attention_mask, **kwargs)  # type: ignore[no-any-return]
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"document attention is causal and knows no {', '.join(unknown) or 'other kind'}")
    documents = _documents(query_BHTD, kwargs)
    attend = _varlen if _has_varlen_kernel(query_BHTD, documents.dropout) else _one_by_one
    q, k, v = (x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (query_BHTD, key_BHTD, value_BHTD))
    out_NHD = attend(q, k, v, documents)
    return out_NHD.view(query_BHTD.shape[0], -1, *out_NHD.shape[1:]), None


def settle(
    model: Any, batching: str, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> tuple[str, str | None]:
    """Make ``model`` ready for a way of batching and prove that documents do not see each other.

    Args:
        batching: ``padded``, a key of ``LAYOUTS``, or ``auto``: padding-free where attention costs no more than its
            documents, packed where a dense mask keeps them apart, padded where nothing does.
        autocast: makes the context of a forward pass in training.

    Returns:
        The way of batching, and, if it is ``padded``, why.

    Raises:
        HoldfastError: an unknown way, or one that this model cannot have without mixing documents.
    """
    if batching == "padded":
        return batching, "asked for"
    if batching not in ("auto", *LAYOUTS):
        raise HoldfastError(f"unknown batching '{batching}'; known: auto, padded, {', '.join(LAYOUTS)}")
    reason: str | None = None
    for prepare in (keep_inside, set_back):
        prepare(model)
        kind = batching if batching != "auto" else "padding-free" if _inside(model) else "packed"
        reason = leaks(model, LAYOUTS[kind], autocast)
        if reason is None:
            return kind, None
    if batching != "auto":
        raise HoldfastError(
            f"--batching {batching} cannot be used with this model: {reason}", hint="use --batching padded"
        )
    return "padded", reason


def keep_inside(model: Any) -> None:
    """Let a model that attends by ``sdpa`` attend inside documents.

    Only if its layers are made for attention functions that take no mask.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    base = unwrapped(model)
    if base.config._attn_implementation == "sdpa" and getattr(base, "_supports_flash_attn", False):
        AttentionInterface.register(NAME, document_attention)
        AttentionMaskInterface.register(NAME, _mask)
        base.set_attn_implementation(NAME)


def set_back(model: Any) -> None:
    """Undo ``keep_inside``."""
    if unwrapped(model).config._attn_implementation == NAME:
        unwrapped(model).set_attn_implementation("sdpa")


def document_arguments(layout: Layout, model: Any) -> dict[str, Any]:
    """Return what a model's forward needs beside the ids of a laid-out batch.

    These are position ids, and the bounds of documents where its attention reads them.
    """
    arguments: dict[str, Any] = {"position_ids": layout.positions_RW}
    if _inside(model):
        arguments |= {"cu_seq_lens_q": layout.bounds, "cu_seq_lens_k": layout.bounds}
        arguments |= {"max_length_q": layout.longest, "max_length_k": layout.longest}
    return arguments


@torch.no_grad()
def leaks(
    model: Any, make_rows: MakeRows, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> str | None:
    """Put three documents through ``model``, apart and in common rows, and compare the logits.

    They have 5, 1 and 6 tokens. It is done in the model's own precision and in that of the training.

    Returns:
        None if the logits agree up to rounding, else what is wrong.
    """
    flash = "flash" in str(unwrapped(model).config._attn_implementation)  # its kernels take half precision only
    was_training = model.training
    model.eval()
    try:
        for context in (autocast,) if flash else (nullcontext, autocast):
            with context():
                difference, tolerance = _difference(model, make_rows)
            if not difference <= tolerance:  # not >: a NaN is no agreement
                return f"documents in one row see each other (logits differ by {difference:.1g} of their size)"
    except Exception as error:  # a model may fail in any way on arguments that it does not know
        return f"its forward fails on common rows ({type(error).__name__}: {str(error)[:120]})"
    finally:
        model.train(was_training)
    return None


def _difference(model: Any, make_rows: MakeRows) -> tuple[float, float]:
    """Between documents apart and in common rows, relative to the logits, and what rounding explains."""
    lengths, embeddings = [5, 1, 6], model.get_input_embeddings()
    ids_NT = (torch.arange(18).view(3, 6) * 7919 + 11).to(embeddings.weight.device) % embeddings.num_embeddings
    layout = lay_out(lengths, make_rows(lengths), 6, ids_NT.device)
    together_RWV = model(input_ids=layout.pack(ids_NT), use_cache=False, **document_arguments(layout, model)).logits
    apart = [model(input_ids=ids_NT[i : i + 1, :n], use_cache=False).logits[0] for i, n in enumerate(lengths)]
    places = layout.index_RW.flatten()
    together_LV = together_RWV.flatten(0, 1)[places < 18].cpu().double()
    apart_LV = torch.stack([apart[place // 6][place % 6] for place in places[places < 18].tolist()]).cpu().double()
    exact = apart[0].dtype in (torch.float32, torch.float64)
    return float((together_LV - apart_LV).norm() / apart_LV.norm().clamp(min=1e-30)), 1e-4 if exact else 0.05


def _inside(model: Any) -> bool:
    """Whether attention costs no more than its documents: here by ours or by flash attention."""
    kind = str(unwrapped(model).config._attn_implementation)
    return kind == NAME or "flash" in kind


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """For ``transformers.AttentionMaskInterface``: none, unless the caller brings padding or a cache."""
    from transformers.masking_utils import sdpa_mask

    if kwargs.get("attention_mask") is None and kwargs.get("q_length") == kwargs.get("kv_length"):
        return None
    return sdpa_mask(*args, **kwargs)  # type: ignore[no-any-return]


def _documents(query_BHTD: Tensor, kwargs: dict[str, Any]) -> _Documents:
    """What a layer says about its documents. Without a word about them: one per row."""
    rest = (kwargs.get("sliding_window"), kwargs.get("scaling"), kwargs.get("dropout", 0.0))
    if kwargs.get("cu_seq_lens_q") is not None:
        return _Documents(kwargs["cu_seq_lens_q"], int(kwargs["max_length_q"]), *rest)
    rows, tokens = query_BHTD.shape[0], query_BHTD.shape[2]
    firsts_BT = torch.zeros(rows, tokens, dtype=torch.bool, device=query_BHTD.device)
    positions = kwargs.get("position_ids")
    if positions is not None and positions.dim() == 2:
        firsts_BT[:, 1:] = positions.diff(dim=1) != 1
    firsts_BT[:, 0] = True
    end = torch.tensor([rows * tokens], device=query_BHTD.device)
    bounds = torch.cat([firsts_BT.flatten().nonzero().squeeze(1), end]).int()
    return _Documents(bounds, int(bounds.diff().max()), *rest)


def _has_varlen_kernel(query: Tensor, dropout: float) -> bool:
    """torch >= 2.10 brings one for half precision on CUDA, without dropout."""
    fits = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout
    return fits and find_spec("torch.nn.attention.varlen") is not None


def _varlen(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, documents: _Documents) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q_NHD, k_NHD, v_NHD, documents.bounds, documents.bounds, documents.longest, documents.longest,
        scale=documents.scale,
        window_size=(documents.window - 1 if documents.window else -1, 0),
        enable_gqa=q_NHD.shape[1] != k_NHD.shape[1],
    )  # fmt: skip
    return cast(Tensor, out)  # a pair only where auxiliary outputs are asked for


def _one_by_one(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, documents: _Documents) -> Tensor:
    lengths = documents.bounds.diff().tolist()
    # split, not slices: the gradient of a slice is as long as the whole
    pieces = zip(*(torch.split(x.transpose(0, 1)[None], lengths, dim=2) for x in (q_NHD, k_NHD, v_NHD)))
    outputs = []
    for q, k, v in pieces:
        tokens, window = q.shape[2], documents.window
        mask = _band(tokens, window, q.device) if window and tokens > window else None
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=documents.scale, dropout_p=documents.dropout,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


def _band(tokens: int, window: int, device: torch.device) -> Tensor:
    """Which of the last ``window`` tokens, itself included, a token sees."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril().triu(1 - window)
