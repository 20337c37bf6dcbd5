"""Tokens -> padded batches -> micro-batches of an optimizer step. Role ids travel on the same path as token ids; weights are looked up
on the device.

An optimizer step has the same examples however they are batched; only their grouping into micro-batches and rows differs. So runs with
different ``batching`` can be compared step by step, and differ by rounding alone.

Weight factors of messages and examples are rare. They travel as the bits of a float32 in an int32, because DeepSpeed casts every
floating-point input to bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.records import Role, Tokens
from holdfast.tune.layouts import LAYOUTS, Layout, balance, lay_out

_ONE_BITS = int(np.float32(1).view(np.int32))


class TokenDataset(Dataset[Tokens]):
    """A list of ``Tokens`` as torch wants it."""

    def __init__(self, tokens: Sequence[Tokens]) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Tokens:
        return self.tokens[index]


def collate(batch: Sequence[Tokens], *, pad_id: int = 0, multiple: int = 1) -> dict[str, Tensor]:
    """Right-pad to the longest example. Padding is known by its role and by the attention mask, never by its id.

    Args:
        pad_id: any id; it may equal EOS.
        multiple: round the length up to a multiple of this.

    Returns:
        input_ids, attention_mask, roles [B, T] int64; scale_bits [B, T] int32 if any weight factor differs from 1.
    """
    length = -(-max(len(t) for t in batch) // multiple) * multiple
    ids = np.full((len(batch), length), pad_id, dtype=np.int64)
    roles = np.full((len(batch), length), int(Role.PAD), dtype=np.int64)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens.ids
        roles[row, : len(tokens)] = tokens.roles
    made = {"input_ids": torch.from_numpy(ids), "roles": torch.from_numpy(roles)}
    made["attention_mask"] = (made["roles"] != Role.PAD).long()
    if any(t.scale is not None for t in batch):
        scale = np.ones((len(batch), length), dtype=np.float32)
        for row, tokens in enumerate(batch):
            if tokens.scale is not None:
                scale[row, : len(tokens)] = tokens.scale
        made["scale_bits"] = torch.from_numpy(scale.view(np.int32))
    return made


def regroup(batches: Sequence[dict[str, Tensor]], batching: str = "padded") -> list[dict[str, Any]]:
    """The same examples in as many micro-batches, each padded no more than needed.

    Args:
        batches: the micro-batches of one optimizer step, as ``collate`` made them.
        batching: ``padded`` (equal numbers of examples, sorted by length) or a key of ``LAYOUTS`` (equal numbers of tokens; a micro-batch
            then has a ``layout``, by which the trainer puts it through the model).

    The loss of a step does not depend on how its examples are split into micro-batches, so this only saves work.
    """
    if not batches or (len(batches) == 1 and batching == "padded"):
        return list(batches)
    width = max(b["roles"].shape[1] for b in batches)
    keys = {key for batch in batches for key in batch}
    fill = {"roles": int(Role.PAD), "attention_mask": 0, "scale_bits": _ONE_BITS, "input_ids": 0}
    rows = {key: torch.cat([_widened(b, key, width, fill[key]) for b in batches]) for key in keys}
    lengths: list[int] = rows["attention_mask"].sum(1).tolist()
    made: list[dict[str, Any]] = []
    for part in _split(lengths, len(batches), batching):
        longest = max((lengths[i] for i in part), default=1)
        batch: dict[str, Any] = {key: value[part, :longest] for key, value in rows.items()}
        made.append(batch if batching == "padded" else batch | {"layout": layout_of(batch, batching)})
    return made


def layout_of(batch: dict[str, Any], batching: str) -> Layout | None:
    """How a padded batch goes through the model: by the layout that it has, else by one of this kind; None: as it is."""
    if batching == "padded":
        return None
    if "layout" in batch:
        layout: Layout = batch["layout"]
        return layout.to(batch["roles"].device)  # a trainer moves tensors only
    lengths = batch["attention_mask"].sum(1).tolist()
    return lay_out(lengths, LAYOUTS[batching](lengths), batch["roles"].shape[1], batch["roles"].device)


def _split(lengths: list[int], parts: int, batching: str) -> list[list[int]]:
    if batching != "padded":
        return balance(lengths, parts)
    order = torch.tensor(lengths).argsort(descending=True, stable=True)
    return [part.tolist() for part in order.tensor_split(parts)]


def scale_of(batch: dict[str, Tensor]) -> Tensor | None:
    """The float32 weight factors of a batch, bit for bit as they were collated, or None for all ones."""
    bits = batch.get("scale_bits")
    return None if bits is None else bits.to(torch.int32).view(torch.float32)


def _widened(batch: dict[str, Tensor], key: str, width: int, fill: int) -> Tensor:
    if key not in batch:
        return torch.full((len(batch["roles"]), width), fill, dtype=torch.int32, device=batch["roles"].device)
    return torch.nn.functional.pad(batch[key], (0, width - batch[key].shape[1]), value=fill)
