"""Study: which weights are best for this model and this data: spec -> plan -> search -> execute -> measure -> select.

from holdfast.study import run
run(StudyConfig(study="pocket", output="studies/pocket"))
"""

from __future__ import annotations

from typing import Any

from holdfast.config import BestConfig, StudyConfig

__all__ = ["BestConfig", "StudyConfig", "best", "plan", "run"]


def plan(config: StudyConfig) -> dict[str, Any]:
    """What a study will train and what that costs; writes nothing. See ``holdfast.study.pipeline.plan``."""
    from holdfast.study.pipeline import plan

    return plan(config)


def run(config: StudyConfig) -> dict[str, Any]:
    """Train, measure and select; returns the summary. See ``holdfast.study.pipeline.run``."""
    from holdfast.study.pipeline import run

    return run(config)


def best(config: BestConfig) -> dict[str, Any]:
    """The best setting of a study, or of a table of results; returns the summary. See
    ``holdfast.study.choosing.best``.
    """
    from holdfast.study.choosing import best

    return best(config)
