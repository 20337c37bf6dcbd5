"""The measures of a tuned model by name, and how a study file asks for them. ``study.measure`` runs them.

response_nll, prompt_nll                                always measured
exact_match, token_f1, empty_answers                    of greedy answers on a labelled split
posix: {sets: ..}                                       sensitivity to wording on named prompt sets
crosstask_accuracy: {sources: .., dev: .., test: ..}    accuracy on tasks without labelled examples
lm_eval:<task>                                          dev is the even items, test the odd ones
module:function                                         function(lm, source) -> one number, or one per item

A module may lie in the current directory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from holdfast import config as configs
from holdfast.config import check_value
from holdfast.data.read import source_digest
from holdfast.errors import HoldfastError, nearest
from holdfast.tables.text import counted

AnswerMetric = Callable[[str, str], float]


def exact_match(answer: str, target: str) -> float:
    """Return 1 if the answer is the target but for white space at the ends, else 0."""
    return float(answer.strip() == target.strip())


def token_f1(answer: str, target: str) -> float:
    """Return the harmonic mean of precision and recall over words, 2 PR / (P + R).

    Case and punctuation do not count, as in Rajpurkar et al. 2016; articles do.
    """
    answer_words, target_words = _words(answer), _words(target)
    shared = sum((answer_words & target_words).values())
    if not shared:
        return float(answer_words == target_words)
    return 2 * shared / (answer_words.total() + target_words.total())


def empty_answers(answer: str, target: str) -> float:
    """Return 1 if there is no answer at all, as from a model that learned when to stop from too few responses."""
    return float(not answer.strip())


ANSWER_METRICS: dict[str, tuple[AnswerMetric, bool]] = {
    "exact_match": (exact_match, True),
    "token_f1": (token_f1, True),
    "empty_answers": (empty_answers, False),
}
"""Name -> (scores of one answer against its target, from 0 to 1; whether more is better)."""


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


ALWAYS = {"response_nll": False, "prompt_nll": False}
"""Metric -> whether more is better."""
_ANSWERS = {name: better for name, (_, better) in ANSWER_METRICS.items()}
KNOWN = {**ALWAYS, **_ANSWERS, "posix": False, "crosstask_accuracy": True}


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
        """Return what the values depend on. Files stand there by their digests, and so does the module of an own
        function, because a change of their content makes other values."""
        options = {
            key: source_digest(value) if isinstance(value, str) else value for key, value in self.options.items()
        }
        return [self.name, options, _digest_of_module(self.name)] if self.is_own else [self.name, options]

    def reads(self) -> list[str]:
        """Return what may be files that it reads: every text among the options, whole and split at commas, and the
        module of an own function."""
        texts: list[str] = []
        for value in self.options.values():
            for item in value if isinstance(value, list) else [value]:
                texts += [part.strip() for part in (item, *item.split(","))] if isinstance(item, str) else []
        return [*texts, _file_of(self.name)] if self.is_own else texts


def sets_file(measure: Measure, folder: Path, split: str) -> Path:
    """Return the file of a split's prompt sets."""
    source = str(measure.options.get("sets") or measure.options[split]).replace("/", "-").replace(":", "-")
    return folder / f"sets-{source}-{split}.jsonl"


def split_sets(measure: Measure, folder: Path) -> None:
    """Write the prompt sets of both splits: those named for each, or every other set of one source. No prompt is on
    both splits, because a choice made on dev could then not be judged on test.

    Raises:
        HoldfastError: the source cannot be read, or has too few sets.
    """
    from holdfast.sensitivity.sets import load_sets, write_sets

    options = measure.options
    if "sets" in options:
        every = load_sets(options["sets"])
        if len(every) < 2:
            raise HoldfastError(f"measure: posix: {options['sets']} has one set, so dev and test cannot both have one")
        parts = {"dev": every[::2], "test": every[1::2]}
    else:
        parts = {split: load_sets(options[split]) for split in ("dev", "test")}
        if shared := sorted(_prompts(parts["dev"]) & _prompts(parts["test"])):
            raise HoldfastError(
                f"measure: posix: dev and test share {counted(len(shared), 'prompt')}; the first: {shared[0][:60]!r}"
            )
    for split, sets in parts.items():
        write_sets(sets_file(measure, folder, split), sets)


def _prompts(sets: Sequence[Any]) -> set[str]:
    variants = itertools.chain.from_iterable(one.variants for one in sets)
    return {variant.prompt for variant in variants}


def read_measures(value: Any, where: str) -> tuple[Measure, ...]:
    """Return the measures that a study file lists.

    Raises:
        HoldfastError: a metric that does not exist, an option that it does not take, or a metric twice.
    """
    entries = value if isinstance(value, list) else [] if value is None else [value]
    measures = tuple(_measure(entry, f"{where}: measure") for entry in entries)
    if twice := repeated([m.name for m in measures]):
        raise HoldfastError(f"{where}: measure: '{twice}' is there twice")
    return measures


