"""WIT, weighted instruction tuning (arXiv 2507.07817): data -> roles -> weights -> loss -> train."""

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
