"""Sets spread over a Ray cluster: every actor loads the model once and scores whole batches, so the rows are those of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity.task import SETS_PER_BATCH, Known, Task


class Worker:
    """Runs in an actor. Errors travel as data, because exceptions lose their hints on the way."""

    def __init__(self, config: SensitivityConfig) -> None:
        from holdfast.sensitivity.backends import load_local

        self.local = load_local(config)

    def ask(self, method: str, *arguments: Any) -> tuple[Any, tuple[str, str | None] | None]:
        """Call a method of the model's back end."""
        try:
            return getattr(self.local, method)(*arguments), None
        except HoldfastError as error:
            return None, (error.message, error.hint)

    def complete(self, tasks: Sequence[Task], known: Known) -> tuple[Known | None, tuple[str, str | None] | None]:
        """Respond and score; returns everything known of these tasks."""
        _, error = self.ask("complete", tasks, known)
        return (None, error) if error else (known, None)


class Cluster:
    """A back end (``task.Backend``) of ``config.workers`` actors. Joins the cluster at RAY_ADDRESS, or starts one on this machine."""

    def __init__(self, config: SensitivityConfig) -> None:
        try:
            import ray
        except ImportError as error:
            raise HoldfastError("--cluster ray needs Ray", hint="pip install 'holdfast[ray]'") from error
        self.ray, self.parallel = ray, config.workers
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= config.workers else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
        self.actors = [actor.remote(config) for _ in range(config.workers)]

    def identity(self) -> dict[str, str]:
        """Of the first actor's model; all load the same."""
        return dict(self._ask("identity"))

    def check(self, tasks: Sequence[Task]) -> None:
        """See ``task.Backend``."""
        self._ask("check", tasks)

    def cost(self) -> dict[str, int]:
        """Summed over the actors."""
        costs = [_open(found) for found in self.ray.get([actor.ask.remote("cost") for actor in self.actors])]
        return {key: sum(cost[key] for cost in costs) for key in costs[0]}

    def way(self) -> str:
        """That of the actors, and how many."""
        return f"{self._ask('way')}, {len(self.actors)} Ray actors"

    def audit(self, tasks: Sequence[Task], known: Known, cells: int, seed: int) -> dict[str, float]:
        """See ``task.Backend``."""
        return dict(self._ask("audit", tasks, known, cells, seed))

    def complete(self, tasks: Sequence[Task], known: Known) -> None:
        """Batches as one process would make them, one per actor."""
        parts = [list(tasks[i : i + SETS_PER_BATCH]) for i in range(0, len(tasks), SETS_PER_BATCH)]
        jobs = [self.actors[i % len(self.actors)].complete.remote(part, known.of(part)) for i, part in enumerate(parts)]
        for found in self.ray.get(jobs):
            made = _open(found)
            known.responses.update(made.responses)
            known.cells.update(made.cells)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return _open(self.ray.get(self.actors[0].ask.remote(method, *arguments)))


def _open(answer: tuple[Any, tuple[str, str | None] | None]) -> Any:
    found, error = answer
    if error is not None:
        raise HoldfastError(error[0], hint=error[1])
    return found
