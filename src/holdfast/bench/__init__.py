"""Benchmarks on a tuned model, or any other: config in, rows and scores with intervals out.

All of ``holdfast bench run`` is ``pipeline.run``, to be read from the top.

    suites, local -> readable                       pinned benchmarks; where their rows come from; what cannot be read
    shared -> harness                               lm-evaluation-harness, with prefixes shared by our engine
    openended -> alpaca (alpaca_driver), mtbench -> judges     open questions, graded by the user's judge
    aggregation -> items -> pipeline                rows -> scores with intervals
    comparison                                      ``bench compare``
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
