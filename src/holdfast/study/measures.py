"""What can be measured on a tuned model, by name; how a study file asks for it. No model here: ``measure`` does the
work.

response_nll, prompt_nll                       always
exact_match, token_f1, empty_answers           greedy answers on a labelled split
posix: {sets: ..}                              wording sensitivity on named sets
crosstask_accuracy: {sources: .., dev: .., test: ..}
lm_eval:<task>                                 even items are dev, odd ones are test; each half by the task's own
aggregation
module:function                                function(lm, source) -> one number per item, or one number

A module is looked for in the current directory, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from holdfast import config as configs
from holdfast.config import check_value
from holdfast.data.read import source_digest
from holdfast.errors import HoldfastError, nearest
from holdfast.study.answers import ANSWER_METRICS

ALWAYS = {"response_nll": False, "prompt_nll": False}
"""Metric -> whether more is better."""
_ANSWERS = {name: better for name, (_, better) in ANSWER_METRICS.items()}
KNOWN = {**ALWAYS, **_ANSWERS, "posix": False, "crosstask_accuracy": True}
_ANSWER_OPTIONS = {"max_new_tokens": int}


@dataclass(frozen=True)
class Measure:
    """One entry of ``measure``: a metric and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True

    @property
    def needs_answers(self) -> bool:
        """Whether the splits must be labelled."""
        return self.name in _ANSWERS

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's."""
        return ":" in self.name and not self.name.startswith("lm_eval:")

    def pinned(self) -> list[Any]:
        """What its values depend on: files stand for their content, that of the module of an own function included."""
        options = {
            key: source_digest(value) if isinstance(value, str) else value for key, value in self.options.items()
        }
        return [self.name, options, _digest_of_module(self.name)] if self.is_own else [self.name, options]

    def reads(self) -> list[str]:
        """What may be files that it reads: the texts among its options, also those of lists and between commas, and an
        own module.
        """
        values = [item for value in self.options.values() for item in (value if isinstance(value, list) else [value])]
        texts = [part.strip() for value in values if isinstance(value, str) for part in (value, *value.split(","))]
        return [*texts, _file_of(self.name)] if self.is_own else texts


def read_measures(value: Any, where: str) -> tuple[Measure, ...]:
    """The ``measure`` list of a study file.

    Raises:
        HoldfastError: a metric that does not exist, an option that it does not take, or a metric twice.
    """
    entries = value if isinstance(value, list) else [] if value is None else [value]
    measures = [_measure(entry, f"{where}: measure") for entry in entries]
    names = [m.name for m in measures]
    if len(set(names)) < len(names):
        raise HoldfastError(f"{where}: measure: '{next(n for n in names if names.count(n) > 1)}' is there twice")
    return tuple(measures)


def selectable(measures: tuple[Measure, ...]) -> dict[str, bool]:
    """The metrics that a setting can be chosen by -> whether more is better."""
    return ALWAYS | {m.name: m.higher_is_better for m in measures}


def direction(higher_is_better: bool) -> str:
    """As people are told it."""
    return f"{'higher' if higher_is_better else 'lower'} is better"


def check_bool(value: Any, place: str) -> bool:
    """True or false, and nothing that only looks like it."""
    if not isinstance(value, bool):
        raise HoldfastError(f"{place} is {value!r}; it must be true or false")
    return value


def function_of(name: str) -> Any:
    """The function of ``module:function``.

    Raises:
        HoldfastError: the module or the function does not exist.
    """
    try:
        function = getattr(_module(name), name.partition(":")[2])
    except Exception as error:  # whatever importing a user's module raises
        raise HoldfastError(
            f"measure: {name} could not be loaded ({type(error).__name__}: {error})",
            hint="module:function, importable from here",
        ) from error
    if not callable(function):
        raise HoldfastError(f"measure: {name} is no function")
    return function


def _module(name: str) -> ModuleType:
    """That of ``module:function``. Workers look in the current directory, as `python -m` starts them; the installed
    command would not.
    """
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name.partition(":")[0])


def _file_of(name: str) -> str:
    """The file of an own function's module; empty for one that is built in."""
    return getattr(_module(name), "__file__", None) or ""


