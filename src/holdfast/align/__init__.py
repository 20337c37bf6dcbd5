"""Preference tuning by TRL's DPOTrainer: pairs -> tokens -> trainer -> held-out pairs before and after."""

from typing import Any

from holdfast.config import AlignConfig

__all__ = ["AlignConfig", "align"]


def align(config: AlignConfig) -> dict[str, Any]:
    """Train a model on preferences and write a run directory; returns the summary. See
    ``holdfast.align.pipeline.align``.
    """
    from holdfast.align.pipeline import align as run  # imports torch and transformers

    return run(config)
