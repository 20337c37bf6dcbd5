"""Cross-task prompting (arXiv 2405.10548): tasks -> retrieve -> predict -> transfer. Label a task with examples of
other tasks only.
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import AnalyseConfig, CrossTaskConfig, LabelConfig

if TYPE_CHECKING:
    from holdfast.crosstask.analysis import analyse
    from holdfast.crosstask.labelling import label
    from holdfast.crosstask.pipeline import transfer

__all__ = ["AnalyseConfig", "CrossTaskConfig", "LabelConfig", "analyse", "label", "transfer"]
_HOMES = {
    "transfer": "holdfast.crosstask.pipeline",
    "label": "holdfast.crosstask.labelling",
    "analyse": "holdfast.crosstask.analysis",
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
