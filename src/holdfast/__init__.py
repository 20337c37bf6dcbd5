"""Holdfast: tune, measure and prompt language models so that they hold when the wording changes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.audit.live import AuditCallback
    from holdfast.door import (
        align_preferences,
        audit_data,
        best_setting,
        compare_runs,
        cross_task,
        load_model,
        measure_sensitivity,
        pseudo_label,
        run_bench,
        run_study,
        train,
        write_report,
    )
    from holdfast.errors import HoldfastError
    from holdfast.integrations.trl import WITSFTTrainer
    from holdfast.results import Estimate
    from holdfast.sensitivity.index import psi
    from holdfast.tune.loss import weighted_linear_cross_entropy, weighted_nll

__version__ = "0.1.0"
__all__ = [
    "AuditCallback",
    "Estimate",
    "HoldfastError",
    "WITSFTTrainer",
    "align_preferences",
    "audit_data",
    "best_setting",
    "compare_runs",
    "cross_task",
    "load_model",
    "measure_sensitivity",
    "pseudo_label",
    "psi",
    "run_bench",
    "run_study",
    "train",
    "weighted_linear_cross_entropy",
    "weighted_nll",
    "write_report",
]

_HOMES = {
    "AuditCallback": "holdfast.audit.live",
    "Estimate": "holdfast.results",
    "HoldfastError": "holdfast.errors",
    "WITSFTTrainer": "holdfast.integrations.trl",
    "psi": "holdfast.sensitivity.index",
    "weighted_linear_cross_entropy": "holdfast.tune.loss",
    "weighted_nll": "holdfast.tune.loss",
}
"""Where a name is that is no verb."""


def lazily(module: str, homes: Mapping[str, str], name: str) -> Any:
    """Return a name of a module from its home (``module``, or ``module:name`` where it is called otherwise there),
    which is imported when the name is asked for: a ``__getattr__`` of modules that import nothing heavy themselves.

    Raises:
        AttributeError: the module has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, other = homes[name].partition(":")
    return getattr(importlib.import_module(home), other or name)


def __getattr__(name: str) -> Any:
    return lazily(__name__, dict.fromkeys(__all__, "holdfast.door") | _HOMES, name)


def __dir__() -> list[str]:
    """The names that can be had here, and the rooms that are imported. Without TRL there is no trainer for it."""
    rooms = {name for name in globals() if f"{__name__}.{name}" in sys.modules}
    missing = set() if importlib.util.find_spec("trl") else {"WITSFTTrainer"}
    return sorted(({*__all__, "__version__"} | rooms) - missing)
