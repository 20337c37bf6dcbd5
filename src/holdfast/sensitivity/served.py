"""A model behind a server, as a back end. Begins with a preflight and refuses, with the reason, instead of reporting wrong numbers.

preflight: log-probs there, of the ids sent, BOS once, finite; equal to those of generation; equal again after other requests
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity.client import Client
from holdfast.sensitivity.identity import CODE_VERSION, tokenizer_digest
from holdfast.sensitivity.responses import Ids, Response
from holdfast.sensitivity.task import Known, Task, check_lengths
from holdfast.sensitivity.wire import Completions, Misaligned, SGLang, Wire

_TOLERANCE = 0.1
"""Nats per token by which two answers of a healthy server may differ (bf16 kernels that depend on the batch)."""

A = TypeVar("A")
B = TypeVar("B")


class Served:
    """Responds and scores over HTTP, ``concurrency`` requests at a time."""

    parallel = 1

    def __init__(self, config: SensitivityConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        base = str(config.endpoint)
        self.client = Client(base, timeout=config.timeout, retries=config.retries, key=os.environ.get("OPENAI_API_KEY"))
        self.wire: Wire = SGLang(self.client) if config.backend == "sglang" else self._completions()
        limit = config.context or getattr(tokenizer, "model_max_length", 0) or 0
        self.context = int(limit) if limit < 10**9 else 4096
        self.sent = 0

    def identity(self) -> dict[str, str]:
        """The address and name stand for the weights: a server that changes its model under the same name is not noticed."""
        return {
            "weights": f"{self.config.backend} {self.config.endpoint} {self.config.model}",
            "tokenizer": tokenizer_digest(self.tokenizer),
            "dtype": "served",
            "code": CODE_VERSION,
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
        try:
            self._preflight(tasks[0].prompts[0], tasks[0].prompts[-1])
        except Misaligned as error:
            raise HoldfastError(
                f"{self.client.base} cannot be used: {error.message}", hint="--backend hf computes in this process"
            ) from error

    def complete(self, tasks: Sequence[Task], known: Known) -> None:
        """See ``task.Backend``."""
        new = list({p: None for task in tasks for p in task.prompts if p not in known.responses})
        for prompt, response in zip(new, self._map(self._respond, new), strict=True):
            known.responses[prompt] = response
        pairs = list({(p, r): None for task in tasks for p, found in task.wanted(known).items() for r in found})
        for pair, logp in zip(pairs, self._map(self._score, pairs), strict=True):
            known.cells[pair] = np.array(logp, np.float64)

    def audit(self, tasks: Sequence[Task], known: Known, cells: int, seed: int) -> dict[str, float]:
        """Ask for some cells again, one at a time: does the server say the same?"""
        pairs = list({(p, known.responses[q].ids): None for task in tasks for g in task.groups for p in _of(task, g) for q in _of(task, g)})
        drawn = random.Random(seed).sample(pairs, min(cells, len(pairs)))
        gaps = [abs(sum(self._score(pair)) - float(known.cells[pair].sum())) for pair in drawn]
        return {"cells": len(gaps), "max_difference": max(gaps, default=0.0)}

    def _preflight(self, prompt: Ids, other: Ids) -> None:
        made = self.wire.generate(prompt, self.config.max_new_tokens)
        if not made.ids:
            raise Misaligned("it generates nothing")
        first = self.wire.score(prompt, made.ids)
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
        self.wire.score(other, made.ids)
        gap = max(abs(a - b) for a, b in zip(first, self.wire.score(prompt, made.ids), strict=True))
        if gap > _TOLERANCE:
            raise Misaligned(f"its log-probs depend on what was asked before (by {gap:.3f} nats)")

    def _respond(self, prompt: Ids) -> Response:
        made = self.wire.generate(prompt, self.config.max_new_tokens)
        self.sent += len(prompt)
        if not made.ids:
            raise HoldfastError(f"{self.client.base}: an empty response, which cannot be scored")
        return Response(made.ids, self.tokenizer.decode(made.ids, skip_special_tokens=True), made.margin)

    def _score(self, pair: tuple[Ids, Ids]) -> list[float]:
        self.sent += len(pair[0]) + len(pair[1])
        return self.wire.score(*pair)

    def _map(self, work: Callable[[A], B], items: Sequence[A]) -> Iterable[B]:
        with ThreadPoolExecutor(max(1, self.config.concurrency)) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _completions(self) -> Completions:
        ids = {self.tokenizer.decode([i]): i for i in range(len(self.tokenizer))}
        ends = frozenset(self.tokenizer.all_special_ids) | frozenset(self.tokenizer.get_added_vocab().values())
        return Completions(self.client, self.config.model, ends, lambda i: str(self.tokenizer.decode([i])), ids.get)


def _of(task: Task, group: Sequence[int]) -> list[Ids]:
    return [task.prompts[i] for i in group]
