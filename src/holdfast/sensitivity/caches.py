"""Keys and values of prompts: kept by row, grown while decoding, joined from batches.

Axes: B rows, K cached tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Warm:
    """Prompts that have passed through the model. ``seen_BK``: which cached keys belong to row b; ``length_B``:
    positions used.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    seen_BK: Tensor = field(default_factory=lambda: torch.zeros(1, 0, dtype=torch.bool))
    length_B: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))
    logits_BV: Tensor | None = None
    """After the last token of each row, float32."""

    def rows(self, index: Sequence[int]) -> Warm:
        """Some of the rows; a whole run of neighbours is not copied."""
        pick: Any = list(index)
        if pick and pick == list(range(pick[0], pick[-1] + 1)):
            pick = slice(pick[0], pick[-1] + 1)
        logits_BV = None if self.logits_BV is None else self.logits_BV[pick]
        return Warm(
            [k[pick] for k in self.keys],
            [v[pick] for v in self.values],
            self.seen_BK[pick],
            self.length_B[pick],
            logits_BV,
        )


class Decoding:
    """Caches that grow by one token per row and step, in memory set aside beforehand."""

    def __init__(self, warm: Warm, room: int) -> None:
        self.cache = _made([_slab(k, v, room) for k, v in zip(warm.keys, warm.values, strict=True)])
        self.seen_BK, self.length_B = warm.seen_BK, warm.length_B.clone()

    def step(self) -> Tensor:
        """Make place for one more token per row. Returns the mask [B, 1, K]."""
        self.seen_BK = torch.cat([self.seen_BK, torch.ones(len(self.seen_BK), 1, dtype=torch.bool)], 1)
        self.length_B += 1
        return self.seen_BK[:, None, :]

    def keep(self, index: list[int]) -> None:
        """Drop all other rows."""
        self.seen_BK, self.length_B = self.seen_BK[index], self.length_B[index]
        for layer in self.cache.layers:
            layer.keep(index)


def _slab(keys: Tensor, values: Tensor, room: int) -> Any:
    from transformers.cache_utils import DynamicLayer

    class Slab(DynamicLayer):
        """A cache layer that writes into spare memory behind its keys instead of copying them at every step."""

        def __init__(self) -> None:
            super().__init__()
            self.lazy_initialization(keys, values)
            self.size = keys.shape[2]
            self.memory = [torch.cat([x, x.new_zeros(*x.shape[:2], room, x.shape[3])], 2) for x in (keys, values)]
            self._show()

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            start, self.size = self.size, self.size + key_states.shape[2]
            self.memory[0][:, :, start : self.size] = key_states
            self.memory[1][:, :, start : self.size] = value_states
            self._show()
            return self.keys, self.values

        def keep(self, index: list[int]) -> None:
            self.memory = [x[index] for x in self.memory]
            self._show()

        def _show(self) -> None:
            self.keys, self.values = (x[:, :, : self.size] for x in self.memory)

    return Slab()


def cache_of(past: Warm) -> Any:
    """The keys of some rows as a cache that a model can extend; the rows themselves stay as they are."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if not past.keys:
        return DynamicCache()
    layers = []
    for keys, values in zip(past.keys, past.values, strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        layers.append(layer)
    return _made(layers)


def _made(layers: list[Any]) -> Any:
    from transformers.cache_utils import Cache

    return Cache(layers=layers)


def joined_rows(parts: Sequence[tuple[list[int], Warm]]) -> Warm:
    """Batches back into one, in the order of their row numbers, padded to one width."""
    if len(parts) == 1:
        return parts[0][1]
    order = torch.tensor([i for index, _ in parts for i in index]).argsort()
    width = max(warm.seen_BK.shape[1] for _, warm in parts)

    def joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
        padded = []
        for x in tensors:
            shape = list(x.shape)
            shape[dim] = width - shape[dim]
            padded.append(torch.cat([x, x.new_zeros(shape)], dim))
        return torch.cat(padded)[order.to(tensors[0].device)]

    warms = [warm for _, warm in parts]
    return Warm(
        [joined([w.keys[layer] for w in warms], 2) for layer in range(len(warms[0].keys))],
        [joined([w.values[layer] for w in warms], 2) for layer in range(len(warms[0].keys))],
        joined([w.seen_BK for w in warms], 1),
        torch.cat([w.length_B for w in warms])[order],
        None
        if warms[0].logits_BV is None
        else torch.cat([w.logits_BV for w in warms if w.logits_BV is not None])[order],
    )
