"""What versions did that lacked an option: the value that a config.json without the key stands for.

Whoever adds an option adds a line here. Then a run that an older version left is still that run, and no finished trial
is trained again because of the new option (``tests/test_runs.py`` holds the table against what version 33c6712 wrote).
"""

from __future__ import annotations

from typing import Any

from holdfast.config import RunConfig, SensitivityConfig, TuneConfig, WeighConfig
from holdfast.config.training import RowsConfig, TrainingConfig

LEGACY: dict[type[RunConfig], dict[str, Any]] = {
    RowsConfig: {"columns": None, "roles": None, "joint": "auto"},
    TrainingConfig: {"data_share": None, "chat_template": None, "chat_template_kwargs": {}, "stop": None},
    WeighConfig: {"chat_template": None, "chat_template_kwargs": {}},
    TuneConfig: {
        "batching": "padded",
        "adaptive": "none",
        "adaptive_on": "response",
        "spans": [],
        "turns": "all",
        "row": None,
    },
    SensitivityConfig: {
        "api": "auto",
        "repeats": 1,
        "temperature": None,
        "equality": "answer",
        "same_meaning": 0.9,
        "judge_url": None,
        "judge_model": None,
        "reasoning_effort": None,
        "chat_template_kwargs": None,
        "price_in": None,
        "price_out": None,
        "budget": None,
        "max_requests": None,
    },
}
"""Config class -> option -> what versions before the option did. A class has the lines of those that it derives from,
too.
"""
_IN_ADDRESSES = {"batching", "adaptive", "adaptive_on"}
"""Options that were part of every trial's address before this table was: without them all addresses would change."""


def legacy_values(config_class: type) -> dict[str, Any]:
    """Option -> what versions did that lacked it."""
    values: dict[str, Any] = {}
    for base in reversed(config_class.__mro__):
        values |= LEGACY.get(base, {})
    return values


def without_legacy(config_class: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a config that address a trial: those at their legacy value are left out, as if the option did not
    exist.
    """
    legacy = {name: value for name, value in legacy_values(config_class).items() if name not in _IN_ADDRESSES}
    return {name: value for name, value in values.items() if name not in legacy or value != legacy[name]}
