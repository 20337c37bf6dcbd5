"""Prompts -> their greedy responses, and the log-prob of every response after every prompt.

    score(lm, ["Add 2 and 3.", "What is 2 plus 3?"], max_new_tokens=8)  ->  Scores(logp_XY, len_Y, responses,
    token_logp)

Three steps over one ``ScoreTable``: respond where there is no response yet, find the cells that are missing, score
them. This file holds the back end that runs a Hugging Face model in this process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from holdfast.data.chat_template import encode
from holdfast.lm import LM, plain, stop_ids
from holdfast.lm.batched import NotFiniteError
from holdfast.lm.engine import Engine, Request, Scored
from holdfast.records import Ids
from holdfast.sensitivity.identity import CODE_VERSION, tokenizer_digest, weights_digest
from holdfast.sensitivity.responses import Response, Scores
from holdfast.sensitivity.task import ScoreTable, SetTask, check_lengths


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
    task = SetTask.of(
        "prompts", [encode(lm.tokenizer, p, special_tokens=True) if isinstance(p, str) else tuple(p) for p in prompts]
    )
    score_table = ScoreTable()
    backend.check([task])
    backend.complete([task], score_table)
    return score_table.scores(task)


class Local:
    """A model in this process. ``exact``: the plain way; also taken, with a note, by models that the engine does not
    fit.
    """

    parallel = 1

    def __init__(
        self,
        lm: LM,
        max_new_tokens: int,
        *,
        exact: bool = False,
        token_budget: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self.lm, self.max_new_tokens, self.context = lm, max_new_tokens, lm.context
        self.stops = stop_ids(lm.model, lm.tokenizer)
        self.engine = Engine(lm.model, lm.context, token_budget=token_budget, cache_bytes=cache_bytes)
        fits = exact or self.engine.fits(lm.context)
        self.plain_reason = (
            "asked for" if exact else None if fits else "this model cannot share caches as the fast way needs it"
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
        return self.engine.cost.part("tokens", "padded", "calls", "head_rows")

    def way(self) -> str:
        """``fast``, or ``plain`` and the reason."""
        return f"plain: {self.plain_reason}" if self.plain_reason else "fast"

    def check(self, tasks: Sequence[SetTask]) -> None:
        """See ``Backend``."""
        check_lengths(tasks, self.context, self.max_new_tokens)

    def complete(self, tasks: Sequence[SetTask], score_table: ScoreTable) -> None:
        """See ``Backend``."""
        try:
            if self.plain_reason:
                for task in tasks:
                    self._plainly(task, score_table)
            else:
                for batch in self._batches(tasks):
                    self._fast(batch, score_table)
        except NotFiniteError as error:
            raise self._located(tasks, score_table, error) from error

    def audit(self, tasks: Sequence[SetTask], score_table: ScoreTable, cells: int, seed: int) -> dict[str, float]:
        """Score some cells again, plainly. Returns how many, and the largest difference in nats."""
        pairs = [
            (task.prompts[x], score_table.responses[task.prompts[y]].ids)
            for task in tasks
            for group in task.groups
            for x in group
            for y in group
        ]
        drawn = random.Random(seed).sample(pairs, min(cells, len(pairs)))
        gaps = [abs(float(plain.cell(self.lm.model, p, r).sum() - score_table.cells[p, r].sum())) for p, r in drawn]
        return {"cells": len(gaps), "max_difference": max(gaps, default=0.0)}

    def _batches(self, tasks: Sequence[SetTask]) -> Iterable[list[SetTask]]:
        """Tasks of similar length whose prompts fit into the cache together, and in it grow into responses."""
        batch: list[SetTask] = []
        prompts: set[Ids] = set()
        for task in sorted(tasks, key=lambda task: max(map(len, task.prompts))):
            prompts |= set(task.prompts)
            longest = max(map(len, prompts)) + self.max_new_tokens
            if batch and 2 * longest * len(prompts) > self.engine.cache_tokens:
                yield batch
                batch, prompts = [], set(task.prompts)
            batch.append(task)
        if batch:
            yield batch

    def _fast(self, tasks: Sequence[SetTask], score_table: ScoreTable) -> None:
        """Respond to what is new, then score what is missing while the prompts are still in the engine's cache."""
        new = list(dict.fromkeys(p for task in tasks for p in task.prompts if p not in score_table.responses))
        answers = self.engine.generate(new, self.max_new_tokens, self.stops)
        for prompt, answer in zip(new, answers, strict=True):
            score_table.responses[prompt] = self._response(answer.ids, answer.margin)
        self._cells(tasks, score_table, self.engine.score)
        self.engine.forget()

    def _plainly(self, task: SetTask, score_table: ScoreTable) -> None:
        model, cost = self.lm.model, self.engine.cost
        for prompt in dict.fromkeys(task.prompts):
            if prompt not in score_table.responses:
                score_table.responses[prompt] = self._response(
                    *plain.respond(model, prompt, self.max_new_tokens, self.stops, cost)
                )
        self._cells([task], score_table, lambda requests: plain.score(model, requests, cost=cost))

    def _cells(
        self, tasks: Sequence[SetTask], score_table: ScoreTable, score: Callable[[list[Request]], list[Scored]]
    ) -> None:
        """Score the pairs that are wanted and not yet scored; one that two sets share is scored once."""
        wanted: dict[Ids, dict[Ids, None]] = {}
        for task in tasks:
            for prompt, responses in task.wanted(score_table).items():
                wanted.setdefault(prompt, {}).update(dict.fromkeys(responses))
        requests = [Request(prompt, tuple(responses)) for prompt, responses in wanted.items()]
        for request, scored in zip(requests, score(requests), strict=True):
            for response, logprobs in zip(request.continuations, scored.token_logprobs, strict=True):
                score_table.cells[request.prompt, response] = logprobs

    def _response(self, ids: Ids, margin: float) -> Response:
        return Response(ids, self.lm.tokenizer.decode(ids, skip_special_tokens=True), margin)

    def _located(self, tasks: Sequence[SetTask], score_table: ScoreTable, error: NotFiniteError) -> NotFiniteError:
        """The same error with the set and the cell named, found by scoring plainly."""
        for task in tasks:
            for x, prompt in enumerate(task.prompts):
                try:
                    if prompt not in score_table.responses:
                        plain.respond(self.lm.model, prompt, self.max_new_tokens, self.stops)
                except NotFiniteError:
                    return NotFiniteError(f"set '{task.name}', response to prompt {x}")
            for x, prompt in enumerate(task.prompts):
                for y, other in enumerate(task.prompts):
                    try:
                        response = score_table.responses[other].ids if other in score_table.responses else (0,)
                        plain.cell(self.lm.model, prompt, response)
                    except NotFiniteError:
                        return NotFiniteError(f"set '{task.name}', cell [{x}, {y}]")
        return error