def repeated(names: Sequence[str]) -> str | None:
    """Return the first name that is there more than once."""
    return next((name for name in names if names.count(name) > 1), None)


def selectable(measures: tuple[Measure, ...]) -> dict[str, bool]:
    """Return the metrics that a setting can be chosen by -> whether more is better."""
    return ALWAYS | {m.name: m.higher_is_better for m in measures}


def direction(higher_is_better: bool) -> str:
    """Return ``higher is better`` or ``lower is better``."""
    return f"{'higher' if higher_is_better else 'lower'} is better"


def check_bool(value: Any, place: str) -> bool:
    """Return the value if it is true or false; 1, ``yes`` in quotes and the like are refused."""
    if not isinstance(value, bool):
        raise HoldfastError(f"{place} is {value!r}; it must be true or false")
    return value


def function_of(name: str) -> Any:
    """Return the function of ``module:function``.

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
    """Return the module of ``module:function``. The current directory is put on the path, because `python -m` has it
    there for workers, and the installed command has not."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name.partition(":")[0])


def _file_of(name: str) -> str:
    """Return the file of an own function's module; empty for a module without one."""
    return getattr(_module(name), "__file__", None) or ""


def _digest_of_module(name: str) -> str:
    file = _file_of(name)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _measure(entry: Any, place: str) -> Measure:
    named = {entry: None} if isinstance(entry, str) else entry
    if not isinstance(named, dict) or len(named) != 1:
        raise HoldfastError(f"{place}: {entry!r} is neither a name nor 'name: {{options}}'")
    name, settings = next(iter(named.items()))
    if settings is not None and not isinstance(settings, dict):
        raise HoldfastError(f"{place}.{name} is {settings!r}; options are 'key: value' lines")
    name, options = str(name), dict(settings or {})
    if ":" in name:
        better = check_bool(options.pop("higher_is_better", True), f"{place}.{name}: higher_is_better")
        if name.startswith("lm_eval:"):
            check_names(options, ("data_dir", "limit"), f"{place}.{name}", "option")
            options = check_fields(configs.BenchConfig, options, f"{place}.{name}")
        else:
            check_names(options, (), f"{place}.{name}", "option")
            function_of(name)
        return Measure(name, options, better)
    if name not in KNOWN:
        hint = nearest(name, KNOWN) or "lm_eval:<task> asks for a benchmark, module:function for a measure of your own"
        raise HoldfastError(f"{place}: unknown metric '{name}'; known: {', '.join(KNOWN)}", hint=hint)
    return Measure(name, _options(name, options, f"{place}.{name}"), KNOWN[name])


def _options(name: str, options: dict[str, Any], place: str) -> dict[str, Any]:
    if name in _ANSWERS:
        check_names(options, ("max_new_tokens",), place, "option")
        if not isinstance(options.get("max_new_tokens", 1), int) or options.get("max_new_tokens", 1) < 1:
            raise HoldfastError(
                f"{place}: max_new_tokens is {options['max_new_tokens']!r}; it must be a whole number above 0"
            )
        return options
    if name == "posix":
        return _config_options(configs.SensitivityConfig, options, ("sets", "dev", "test"), place)
    if name == "crosstask_accuracy":
        return _config_options(configs.CrossTaskConfig, options, ("sources", "dev", "test"), place)
    check_names(options, (), place, "option")
    return options


def _config_options(config_class: Any, options: dict[str, Any], own: tuple[str, ...], place: str) -> dict[str, Any]:
    """Return the checked options that a measure passes on to a command. Those that the study sets are refused."""
    taken = {"model", "output", "overwrite", "dry_run", "json", "seed", "target", "cluster", "workers"}
    fields = [f.name for f in dataclasses.fields(config_class) if f.name not in taken]
    check_names(options, (*own, *fields), place, "option")
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
    """Return fields of a command's config that a study file names, with the types of the config and in its ranges."""
    values = {key: check_value(config_class, key, value, place) for key, value in options.items()}
    needed = [f.name for f in dataclasses.fields(config_class) if f.default is f.default_factory is dataclasses.MISSING]
    try:
        config_class(**dict.fromkeys(needed, "") | values)
    except HoldfastError as error:
        raise HoldfastError(f"{place}: {error.message}", hint=error.hint) from error
    return values


def _check_source(value: Any, place: str, *, several: bool) -> None:
    listed = several and isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    if not isinstance(value, str) and not listed:
        lists = ", or a list of these" * several
        raise HoldfastError(f"{place} is {value!r}; it must be a file, or another source by its name{lists}")


def check_names(names: Iterable[str], allowed: Collection[str], place: str, noun: str = "key") -> None:
    """Refuse the first name that is not allowed, and name the nearest one that is."""
    for name in names:
        if name not in allowed:
            names_allowed = ", ".join(allowed) or "none"
            raise HoldfastError(
                f"{place}: unknown {noun} '{name}'; known: {names_allowed}", hint=nearest(str(name), allowed)
            )