def _digest_of_module(name: str) -> str:
    file = _file_of(name)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _measure(entry: Any, place: str) -> Measure:
    if isinstance(entry, dict) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
    elif isinstance(entry, str):
        name, settings = entry, None
    else:
        raise HoldfastError(f"{place}: {entry!r} is neither a name nor 'name: {{options}}'")
    if settings is not None and not isinstance(settings, dict):
        raise HoldfastError(f"{place}.{name} is {settings!r}; options are 'key: value' lines")
    name, options = str(name), dict(settings or {})
    if ":" in name:
        better = check_bool(options.pop("higher_is_better", True), f"{place}.{name}: higher_is_better")
        if name.startswith("lm_eval:"):
            _check_options(options, ("data_dir", "limit"), f"{place}.{name}")
            options = check_fields(configs.BenchConfig, options, f"{place}.{name}")
        else:
            _check_options(options, (), f"{place}.{name}")
            function_of(name)
        return Measure(name, options, better)
    if name not in KNOWN:
        hint = nearest(name, KNOWN) or "lm_eval:<task> asks for a benchmark, module:function for a measure of your own"
        raise HoldfastError(f"{place}: unknown metric '{name}'; known: {', '.join(KNOWN)}", hint=hint)
    return Measure(name, _options(name, options, f"{place}.{name}"), KNOWN[name])


def _options(name: str, options: dict[str, Any], place: str) -> dict[str, Any]:
    if name in _ANSWERS:
        _check_options(options, _ANSWER_OPTIONS, place)
        if not isinstance(options.get("max_new_tokens", 1), int) or options.get("max_new_tokens", 1) < 1:
            raise HoldfastError(
                f"{place}: max_new_tokens is {options['max_new_tokens']!r}; it must be a whole number above 0"
            )
        return options
    if name == "posix":
        return _config_options(configs.SensitivityConfig, options, ("sets", "dev", "test"), place)
    if name == "crosstask_accuracy":
        return _config_options(configs.CrossTaskConfig, options, ("sources", "dev", "test"), place)
    _check_options(options, (), place)
    return options


def _config_options(config_class: Any, options: dict[str, Any], own: tuple[str, ...], place: str) -> dict[str, Any]:
    """Options of a command that a measure passes on; those that the study sets itself are refused."""
    taken = {"model", "output", "overwrite", "dry_run", "json", "seed", "target", "cluster", "workers"}
    fields = [f.name for f in dataclasses.fields(config_class) if f.name not in taken]
    _check_options(options, (*own, *fields), place)
    if "sets" in own and "sets" not in options and not {"dev", "test"} <= options.keys():
        raise HoldfastError(f"{place}: nothing to measure on is named", hint="sets: ...")
    if "sources" in own and not set(own) <= options.keys():
        raise HoldfastError(
            f"{place}: 'sources', and 'dev' and 'test', the target tasks of the two splits, are all needed"
        )
    for key in own:
        _check_source(options.get(key, ""), f"{place}.{key}", several="sources" in own)
    return options | check_fields(
        config_class, {key: value for key, value in options.items() if key in fields and key not in own}, place
    )


def check_fields(config_class: Any, options: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Fields of a command's config, given in a study file: of their types, and in the range that the config itself
    checks.
    """
    values = {key: check_value(config_class, key, value, place) for key, value in options.items()}
    needed = [f.name for f in dataclasses.fields(config_class) if f.default is f.default_factory is dataclasses.MISSING]
    try:
        config_class(**dict.fromkeys(needed, "") | values)
    except HoldfastError as error:
        raise HoldfastError(f"{place}: {error.message}", hint=error.hint) from error
    return values


def _check_source(value: Any, place: str, *, several: bool) -> None:
    if not isinstance(value, str) and not (
        several and isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    ):
        raise HoldfastError(
            f"{place} is {value!r}; it must be a file, or another source by its name"
            + (", or a list of these" * several)
        )


def _check_options(options: Mapping[str, Any], allowed: Any, place: str) -> None:
    for key in options:
        if key not in allowed:
            hint = nearest(str(key), allowed) if allowed else None
            raise HoldfastError(f"{place}: unknown option '{key}'; known: {', '.join(allowed) or 'none'}", hint=hint)
