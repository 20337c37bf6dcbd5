"""WIT, weighted instruction tuning (arXiv 2507.07817): data -> roles -> weights -> loss -> train.

The formula is ``loss.weighted_nll``. All of ``holdfast tune`` is ``pipeline.train``, to be read from the top.

    roles -> weights, adaptive                what a token counts for
    row_ops, kernel -> chunk -> loss -> head  the weighted loss, plainly and fused with the head
    layouts -> attention -> batches           how the examples of a step share forward passes
    router, trainer -> continuing             one optimizer step; a run that goes on after a kill
    arguments, model, plan -> cost, preview   what a training needs, and how its first example looks
    outcome -> pipeline                       what it has shown
    weighing                                  ``holdfast weigh``: a weight for every token, from one or two models
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import TuneConfig, WeighConfig

if TYPE_CHECKING:
    from holdfast.tune.pipeline import train
    from holdfast.tune.weighing import weigh

__all__ = ["TuneConfig", "WeighConfig", "train", "weigh"]
_HOMES = {"train": "holdfast.tune.pipeline", "weigh": "holdfast.tune.weighing"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
