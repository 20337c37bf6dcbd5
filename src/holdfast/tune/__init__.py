"""WIT, weighted instruction tuning (arXiv 2507.07817): data -> roles -> weights -> loss -> train."""

from typing import Any

from holdfast.config import TuneConfig

__all__ = ["TuneConfig", "train"]


def train(config: TuneConfig) -> dict[str, Any]:
    """Tune a model and write a run directory; returns the summary. See ``holdfast.tune.pipeline.train``."""
    from holdfast.tune.pipeline import train as run  # imports torch and transformers

    return run(config)
