"""What versions did that lacked an option: the value that a config.json without the key stands for.

Whoever adds an option adds a line here. Then a run that an older version left is still that run, and no finished trial
is trained again because of the new option (``tests/test_runs.py`` holds the table against what version 33c6712 wrote).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from holdfast.config import (
    AlignConfig,
    RunConfig,
    SensitivityConfig,
    TuneConfig,
    VariantConfig,
    WeighConfig,
)
from holdfast.config.training import RowsConfig, TrainingConfig

LEGACY: dict[type[RunConfig], dict[str, Any]] = {
    RowsConfig: {"columns": None, "roles": None, "joint": "auto"},
    TrainingConfig: {
        "data_share": None,
        "data_draw": "epoch",
        "chat_template": None,
        "chat_template_kwargs": {},
        "stop": None,
        "recipe": None,
        "date": None,
        "save_best": None,
        "patience": None,
    },
    WeighConfig: {"chat_template": None, "chat_template_kwargs": {}, "scored": "text"},
    TuneConfig: {
        "batching": "padded",
        "adaptive": "none",
        "adaptive_on": "response",
        "spans": [],
        "turns": "all",
        "row": None,
    },
    VariantConfig: {"recipe": None},
    SensitivityConfig: {
        "date": None,
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
_MEANT: dict[type[RunConfig], dict[str, Any]] = {
    TrainingConfig: {"data_draw": "once"},
    WeighConfig: {"scored": "text"},
}
"""Config class -> option -> what a run of a version without it did, and goes on to do, where a new run does otherwise.
"""
_IN_ADDRESSES = {"batching", "adaptive", "adaptive_on"}
"""Options that were part of every trial's address before this table was: without them all addresses would change."""

OLD_DEFAULTS: dict[type[RunConfig], dict[str, Any]] = {
    TuneConfig: {"max_grad_norm": 0.0, "weight_decay": 0.1, "warmup_ratio": 0.01}
}
"""Config class -> option whose default is another now -> the default of the versions without ``recipe``. They wrote it
down as if it had been given.
"""
_RENAMED: dict[type[RunConfig], dict[str, str]] = {
    AlignConfig: {"preset": "recipe"},
    VariantConfig: {"preset": "recipe"},
}
"""Config class -> name of an option in versions without ``recipe`` -> its name now."""

Config = TypeVar("Config", bound=RunConfig)


def renamed(config_class: type) -> dict[str, str]:
    """Option as older versions called it -> its name now."""
    names: dict[str, str] = {}
    for base in config_class.__mro__:
        names |= _RENAMED.get(base, {})
    return names


def old_values(config_class: type[RunConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.json of any version, under the names that the options have now."""
    names = renamed(config_class)
    stated = {names.get(name, name): value for name, value in values.items()}
    now = legacy_values(config_class) | _meant(config_class) | stated
    recipe = config_class.recipes.get(str(now.get("recipe")), {})
    if all(now.get(name) is not None for name in recipe):
        return now
    # of a version that wrote options down without the recipe's values: whatever stood at its default had that value
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    return now | {name: value for name, value in recipe.items() if now.get(name) in (None, defaults[name])}


def _meant(config_class: type) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for base in config_class.__mro__:
        values |= _MEANT.get(base, {})
    return values


def date_of(about: Mapping[str, Any]) -> str | None:
    """The day that the chat template of a run prints, from the content of its config.json; None: it prints none."""
    config, resolved = about.get("config"), about.get("resolved")
    for part in (config, resolved):
        if isinstance(part, dict) and part.get("date"):
            return str(part["date"])
    return None


def as_begun(config: Config, about: Mapping[str, Any]) -> Config:
    """The config with what it leaves open as the run had it that began with ``about``, the content of its config.json.

    These are the defaults of the version that began it, and the day that its chat template prints.
    """
    before = about.get("config")
    if not isinstance(before, dict):
        return config
    is_old = "recipe" not in before and getattr(config, "recipe", None) is None
    values = dict(OLD_DEFAULTS.get(type(config), {})) if is_old else {}
    if hasattr(config, "date"):
        values["date"] = date_of(about)
    left_open = {name: value for name, value in values.items() if getattr(config, name) is None}
    meant = {name: value for name, value in _meant(type(config)).items() if name not in before}
    return dataclasses.replace(config, **left_open | meant)


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
