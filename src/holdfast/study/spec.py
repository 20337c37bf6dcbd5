"""A study file (YAML) -> a checked ``Spec``. Every error that shows without data and models is raised here.

model: pocket                            one or several base models
data: {train: .., dev: .., test: ..}     or a file, of which a tenth each becomes dev and test; or several of these
vary: {weights: .., learning_rate: [..], any TuneConfig field: [..]}
seeds: 3                                 a number of seeds, or a list of them
tune: {epochs: 2, ..}                    TuneConfig fields that all trainings share
measure: [exact_match, ..]               on dev and test of every tuned model
select: exact_match                      the metric that the setting is chosen by
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import config as configs
from holdfast.config import TuneConfig, check_value
from holdfast.config.legacy import OLD_DEFAULTS, renamed
from holdfast.config.names import aliases_of
from holdfast.data.read import read_yaml
from holdfast.errors import HoldfastError, nearest
from holdfast.study.measures import (
    Measure,
    check_bool,
    check_fields,
    check_names,
    read_measures,
    repeated,
    selectable,
)

KEYS = (
    "name",
    "model",
    "data",
    "vary",
    "seeds",
    "twins",
    "tune",
    "measure",
    "items",
    "select",
    "search",
    "then",
    "keep_models",
)
_DATA_KEYS = ("name", "train", "dev", "test")
_WEIGHT_KEYS = ("prompt", "response", "ratio", "share")
_SEARCH_KEYS = {
    "grid": (),
    "ratios": ("points", "low", "high"),
    "halving": ("points", "low", "high", "factor", "rungs", "metric"),
}
_OWN = {
    "model": "model",
    "data": "data: {train: ...}",
    "eval_data": "data: {dev: ...}",
    "seed": "seeds",
    "output": "--output",
}
ENOUGH_SEEDS = 3
"""Seeds where the file names none: two see one draw of how settings go together, and show next to nothing."""
_RUN_FIELDS = {"output", "overwrite", "dry_run", "json", "eval_share"}


@dataclass(frozen=True)
class Data:
    """One data set. Without dev or test, a tenth of the training data each is held out."""

    train: str
    dev: str | None = None
    test: str | None = None
    name: str = ""


@dataclass(frozen=True)
class SearchSpec:
    """How settings are searched. ``grid``: all combinations of what is varied. ``ratios``: weights whose prompt shares
    are spaced evenly on a log scale. ``halving``: either of these, with the worse trainings stopped early."""

    kind: str = "ratios"
    points: int = 8
    low: float = 0.01
    high: float = 0.8
    factor: int = 3
    rungs: int = 3
    metric: str = "response_nll"


@dataclass(frozen=True)
class Spec:
    """A checked study. ``weights`` is as in the file: pairs, or a mapping with the keys ``prompt`` and ``response``, or
    ``ratio``, or ``share``; None leaves the weights to the search."""

    name: str
    models: tuple[str, ...]
    data: tuple[Data, ...]
    weights: Any
    vary: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    twins: int
    tune: Mapping[str, Any]
    measures: tuple[Measure, ...]
    items: int | None
    metric: str
    higher_is_better: bool
    search: SearchSpec
    then: Mapping[str, Any] = field(default_factory=dict)
    keep_models: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """TuneConfig fields that the file leaves open and the study sets: see ``with_defaults``."""
    seeds_left_open: bool = False
    """Whether the file leaves the number of seeds to the default."""
    day: str = ""
    """The one day, YYYY-MM-DD, that chat templates with a date print in all trials: the file's under ``tune``, else the
    one on which the study began."""

    @property
    def settled(self) -> dict[str, Any]:
        """Return the TuneConfig fields that all trainings share, those that the study itself sets among them."""
        return {**self.defaults, **self.tune}

    @property
    def varies_weights(self) -> bool:
        """Return whether trainings differ in their weights."""
        return self.weights is not None or self.search.kind != "grid"

    @property
    def then_as_addressed(self) -> dict[str, Any]:
        """Return the second stage under the names that options had in the first version, as in every address."""
        former = {name: old for old, name in renamed(configs.AlignConfig).items()}
        return {
            stage: {former.get(name, name): value for name, value in options.items()}
            for stage, options in self.then.items()
        }


def with_defaults(spec: Spec, begun: Mapping[str, Any] | None = None) -> Spec:
    """Return the study with what it sets where its file leaves it open: no clipping, if weights are varied, because
    with clipping weights of equal ratio are not one training; and the day that chat templates print.

    Args:
        begun: content of the config.json of a study directory that is continued: it goes on with what it began with.
    """
    own: dict[str, Any] = {"max_grad_norm": 0.0} if spec.varies_weights else {}
    if begun is not None:
        own = begun["resolved"].get("defaults", OLD_DEFAULTS[TuneConfig])
    recipe = TuneConfig.recipes.get(str(spec.tune.get("recipe")), {})
    fixed = {*spec.tune, *spec.vary, *recipe}
    open_fields = {name: value for name, value in own.items() if name not in fixed}
    began = begun["resolved"].get("date") if begun is not None else None
    day = spec.tune.get("date") or began or datetime.date.today().isoformat()
    return dataclasses.replace(spec, defaults=open_fields, day=day, seeds=_seeds_begun(spec, begun))


def _seeds_begun(spec: Spec, begun: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Return as many seeds as the study began with, where its file leaves them open: the default was two once."""
    trials = begun["resolved"].get("trials") if begun is not None and spec.seeds_left_open else None
    count = len({trial["seed"] for trial in trials}) if trials else len(spec.seeds)
    return tuple(spec.seeds[0] + number for number in range(count)) if spec.seeds_left_open else spec.seeds


