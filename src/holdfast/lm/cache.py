"""Keys and values of prefixes: one sequence each when they are kept, stacked to a batch when a model goes on from them.

Axes: B rows, H heads, K cached tokens, D width of a head, T new tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


@dataclass
class KVCache:
    """One sequence that has passed through the model: per layer its keys and values [H, K, D]."""

    layers: list[tuple[Tensor, Tensor]]
    logits_V: Tensor | None = None
    """Logits after the last token, float32; kept only where they may be asked for."""

    @property
    def past_len(self) -> int:
        """Tokens of the sequence."""
        return self.layers[0][0].shape[1] if self.layers else 0

    @staticmethod
    def of(cache: Any, row: int, length: int, copy: bool) -> KVCache:
        """Return one row of the cache of a batch. ``copy`` lets the rest of the batch's memory be freed."""
        layers = [(layer.keys[row, :, :length], layer.values[row, :, :length]) for layer in cache.layers]
        return KVCache([(keys.clone(), values.clone()) for keys, values in layers] if copy else layers)


class _Layer(DynamicLayer):
    """A layer of a batch that writes new keys into spare memory instead of copying the old ones at every step."""

    def __init__(self, keys: Tensor, values: Tensor, size: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.memory, self.size = [keys, values], size
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start, self.size = self.size, self.size + key_states.shape[2]
        self.memory[0][:, :, start : self.size] = key_states
        self.memory[1][:, :, start : self.size] = value_states
        self._show()
        return self.keys, self.values

    def select(self, rows: list[int]) -> None:
        self.memory = [x[rows] for x in self.memory]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (x[:, :, : self.size] for x in self.memory)


def stack(caches: Sequence[KVCache], room: int) -> Any:
    """Return the sequences as one batch for transformers, padded on the right, with memory for ``room`` more tokens.

    The sequences stay as they are. Padding holds zeros: attention weights of zero are multiplied with it, and 0 x NaN
    would be NaN.
    """
    if not caches[0].layers:
        return DynamicCache()
    past = max(cache.past_len for cache in caches)
    same = all(cache is caches[0] for cache in caches)
    layers: list[Any] = []
    for number in range(len(caches[0].layers)):
        memory = []
        for one in caches[0].layers[number]:
            heads, _, width = one.shape
            memory.append(one.new_empty(len(caches), heads, past + room, width))
        for kind, slab in enumerate(memory):
            if same:
                slab[:, :, :past] = caches[0].layers[number][kind]
                continue
            for row, cache in enumerate(caches):
                slab[row, :, : cache.past_len] = cache.layers[number][kind]
                slab[row, :, cache.past_len : past] = 0
        layers.append(_Layer(memory[0], memory[1], past))
    return Cache(layers=layers)


class Decoding:
    """A batch of sequences that grows by one token per row and step."""

    def __init__(self, caches: Sequence[KVCache], room: int) -> None:
        self.cache = stack(caches, room)
        self.length_B = torch.tensor([cache.past_len for cache in caches])
        columns_K = torch.arange(int(self.length_B.max()))
        self.seen_BK = columns_K < self.length_B[:, None]
        self.positions_BK = columns_K.expand(len(caches), -1)

    def step(self) -> Tensor:
        """Make room for one more token per row; return the positions [B, 1] of these tokens."""
        positions_B1 = self.length_B[:, None].clone()
        self.seen_BK = torch.cat([self.seen_BK, torch.ones_like(positions_B1, dtype=torch.bool)], 1)
        self.positions_BK = torch.cat([self.positions_BK, positions_B1], 1)
        self.length_B += 1
        return positions_B1

    def select(self, rows: list[int]) -> None:
        """Keep only these rows."""
        self.seen_BK, self.positions_BK, self.length_B = (
            self.seen_BK[rows],
            self.positions_BK[rows],
            self.length_B[rows],
        )
        for layer in self.cache.layers:
            layer.select(rows)


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """A cache of keys and values, under the name by which the model's ``forward`` takes it: ``cache``, or
    ``past_key_values`` as it was called before transformers 5.24."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_cache_name(type(causal)): cache}  # type: ignore[arg-type]


@lru_cache
def _cache_name(kind: type) -> str:
    """The first class that says, as a subclass may take ``*args, **kwargs`` and pass them on."""
    names = ("cache", "past_key_values")
    forwards = (base.__dict__["forward"] for base in kind.__mro__ if "forward" in base.__dict__)
    return next(
        (name for forward in forwards for name in names if name in inspect.signature(forward).parameters),
        "past_key_values",
    )
