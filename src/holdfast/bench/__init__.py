"""Benchmarks on a tuned model, or any other: config in, rows and scores with intervals out.

suites -> local data -> harness (lm-evaluation-harness) -> items -> scores
          questions  -> answers -> judge (the user's)   -> items -> scores -> pipeline; compare
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import BenchCompareConfig, BenchConfig

if TYPE_CHECKING:
    from holdfast.bench.comparison import compare
    from holdfast.bench.harness import check_tasks
    from holdfast.bench.harness import scores as harness_scores
    from holdfast.bench.pipeline import run

__all__ = ["BenchCompareConfig", "BenchConfig", "check_tasks", "compare", "harness_scores", "run"]
_HOMES = {
    "run": "holdfast.bench.pipeline",
    "compare": "holdfast.bench.comparison",
    "check_tasks": "holdfast.bench.harness",
    "harness_scores": "holdfast.bench.harness:scores",
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
