"""Spec and facts -> the trainings of a study: distinct ones only, each with its content address.

    address = sha256(everything that the row of a trial depends on)

The address leaves out where files lie, and which of several equal settings was asked for, so a study that asks for more
finds the trainings that are done.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.config import TuneConfig
from holdfast.config.legacy import without_legacy
from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES
from holdfast.study import grid
from holdfast.study.measures import selectable
from holdfast.study.sources import SourceFacts, Sources, json_digest
from holdfast.study.spec import Data, Spec
from holdfast.tune.arguments import settled
from holdfast.tune.plan import check_config, count_steps
from holdfast.tune.weights import prompt_share, share

FORMAT = 1
"""Part of every address. Raise it when rows of older trials can no longer be compared with new ones."""
_BYTES_PER_PARAMETER = 4
_WEIGHT_FIELDS = {"prompt_weight", "response_weight", "preset", "weights", "normalizer"}
"""Fields for which their training class stands in an address."""
_WITHOUT_EFFECT = {
    "output",
    "overwrite",
    "dry_run",
    "json",
    "report_to",
    "data",
    "eval_data",
    "model",
    "save_steps",
    "keep_checkpoints",
    "seed",
}
"""Fields that change no training, or that the address holds in another form."""


@dataclass(frozen=True)
class Trial:
    """One training. ``tune`` are the fields of its TuneConfig but for the output. ``members`` are the pairs of weights
    of all settings that it stands for."""

    id: str
    group: str
    tune: dict[str, Any]
    source: str
    setting: dict[str, Any]
    setting_name: str
    ratio: float
    prompt_share: float
    members: tuple[tuple[float, float], ...]
    seed: int
    twin: int
    steps: int
    tokens: int

    @property
    def conventional(self) -> bool:
        """Return whether prompt tokens have no weight."""
        return self.ratio == 0


@dataclass(frozen=True)
class Group:
    """One base model on one data set, from whose trials one setting is selected. ``kept_apart``: why settings of equal
    ratio are different trainings here, and which ones."""

    name: str
    model: str
    data: Data
    facts: tuple[SourceFacts, ...]
    cells: int
    trials: tuple[Trial, ...]
    kept_apart: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def first(self) -> SourceFacts:
        """Return the facts of the group's data. Others differ at most in which examples can be learned from."""
        return self.facts[0]

    def resolved(self) -> dict[str, Any]:
        """Return what the plan says of the group, but for its trials, as JSON values."""
        return {
            "group": self.name,
            "model": self.model,
            "data": self.first.files,
            "digests": self.first.digests,
            "cells": self.cells,
            "kept_apart": [{"why": why, "settings": list(names)} for why, names in self.kept_apart],
        }


