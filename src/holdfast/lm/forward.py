"""One forward pass over rows of packed tokens: each row behind its cached prefix, each token seeing its ancestors only.

A token sees the prefix of its row, its own ancestors and itself through a 4-D mask, and carries the position that it
has in its own sequence. Layers whose attention is local get a mask of their own, made from the same positions. The head
is computed only on the positions that are asked for.

Axes: B rows, T new tokens of a row, K keys (cached and new), N wanted positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.lm.cache import KVCache, cache_argument, stack
from holdfast.lm.tree import Node

LOCAL = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Kinds of layers whose attention is local -> the field of the config that says how far they see."""


@dataclass(frozen=True)
class MaskForm:
    """How a model takes masks: one for all layers, or one per kind of layer.

    ``kinds``: the kinds of its layers; ``by_kind``: it takes a dict of masks by kind.
    """

    kinds: tuple[str, ...]
    by_kind: bool

    @staticmethod
    def candidates(config: Any) -> list[MaskForm]:
        """Return the forms of masks that a model of this config may need, in the order in which to try them."""
        kinds = tuple(dict.fromkeys(getattr(config, "layer_types", None) or ()))
        if len(kinds) > 1:
            return [MaskForm(kinds, True)]
        default = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
        single = MaskForm(kinds or (default,), False)
        return [MaskForm(kinds, True), single, MaskForm((default,), False)] if kinds else [single]

    def masks(self, config: Any, mask_BTK: Tensor, positions_BT: Tensor, positions_BK: Tensor, model: Any) -> Any:
        """Return the ``attention_mask`` in the form that the model takes, for the keys that each token may see."""
        masks: dict[str, Tensor] = {}
        for kind in self.kinds:
            seen_BTK = mask_BTK
            reach = getattr(config, LOCAL[kind], None) if kind in LOCAL else None
            if reach is not None and int(positions_BT.max()) >= reach:
                query_BT1, key_B1K = positions_BT[:, :, None], positions_BK[:, None, :]
                near_BTK = query_BT1 - key_B1K < reach
                if kind == "chunked_attention":
                    near_BTK = query_BT1 // reach == key_B1K // reach
                seen_BTK = mask_BTK & near_BTK
            masks[kind] = additive(seen_BTK, model.dtype).to(model.device)
        return masks if self.by_kind else masks[self.kinds[0]]


