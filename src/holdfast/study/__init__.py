"""Study: which weights are best for this model and this data: spec -> plan -> search -> execute -> measure -> select.

from holdfast.study import run
run(StudyConfig(study="pocket", output="studies/pocket"))
"""

from __future__ import annotations

from typing import Any

from holdfast.config import StudyConfig

__all__ = ["StudyConfig", "plan", "run"]


def plan(config: StudyConfig) -> dict[str, Any]:
    """What a study will train and what that costs; writes nothing. See ``holdfast.study.pipeline.plan``."""
    from holdfast.study.pipeline import plan

    return plan(config)


def run(config: StudyConfig) -> dict[str, Any]:
    """Train, measure and select; returns the summary. See ``holdfast.study.pipeline.run``."""
    from holdfast.study.pipeline import run

    return run(config)
