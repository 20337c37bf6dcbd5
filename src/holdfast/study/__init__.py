"""Study: which weights are best for this model and this data: spec -> plan -> search -> execute -> measure ->
select.
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
