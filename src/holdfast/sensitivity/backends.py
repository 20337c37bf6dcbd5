"""Where the model runs: a name -> something that responds and scores (``task.Backend``).

In this process, behind a server, or on a Ray cluster: there every worker loads the model once and scores whole batches,
so the rows are those of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast import lm as models
from holdfast.cluster import Workers, whole
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity.score import Local
from holdfast.sensitivity.task import SETS_PER_BATCH, Backend, ScoreTable, SetTask


def load_tokenizer(config: SensitivityConfig) -> Any:
    """The tokenizer of the model, without its weights."""
    return models.load_tokenizer(config.tokenizer or config.model, trust_remote_code=config.trust_remote_code)


@contextmanager
def open_backend(config: SensitivityConfig, tokenizer: Any) -> Iterator[Backend]:
    """Load the model, connect to its server, or gather a cluster, which ends with the ``with`` block.

    Raises:
        HoldfastError: no address for a server, an address for no server, or a server that fails the preflight.
    """
    if config.backend == "hf":
        if config.endpoint is not None:
            raise HoldfastError("--endpoint needs --backend openai or sglang")
        if config.cluster == "ray":
            with Workers(_Scorer, (config,), config.workers) as workers:
                yield _Spread(workers)
        else:
            yield load_local(config)
        return
    if config.endpoint is None:
        raise HoldfastError(f"--backend {config.backend} needs --endpoint", hint="such as http://localhost:8000/v1")
    if config.cluster != "none":
        raise HoldfastError(
            "--cluster ray is for --backend hf; a server takes requests in parallel by itself (--concurrency)"
        )
    from holdfast.sensitivity.served import Served

    yield Served(config, tokenizer)


def load_local(config: SensitivityConfig) -> Local:
    """The model in this process."""
    import torch

    lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
    if config.dtype != "float32":
        lm.model = lm.model.to(getattr(torch, config.dtype))
    return Local(lm, config.max_new_tokens, exact=config.exact, token_budget=config.token_budget)


class _Scorer:
    """What a worker holds: the model."""

    def __init__(self, config: SensitivityConfig) -> None:
        self.local = load_local(config)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the back end."""
        return getattr(self.local, method)(*arguments)

    def complete(self, tasks: Sequence[SetTask], score_table: ScoreTable) -> ScoreTable:
        """Respond and score; return all that is known of these tasks, as ``score_table`` is a copy here."""
        self.local.complete(tasks, score_table)
        return score_table


class _Spread:
    """A back end of workers."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.parallel = workers, workers.count

    def identity(self) -> dict[str, str]:
        """Of the first worker's model; all load the same."""
        return dict(self.workers.ask("ask", "identity"))

    def check(self, tasks: Sequence[SetTask]) -> None:
        """See ``task.Backend``."""
        self.workers.ask("ask", "check", tasks)

    def cost(self) -> dict[str, int]:
        """Summed over the workers."""
        costs = self.workers.ask_all("ask", "cost")
        return {key: sum(cost[key] for cost in costs) for key in costs[0]}

    def way(self) -> str:
        """That of the workers, and how many."""
        return f"{self.workers.ask('ask', 'way')}, {self.workers.count} Ray actors"

    def audit(self, tasks: Sequence[SetTask], score_table: ScoreTable, cells: int, seed: int) -> dict[str, float]:
        """See ``task.Backend``."""
        return dict(self.workers.ask("ask", "audit", tasks, score_table, cells, seed))

    def complete(self, tasks: Sequence[SetTask], score_table: ScoreTable) -> None:
        """Batches as one process would make them."""
        parts = [list(tasks[i : i + SETS_PER_BATCH]) for i in range(0, len(tasks), SETS_PER_BATCH)]
        for _, value in self.workers.results("complete", [(part, score_table.of(part)) for part in parts]):
            scored = whole(value)
            score_table.responses.update(scored.responses)
            score_table.cells.update(scored.cells)
