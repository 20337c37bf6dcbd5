"""A model behind a server, as a back end. A preflight refuses, with the reason, a server whose numbers would be wrong.

The preflight checks that log-probs are returned, that they are finite and those of the ids that were sent, with BOS
once; that they equal those of generation, and do not change after other requests; that the server's words for the ids
are ours (else --tokenizer names another tokenizer); and that generated tokens are the most likely ones.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast import http
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError, redacted
from holdfast.records import Ids
from holdfast.sensitivity.identity import CODE_VERSION, tokenizer_digest
from holdfast.sensitivity.responses import Response
from holdfast.sensitivity.task import ScoreTable, SetTask, check_lengths
from holdfast.sensitivity.wire import Completions, Generated, Misaligned, SGLang, Wire
from holdfast.tables.text import counted

_TOLERANCE = 0.1
"""Nats per token by which two answers of a healthy server may differ (bf16 kernels that depend on the batch)."""
Pairs = tuple[tuple[Ids, Ids], ...]
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
        self.context = self._context()
        self.sent = 0
        added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special]
        self.special = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)

    def identity(self) -> dict[str, str]:
        """Return the address and name in place of the weights, so a new model under the same name is not noticed."""
        return {
            "weights": redacted(f"{self.config.backend} {self.config.endpoint} {self.config.model}"),
            "tokenizer": tokenizer_digest(self.tokenizer),
            "dtype": "served",
            "code": f"{CODE_VERSION}, neutral penalties",  # what was asked before they were sent may be wrong
        }

    def cost(self) -> dict[str, int]:
        """Return the tokens sent, and the requests and how many of them were repeats."""
        return {"tokens_sent": self.sent, "requests": self.client.requests, "retries": self.client.retried}

    def way(self) -> str:
        """Return the name of the protocol."""
        return self.config.backend

    def check(self, tasks: Sequence[SetTask]) -> None:
        """Check lengths, and hold the preflight on the first set."""
        check_lengths(tasks, self.context, self.config.max_new_tokens, self.wire.added)
        with self._named():
            self._preflight(tasks[0].prompts[0], tasks[0].prompts[-1])

    def complete(self, tasks: Sequence[SetTask], scored: ScoreTable) -> None:
        """See ``task.Backend``."""
        prompts = dict.fromkeys(itertools.chain.from_iterable(task.prompts for task in tasks))
        new = [prompt for prompt in prompts if prompt not in scored.responses]
        pairs: dict[tuple[Ids, Ids], None] = {}

        def keep(part: Pairs, cells: list[npt.NDArray[np.float64]]) -> None:
            scored.cells.update(zip(part, cells, strict=True))

        with self._named():
            http.together(self._respond, new, self.config.concurrency, scored.responses.__setitem__)
            for task in tasks:
                for prompt, responses in task.wanted(scored).items():
                    pairs |= dict.fromkeys((prompt, response) for response in responses)
            http.together(self._cells, _requests(list(pairs), self.wire.most_cells), self.config.concurrency, keep)

    def audit(self, tasks: Sequence[SetTask], scored: ScoreTable, cells: int, seed: int) -> dict[str, float]:
        """Ask for some cells again, one at a time, and return how far the server's answers differ."""
        pairs: dict[tuple[Ids, Ids], None] = {}
        for task in tasks:
            for group in task.groups:
                prompts = [task.prompts[i] for i in group]
                pairs |= dict.fromkeys(itertools.product(prompts, [scored.responses[p].ids for p in prompts]))
        drawn = random.Random(seed).sample(list(pairs), min(cells, len(pairs)))
        gaps = [abs(float(self._cell(pair).sum()) - float(scored.cells[pair].sum())) for pair in drawn]
        return {"cells": len(gaps), "max_difference": max(gaps, default=0.0)}

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the server in the error of one that cannot be used."""
        try:
            yield
        except Misaligned as error:
            hint = error.hint or "--backend hf computes in this process"
            raise HoldfastError(f"{self.client.base} cannot be used: {error.message}", hint=hint) from error
        except http.RefusedError as error:
            if not _TEXT_ONLY.search(error.text):
                raise
            raise HoldfastError(
                f"{self.client.base} cannot be used: it takes prompts as text, and psi needs them as token ids",
                hint="--backend chat measures it by its answers; vLLM takes token ids",
            ) from error

    def _preflight(self, prompt: Ids, other: Ids) -> None:
        response = self._first_response(prompt)
        scored = self.wire.score(prompt, response.ids)
        first = scored.logp
        if len(first) != len(response.ids):
            raise Misaligned(
                f"it gives {counted(len(first), 'log-prob')} for {counted(len(response.ids), 'response token')}"
            )
        if max(first) > 1e-4:
            raise Misaligned(f"a log-prob of {max(first):.3f} is above 0")
        gap = max(abs(a - b) for a, b in zip(first, response.logp))
        if gap > _TOLERANCE:
            raise Misaligned(
                f"scoring its own response gives other log-probs than generating it (by {gap:.3f} nats): "
                "they are shifted, or not those of the raw distribution"
            )
        after_other = self.wire.score(other, response.ids)
        gap = max(abs(a - b) for a, b in zip(first, self.wire.score(prompt, response.ids).logp, strict=True))
        if gap > _TOLERANCE:
            raise Misaligned(f"its log-probs depend on what was asked before (by {gap:.3f} nats)")
        self._check_lists([(prompt, response.ids), (other, response.ids)], [first, after_other.logp])
        if self.config.backend == "openai":
            said = [(prompt + response.ids, scored.text), (other + response.ids, after_other.text)]
            self._check_words(said, more=True)
        else:  # echoes no text of a prompt unless asked
            self._check_words([(response.ids, response.text), (prompt, self.wire.spell(prompt))], more=False)
        _check_greedy(response)

    def _check_lists(self, pairs: Sequence[tuple[Ids, Ids]], alone: Sequence[Sequence[float]]) -> None:
        """Find out whether one request can carry several cells, and that these are then the same."""
        if self.wire.most_cells == 1:
            return
        for scored, logp in zip(self.wire.score_all(pairs), alone, strict=True):
            gap = max(abs(a - b) for a, b in zip(scored.logp, logp, strict=True))
            if gap > _TOLERANCE:
                raise Misaligned(f"its log-probs depend on what else a request asks for (by {gap:.3f} nats)")

    def _first_response(self, prompt: Ids) -> Generated:
        try:
            response = self.wire.generate(prompt, self.config.max_new_tokens)
        except Misaligned:
            spelled = self.wire.spell(prompt)
            if spelled is not None:  # a wrong tokenizer is the better reason
                self._check_words([(prompt, spelled)], more=False)
            raise
        if not response.ids:
            raise Misaligned("it generates nothing")
        if response.below is None:
            note = "lists no most likely tokens: whether it answers greedily is not known"
            print(f"note: {self.name} {note}", file=sys.stderr)
        return response

    def _check_words(self, said: Sequence[tuple[Ids, str | None]], *, more: bool) -> None:
        """Whether the server calls ids what our tokenizer calls them; with ``more``, its texts may go on."""
        for ids, text in said:
            if text is not None and self._agree(text, ids, more):
                continue
            # Some servers echo no text of the prompt, but that of each token.
            spelled = self.wire.spell(ids) if more else None
            if spelled is not None and self._agree(spelled, ids, False):
                continue
            theirs = text if spelled is None else spelled
            if theirs is not None:
                raise self._other_tokenizer(ids, theirs)
        if all(text is None for _, text in said):
            note = "says no token's text: whether the tokenizer is its own is not known"
            print(f"note: {self.name} {note}", file=sys.stderr)

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
        """Return a text without special tokens, white space and halves of characters, which servers write variously."""
        for token in self.special:
            text = text.replace(token, "")
        return "".join(text.replace("\ufffd", "").replace("\u2581", "").split())

    def _respond(self, prompt: Ids) -> Response:
        response = self.wire.generate(prompt, self.config.max_new_tokens)
        _check_greedy(response)
        self.sent += len(prompt)
        if not response.ids:
            raise HoldfastError(f"{self.client.base}: an empty response, which cannot be scored")
        return Response(response.ids, self.tokenizer.decode(response.ids, skip_special_tokens=True), response.margin)

    def _cell(self, pair: tuple[Ids, Ids]) -> npt.NDArray[np.float64]:
        self.sent += len(pair[0]) + len(pair[1])
        return np.array(self.wire.score(*pair).logp)

    def _cells(self, pairs: Pairs) -> list[npt.NDArray[np.float64]]:
        self.sent += sum(len(prompt) + len(response) for prompt, response in pairs)
        return [np.array(scored.logp) for scored in self.wire.score_all(pairs)]

    def _context(self) -> int:
        """Return the context that was given, else what the server states, else what the tokenizer says."""
        stated = self.wire.context()
        if stated and self.config.context and self.config.context > stated:
            raise HoldfastError(
                f"--context {self.config.context} is more than the {stated} tokens that {self.name} states",
                hint="leave --context out",
            )
        limit = self.config.context or stated or getattr(self.tokenizer, "model_max_length", 0) or 0
        return int(limit) if limit < 10**9 else 4096

    def _completions(self) -> Completions:
        ids = {self.tokenizer.decode([i]): i for i in range(len(self.tokenizer))}
        ends = frozenset(self.tokenizer.all_special_ids) | frozenset(self.tokenizer.get_added_vocab().values())
        return Completions(self.client, self.config.model, ends, lambda i: str(self.tokenizer.decode([i])), ids.get)


_TEXT_ONLY = re.compile(r"prompt.{0,80}(valid string|string_type|must be a string)", re.DOTALL)
"""In a refusal: the server takes no token ids."""


def _requests(pairs: Sequence[tuple[Ids, Ids]], most: int) -> list[Pairs]:
    """Return the pairs in parts that one request can hold."""
    return [tuple(pairs[i : i + most]) for i in range(0, len(pairs), most)]


def _check_greedy(response: Generated) -> None:
    if response.below is not None and response.below > _TIE:
        raise Misaligned(
            f"a token of its response was not the most likely one (by {response.below:.3f} nats): its responses are "
            "not greedy",
            hint="a penalty, a logit bias or sampling is at work that requests do not switch off; "
            "vLLM takes such things from generation_config.json (start it with --generation-config vllm)",
        )


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