@dataclass(frozen=True)
class StudyPlan:
    """All trainings of a study."""

    spec: Spec
    groups: tuple[Group, ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Return the trials of all groups, in the order in which they are run."""
        return tuple(itertools.chain.from_iterable(group.trials for group in self.groups))

    @property
    def requested(self) -> int:
        """Return the number of trainings asked for, before equal ones were merged."""
        return sum(g.cells for g in self.groups) * len(self.spec.seeds) * (1 + self.spec.twins)

    def resolved(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "name": self.spec.name,
            "identity": identity(self.spec, self.groups),
            "metric": self.spec.metric,
            "higher_is_better": self.spec.higher_is_better,
            "measured": selectable(self.spec.measures),
            "search": dataclasses.asdict(self.spec.search),
            "defaults": dict(self.spec.defaults),
            **({"date": self.spec.day} if any(facts.date for group in self.groups for facts in group.facts) else {}),
            "requested": self.requested,
            "groups": [group.resolved() for group in self.groups],
            "trials": [dataclasses.asdict(t) for t in self.trials],
            "tokens": sum(t.tokens for t in self.trials),
        }


def make_plan(spec: Spec, folders: list[Path]) -> StudyPlan:
    """Return the distinct trainings of a study, after tokenising what no folder has (``sources.prepare``).

    Raises:
        HoldfastError: bad settings or data, a metric that needs targets on data without them.
    """
    groups = []
    for model, data in itertools.product(spec.models, spec.data):
        parts = [model] * (len(spec.models) > 1) + [data.name] * (len(spec.data) > 1)
        groups.append(_group(spec, " · ".join(parts) or spec.name, model, data, folders))
    _check_different(groups)
    return StudyPlan(spec, tuple(groups))


def identity(spec: Spec, groups: tuple[Group, ...]) -> dict[str, Any]:
    """Return what may not change in a study directory. Settings, seeds and the search may grow there."""
    return {
        "name": spec.name,
        "model": {g.model: g.first.model_digest for g in groups},
        "data": {g.data.name: g.first.digests for g in groups},
        "measure": [m.pinned() for m in spec.measures],
        "items": spec.items,
        "then": spec.then_as_addressed,
    }


def disk_bytes(plan: StudyPlan, slots: int) -> int:
    """Return the bytes on disk at the peak: what stays of every group, and what the largest needs while it is at work.

    What is stored of a training are the weights that it trains: with LoRA its adapters alone. A checkpoint holds them
    and two moments, so it is three times as large. In a halving search every trial of the first seed has one at the end
    of its first rung, after which about one in ``factor`` goes on.
    """
    spec, stay, work = plan.spec, [], []
    second = bool(spec.then) and not spec.then["align"].get("lora_rank")  # it stores the whole model
    for group in plan.groups:
        whole = group.first.parameters
        sizes = [_trained(trial, whole) for trial in group.trials]
        model = _BYTES_PER_PARAMETER * max(sizes)
        then = (_BYTES_PER_PARAMETER * whole if second else model) if spec.then else 0
        done, stopped, at_work = len(group.trials), 0, min(slots, len(group.trials))
        if spec.search.kind == "halving":
            first = [t for t in group.trials if t.seed == spec.seeds[0]]
            at_work = min(len(first), max(1, len(first) // spec.search.factor) + sum(t.conventional for t in first))
            done, stopped = at_work * len(spec.seeds), len(first) - at_work
        mean = _BYTES_PER_PARAMETER * sum(sizes) / len(sizes)
        stay.append((mean + then) * done + 3 * mean * stopped if spec.keep_models else 0)
        work.append(3 * model * (at_work if spec.keep_models else at_work + stopped))
    return round(sum(stay) + max(work))


def _trained(trial: Trial, whole: int) -> int:
    """Return the number of parameters that a trial trains, of a model of ``whole`` parameters."""
    rank = int(trial.tune.get("lora_rank") or 0)
    return _adapters(trial.tune["model"], rank, bool(trial.tune["trust_remote_code"])) if rank else whole


@functools.cache
def _adapters(model: str, rank: int, trust_remote_code: bool) -> int:
    from holdfast.tune.cost import parameter_counts

    config = TuneConfig(model=model, data="", output="", lora_rank=rank, trust_remote_code=trust_remote_code)
    return parameter_counts(config)[1]


def _group(spec: Spec, name: str, model: str, data: Data, folders: list[Path]) -> Group:
    base = TuneConfig(output="", model=model, data="", **spec.settled)
    sources = Sources(data, folders, responses=needs_responses(spec, base), day=spec.day)
    cells = grid.settings(spec, sources.whole(base).weighted())
    classes: dict[str, list[RequestedSetting]] = {}
    for fields in cells:
        setting = _requested(settled(dataclasses.replace(base, **fields)), fields, sources)
        classes.setdefault(setting.key, []).append(setting)
    _check_measures(spec, sources)
    _check_twins(spec, classes)
    wanted = itertools.product(spec.seeds, classes.values(), range(1 + spec.twins))
    trials = tuple(_trial(spec, name, members, seed, twin) for seed, members, twin in wanted)
    return Group(name, model, data, tuple(sources.facts.values()), len(cells), trials, _kept_apart(classes))


@dataclass(frozen=True)
class RequestedSetting:
    """One setting that a study asks for. ``fields`` are those that are varied. Settings of equal ``key`` are one
    training; those of equal ``ratio_key`` would be if a constant factor on the loss changed nothing, and
    ``scale_matters`` says why it does."""

    config: TuneConfig
    fields: dict[str, Any]
    facts: SourceFacts
    key: str
    ratio_key: str
    scale_matters: str | None

    @property
    def pair(self) -> tuple[float, float]:
        """Return the prompt and the response weight."""
        return grid.pair_of(grid.weights_of(self.config))


def _requested(config: TuneConfig, fields: dict[str, Any], sources: Sources) -> RequestedSetting:
    check_config(config)
    facts, reason = sources.of(config), grid.scale_matters(config)
    config = dataclasses.replace(config, date=facts.date or None)  # no part of an address where no date is printed
    return RequestedSetting(config, fields, facts, *_keys(config, facts.weighted()), reason)


def _keys(config: TuneConfig, targets: grid.Targets) -> tuple[str, str]:
    """Return ``RequestedSetting.key`` and ``ratio_key`` of a config on data with these targets."""
    values = without_legacy(type(config), dataclasses.asdict(config))
    others = {k: v for k, v in values.items() if k not in _WEIGHT_FIELDS | _WITHOUT_EFFECT}
    keys = []
    for scale_free in (grid.scale_matters(config) is None, True):
        normalizer, table = grid.training_class(
            grid.weights_of(config), config.normalizer, scale_free=scale_free, targets=targets
        )
        keys.append(json.dumps([table, others | {"normalizer": normalizer}], sort_keys=True))
    return keys[0], keys[1]


def asked_for(spec: Spec) -> tuple[int, int]:
    """Return how many settings a study asks for on each data set, and how many distinct ones these are where the data
    has targets of every role. Nothing is read.

    Raises:
        HoldfastError: see ``grid.settings``.
    """
    every = grid.Targets(dict.fromkeys((*PROMPT_ROLES, *RESPONSE_ROLES), 1.0))
    base = TuneConfig(output="", model=spec.models[0], data="", **spec.settled)
    cells = grid.settings(spec, every)
    return len(cells), len({_keys(settled(dataclasses.replace(base, **fields)), every)[0] for fields in cells})


def _trial(spec: Spec, group: str, members: list[RequestedSetting], seed: int, twin: int) -> Trial:
    cell = members[grid.representative([member.pair for member in members])]
    facts, pair, weights = cell.facts, cell.pair, grid.weights_of(cell.config)
    scale = 2.0**-twin  # a power of two scales a loss without rounding, so a twin is the same training
    config = dataclasses.replace(
        cell.config,
        data=facts.files["train"],
        eval_data=facts.files["dev"],
        seed=seed,
        learning_rate=cell.config.learning_rate
        or (facts.learning_rate_lora if cell.config.lora_rank else facts.learning_rate),
        prompt_weight=scale * pair[0],
        response_weight=scale * pair[1],
        preset=None,
        weights={
            role.label: scale * weight
            for role, weight in weights.items()
            if role and weight != pair[role in RESPONSE_ROLES]
        },
    )
    others = {key: value for key, value in cell.fields.items() if key not in ("prompt_weight", "response_weight")}
    steps = count_steps(config, facts.examples["train"])
    per_epoch = count_steps(dataclasses.replace(config, max_steps=-1, epochs=1.0), facts.examples["train"])
    address = [
        FORMAT, cell.key, config.learning_rate, seed, twin, facts.digests, facts.model_digest,
        [m.pinned() for m in spec.measures], spec.items, spec.then_as_addressed,
    ]  # fmt: skip
    return Trial(
        id=json_digest(address)[:12],
        group=group,
        tune={key: value for key, value in dataclasses.asdict(config).items() if key != "output"},
        source=facts.key,
        setting={"prompt_weight": pair[0], "response_weight": pair[1]} | others,
        setting_name=grid.setting_name(pair, others),
        ratio=share(*pair) if any(pair) else 0.0,
        prompt_share=prompt_share(facts.weighted().shared(config.normalizer), weights),
        members=tuple(dict.fromkeys(m.pair for m in members)),
        seed=seed,
        twin=twin,
        steps=steps,
        tokens=round(facts.tokens * steps / per_epoch),
    )


def needs_responses(spec: Spec, base: TuneConfig) -> bool:
    """Return whether any setting gives responses a weight. If none does, data without responses will do."""
    weights = spec.weights
    if isinstance(weights, list):
        return any(response for _, response in weights)
    if isinstance(weights, dict):  # a ratio or share below 1 leaves some weight to responses
        return any(weights["response"]) if "response" in weights else min(map(min, weights.values())) < 1
    return bool(
        weights == "paper" or spec.search.kind != "grid" or any(grid.weights_of(base)[role] for role in RESPONSE_ROLES)
    )


def _kept_apart(classes: Mapping[str, list[RequestedSetting]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return why settings of one ratio are trained apart, and their names."""
    ratios: dict[str, list[RequestedSetting]] = {}
    for members in classes.values():
        ratios.setdefault(members[0].ratio_key, []).append(members[0])
    apart = []
    for first, *others in ratios.values():
        if others and first.scale_matters:
            names = tuple(grid.setting_name(setting.pair, {}) for setting in (first, *others))
            apart.append((first.scale_matters, names))
    return tuple(apart)


def _check_different(groups: list[Group]) -> None:
    group_of: dict[str, str] = {}
    for trial in itertools.chain.from_iterable(group.trials for group in groups):
        first = group_of.setdefault(trial.id, trial.group)
        if first != trial.group:
            message = f"'{first}' and '{trial.group}' are the same model on the same data"
            raise HoldfastError(message, hint="name it once")


def _check_measures(spec: Spec, sources: Sources) -> None:
    needy = next((measure.name for measure in spec.measures if measure.needs_answers), None)
    for facts in sources.facts.values() if needy else ():
        if not facts.labelled:
            raise HoldfastError(
                f"measure: {needy} needs right answers, but dev and test of {facts.data} do not all end with one",
                hint="data with messages, or with a prompt and a response; response_nll needs no answers",
            )


def _check_twins(spec: Spec, classes: Mapping[str, list[RequestedSetting]]) -> None:
    reason = next((members[0].scale_matters for members in classes.values() if members[0].scale_matters), None)
    if spec.twins and reason:
        raise HoldfastError(
            f"twins: {reason}, so weights scaled by a constant are other trainings, no twins", hint="use more seeds"
        )
