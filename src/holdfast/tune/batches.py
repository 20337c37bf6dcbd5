"""Tokens -> padded batches. Role ids travel on the same path as token ids; weights are looked up on the device.

Weight factors of messages and examples are rare. They travel as the bits of a float32 in an int32, because DeepSpeed casts every
floating-point input to bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.records import Role, Tokens

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


def regroup(batches: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same examples in as many micro-batches, sorted by length and padded no more than needed.

    The loss of a step does not depend on how its examples are split into micro-batches, so this only saves work.
    """
    if len(batches) < 2:
        return list(batches)
    width = max(b["roles"].shape[1] for b in batches)
    keys = {key for batch in batches for key in batch}
    fill = {"roles": int(Role.PAD), "attention_mask": 0, "scale_bits": _ONE_BITS, "input_ids": 0}
    rows = {key: torch.cat([_widened(b, key, width, fill[key]) for b in batches]) for key in keys}
    lengths = rows["attention_mask"].sum(1)
    order = lengths.argsort(descending=True, stable=True)
    made = []
    for part in order.tensor_split(len(batches)):
        longest = int(lengths[part].max()) if len(part) else 1
        made.append({key: value[part, :longest] for key, value in rows.items()})
    return made


def scale_of(batch: dict[str, Tensor]) -> Tensor | None:
    """The float32 weight factors of a batch, bit for bit as they were collated, or None for all ones."""
    bits = batch.get("scale_bits")
    return None if bits is None else bits.to(torch.int32).view(torch.float32)


def _widened(batch: dict[str, Tensor], key: str, width: int, fill: int) -> Tensor:
    if key not in batch:
        return torch.full((len(batch["roles"]), width), fill, dtype=torch.int32, device=batch["roles"].device)
    return torch.nn.functional.pad(batch[key], (0, width - batch[key].shape[1]), value=fill)
