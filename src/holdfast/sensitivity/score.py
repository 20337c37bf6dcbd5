"""Prompts -> their greedy responses, and the log-prob of every response after every prompt.

    score(lm, ["Add 2 and 3.", "What is 2 plus 3?"], max_new_tokens=8)  ->  Scores(logp_XY, len_Y, responses,
    token_logp)

Three steps over one ``Known``: respond where there is no response yet, find the cells that are missing, score them.
This file holds the back end that runs a Hugging Face model in this process.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.data.chat_template import encode
from holdfast.lm import LM, stop_ids
from holdfast.lm.batched import NotFiniteError
from holdfast.sensitivity import plain
from holdfast.sensitivity.agreement import agrees
from holdfast.sensitivity.engine import Engine
from holdfast.sensitivity.identity import CODE_VERSION, tokenizer_digest, weights_digest
from holdfast.sensitivity.responses import Ids, Response, Scores
from holdfast.sensitivity.task import Known, Task, check_lengths


def score(
    lm: LM,
    prompts: Sequence[str | Ids],
    *,
    max_new_tokens: int = 30,
    exact: bool = False,
    token_budget: int | None = None,
) -> Scores:
    """Greedy responses of a model, each scored after every prompt.

    Args:
        prompts: texts (tokenised with the tokenizer's own BOS) or ids.
        max_new_tokens: per response; the end-of-sequence token counts and is scored.
        exact: one pair at a time, no cache; slow.
        token_budget: tokens per forward pass; changes speed and memory, never the result.

    Raises:
        HoldfastError: an empty prompt without BOS, a prompt too long for the context, or logits that are not finite.
    """
    backend = Local(lm, max_new_tokens, exact=exact, token_budget=token_budget)
    task = Task.of(
        "prompts", [encode(lm.tokenizer, p, special_tokens=True) if isinstance(p, str) else tuple(p) for p in prompts]
    )
    known = Known()
    backend.check([task])
    backend.complete([task], known)
    return known.scores(task)


class Local:
    """A model in this process. ``exact``: the plain way; also taken, with a note, by models that the fast way does not
    understand.
    """

    parallel = 1

    def __init__(
        self,
        lm: LM,
        max_new_tokens: int,
        *,
        exact: bool = False,
        token_budget: int | None = None,
        cache_bytes: int = 2**31,
    ) -> None:
        self.lm, self.max_new_tokens, self.context = lm, max_new_tokens, lm.context
        self.stops = stop_ids(lm.model, lm.tokenizer)
        self.engine = Engine(lm.model, lm.context, token_budget)
        self.cache_tokens = max(1, cache_bytes // _bytes_per_token(lm.model))
        self.plain_reason = (
            "asked for" if exact else None if agrees(lm) else "this model cannot share caches as the fast way needs it"
        )

    def identity(self) -> dict[str, str]:
        """Digest of the weights, tokenizer, type and version of this code."""
        return {
            "weights": weights_digest(self.lm.model),
            "tokenizer": tokenizer_digest(self.lm.tokenizer),
            "dtype": str(self.lm.model.dtype).removeprefix("torch."),
            "code": CODE_VERSION,
        }

    def cost(self) -> dict[str, int]:
        """Token-forwards and calls."""
        return self.engine.cost.as_dict()

    def way(self) -> str:
        """``fast``, or ``plain`` and the reason."""
        return f"plain: {self.plain_reason}" if self.plain_reason else "fast"

    def check(self, tasks: Sequence[Task]) -> None:
        """See ``Backend``."""
        check_lengths(tasks, self.context, self.max_new_tokens)

    def complete(self, tasks: Sequence[Task], known: Known) -> None:
        """See ``Backend``."""
        try:
            if self.plain_reason:
                for task in tasks:
                    self._plainly(task, known)
            else:
                for batch in self._batches(tasks):
                    self._fast(batch, known)
        except NotFiniteError as error:
            raise self._located(tasks, known, error) from error

    def audit(self, tasks: Sequence[Task], known: Known, cells: int, seed: int) -> dict[str, float]:
        """Score some cells again, plainly. Returns how many, and the largest difference in nats."""
        pairs = [
            (task.prompts[x], known.responses[task.prompts[y]].ids)
            for task in tasks
            for group in task.groups
            for x in group
            for y in group
        ]
        drawn = random.Random(seed).sample(pairs, min(cells, len(pairs)))
        gaps = [abs(float(plain.cell(self.lm.model, p, r).sum() - known.cells[p, r].sum())) for p, r in drawn]
        return {"cells": len(gaps), "max_difference": max(gaps, default=0.0)}

    def _batches(self, tasks: Sequence[Task]) -> Iterable[list[Task]]:
        """Tasks of similar length whose prompts fit into the cache together."""
        batch: list[Task] = []
        for task in sorted(tasks, key=lambda task: max(map(len, task.prompts))):
            if batch and self._size([*batch, task]) > self.cache_tokens:
                yield batch
                batch = []
            batch.append(task)
        if batch:
            yield batch

    def _size(self, tasks: Sequence[Task]) -> int:
        longest = max(len(p) for task in tasks for p in task.prompts) + self.max_new_tokens
        return (
            2 * longest * sum(len(set(task.prompts)) for task in tasks)
        )  # prompts, and their copy that grows while decoding

    def _fast(self, tasks: Sequence[Task], known: Known) -> None:
        new = [sorted({p for p in task.prompts if p not in known.responses}) for task in tasks]
        done: set[Ids] = set()
        for part in self._portions(new):
            rows = [p for prompts in part for p in prompts]
            warm = self.engine.prefill(part)
            for prompt, (ids, margin) in zip(
                rows, self.engine.generate(warm, self.max_new_tokens, self.stops), strict=True
            ):
                known.responses[prompt] = Response(ids, self.lm.tokenizer.decode(ids, skip_special_tokens=True), margin)
            if part == [p for p in new if p]:  # everything new is warm: no prompt has to pass through the model again
                self._score(tasks, warm, rows, known)
                done = set(rows)
        wanted = [sorted(p for p in task.wanted(known) if p not in done) for task in tasks]
        for part in self._portions(wanted):
            self._score(tasks, self.engine.prefill(part), [p for prompts in part for p in prompts], known)

    def _portions(self, sets: Sequence[Sequence[Ids]]) -> Iterable[list[list[Ids]]]:
        """The sets as they are if they fit into the cache, else in portions of prompts."""
        kept = [list(prompts) for prompts in sets if prompts]
        if not kept:
            return
        longest = max(len(p) for prompts in kept for p in prompts) + self.max_new_tokens
        room = max(1, self.cache_tokens // (2 * longest))
        if sum(map(len, kept)) <= room:
            yield kept
            return
        for prompts in kept:
            for start in range(0, len(prompts), room):
                yield [prompts[start : start + room]]

    def _score(self, tasks: Sequence[Task], warm: Any, rows: Sequence[Ids], known: Known) -> None:
        wanted: dict[Ids, dict[Ids, None]] = {}
        for task in tasks:
            for prompt, responses in task.wanted(known).items():
                wanted.setdefault(prompt, {}).update(dict.fromkeys(responses))
        lists = [list(wanted.pop(prompt, {})) for prompt in rows]  # a prompt that two sets share is scored once
        for prompt, responses, found in zip(rows, lists, self.engine.cells(warm, lists), strict=True):
            for response, logp_T in zip(responses, found, strict=True):
                known.cells[prompt, response] = logp_T

    def _plainly(self, task: Task, known: Known) -> None:
        for prompt in dict.fromkeys(task.prompts):
            if prompt not in known.responses:
                ids, margin = plain.respond(self.lm.model, prompt, self.max_new_tokens, self.stops)
                known.responses[prompt] = Response(ids, self.lm.tokenizer.decode(ids, skip_special_tokens=True), margin)
                self._count(sum(len(prompt) + t for t in range(len(ids))), len(ids))
        for prompt, responses in task.wanted(known).items():
            for response in responses:
                known.cells[prompt, response] = plain.cell(self.lm.model, prompt, response)
                self._count(len(prompt) + len(response), 1)

    def _count(self, tokens: int, calls: int) -> None:
        cost = self.engine.cost
        cost.tokens, cost.padded, cost.calls = cost.tokens + tokens, cost.padded + tokens, cost.calls + calls
        cost.head_rows += tokens

    def _located(self, tasks: Sequence[Task], known: Known, error: NotFiniteError) -> NotFiniteError:
        """The same error with the set and the cell named, found by scoring plainly."""
        for task in tasks:
            for x, prompt in enumerate(task.prompts):
                try:
                    if prompt not in known.responses:
                        plain.respond(self.lm.model, prompt, self.max_new_tokens, self.stops)
                except NotFiniteError:
                    return NotFiniteError(f"set '{task.name}', response to prompt {x}")
            for x, prompt in enumerate(task.prompts):
                for y, other in enumerate(task.prompts):
                    try:
                        response = known.responses[other].ids if other in known.responses else (0,)
                        plain.cell(self.lm.model, prompt, response)
                    except NotFiniteError:
                        return NotFiniteError(f"set '{task.name}', cell [{x}, {y}]")
        return error


def _bytes_per_token(model: Any) -> int:
    """Size of the cached keys and values of a token, at most."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    cached = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * cached * width * model.dtype.itemsize)
