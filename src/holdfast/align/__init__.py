"""Preference tuning by TRL's DPOTrainer: pairs -> tokens -> trainer -> held-out pairs before and after."""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import AlignConfig

if TYPE_CHECKING:
    from holdfast.align.pipeline import align

__all__ = ["AlignConfig", "align"]
_HOMES = {"align": "holdfast.align.pipeline"}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
