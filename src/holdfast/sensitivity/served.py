"""A model behind a server, as a back end. Begins with a preflight and refuses, with the reason, instead of reporting
wrong numbers.

preflight: log-probs there, of the ids sent, BOS once, finite; equal to those of generation; equal again after other
requests;
           the server's words for the ids are ours (else --tokenizer is another one); generated tokens are the most
           likely ones
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from holdfast import http
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError, redacted
from holdfast.records import Ids
from holdfast.sensitivity.identity import CODE_VERSION, tokenizer_digest
from holdfast.sensitivity.responses import Response
from holdfast.sensitivity.task import Known, Task, check_lengths
from holdfast.sensitivity.wire import Completions, Generated, Misaligned, SGLang, Wire

_TOLERANCE = 0.1
"""Nats per token by which two answers of a healthy server may differ (bf16 kernels that depend on the batch)."""
_TIE = 0.01
"""Nats by which a token may lie below the most likely one and still be a greedy choice."""


class Served:
    """Responds and scores over HTTP, ``concurrency`` requests at a time."""

    parallel = 1

    def __init__(self, config: SensitivityConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        base, key = str(config.endpoint), http.api_key("OPENAI_API_KEY")
        self.name = redacted(base)
        self.client = http.Client(base, timeout=config.timeout, retries=config.retries, key=key)
        self.wire: Wire = SGLang(self.client) if config.backend == "sglang" else self._completions()
        limit = config.context or getattr(tokenizer, "model_max_length", 0) or 0
        self.context = int(limit) if limit < 10**9 else 4096
        self.sent = 0
        added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special]
        self.special = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)

    def identity(self) -> dict[str, str]:
        """The address and name stand for the weights: a server that changes its model under the same name is not
        noticed.
        """
        return {
            "weights": redacted(f"{self.config.backend} {self.config.endpoint} {self.config.model}"),
            "tokenizer": tokenizer_digest(self.tokenizer),
            "dtype": "served",
            "code": f"{CODE_VERSION}, neutral penalties",  # what was asked before they were sent may be wrong
        }

    def cost(self) -> dict[str, int]:
        """Tokens sent, requests and how many of them were repeats."""
        return {"tokens_sent": self.sent, "requests": self.client.requests, "retries": self.client.retried}

    def way(self) -> str:
        """The protocol."""
        return self.config.backend

    def check(self, tasks: Sequence[Task]) -> None:
        """Lengths, and the preflight on the first set."""
        check_lengths(tasks, self.context, self.config.max_new_tokens)
        with self._named():
            self._preflight(tasks[0].prompts[0], tasks[0].prompts[-1])

    def complete(self, tasks: Sequence[Task], known: Known) -> None:
        """See ``task.Backend``."""
        new = list({p: None for task in tasks for p in task.prompts if p not in known.responses})
        with self._named():
            http.together(self._respond, new, self.config.concurrency, known.responses.__setitem__)
            pairs = list({(p, r): None for task in tasks for p, found in task.wanted(known).items() for r in found})
            http.together(
                self._score,
                pairs,
                self.config.concurrency,
                lambda pair, logp: known.cells.update({pair: np.array(logp)}),
            )

    def audit(self, tasks: Sequence[Task], known: Known, cells: int, seed: int) -> dict[str, float]:
        """Ask for some cells again, one at a time: does the server say the same?"""
        pairs = list(
            {
                (p, known.responses[q].ids): None
                for task in tasks
                for g in task.groups
                for p in _of(task, g)
                for q in _of(task, g)
            }
        )
        drawn = random.Random(seed).sample(pairs, min(cells, len(pairs)))
        gaps = [abs(sum(self._score(pair)) - float(known.cells[pair].sum())) for pair in drawn]
        return {"cells": len(gaps), "max_difference": max(gaps, default=0.0)}

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Says which server it is that cannot be used."""
        try:
            yield
        except Misaligned as error:
            hint = error.hint or "--backend hf computes in this process"
            raise HoldfastError(f"{self.client.base} cannot be used: {error.message}", hint=hint) from error

    def _preflight(self, prompt: Ids, other: Ids) -> None:
        made = self._first_response(prompt)
        asked = [(prompt, self.wire.score(prompt, made.ids))]
        first = asked[0][1].logp
        if len(first) != len(made.ids):
            raise Misaligned(f"{len(made.ids)} response tokens have {len(first)} log-probs")
        if max(first) > 1e-4:
            raise Misaligned(f"a log-prob of {max(first):.3f} is above 0")
        gap = max(abs(a - b) for a, b in zip(first, made.logp))
        if gap > _TOLERANCE:
            raise Misaligned(
                f"scoring its own response gives other log-probs than generating it (by {gap:.3f} nats): "
                "they are shifted, or not those of the raw distribution"
            )
        asked.append((other, self.wire.score(other, made.ids)))
        gap = max(abs(a - b) for a, b in zip(first, self.wire.score(prompt, made.ids).logp, strict=True))
        if gap > _TOLERANCE:
            raise Misaligned(f"its log-probs depend on what was asked before (by {gap:.3f} nats)")
        if self.config.backend == "openai":
            self._check_words([(x + made.ids, scored.text) for x, scored in asked], more=True)
        else:  # echoes no text of a prompt unless asked
            self._check_words([(made.ids, made.text), (prompt, self.wire.spell(prompt))], more=False)
        _check_greedy(made)

    def _first_response(self, prompt: Ids) -> Generated:
        try:
            made = self.wire.generate(prompt, self.config.max_new_tokens)
        except Misaligned:
            spelled = self.wire.spell(prompt)
            if spelled is not None:  # a wrong tokenizer is the better reason
                self._check_words([(prompt, spelled)], more=False)
            raise
        if not made.ids:
            raise Misaligned("it generates nothing")
        if made.below is None:
            print(
                f"note: {self.name} lists no most likely tokens: whether it answers greedily is not known",
                file=sys.stderr,
            )
        return made

    def _check_words(self, said: Sequence[tuple[Ids, str | None]], *, more: bool) -> None:
        """Whether the server calls ids what our tokenizer calls them; with ``more``, its texts may go on."""
        for ids, text in said:
            if text is not None and self._agree(text, ids, more):
                continue
            spelled = (
                self.wire.spell(ids) if more else None
            )  # some servers echo no text of the prompt; tokens have theirs
            if spelled is not None and self._agree(spelled, ids, False):
                continue
            theirs = text if spelled is None else spelled
            if theirs is not None:
                raise self._other_tokenizer(ids, theirs)
        if all(text is None for _, text in said):
            print(
                f"note: {self.name} says no token's text: whether the tokenizer is its own is not known",
                file=sys.stderr,
            )

    def _other_tokenizer(self, ids: Ids, theirs: str) -> Misaligned:
        name = self.config.tokenizer or self.config.model
        return Misaligned(
            f"the tokenizer {name} is not the server's: ids that it reads as {_start(str(self.tokenizer.decode(ids)))} "
            f"are {_start(theirs)} there",
            hint="give the tokenizer of the model that is served with --tokenizer",
        )

    def _agree(self, text: str, ids: Ids, more: bool) -> bool:
        theirs, ours = self._plain(text), self._plain(str(self.tokenizer.decode(ids)))
        return theirs.startswith(ours) if more else theirs == ours

    def _plain(self, text: str) -> str:
        """Text without what servers and tokenizers write in different ways: special tokens, white space, halves of
        characters.
        """
        for token in self.special:
            text = text.replace(token, "")
        return "".join(text.replace("\ufffd", "").replace("\u2581", "").split())

    def _respond(self, prompt: Ids) -> Response:
        made = self.wire.generate(prompt, self.config.max_new_tokens)
        _check_greedy(made)
        self.sent += len(prompt)
        if not made.ids:
            raise HoldfastError(f"{self.client.base}: an empty response, which cannot be scored")
        return Response(made.ids, self.tokenizer.decode(made.ids, skip_special_tokens=True), made.margin)

    def _score(self, pair: tuple[Ids, Ids]) -> list[float]:
        self.sent += len(pair[0]) + len(pair[1])
        return self.wire.score(*pair).logp

    def _completions(self) -> Completions:
        ids = {self.tokenizer.decode([i]): i for i in range(len(self.tokenizer))}
        ends = frozenset(self.tokenizer.all_special_ids) | frozenset(self.tokenizer.get_added_vocab().values())
        return Completions(self.client, self.config.model, ends, lambda i: str(self.tokenizer.decode([i])), ids.get)


def _check_greedy(made: Generated) -> None:
    if made.below is not None and made.below > _TIE:
        raise Misaligned(
            f"a token of its response was not the most likely one (by {made.below:.3f} nats): its responses are not "
            "greedy",
            hint="a penalty, a logit bias or sampling is at work that requests do not switch off; "
            "vLLM takes such things from generation_config.json (start it with --generation-config vllm)",
        )


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _of(task: Task, group: Sequence[int]) -> list[Ids]:
    return [task.prompts[i] for i in group]