@dataclass
class PackedRows:
    """Packed rows as tensors: ``ids`` and ``positions`` [B, T] and which keys a token sees [B, T, K].

    ``mask_BTK`` is None where the rows are plain sequences with nothing before them: causal attention is enough.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    mask_BTK: Tensor | None
    starts: list[list[tuple[Node, int]]]
    """Of each row: its nodes, and where they begin in it."""


def layout(rows: Sequence[Sequence[Node]], past_lens: Sequence[int], width: int) -> PackedRows:
    """Return rows of nodes as flat tensors, padded on the right to ``width`` tokens, each behind a prefix of its own
    length.
    """
    past = max(past_lens)
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    starts: list[list[tuple[Node, int]]] = []
    for b, nodes in enumerate(rows):
        starts.append([])
        at = 0
        for node in nodes:
            ids[b, at : at + len(node.ids)] = node.ids
            positions[b, at : at + len(node.ids)] = np.arange(node.start, node.stop)
            starts[b].append((node, at))
            at += len(node.ids)
    plain = not past and all(len(nodes) == 1 for nodes in rows)
    if plain:  # positions that begin anew would look like another sequence in the same row
        positions[:] = np.arange(width)
    mask = None if plain else torch.from_numpy(_mask(starts, past_lens, past, width))
    return PackedRows(torch.from_numpy(ids), torch.from_numpy(positions), mask, starts)


def _mask(starts: Sequence[Sequence[tuple[Node, int]]], past_lens: Sequence[int], past: int, width: int) -> Any:
    """Return which keys each token sees [B, T, K]: the row's prefix, the token's ancestors in the row, and itself."""
    mask = np.zeros((len(starts), width, past + width), bool)
    mask[:, np.arange(width), past + np.arange(width)] = True  # padding sees itself: its softmax must be defined
    for b, nodes in enumerate(starts):
        mask[b, :, : past_lens[b]] = True
        last: dict[Node, int] = {}
        for node, at in nodes:
            end = at + len(node.ids)
            if node.parent in last:
                mask[b, at:end] = mask[b, last[node.parent]]
            mask[b, at:end, past + at : past + end] = np.tri(end - at, dtype=bool)
            last[node] = end - 1
    return mask


def forward_rows(
    model: Any,
    form: MaskForm,
    laid: PackedRows,
    caches: Sequence[KVCache],
    heads: list[int],
    *,
    keep: bool,
    hidden: bool,
) -> tuple[Tensor, Any, Any]:
    """Pass packed rows through the model.

    Args:
        caches: the prefix of each row.
        heads: positions of the flattened batch [B * T] whose next-token logits are wanted; at least one.
        keep: the keys and values of the rows are wanted.
        hidden: the hidden states of all positions are wanted.

    Returns:
        Logits [N, V], as the model gives them; the cache of the batch, or None; the hidden states of all layers, or
        None.
    """
    past = max(cache.past_len for cache in caches)
    cache = stack(caches, laid.ids_BT.shape[1]) if past or keep else None
    positions_BK = torch.cat([torch.arange(past).expand(len(caches), -1), laid.positions_BT], 1)
    return forward(model, form, laid.ids_BT, laid.positions_BT, laid.mask_BTK, positions_BK, cache, heads, hidden)


def forward(
    model: Any,
    form: MaskForm,
    ids_BT: Tensor,
    positions_BT: Tensor,
    mask_BTK: Tensor | None,
    positions_BK: Tensor,
    cache: Any,
    heads: list[int],
    hidden: bool = False,
) -> tuple[Tensor, Any, Any]:
    """Call the model; see ``forward_rows``. ``positions_BK``: the positions of all keys."""
    device, config = model.device, model.config.get_text_config()
    mask = None if mask_BTK is None else form.masks(config, mask_BTK, positions_BT, positions_BK, model)
    with only_rows(model, heads, trim=not hidden):
        out = model(
            input_ids=ids_BT.to(device),
            position_ids=positions_BT.to(device),
            attention_mask=mask,
            use_cache=cache is not None,
            output_hidden_states=hidden,
            **cache_argument(model, cache),
        )
    return out.logits[0], cache, out.hidden_states if hidden else None


def additive(mask_BTK: Tensor, dtype: torch.dtype) -> Tensor:
    """Return which keys each token attends to, as the 4-D mask [B, 1, T, K] that is added to attention scores."""
    return torch.zeros(mask_BTK.shape, dtype=dtype).masked_fill_(~mask_BTK, torch.finfo(dtype).min)[:, None]


@contextmanager
def only_rows(model: Any, rows: list[int], *, trim: bool) -> Iterator[None]:
    """Let the head see only these rows [N] of the flattened batch, so that the model's logits are [1, N, V].

    Args:
        trim: the last layer is read nowhere else, so its MLP, which works row by row, may skip the other rows too. Its
            keys and values are computed before, so caches stay complete.
    """
    index = torch.tensor(rows, dtype=torch.long, device=model.device)
    shape: tuple[int, int] = (0, 0)

    def select(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1)[index][None], *args[1:])

    def remember(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal shape
        shape = (args[0].shape[0], args[0].shape[1])
        return select(_, args)

    def spread(_: Any, args: tuple[Any, ...], out: Any) -> Any:
        part = out[0] if isinstance(out, tuple) else out  # experts come with what their router said
        whole = part.new_zeros(shape[0] * shape[1], part.shape[-1])
        whole[index] = part[0]
        whole = whole.view(*shape, -1)
        return (whole, *out[1:]) if isinstance(out, tuple) else whole

    handles = [model.get_output_embeddings().register_forward_pre_hook(select)]
    mlp = _last_mlp(model) if trim else None
    if mlp is not None:
        handles += [mlp.register_forward_pre_hook(remember), mlp.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_mlp(model: Any) -> Any:
    """The MLP of the last layer, in the models that call it so; None elsewhere."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", getattr(decoder, "h", None))
    return getattr(layers[-1], "mlp", None) if layers is not None and len(layers) else None
