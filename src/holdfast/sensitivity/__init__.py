"""Sensitivity: how far a model's answers move when only the wording of a prompt changes (POSIX, arXiv 2410.02185)."""

from typing import TYPE_CHECKING, Any

from holdfast import lazily
from holdfast.config import CheckConfig, CompareConfig, SensitivityConfig, VariantsConfig

if TYPE_CHECKING:
    from holdfast.sensitivity.comparison import compare
    from holdfast.sensitivity.gate import check
    from holdfast.sensitivity.pipeline import make_variants, measure

__all__ = [
    "CheckConfig",
    "CompareConfig",
    "SensitivityConfig",
    "VariantsConfig",
    "check",
    "compare",
    "make_variants",
    "measure",
]
_HOMES = {
    "measure": "holdfast.sensitivity.pipeline",
    "make_variants": "holdfast.sensitivity.pipeline",
    "compare": "holdfast.sensitivity.comparison",
    "check": "holdfast.sensitivity.gate",
}


def __getattr__(name: str) -> Any:
    return lazily(__name__, _HOMES, name)
