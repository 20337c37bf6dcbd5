"""Benchmarks on a tuned model, or any other: config in, rows and scores with intervals out.

suites -> local data -> harness (lm-evaluation-harness) -> items -> scores
          questions  -> answers -> judge (the user's)   -> items -> scores -> pipeline; compare
"""

from __future__ import annotations

from typing import Any

from holdfast.config import BenchCompareConfig, BenchConfig

__all__ = ["BenchCompareConfig", "BenchConfig", "check_tasks", "compare", "harness_scores", "run"]


def run(config: BenchConfig) -> dict[str, Any]:
    """``holdfast bench run``; see ``holdfast.bench.pipeline``."""
    from holdfast.bench.pipeline import run

    return run(config)


def compare(config: BenchCompareConfig) -> dict[str, Any]:
    """``holdfast bench compare``; see ``holdfast.bench.comparison``."""
    from holdfast.bench.comparison import compare

    return compare(config)


def check_tasks(
    tasks: list[str],
    *,
    data_dir: str | None = None,
    limit: int | None = None,
    halves: bool = False,
    higher_is_better: bool | None = None,
) -> None:
    """Everything about tasks that ``harness_scores`` could fail at, but for the model.

    Args:
        halves: also that there are items for both halves, and that more is better or not as the tasks say.

    Raises:
        HoldfastError: unknown task, missing extra or data, or a task that cannot be scored here.
    """
    from holdfast.bench.harness import check_tasks

    check_tasks(tasks, data_dir=data_dir, limit=limit, halves=halves, higher_is_better=higher_is_better)


def harness_scores(
    model: str, tasks: list[str], *, data_dir: str | None = None, limit: int | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of one model on tasks of lm-evaluation-harness, with nothing written but the harness's own data cache.

    Args:
        model: what ``holdfast.lm.load`` takes.
        tasks: names of the harness; those of our suites get the pinned number of shots and the pinned metric, others
            their own.
        data_dir: see ``holdfast.bench.local``.
        limit: items per task.

    Returns:
        ``{task: {"value", "metric", "items", "halves"}}``: the harness's value; a number per item, in a fixed order so
        that two models can be paired, whose mean is the value, or None where the task takes no mean; and value and
        items of the even items and of the odd ones. What belongs to one item, such as the instructions of an item of
        ``ifeval``, stays together.

    Raises:
        HoldfastError: unknown task, missing extra or data.
    """
    from holdfast.bench.harness import scores

    return scores(model, tasks, data_dir=data_dir, limit=limit, seed=seed)
