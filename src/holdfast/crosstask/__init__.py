"""Cross-task prompting (arXiv 2405.10548): label a task with examples of other tasks only.

The formula, the log-prob of a label, is ``predict.label_scores`` of the sums over tokens that ``lm/score.py`` returns
(``Scored.total``). All of ``holdfast crosstask run`` is ``pipeline.transfer``, to be read from the top.

    tasks -> library                                names -> tasks
    encoders, graph -> retrieve -> prompts -> grid  which demonstrations stand before which input
    scoring, generate, states -> blocks             what the model says to each prompt
    predict -> outcomes -> tables -> pipeline       what it says -> labels -> accuracy with intervals
    overlap                                         refuses test items among the demonstrations
    propagate -> labelling                          ``crosstask label``
    analysis                                        ``crosstask analyse``
    showcase                                        the line of ``holdfast demo``
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
