"""Packed rows through a model: the machinery behind ``holdfast.prefix``.

In: passes over a tree of prefixes (``holdfast.trie``). Out: the log-probs and distributions that requests ask for.

A token of a packed row sees the cached prefix, its own ancestors and itself through a 4-D attention mask, and carries
its position in its own sequence. The head is computed on the rows that are asked for, in float32.
Axes: B rows, T tokens of a row, K tokens of prefix and row, N positions whose distribution is wanted, V vocabulary, D
width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.lm import LM, cache_argument
from holdfast.lm.batched import check_finite
from holdfast.trie import Ids, Node, Pass, flatten

States = npt.NDArray[np.float32]
_WORTH_A_CALL = 384
"""Tokens from which on a smaller batch without padding beats a larger one with it."""
OnStates = Callable[[int, States], None]
"""Takes the number of a request and its hidden states [taps, layers + 1, D]."""


@dataclass(frozen=True)
class Request:
    """A prompt, the continuations to score after it, and positions of the prompt whose hidden states are wanted."""

    prompt: Ids
    continuations: tuple[Ids, ...]
    taps: tuple[int, ...] = ()


@dataclass
class Scores:
    """The answer to a request: log-probs per token of each continuation (nats), and the distribution right after the
    prompt.
    """

    token_logp: list[npt.NDArray[np.float64]]
    top: int = -1
    """The id of the most probable next token: what greedy decoding would emit first."""
    entropy: float = 0.0
    """Of the next token, in nats."""

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """Log-prob of each continuation [L], nats."""
        return np.array([logp.sum() for logp in self.token_logp])


@dataclass
class Cost:
    """What a call passed through the model."""

    tokens: int = 0
    """Token-forwards, padding left out."""
    padded: int = 0
    """Token-forwards, padding counted."""
    calls: int = 0
    """Forward calls."""
    plain_tokens: int = 0
    """What one forward pass per prompt, without reuse, would have passed through the model."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, k) + getattr(other, k) for k in ("tokens", "padded", "calls", "plain_tokens")))


