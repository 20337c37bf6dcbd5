"""Preference tuning by TRL's DPOTrainer: pairs -> tokens -> trainer -> held-out pairs before and after.

All of ``holdfast align`` is ``pipeline.align``, to be read from the top: tokens -> plan, preview -> trainer ->
measure -> pipeline.
"""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import AlignConfig

if TYPE_CHECKING:
    from holdfast.align.pipeline import align

__all__ = ["AlignConfig", "align"]
_HOMES = {"align": "holdfast.align.pipeline"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
