"""Tokens -> padded batches -> micro-batches of an optimizer step.

Role ids travel on the same path as token ids; weights are looked up on the device.

An optimizer step has the same examples however they are batched; only their grouping into micro-batches and rows
differs. So runs with different ``batching`` can be compared step by step, and differ by rounding alone.

Axes: N examples, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.records import Role, Tokens
from holdfast.tune.head import LossRows
from holdfast.tune.layouts import LAYOUTS, Layout, balance, lay_out


class TokenDataset(Dataset[Any]):
    """Tokenised examples as torch wants them: all in every epoch, or those of the epoch that has begun.

    Args:
        draws_EN: the places of the items of each epoch; None: all items in each.
    """

    def __init__(self, items: Any, draws_EN: npt.NDArray[np.int64] | None = None) -> None:
        self.items, self.draws_EN = items, draws_EN
        # shared, so that workers of a data loader that live on see it change
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]

    def begin_epoch(self, number: int) -> None:
        """From now on the items are those of this epoch, counted from 0."""
        self._epoch.fill_(number)

    def __len__(self) -> int:
        return len(self.items) if self.draws_EN is None else self.draws_EN.shape[1]

    def __getitem__(self, index: int) -> Any:
        return self.items[index if self.draws_EN is None else int(self.draws_EN[self._epoch.item(), index])]


@dataclass(frozen=True)
class StepBatch:
    """One micro-batch of an optimizer step: examples with a row each, padded on the right.

    It is a record, neither dict nor tuple: transformers and DeepSpeed cast the float tensors that they find in those to
    half precision. ``input_ids``, ``attention_mask`` and ``roles`` can be had by key, as trainers ask for them.
    """

    ids_NT: Tensor
    roles_NT: Tensor
    scale_NT: Tensor | None = None
    """Weight factors of messages and examples, float32; None: all ones."""
    layout: Layout | None = None
    """How the examples go through the model; None: as they are."""
    weights_NT: Tensor = None  # type: ignore[assignment]
    """Weights as they enter the loss. The trainer makes them, and ``rows``, once per optimizer step."""
    rows: LossRows = None  # type: ignore[assignment]
    """What the loss needs, laid out. Its divisor is this batch's share of that of the step."""

    @property
    def real_NT(self) -> Tensor:
        """1 at tokens, 0 at padding, which is known by its role and never by its id."""
        return (self.roles_NT != Role.PAD).long()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        lengths: list[int] = self.real_NT.sum(1).tolist()
        return lengths

    def laid_out(self, batching: str) -> StepBatch:
        """The batch with a layout of this kind, unless it has one or needs none."""
        if batching == "padded" or self.layout is not None:
            return self
        lengths = self.lengths
        return replace(
            self, layout=lay_out(lengths, LAYOUTS[batching](lengths), self.roles_NT.shape[1], self.roles_NT.device)
        )

    def pack(self, values_NT: Tensor) -> Tensor:
        """Values of tokens, in the form in which the model gets them."""
        return values_NT if self.layout is None else self.layout.pack(values_NT)

    def unpack(self, values_RW: Tensor) -> Tensor:
        """What the model gave per token, one example per row again."""
        return values_RW if self.layout is None else self.layout.unpack(values_RW)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> StepBatch:
        """The same examples on another device, where they are weighed anew. (accelerate calls this.)"""
        if self.ids_NT.device == torch.device(device):
            return self
        return self._collated(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StepBatch:
        """The same examples in memory that a GPU copies from directly. (torch's ``DataLoader`` calls this.)"""
        return self._collated(Tensor.pin_memory)

    def _collated(self, change: Callable[[Tensor], Tensor]) -> StepBatch:
        return StepBatch(
            change(self.ids_NT), change(self.roles_NT), None if self.scale_NT is None else change(self.scale_NT)
        )

    def __len__(self) -> int:
        return len(self.ids_NT)

    def __contains__(self, name: object) -> bool:
        return name in ("input_ids", "attention_mask", "roles")

    def __getitem__(self, name: str) -> Tensor:
        return {"input_ids": self.ids_NT, "attention_mask": self.real_NT, "roles": self.roles_NT}[name]


def collate(batch: Sequence[Tokens], *, pad_id: int = 0) -> StepBatch:
    """Right-pad to the longest example.

    Args:
        pad_id: any id; it may equal EOS.

    Returns:
        Ids and roles int64; factors float32 if any differs from 1.
    """
    length = max(map(len, batch))
    ids = np.full((len(batch), length), pad_id, dtype=np.int64)
    roles = np.full((len(batch), length), int(Role.PAD), dtype=np.int64)
    scale = np.ones((len(batch), length), dtype=np.float32) if any(t.scale is not None for t in batch) else None
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens.ids
        roles[row, : len(tokens)] = tokens.roles
        if scale is not None and tokens.scale is not None:
            scale[row, : len(tokens)] = tokens.scale
    return StepBatch(torch.from_numpy(ids), torch.from_numpy(roles), None if scale is None else torch.from_numpy(scale))


def regroup(batches: Sequence[StepBatch], batching: str = "padded") -> list[StepBatch]:
    """The same examples in as many micro-batches, each padded no more than needed.

    Args:
        batches: the micro-batches of one optimizer step, as ``collate`` made them.
        batching: ``padded`` (equal numbers of examples, sorted by length) or a key of ``LAYOUTS`` (equal numbers of
            tokens; a micro-batch then has a ``layout``, by which the trainer puts it through the model).

    The loss of a step does not depend on how its examples are split into micro-batches, so this only saves work.
    """
    if not batches or (len(batches) == 1 and batching == "padded"):
        return list(batches)
    width = max(b.roles_NT.shape[1] for b in batches)
    ids = torch.cat([_widened(b.ids_NT, width, 0) for b in batches])
    roles = torch.cat([_widened(b.roles_NT, width, int(Role.PAD)) for b in batches])
    scale = None
    if any(b.scale_NT is not None for b in batches):
        factors = [
            torch.ones_like(b.roles_NT, dtype=torch.float32) if b.scale_NT is None else b.scale_NT for b in batches
        ]
        scale = torch.cat([_widened(f, width, 1) for f in factors])
    lengths = StepBatch(ids, roles).lengths
    regrouped: list[StepBatch] = []
    for part in _split(lengths, len(batches), batching):
        longest = max((lengths[i] for i in part), default=1)
        batch = StepBatch(ids[part, :longest], roles[part, :longest], None if scale is None else scale[part, :longest])
        regrouped.append(batch.laid_out(batching))
    return regrouped


def _split(lengths: list[int], parts: int, batching: str) -> list[list[int]]:
    if batching != "padded":
        return balance(lengths, parts)
    order = torch.tensor(lengths).argsort(descending=True, stable=True)
    return [part.tolist() for part in order.tensor_split(parts)]


def _widened(values_NT: Tensor, width: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values_NT, (0, width - values_NT.shape[1]), value=fill)