@dataclass
class _Wanted:
    """The distribution after one token of the tree is wanted: for these ids, each to be put into (request,
    continuation, place).
    """

    ids: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Requests whose prompt ends here."""


class Run:
    """One walk over the passes: caches of prefixes, what is wanted where, and the answers so far."""

    def __init__(self, lm: LM, requests: Sequence[Request], on_states: OnStates | None) -> None:
        self.lm, self.requests, self.on_states = lm, requests, on_states
        self.answers, self.cost = blank(requests), Cost(plain_tokens=sum(len(r.prompt) for r in requests))
        self.caches: dict[Node | None, list[tuple[Tensor, Tensor]]] = {None: []}
        self.wanted: dict[Node, dict[int, _Wanted]] = {}
        self.taps: dict[int, list[tuple[Node, int]]] = {}  # of each request
        self.tapped: dict[Node, dict[int, States]] = {}

    def locate(self, passes: Sequence[Pass], owners: Sequence[tuple[int, int]]) -> None:
        """Find the node and offset of every position that somebody asks for."""
        nodes = [node for step in passes for top in step.rows for node in flatten(top)] + [
            node for step in passes for node in step.cached
        ]
        for node in nodes:
            for number in node.ends:
                r, c = owners[number]
                self._locate_one(node, r, c)

    def _locate_one(self, node: Node, r: int, c: int) -> None:
        last = len(self.requests[r].prompt) - 1
        for place, token in reversed(list(enumerate(ids_of(self.requests[r], c)))):
            wanted = self._want(_holder(node, last + place), last + place)
            wanted.ids.append(token)
            wanted.places.append((r, c, place))
        if c == 0:
            self._want(_holder(node, last), last).ends.append(r)
            if self.on_states and self.requests[r].taps:
                self.taps[r] = [
                    (holder, p - holder.start) for p in self.requests[r].taps for holder in (_holder(node, p),)
                ]
                for holder, offset in self.taps[r]:
                    self.tapped.setdefault(holder, {})[offset] = np.empty(0, np.float32)

    def _want(self, node: Node, position: int) -> _Wanted:
        return self.wanted.setdefault(node, {}).setdefault(position - node.start, _Wanted())

    def step(self, step: Pass, token_budget: int) -> None:
        """All rows behind one prefix, in batches of similar length; the caches of new prefixes are kept."""
        past = self.caches.pop(step.prefix)
        rows = [flatten(top) for top in step.rows] + [[node] for node in step.cached]
        keep = set(step.cached)
        rows.sort(key=_length, reverse=True)
        while rows:
            width = _length(rows[0])
            size = _batch_size([_length(nodes) for nodes in rows[: max(1, token_budget // width)]])
            self._forward(step.prefix.stop if step.prefix else 0, past, rows[:size], width, keep)
            del rows[:size]

    def _forward(
        self, behind: int, past: list[tuple[Tensor, Tensor]], rows: list[list[Node]], width: int, keep: set[Node]
    ) -> None:
        from transformers import DynamicCache

        device, model = self.lm.model.device, self.lm.model
        ids_BT, positions_BT, mask_B1TK = _layout(rows, width, behind, model.dtype)
        keeping = any(nodes[0] in keep for nodes in rows)
        cache: Any = DynamicCache() if past or keeping else None
        for layer, (keys, values) in enumerate(past):
            cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
        places = [
            (b * width + at + offset, node, offset)
            for b, nodes in enumerate(rows)
            for node, at in _starts(nodes)
            for offset in self.wanted.get(node, ())
        ]
        tapped = [
            (b * width + at + offset, node, offset)
            for b, nodes in enumerate(rows)
            for node, at in _starts(nodes)
            for offset in self.tapped.get(node, ())
        ]
        with only_rows(model, [index for index, _, _ in places], trim=not tapped):
            out = model(
                input_ids=ids_BT.to(device), position_ids=positions_BT.to(device), attention_mask=mask_B1TK.to(device),
                use_cache=cache is not None, output_hidden_states=bool(tapped), **cache_argument(model, cache),
            )  # fmt: skip
        for index, node, offset in tapped:
            self.tapped[node][offset] = (
                torch.stack([h.flatten(0, 1)[index] for h in out.hidden_states]).float().cpu().numpy()
            )
        self._read(out.logits[0], [(node, offset) for _, node, offset in places])
        for b, nodes in enumerate(rows):
            if nodes[0] in keep:
                end = behind + len(nodes[0].ids)
                self.caches[nodes[0]] = [
                    (layer.keys[b : b + 1, :, :end].clone(), layer.values[b : b + 1, :, :end].clone())
                    for layer in cache.layers
                ]
            elif tapped:
                for node in nodes:
                    self.tapped.pop(node, None)
        self.cost.tokens += sum(map(_length, rows))
        self.cost.padded += len(rows) * width
        self.cost.calls += 1

    def _read(self, logits_NV: Tensor, places: Sequence[tuple[Node, int]], chunk: int = 512) -> None:
        for start in range(0, len(places), chunk):
            part_NV = logits_NV[start : start + chunk].float()
            check_finite(part_NV)
            norm_N = part_NV.logsumexp(-1)
            wanted = [self.wanted[node][offset] for node, offset in places[start : start + chunk]]
            rows = [n for n, want in enumerate(wanted) for _ in want.ids]
            logp = (part_NV[rows, [i for want in wanted for i in want.ids]] - norm_N[rows]).tolist()
            for (r, c, place), value in zip((p for want in wanted for p in want.places), logp, strict=True):
                self.answers[r].token_logp[c][place] = value
            self._read_ends(part_NV, norm_N, wanted)

    def _read_ends(self, part_NV: Tensor, norm_N: Tensor, wanted: Sequence[_Wanted]) -> None:
        rows = [n for n, want in enumerate(wanted) if want.ends]
        if not rows:
            return
        logp_NV = part_NV[rows] - norm_N[rows, None]
        tops, entropies = logp_NV.argmax(-1).tolist(), (-(logp_NV.exp() * logp_NV).sum(-1)).tolist()
        for n, top, entropy in zip(rows, tops, entropies, strict=True):
            for r in wanted[n].ends:
                self.answers[r].top, self.answers[r].entropy = top, entropy
                if self.on_states and r in self.taps:
                    self.on_states(r, np.stack([self.tapped[node][offset] for node, offset in self.taps.pop(r)]))


def _length(nodes: Sequence[Node]) -> int:
    return sum(len(node.ids) for node in nodes)


def _batch_size(lengths: Sequence[int]) -> int:
    """How many of these rows, the longest first, to batch: none shorter than four fifths of the longest, once the batch
    is worth a call.
    """
    width = lengths[0]
    return next(
        (i for i, length in enumerate(lengths) if length < 0.8 * width and i * width >= _WORTH_A_CALL), len(lengths)
    )


def _layout(
    rows: Sequence[Sequence[Node]], width: int, behind: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and positions [B, T] and the additive mask [B, 1, T, K] of packed rows, padded on the right."""
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    seen = np.zeros((len(rows), width, behind + width), bool)
    seen[:, :, :behind] = True
    seen[:, np.arange(width), behind + np.arange(width)] = True  # padding sees itself, so that its softmax is defined
    for b, nodes in enumerate(rows):
        last: dict[Node, int] = {}
        for node, at in _starts(nodes):
            end = at + len(node.ids)
            ids[b, at:end] = node.ids
            positions[b, at:end] = np.arange(node.start, node.stop)
            if node.parent in last:
                seen[b, at:end] = seen[b, last[node.parent]]
            seen[b, at:end, behind + at : behind + end] = np.tri(end - at, dtype=bool)
            last[node] = end - 1
    return torch.from_numpy(ids), torch.from_numpy(positions), additive(torch.from_numpy(seen), dtype)


