"""One engine for every wing: greedy answers, and log-probs of given ids, with every shared prefix computed once.

    engine.generate(prompts, max_new_tokens, stops)     leaves the prompts in the cache, as far as they fit
    engine.score(requests)                              what is in the cache is not computed again

Sequences become a radix tree (``tree``), the tree becomes passes over rows behind cached prefixes (``forward``), and
what is asked of each distribution is read from the head (``score``). ``plain`` is the same, one sequence at a time: the
oracle of the tests, and the fallback for models on which a small probe shows that the engine gives other numbers.

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.errors import HoldfastError
from holdfast.lm import plain
from holdfast.lm.batched import NotFiniteError, check_finite
from holdfast.lm.cache import Decoding, KVCache
from holdfast.lm.forward import LOCAL, MaskForm, forward, forward_rows, layout
from holdfast.lm.score import Cost, OnHidden, Readout, Request, Scored, states_at
from holdfast.lm.tree import WORTH_CACHING, Node, Pass, build, distinct_tokens, flatten, plan
from holdfast.records import Ids

__all__ = ["Answer", "Cost", "Engine", "Request", "Scored", "mask_form"]

_WORTH_A_CALL = 384
"""From this number of tokens on, a smaller batch without padding is faster than a larger one with padding."""
_WORTH_IN_PROMPTS = 64
"""As ``WORTH_CACHING``, for prompts that are continued: a shared prefix that is not cached is computed again for each
of them.
"""
_FILL = 128
"""Tokens that a row behind its own cached prompt should have. A longer row wastes attention, a shorter one repeats the
keys of the prompt.
"""
_ROW_TOKENS = 512
"""Most tokens of a subtree that is packed into one row."""


@dataclass(frozen=True)
class Answer:
    """A greedy answer: its ids, with the stop token if it was reached, and the smallest margin (nats) between the best
    and the second token.
    """

    ids: Ids
    margin: float


class Engine:
    """Runs one model.

    Args:
        model: a causal language model of transformers.
        context: largest number of tokens that it takes.
        token_budget: tokens per forward pass, padding included. Changes speed and memory only. Default: 1024 on a CPU,
            whose caches hold no more, 16384 elsewhere.
        row_tokens: longest packed row, unless a single sequence is longer. Changes speed only.
        worth: tokens that caching a prefix must save, for scoring. Changes speed only.
        cache_bytes: memory for keys and values. Default: 2 GiB on a CPU, half of what is free elsewhere.
    """

    def __init__(
        self,
        model: Any,
        context: int,
        *,
        token_budget: int | None = None,
        row_tokens: int = _ROW_TOKENS,
        worth: int = WORTH_CACHING,
        cache_bytes: int | None = None,
    ) -> None:
        self.model, self.context, self.cost = model.eval(), context, Cost()
        self.row_tokens, self.worth = row_tokens, worth
        on_cpu = model.device.type == "cpu"
        self.token_budget = token_budget or (1024 if on_cpu else 16_384)
        if cache_bytes is None:
            free = 2**32 if model.device.type != "cuda" else torch.cuda.mem_get_info(model.device)[0]
            cache_bytes = free // 2
        self.cache_tokens = max(1, cache_bytes // _bytes_per_token(model))
        head = model.get_output_embeddings()
        self._head_rows = max(64, 2**26 // head.weight.shape[0]) if head is not None else 64  # 256 MiB in float32
        self._form = mask_form(model)
        self._prompts: dict[Ids, KVCache] = {}

    def fits(self, longest: int) -> bool:
        """Return whether this engine gives the same numbers as plain passes for sequences of up to this many tokens."""
        window = getattr(self.model.config.get_text_config(), "window_size", None)  # local attention of GPT-Neo
        return self._form is not None and (not isinstance(window, int) or longest <= window)

    def score(self, requests: Sequence[Request], *, on_hidden: OnHidden | None = None) -> list[Scored]:
        """Return log-probs of all continuations; each distinct prefix is computed once. The order of the requests
        changes nothing.

        Args:
            on_hidden: called once for each request that asks for hidden states.

        Raises:
            HoldfastError: an empty prompt, or a sequence longer than the model's context.
            NotFiniteError: logits that are not finite.
        """
        longest = self._check(requests)
        if not self.fits(longest):
            return plain.score(self.model, requests, on_hidden=on_hidden, cost=self.cost)
        self.cost.plain_tokens += sum(len(request.prompt) for request in requests)
        run = _Run(self, Readout(requests, on_hidden))
        warm: dict[Ids, list[int]] = {}
        cold: list[int] = []
        for number, request in enumerate(requests):
            if request.prompt in self._prompts and not request.hidden_at:
                warm.setdefault(request.prompt, []).append(number)
            else:
                cold.append(number)
        with torch.inference_mode():
            run.behind(warm)
            run.whole(cold)
        return run.reader.answers

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Ids],
        max_new_tokens: int,
        stops: frozenset[int],
        *,
        ended: Callable[[Ids], bool] | None = None,
        batch_size: int | None = None,
    ) -> list[Answer]:
        """Answer every prompt greedily, from raw logits (ties: the lowest id), at most to the end of the context.

        Args:
            stops: ids that end an answer.
            ended: called with an answer so far; returns whether to end it there.
            batch_size: most prompts that are answered at a time; the memory for caches limits them anyway.

        Raises:
            NotFiniteError: logits that are not finite.
        """
        if not self.fits(max(map(len, prompts), default=0) + max_new_tokens):
            return [
                Answer(*one) for one in plain.generate(self.model, prompts, max_new_tokens, stops, ended, self.cost)
            ]
        self.forget()
        answers: dict[Ids, Answer] = {}
        portions = list(self._portions(list(dict.fromkeys(prompts)), max_new_tokens, batch_size))
        for portion in portions:
            self._prompts = self._prefill(portion)
            answers |= self._decode(self._prompts, max_new_tokens, stops, ended)
        if len(portions) > 1:
            self.forget()  # only the last ones would be there
        return [answers[prompt] for prompt in prompts]

    def forget(self) -> None:
        """Free the memory of cached prompts."""
        self._prompts = {}

    def _prefill(self, prompts: Sequence[Ids]) -> dict[Ids, KVCache]:
        run = _Run(self, Readout([Request(prompt, ()) for prompt in prompts]))
        run.whole(range(len(prompts)), keep_ends=True)
        return {prompts[number]: cache for number, cache in run.kept.items()}

    def _decode(
        self,
        caches: dict[Ids, KVCache],
        max_new_tokens: int,
        stops: frozenset[int],
        ended: Callable[[Ids], bool] | None,
    ) -> dict[Ids, Answer]:
        written: list[list[int]] = [[] for _ in caches]
        margins = [float("inf")] * len(written)
        room = [min(max_new_tokens, self.context + 1 - len(prompt)) for prompt in caches]
        live = list(range(len(written)))
        rows, past = live, None
        logits_BV = torch.stack([cache.logits_V for cache in caches.values() if cache.logits_V is not None])
        while live:
            top = logits_BV.topk(2)
            check_finite(top.values)
            at = {row: place for place, row in enumerate(rows)}
            values, ids = top.values.tolist(), top.indices.tolist()
            for row in live:
                first, second = values[at[row]]
                margins[row] = min(margins[row], first - second)
                written[row].append(ids[at[row]][0] if first > second else int(logits_BV[at[row]].argmax()))
            live = [r for r in live if len(written[r]) < room[r] and written[r][-1] not in stops]
            live = [r for r in live if ended is None or not ended(tuple(written[r]))]
            if not live:
                break
            if past is None:
                past, rows = Decoding([list(caches.values())[r] for r in live], max_new_tokens), live
            elif len(live) <= len(rows) // 2:  # finished rows are dropped when they are half of the batch
                past.select([rows.index(r) for r in live])
                rows = live
            tokens = torch.tensor([[written[r][-1]] for r in rows])
            logits_BV = self._step(past, tokens)
            self.cost.count(len(live), len(rows), len(rows))
        return {
            prompt: Answer(tuple(ids), margin) for prompt, ids, margin in zip(caches, written, margins, strict=True)
        }

    def _step(self, past: Decoding, tokens_B1: Tensor) -> Tensor:
        assert self._form is not None
        positions_B1 = past.step()
        heads = list(range(len(tokens_B1)))
        logits_BV, _, _ = forward(
            self.model, self._form, tokens_B1, positions_B1, past.seen_BK[:, None], past.positions_BK, past.cache, heads
        )
        return logits_BV.float()

    def _portions(self, prompts: list[Ids], new: int, batch_size: int | None) -> Iterator[list[Ids]]:
        """Prompts that fit into the cache together: neighbours in the tree if they share much, else of like length."""
        if 2 * distinct_tokens(prompts) < sum(map(len, prompts)):
            prompts = sorted(prompts)
        elif sum(map(len, prompts)) > self.cache_tokens or batch_size:
            prompts = sorted(prompts, key=len)
        portion: list[Ids] = []
        longest = 0
        for prompt in prompts:
            longest = max(longest, len(prompt) + new)
            full = 2 * longest * (len(portion) + 1) > self.cache_tokens  # twice: the prompts, and their growing copy
            if portion and (full or len(portion) == batch_size):
                yield portion
                portion, longest = [], len(prompt) + new
            portion.append(prompt)
        if portion:
            yield portion

    def _check(self, requests: Sequence[Request]) -> int:
        """Return the length of the longest sequence."""
        longest = 0
        for number, request in enumerate(requests):
            if not request.prompt:
                raise HoldfastError(
                    f"prompt {number} is empty, and the tokenizer adds no BOS",
                    hint="a model needs one token to start from",
                )
            length = len(request.prompt) + max((len(c) for c in request.continuations), default=1) - 1
            if length > self.context:
                raise HoldfastError(
                    f"prompt {number} and its continuation have {length} tokens; the model takes {self.context}"
                )
            longest = max(longest, length)
        return longest


class _Run:
    """One walk over passes: the caches of prefixes that are still needed, and where answers are read into."""

    def __init__(self, engine: Engine, reader: Readout) -> None:
        self.engine, self.reader = engine, reader
        self.caches: dict[Node | None, KVCache] = {None: KVCache([])}
        self.kept: dict[int, KVCache] = {}
        """Of sequences that are to be gone on from, by number."""
        self._keep_ends = False

    def whole(self, numbers: Sequence[int], *, keep_ends: bool = False) -> None:
        """Pass whole requests: their prompts, and their continuations behind them. ``keep_ends``: fill ``kept``."""
        owners, sequences = self._sequences(numbers)
        if not owners:
            return
        root = build(sequences)
        engine, self._keep_ends = self.engine, keep_ends
        worth = min(engine.worth, _WORTH_IN_PROMPTS) if keep_ends else engine.worth
        passes = plan(root, engine.row_tokens, worth, keep_ends=keep_ends, room=engine.cache_tokens)
        self._locate(passes, owners)
        for step in passes:
            self._pass([(step.prefix, row) for row in step.rows], [(step.prefix, node) for node in step.cached])
            if step.last:
                del self.caches[step.prefix]

    def behind(self, warm: dict[Ids, list[int]]) -> None:
        """Pass the continuations of requests whose prompts (the keys) are cached, the rows of all prompts together."""
        first: list[tuple[Node | None, tuple[Node, ...]]] = []
        cached: list[tuple[Node | None, Node]] = []
        later: list[Pass] = []
        for prompt, numbers in warm.items():
            owners, sequences = self._sequences(numbers)
            root = build([ids[len(prompt) :] for ids in sequences], len(prompt))
            for number in root.ends:
                self.reader.want(root, *owners[number])
            self.caches[root] = self.engine._prompts[prompt]
            passes = plan(root, self.engine.row_tokens, self.engine.worth, fill=_FILL)
            self._locate(passes, owners)
            logits_V = self.caches[root].logits_V
            assert logits_V is not None
            self.reader.read(logits_V[None], [(root, -1)])
            first += [(root, row) for row in passes[0].rows] if passes else []
            cached += [(root, node) for node in passes[0].cached] if passes else []
            later += passes[1:]
        self._pass(first, cached)
        for step in later:
            self._pass([(step.prefix, row) for row in step.rows], [(step.prefix, node) for node in step.cached])

    def _sequences(self, numbers: Sequence[int]) -> tuple[list[tuple[int, int]], list[Ids]]:
        """Return (request, continuation) of every sequence of some requests, and the sequences."""
        owners: list[tuple[int, int]] = []
        sequences: list[Ids] = []
        for number in numbers:
            own = self.reader.requests[number].sequences()
            owners += [(number, continuation) for continuation in range(len(own))]
            sequences += own
        return owners, sequences

    def _locate(self, passes: Sequence[Pass], owners: Sequence[tuple[int, int]]) -> None:
        """Find the node and offset of every position that somebody asks for."""
        for step in passes:
            for node in [*step.cached, *(node for row in step.rows for node in flatten(row))]:
                for number in node.ends:
                    self.reader.want(node, *owners[number])

    def _pass(self, rows: list[tuple[Node | None, tuple[Node, ...]]], cached: list[tuple[Node | None, Node]]) -> None:
        """Pass rows behind their prefixes, in batches of like length; keep the caches of the nodes to be cached."""
        jobs = [(prefix, flatten(tops)) for prefix, tops in rows] + [(prefix, [node]) for prefix, node in cached]
        keep = {node for _, node in cached}
        jobs.sort(key=lambda job: -_tokens(job[1]))
        while jobs:
            size = self._batch_size([nodes for _, nodes in jobs])
            self._forward(jobs[:size], keep)
            del jobs[:size]

    def _batch_size(self, rows: Sequence[Sequence[Node]]) -> int:
        """How many of these rows, the longest first, to batch: within the budgets, and none shorter than four fifths of
        the longest once the batch is worth a call."""
        width = _tokens(rows[0])
        heads = 0
        for count, nodes in enumerate(rows[: max(1, self.engine.token_budget // width)]):
            length = _tokens(nodes)
            heads += sum(len(self.reader.wanted.get(node, ())) for node in nodes)
            ragged = length < 0.8 * width and count * width >= _WORTH_A_CALL
            if count and (ragged or heads > self.engine._head_rows):
                return count
        return min(len(rows), max(1, self.engine.token_budget // width))

    def _forward(self, jobs: Sequence[tuple[Node | None, list[Node]]], keep: set[Node]) -> None:
        engine, width = self.engine, _tokens(jobs[0][1])
        assert engine._form is not None
        caches = [self.caches[prefix] for prefix, _ in jobs]
        laid = layout([nodes for _, nodes in jobs], [cache.past_len for cache in caches], width)
        places, hidden = [], []
        for b, starts in enumerate(laid.starts):
            for node, at in starts:
                places += [(b * width + at + offset, (node, offset)) for offset in self.reader.wanted.get(node, ())]
                hidden += [(b * width + at + offset, (node, offset)) for offset in self.reader.hidden.get(node, ())]
        keeping = [b for b, (_, nodes) in enumerate(jobs) if nodes[0] in keep]
        heads = [index for index, _ in places]
        logits_NV, cache, states = forward_rows(
            engine.model, engine._form, laid, caches, heads or [0], keep=bool(keeping), hidden=bool(hidden)
        )
        for index, (node, offset) in hidden:
            self.reader.hidden[node][offset] = states_at(states, index)
        self.reader.read(logits_NV, [place for _, place in places])
        for b in keeping:
            node = jobs[b][1][0]
            kept = KVCache.of(cache, b, caches[b].past_len + len(node.ids), copy=len(keeping) < len(jobs))
            self._keep(node, kept, logits_NV, [n for n, (_, place) in enumerate(places) if place[0] is node])
        if hidden:
            for _, nodes in jobs:
                for node in nodes:
                    if node not in keep:
                        self.reader.hidden.pop(node, None)
        engine.cost.count(sum(_tokens(nodes) for _, nodes in jobs), len(jobs) * width, len(places))

    def _keep(self, node: Node, cache: KVCache, logits_NV: Tensor, rows: list[int]) -> None:
        if node.children:
            self.caches[node] = cache
        if self._keep_ends and node.ends:
            (row,) = rows  # the last token of the node: that of every prompt that ends here
            cache.logits_V = logits_NV[row].float()
            self.kept |= dict.fromkeys(node.ends, cache)


def mask_form(model: Any) -> MaskForm | None:
    """Return how this model takes masks, or None where the engine does not give what plain passes give.

    This is tried once on a small case, with caches, packed rows and decoding. Windows of local attention are shrunk for
    it, so that they matter.
    """
    if not hasattr(model, "_holdfast_mask_form"):
        model._holdfast_mask_form = None
        config = model.config.get_text_config()
        candidates = MaskForm.candidates(config) if _known_kinds(config) else []
        model._holdfast_mask_form = next((form for form in candidates if _agrees(model, form)), None)
    form: MaskForm | None = model._holdfast_mask_form
    return form


def _known_kinds(config: Any) -> bool:
    return set(getattr(config, "layer_types", None) or ()) <= {"full_attention", *LOCAL}


@contextmanager
def _small_windows(config: Any, size: int = 5) -> Iterator[None]:
    fields = [field for field in LOCAL.values() if getattr(config, field, None)]
    before = {field: getattr(config, field) for field in fields}
    try:
        for field in fields:
            setattr(config, field, min(size, before[field]))
        yield
    finally:
        for field, value in before.items():
            setattr(config, field, value)


def _agrees(model: Any, form: MaskForm) -> bool:
    head = model.get_output_embeddings()
    size = head.weight.shape[0] if head is not None else 0
    if size < 16:
        return False
    token = [i * (size // 16) for i in range(16)]
    prompts = [(*token[:6], token[i]) for i in (5, 6, 10)] + [(*token[1:4], token[9])]
    requests = [Request(prompt, ((token[7],), (token[8], token[9], token[4]))) for prompt in prompts]
    tolerance = 2e-4 if model.dtype in (torch.float32, torch.float64) else 0.1
    was_training = model.training
    try:
        with _small_windows(model.config.get_text_config()):
            expected = plain.score(model, requests)
            for row_tokens, warm in ((1, False), (64, False), (64, True)):  # caches, packed rows, behind prompts
                engine = Engine(model, 2**20, token_budget=64, row_tokens=row_tokens, worth=1, cache_bytes=2**40)
                engine._form = form
                if warm:
                    engine.generate(prompts, 3, frozenset())
                for ours, theirs in zip(engine.score(requests), expected, strict=True):
                    if not np.allclose(ours.total, theirs.total, atol=tolerance, rtol=tolerance):
                        return False
    except NotFiniteError:
        return True  # a matter of the weights, which the real run will name
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError):
        return False
    finally:
        model.train(was_training)
    return True


def _tokens(nodes: Sequence[Node]) -> int:
    return sum(len(node.ids) for node in nodes)


def _bytes_per_token(model: Any) -> int:
    """Size of the cached keys and values of a token, at most."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    cached = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * cached * width * model.dtype.itemsize)
