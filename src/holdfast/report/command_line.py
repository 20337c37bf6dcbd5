"""The config of a run -> the command that made it, as a line for a shell. Options at their default are left out."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import holdfast.config as configs
from holdfast.config import RunConfig
from holdfast.errors import redacted
from holdfast.report.reading import ReadRun

CONFIGS: dict[str, type[RunConfig]] = {
    "tune": configs.TuneConfig,
    "weigh": configs.WeighConfig,
    "align": configs.AlignConfig,
    "sensitivity run": configs.SensitivityConfig,
    "sensitivity variants": configs.VariantsConfig,
    "sensitivity compare": configs.CompareConfig,
    "sensitivity check": configs.CheckConfig,
    "crosstask run": configs.CrossTaskConfig,
    "crosstask label": configs.LabelConfig,
    "crosstask analyse": configs.AnalyseConfig,
    "audit": configs.AuditConfig,
    "bench run": configs.BenchConfig,
    "bench compare": configs.BenchCompareConfig,
    "study run": configs.StudyConfig,
    "study best": configs.BestConfig,
    "demo": configs.DemoConfig,
}
"""Command that leaves a run directory -> its config class."""
_OF_THE_CALL = {"json", "overwrite", "dry_run"}
"""Options that change what a call prints or deletes, and not what the run holds."""
_MOST = 4000
"""Letters of a command that are shown."""


def command_line(run: ReadRun) -> str:
    """Return the command that made a run, without keys, as a line for a shell; empty for a run that has no config, or
    is of an unknown command.
    """
    config_class, values = CONFIGS.get(run.command), {**run.config}
    if config_class is None or not values:
        return ""
    defaults = {field.name: _default(field) for field in dataclasses.fields(config_class)}
    words = ["holdfast", *run.command.split()]
    if values.get("study") == "pocket":  # the demo is a study that holdfast itself makes
        words = ["holdfast", "demo"]
        values = {name: value for name, value in values.items() if name in ("limit", "seed", "output")}
    positional: tuple[str, ...] = getattr(config_class, "positional", ())
    if positional and all(isinstance(values.get(name), str) for name in positional):
        words += [str(values.pop(name)) for name in positional]
    output = values.pop("output", None)
    hidden = {*_OF_THE_CALL, *getattr(config_class, "without_effect", ())}  # which are no flags
    for name, value in values.items():
        if name not in hidden and value != defaults.get(name):
            words += _option(name, value)
    if output:
        words += ["--output", str(output)]
    line = redacted(shlex.join(words))
    return line if len(line) <= _MOST else f"{line[:_MOST]} […]"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _option(name: str, value: Any) -> list[str]:
    """The option as the command line takes it: a switch, a list, pairs of a table, or one value."""
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, dict):
        pairs: list[str] = []
        for key, item in value.items():
            pairs += [str(key), str(item)]
        return [flag, *pairs]
    return [flag, *map(str, value)] if isinstance(value, list | tuple) else [flag, str(value)]
