"""Sensitivity: how far a model's answers move when only the wording of a prompt changes (POSIX, arXiv 2410.02185).

from holdfast.sensitivity import measure
measure(SensitivityConfig(model="pocket", sets="pocket:intents", output="runs/intents", chat=True))
"""

from __future__ import annotations

from typing import Any

from holdfast.config import CheckConfig, CompareConfig, SensitivityConfig, VariantsConfig


def measure(config: SensitivityConfig) -> dict[str, Any]:
    """See ``holdfast.sensitivity.pipeline.measure``."""
    from holdfast.sensitivity.pipeline import measure

    return measure(config)


def make_variants(config: VariantsConfig) -> dict[str, Any]:
    """See ``holdfast.sensitivity.pipeline.make_variants``."""
    from holdfast.sensitivity.pipeline import make_variants

    return make_variants(config)


def compare(config: CompareConfig) -> dict[str, Any]:
    """See ``holdfast.sensitivity.comparison.compare``."""
    from holdfast.sensitivity.comparison import compare

    return compare(config)


def check(config: CheckConfig) -> dict[str, Any]:
    """See ``holdfast.sensitivity.gate.check``."""
    from holdfast.sensitivity.gate import check

    return check(config)


__all__ = ["check", "compare", "make_variants", "measure"]
