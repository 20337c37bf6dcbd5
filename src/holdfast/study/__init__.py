"""Study: which weights are best for this model and this data?

All of ``holdfast study run`` is ``pipeline.run``, to be read from the top.

    spec -> grid -> sources -> planning -> search     a study file -> the distinct trainings, each with its address
    checks, preview                                   what could fail late; ``study plan``
    jobs, measures -> measure -> trial -> worker      one training, and what is measured of it
    execute                                           many of them, on this machine or on Ray
    outcomes, statistics -> claim -> select           rows -> the chosen setting, and what may be claimed
    columns, table -> reanalysis -> choosing          ``study best``: of a study, or of a table of results
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import BestConfig, StudyConfig

if TYPE_CHECKING:
    from holdfast.study.choosing import best
    from holdfast.study.pipeline import plan, run

__all__ = ["BestConfig", "StudyConfig", "best", "plan", "run"]
_HOMES = {"plan": "holdfast.study.pipeline", "run": "holdfast.study.pipeline", "best": "holdfast.study.choosing"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