def additive(seen_BTK: Tensor, dtype: torch.dtype) -> Tensor:
    """Which keys each token attends to, as the 4-D mask [B, 1, T, K] that is added to attention scores."""
    return torch.zeros(seen_BTK.shape, dtype=dtype).masked_fill_(~seen_BTK, torch.finfo(dtype).min)[:, None]


def _starts(nodes: Sequence[Node]) -> Iterator[tuple[Node, int]]:
    at = 0
    for node in nodes:
        yield node, at
        at += len(node.ids)


def _holder(node: Node, position: int) -> Node:
    """The ancestor (or the node itself) that holds a position."""
    while node.start > position and node.parent is not None:
        node = node.parent
    return node


@contextmanager
def only_rows(model: Any, rows: list[int], *, trim: bool) -> Iterator[None]:
    """Let the head see only these rows [N] of the flattened batch, so that the model's logits are [1, N, V].

    Args:
        trim: nobody reads the last layer elsewhere, so its MLP, which works row by row, need not see other rows either.
            Its keys and values are made before that, so caches are whole.
    """
    index = torch.tensor(rows, dtype=torch.long, device=model.device)

    def select(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1)[index][None], *args[1:])

    def spread(_: Any, args: tuple[Any, ...], out: Any) -> Any:
        whole = out.new_zeros(shape[0] * shape[1], out.shape[-1])
        whole[index] = out[0]
        return whole.view(*shape, -1)

    shape: tuple[int, int] = (0, 0)

    def remember(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal shape
        shape = (args[0].shape[0], args[0].shape[1])
        return select(_, args)

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


def ids_of(request: Request, index: int) -> Ids:
    """A continuation of the request; an empty one if it has none."""
    return request.continuations[index] if request.continuations else ()


def blank(requests: Sequence[Request]) -> list[Scores]:
    """Answers to be filled in."""
    return [Scores([np.zeros(len(c)) for c in request.continuations]) for request in requests]
