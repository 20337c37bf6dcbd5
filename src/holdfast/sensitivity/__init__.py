"""Sensitivity: how far a model's answers move when only the wording of a prompt changes (POSIX, arXiv 2410.02185).

The formula is ``index.psi``. All of ``holdfast sensitivity run`` is ``pipeline.measure``, to be read from the top.

    variants, sets -> prompts -> planning           prompts that ask for the same thing, as token ids
    task, identity -> score | wire -> served        responses and their log-probs, here or from a server
    store -> backends                               where the model runs; scores that outlive a kill
    index, metrics, answers -> measurement          matrices -> indices with intervals
    export -> pipeline
    comparison -> gate                              ``sensitivity compare`` and ``check``: two finished runs
"""

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
