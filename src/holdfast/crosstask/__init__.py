"""Cross-task prompting (arXiv 2405.10548): tasks -> retrieve -> predict -> transfer. Label a task with examples of
other tasks only.
"""

from typing import Any

from holdfast.config import AnalyseConfig, CrossTaskConfig, LabelConfig

__all__ = ["AnalyseConfig", "CrossTaskConfig", "LabelConfig", "analyse", "label", "transfer"]


def transfer(config: CrossTaskConfig, lm: Any = None) -> dict[str, Any]:
    """Score targets with demonstrations of sources and write a run directory; returns the summary. See
    ``crosstask.pipeline.transfer``.
    """
    from holdfast.crosstask.pipeline import transfer as run  # imports torch and transformers

    return run(config, lm)


def label(config: LabelConfig, lm: Any = None) -> dict[str, Any]:
    """Pseudo-label a pool of inputs and write a run directory; returns the summary. See
    ``crosstask.labelling.label``.
    """
    from holdfast.crosstask.labelling import label as run

    return run(config, lm)


def analyse(config: AnalyseConfig) -> dict[str, Any]:
    """Ask why some sources help, from a finished run with states; returns the summary. See
    ``crosstask.analysis.analyse``.
    """
    from holdfast.crosstask.analysis import analyse as run

    return run(config)
