"""Where the tokens of a micro-batch go: from one example per row to rows without waste, and back.

    padded         aaaa     packed         aaaa     padding-free   aaaabbbccd
                   bbb.                    bbbd
                   cc..                    cc..
                   d...

A ``Layout`` is an index from one form to the other, so whatever travels with the token ids (weights, roles) takes the
same path, and what the model gives per token comes back to its example. Everything that counts or weighs tokens sees
one example per row.

Axes: N examples, T tokens of the longest, R rows, W tokens of a row.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

Rows = list[list[int]]
"""Numbers of the examples in each row, from left to right."""


@dataclass(frozen=True)
class Layout:
    """Where each token of a batch goes, and where documents begin.

    ``index_RW``: the place of each token in the flattened [N, T] batch, N * T for padding. ``positions_RW``: its place
    in its document.

    ``bounds``: where documents begin in the flattened [R, W] batch, and its end, int32 (what varlen kernels call
    cu_seqlens). The padding at the end of a row is a document of its own. ``longest``: tokens of the longest document.
    """

    index_RW: Tensor
    positions_RW: Tensor
    bounds: Tensor
    longest: int
    shape_NT: tuple[int, int]

    def to(self, device: torch.device) -> Layout:
        """The same layout on another device."""
        if self.index_RW.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("index_RW", "positions_RW", "bounds")}
        return replace(self, **moved)

    def pack(self, values_NT: Tensor, fill: float = 0) -> Tensor:
        """[N, T] -> [R, W]."""
        flat = torch.cat([values_NT.flatten(), values_NT.new_full((1,), fill)])
        return flat[self.index_RW]

    def unpack(self, values_RW: Tensor) -> Tensor:
        """[R, W] -> [N, T], 0 at padding."""
        examples, width = self.shape_NT
        flat = values_RW.new_zeros(examples * width + 1)
        flat[self.index_RW.flatten()] = values_RW.flatten()
        return flat[:-1].view(examples, width)


# How the examples of a micro-batch are laid out: lengths -> rows. Padded batches need no layout.
MakeRows = Callable[[Sequence[int]], Rows]
LAYOUTS: dict[str, MakeRows] = {
    # no wider than the longest example: attention over a row never costs more than over a padded one
    "packed": lambda lengths: best_fit_decreasing(lengths, max(lengths)),
    "padding-free": lambda lengths: [list(range(len(lengths)))],
}


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> Rows:
    """Return bins of items whose lengths sum to at most ``capacity``, by best fit decreasing.

    The longest item comes first, and each goes into the fullest bin that still takes it.

    At most 11/9 of the fewest possible bins, plus one (Johnson 1974). O(n log n) searches; equal lengths keep their
    order. In packing for language models: Krell et al. 2021 (arXiv 2107.02027), Ding et al. 2024 (arXiv 2404.10830).

    Raises:
        ValueError: an item is longer than ``capacity``.
    """
    bins: Rows = []
    free: list[tuple[int, int]] = []  # (space left, bin), sorted; full bins are left out
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[item]
        if length > capacity:
            raise ValueError(f"an item of length {length} does not fit into {capacity}")
        place = bisect_left(free, (length, -1))
        space, number = free.pop(place) if place < len(free) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        if space > length:
            insort(free, (space - length, number))
    return bins


def balance(lengths: Sequence[int], groups: int) -> Rows:
    """Items in ``groups`` groups of nearly equal total length: longest first, each to the lightest group (Graham 1969).

    No group is empty if there are as many items as groups.
    """
    loads = [(0, group) for group in range(groups)]
    grouped: Rows = [[] for _ in range(groups)]
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        load, group = heapq.heappop(loads)
        grouped[group].append(item)
        heapq.heappush(loads, (load + lengths[item], group))
    return grouped


def lay_out(lengths: Sequence[int], rows: Rows, width_T: int, device: torch.device | str = "cpu") -> Layout:
    """The layout that puts examples of these lengths, right-padded to ``width_T``, into these rows.

    Raises:
        ValueError: the rows do not hold every example once.
    """
    if sorted(chain.from_iterable(rows)) != list(range(len(lengths))):
        raise ValueError("rows must hold every example exactly once")
    width = max(sum(map(lengths.__getitem__, row)) for row in rows)
    index = np.full((len(rows), width), len(lengths) * width_T, dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    sizes: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for item in row:
            length = lengths[item]
            index[r, start : start + length] = item * width_T + np.arange(length)
            positions[r, start : start + length] = np.arange(length)
            sizes.append(length)
            start += length
        if start < width:
            positions[r, start:] = np.arange(width - start)
            sizes.append(width - start)
    bounds = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    moved = [torch.from_numpy(array).to(device) for array in (index, positions)]
    return Layout(moved[0], moved[1], bounds.to(device), max(sizes), (len(lengths), width_T))
