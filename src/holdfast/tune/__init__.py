"""WIT, weighted instruction tuning (arXiv 2507.07817): data -> roles -> weights -> loss -> train."""

from typing import Any

from holdfast.config import TuneConfig, WeighConfig

__all__ = ["TuneConfig", "WeighConfig", "train", "weigh"]


def train(config: TuneConfig) -> dict[str, Any]:
    """Tune a model and write a run directory; returns the summary. See ``holdfast.tune.pipeline.train``."""
    from holdfast.tune.pipeline import train as run  # imports torch and transformers

    return run(config)


def weigh(config: WeighConfig) -> dict[str, Any]:
    """Write a data set again with a weight for every token; returns the summary. See
    ``holdfast.tune.weighing.weigh``.
    """
    from holdfast.tune.weighing import weigh as run

    return run(config)