def load_spec(name: str, *, limit: int | None = None, seed: int = 0) -> Spec:
    """Return the study of a file.

    Args:
        name: a YAML file, or ``pocket`` for the study that ships with the package.
        limit: number of training examples, which wins over the file's.
        seed: added to the seeds of the file.

    Raises:
        HoldfastError: no such file, an unknown key (with the nearest valid one), a value that cannot be.
    """
    path = Path(__file__).parents[1] / "pocket" / "study.yaml" if name == "pocket" else Path(name)
    content = _mapping(
        read_yaml(path, hint="a study is a YAML file, or 'pocket' for the one that is built in"), str(path)
    )
    where = "study pocket" if name == "pocket" else str(path)
    spec = make_spec(content, where=where, name="pocket" if name == "pocket" else path.stem)
    tune = dict(spec.tune) | ({} if limit is None else {"limit": limit})
    return dataclasses.replace(spec, tune=tune, seeds=tuple(s + seed for s in spec.seeds))


def make_spec(content: Mapping[str, Any], *, where: str = "study", name: str = "study") -> Spec:
    """Return the checked study of a file's content. ``where`` is the place to name in errors."""
    check_names(content, KEYS, where)
    for key in ("model", "data"):
        if not content.get(key):
            raise HoldfastError(f"{where}: '{key}' is missing", hint="a study needs at least 'model' and 'data'")
    weights, fields = _split_vary(_mapping(content.get("vary"), f"{where}: vary"), where)
    measures = read_measures(content.get("measure"), where)
    metric = str(content.get("select") or (measures[0].name if measures else "response_nll"))
    metrics = selectable(measures)
    if metric not in metrics:
        raise HoldfastError(
            f"{where}: select: '{metric}' is not measured; measured are {', '.join(metrics)}",
            hint=nearest(metric, metrics) or "add it to 'measure'",
        )
    search = _search(content.get("search"), where, weights is not None, bool(fields))
    if search.metric not in metrics:
        raise HoldfastError(
            f"{where}: search.metric: '{search.metric}' is not measured; measured are {', '.join(metrics)}"
        )
    spec = Spec(
        name=str(content.get("name") or name),
        models=_models(content["model"], where),
        data=_all_data(content["data"], where),
        weights=weights,
        vary=fields,
        seeds=_seeds(content.get("seeds", ENOUGH_SEEDS), where),
        seeds_left_open="seeds" not in content,
        twins=_count(content.get("twins", 0), f"{where}: twins", least=0),
        tune=_tune_fields(content.get("tune"), where),
        measures=measures,
        items=None if content.get("items") is None else _count(content["items"], f"{where}: items", least=1),
        metric=metric,
        higher_is_better=metrics[metric],
        search=search,
        then=_then(content.get("then"), where),
        keep_models=check_bool(content.get("keep_models", True), f"{where}: keep_models"),
    )
    return with_defaults(spec)


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HoldfastError(f"{place}: not a list of 'key: value' lines but {value!r}")
    return {str(key): item for key, item in value.items()}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _count(value: Any, place: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise HoldfastError(f"{place} is {value!r}; it must be a whole number of at least {least}")
    return value


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        return tuple(range(_count(value, f"{where}: seeds", least=1)))
    seeds = tuple(_count(seed, f"{where}: seeds", least=0) for seed in value)
    if not seeds or len(set(seeds)) < len(seeds):
        raise HoldfastError(f"{where}: seeds is {value}; it must be a number of seeds or a list of different ones")
    return seeds


def _models(value: Any, where: str) -> tuple[str, ...]:
    models = [str(m) for m in _listed(value)]
    if twice := repeated(models):
        raise HoldfastError(f"{where}: model: '{twice}' is there twice", hint="name it once")
    return tuple(models)


def _all_data(value: Any, where: str) -> tuple[Data, ...]:
    sets = [_data(item, f"{where}: data") for item in _listed(value)]
    if twice := repeated([data.name for data in sets]):
        raise HoldfastError(f"{where}: data: two data sets are called '{twice}'", hint="give each a 'name'")
    return tuple(sets)


def _data(value: Any, place: str) -> Data:
    entry = {"train": value} if isinstance(value, str) else _mapping(value, place)
    check_names(entry, _DATA_KEYS, place)
    if not entry.get("train"):
        raise HoldfastError(f"{place}: 'train' is missing")
    texts = {key: str(item) for key, item in entry.items() if item is not None}
    train = texts["train"]
    name = Path(train).stem if "/" in train or "." in train else train
    return Data(**{"name": name} | texts)


def _split_vary(vary: dict[str, Any], where: str) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    """Return the weights, and the other fields with their values."""
    weights = vary.pop("weights", None)
    pair = {key: vary.pop(key) for key in ("prompt_weight", "response_weight") if key in vary}
    if pair and weights is not None:
        raise HoldfastError(
            f"{where}: vary: both 'weights' and '{next(iter(pair))}' are given", hint="keep one of them"
        )
    if pair:
        weights = {"prompt": pair.get("prompt_weight", [0.0]), "response": pair.get("response_weight", [1.0])}
    return _weights(weights, where), {_field(key, where): _values(key, value, where) for key, value in vary.items()}


def _weights(value: Any, where: str) -> Any:
    """Return weights or shares as numbers, in the form that the file has them in."""
    place = f"{where}: vary.weights"
    if value is None or value == "paper":
        return value
    if isinstance(value, list) and value and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        pairs = [[_weight(w, place) for w in pair] for pair in value]
        if [0, 0] in pairs:
            raise HoldfastError(
                f"{place}: [0, 0]: all weights are zero, so nothing is trained on", hint="leave this pair out"
            )
        return pairs
    if isinstance(value, dict):
        check_names(value, _WEIGHT_KEYS, place)
        if set(value) in ({"prompt", "response"}, {"ratio"}, {"share"}):
            return _weight_lists(value, place)
    raise HoldfastError(
        f"{place} is {value!r}",
        hint="[[0, 1], [0.2, 0.8]] (pairs of prompt and response weight), {prompt: [..], response: [..]} (their grid), "
        "{ratio: [..]} (prompt weight over both), {share: [..]} (prompt share of the weighted targets), or paper",
    )


def _weight_lists(entries: Mapping[str, Any], place: str) -> dict[str, list[float]]:
    weights: dict[str, list[float]] = {}
    for key, item in entries.items():
        weights[key] = [_weight(weight, f"{place}.{key}") for weight in _listed(item)]
        if not weights[key]:
            raise HoldfastError(f"{place}.{key} has no values")
    if "prompt" in weights and not any(map(any, weights.values())):
        raise HoldfastError(f"{place}: all weights are zero")
    return weights


def _weight(value: Any, place: str) -> float:
    """Return a weight, ratio or share. Text is read too, because YAML takes 1e-2 for one."""
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if isinstance(value, bool | str | None) and math.isnan(number):
        raise HoldfastError(f"{place}: {value!r} is not a number")
    if not (math.isfinite(number) and number >= 0):
        raise HoldfastError(f"{place}: {value!r} is not a finite number >= 0")
    return number


def _field(key: str, where: str) -> str:
    """Return the TuneConfig field of a key. ``role_weights`` is the field ``weights``, which in a study file is the
    name for pairs of prompt and response weight."""
    name = "weights" if key == "role_weights" else key.replace("-", "_")
    allowed = [f.name for f in dataclasses.fields(TuneConfig) if f.name not in _RUN_FIELDS | _OWN.keys()]
    if name in _OWN:
        raise HoldfastError(f"{where}: '{key}' stands elsewhere in a study: {_OWN[name]}")
    if name not in allowed:
        spellings = ["weights", "role_weights", *allowed]
        raise HoldfastError(
            f"{where}: unknown setting '{key}'; settings are the options of `holdfast tune`",
            hint=nearest(key, spellings),
        )
    return name


def _values(key: str, value: Any, where: str) -> tuple[Any, ...]:
    values = _listed(value)
    if not values:
        raise HoldfastError(f"{where}: vary.{key} has no values")
    name = _field(key, where)
    return tuple(check_value(TuneConfig, name, item, f"{where}: vary") for item in values)


def _tune_fields(value: Any, where: str) -> dict[str, Any]:
    options = _mapping(value, f"{where}: tune")
    return {
        (name := _field(key, where)): check_value(TuneConfig, name, item, f"{where}: tune")
        for key, item in options.items()
    }


def _search(value: Any, where: str, has_weights: bool, has_fields: bool) -> SearchSpec:
    place = f"{where}: search"
    options = {"kind": value} if isinstance(value, str) else _mapping(value, place)
    kind = str(options.pop("kind", "grid" if has_weights else "ratios"))
    check_names([kind], _SEARCH_KEYS, place, "kind")
    check_names(options, _SEARCH_KEYS[kind], place)
    if kind == "ratios" and has_weights:
        raise HoldfastError(f"{place}: ratios makes the weights itself, but vary.weights is given", hint="search: grid")
    if kind == "grid" and not (has_weights or has_fields):
        raise HoldfastError(
            f"{place}: grid needs something to vary", hint="search: ratios makes weights of log-spaced prompt share"
        )
    search = SearchSpec(kind=kind, **{key: check_value(SearchSpec, key, item, place) for key, item in options.items()})
    if not (search.points >= 2 and 0 < search.low < search.high < 1 and search.factor >= 2 and search.rungs >= 2):
        raise HoldfastError(f"{place}: points, factor and rungs are at least 2, and 0 < low < high < 1")
    return search


def _then(value: Any, where: str) -> dict[str, Any]:
    """Return the second stage: ``{align: {..}}`` with the fields of AlignConfig."""
    stages = _mapping(value, f"{where}: then")
    check_names(stages, ("align",), f"{where}: then")
    if not stages:
        return {}
    config_class = configs.AlignConfig
    fields = [
        f.name
        for f in dataclasses.fields(config_class)
        if f.name not in {"model", "output", "overwrite", "dry_run", "json", "seed"}
    ]
    options = _mapping(stages["align"], f"{where}: then.align")
    if "preset" in options:
        options[aliases_of(config_class)["preset"]] = options.pop("preset")
    check_names(options, fields, f"{where}: then.align")
    if not options.get("data"):
        raise HoldfastError(
            f"{where}: then.align: 'data' is missing", hint="preference pairs, as `holdfast align` takes them"
        )
    return {"align": check_fields(config_class, options, f"{where}: then.align")}
