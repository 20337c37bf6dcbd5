"""Rows and selection of a study -> its settings: one record per distinct training, with estimates of every metric.

While a study runs there is no selection yet; settings then come from the finished trials alone, with means and no
intervals.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.report.reading import ReadRun
from holdfast.tables.record import Interval
from holdfast.tables.study import metrics_of, name_of
from holdfast.tables.text import counted, number

Trial = dict[str, Any]

LOWER_IS_BETTER = frozenset({"response_nll", "prompt_nll", "posix"})
PREFERRED = ("exact_match", "crosstask_accuracy", "response_nll", "posix", "prompt_nll")


@dataclass(frozen=True, eq=False)
class TunedSetting:
    """A setting of a study and its trials. ``members`` are the cells of the grid (prompt weight, response weight) that
    are this same training.
    """

    name: str
    values: dict[str, Any]
    ratio: float | None
    share: float | None
    members: list[tuple[float, float]]
    trials: list[Trial]
    dev: Interval
    test: Interval
    difference: dict[str, Any] | None = None
    conventional: bool = False

    def mean(self, metric: str, split: str = "test") -> float | None:
        """Return the mean of any metric over the setting's trials; None where none has it."""
        values = self.all(metric, split)
        return statistics.fmean(values) if values else None

    def all(self, metric: str, split: str = "test") -> list[float]:
        """Return the metric's values, one per finished trial that has not diverged."""
        values = [(trial.get(split) or {}).get(metric) for trial in self.trials]
        return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]

    @property
    def x(self) -> float | None:
        """Return its place on the axis of prompt shares, or the ratio where no share was measured."""
        return self.share if self.share is not None else self.ratio

    @property
    def seeds(self) -> str:
        """Return how many trials it has, in words."""
        return counted(len(self.trials), "seed")

    @property
    def about(self) -> str:
        """Return one line about the setting, for a tooltip."""
        return f"{self.name}, {self.seeds}, prompt share {number(self.x)}"

    @property
    def entry(self) -> dict[str, Any]:
        """Return the setting as a selection holds it."""
        return {
            "setting_name": self.name,
            "prompt_share": self.share,
            "ratio": self.ratio,
            "seeds": len(self.trials),
            "dev": {"mean": self.dev.value, "low": self.dev.low, "high": self.dev.high},
            "test": {"mean": self.test.value, "low": self.test.low, "high": self.test.high},
            "members": self.members,
            "difference": self.difference,
            "conventional": self.conventional,
        }

    @property
    def others(self) -> str:
        """Return the values of what is varied beside the weights, as text. Settings with equal text share a weight
        plane.
        """
        rest = sorted(self.values.keys() - {"prompt_weight", "response_weight", "prompt_share", "ratio"})
        return ", ".join(f"{key} {self.values[key]}" for key in rest)


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that the page of a study is made from."""

    run: ReadRun
    metric: str
    metrics: list[str]
    settings: list[TunedSetting]
    trials: list[Trial]
    base: dict[str, Any]
    selection: dict[str, Any]

    def named(self, key: str) -> TunedSetting | None:
        """Return the setting that the selection names ``chosen``, ``conventional`` or ``best_on_dev``."""
        wanted = self.selection.get(key)
        return next((s for s in self.settings if s.name == wanted), None) if wanted is not None else None

    @property
    def seeds(self) -> str:
        """Return how many trials a setting has, in words."""
        counts = {len(s.trials) for s in self.settings} or {0}
        return counted(min(counts), "seed") if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"

    def better(self, metric: str) -> str:
        """Return which values of a metric are better: ``lower`` or ``higher``."""
        declared = self.run.summary.get("higher_is_better") if metric == self.metric else None
        lower = not declared if isinstance(declared, bool) else metric in LOWER_IS_BETTER
        return "lower" if lower else "higher"


def open_studies(run: ReadRun) -> list[tuple[str, Study]]:
    """Return the studies of a directory, one per pair of model and data, by its name."""
    names = list(dict.fromkeys(str(row["group"]) for row in run.rows if row.get("group") is not None))
    if len(names) < 2:
        return [("", open_study(run))]
    chosen = run.summary.get("groups") or {}
    planned = run.resolved.get("trials") or []
    studies = []
    for name in names:
        summary = run.summary
        if summary:
            summary = summary | {"finding": None, "selection": {}, "trials": {}} | chosen.get(name, {})
        if "tables" in summary:
            own = [table for table in summary["tables"] if table["title"] == f"Settings: {name}"]
            summary = summary | {"tables": [table | {"title": "Settings"} for table in own]}
        rows = [row for row in run.rows if str(row.get("group")) == name]
        resolved = run.resolved | {"trials": [trial for trial in planned if str(trial.get("group")) == name]}
        studies.append((name, open_study(dataclasses.replace(run, rows=rows, summary=summary, resolved=resolved))))
    return studies


def open_study(run: ReadRun) -> Study:
    """Put a study of one model and one data set together from its rows and summary."""
    trials = [row for row in run.of_kind("trial") if row.get("status") == "done"]
    latest = {(t.get("trial"), t.get("rung")): t for t in trials}  # a trial that was done again counts once
    trials = _last_rungs(list(latest.values()))
    selection = run.summary.get("selection") or {}
    metrics = metrics_of(trials)
    usual = next((m for m in PREFERRED if m in metrics), "".join(metrics[:1]))
    metric = run.summary.get("metric") or run.resolved.get("metric") or usual
    chosen = selection.get("settings")
    settings = [_selected(s, trials) for s in chosen] if chosen else _grouped(trials, metric)
    base = next(iter(run.of_kind("base")), None) or run.summary.get("base") or {}
    return Study(run, metric, metrics, settings, trials, base, selection)


def _last_rungs(trials: Sequence[Trial]) -> list[Trial]:
    """Return the final trials. Of settings that were trained in rungs, those are the trials of the furthest rung."""
    by_name: dict[tuple[Any, ...], Trial] = {}
    for trial in trials:
        key = (name_of(trial), trial.get("seed"), trial.get("twin"))
        if key not in by_name or (trial.get("rung") or 0) >= (by_name[key].get("rung") or 0):
            by_name[key] = trial
    return list(by_name.values())


def _selected(entry: dict[str, Any], trials: Sequence[Trial]) -> TunedSetting:
    """Return a setting as the selection has it, with its trials."""
    dev, test = (Interval.of(entry.get(split), "mean") for split in ("dev", "test"))
    difference, conventional = entry.get("difference"), bool(entry.get("conventional"))
    return _setting(str(entry["setting_name"]), entry, trials, dev, test, difference, conventional)


def _grouped(trials: Sequence[Trial], metric: str) -> list[TunedSetting]:
    """Return the settings of trials that nothing was selected from yet, with means and no intervals."""
    settings = []
    for name in dict.fromkeys(map(name_of, trials)):
        first, none = next(trial for trial in trials if name_of(trial) == name), Interval(None)
        setting = _setting(name, first, trials, none, none)
        dev, test = (Interval(setting.mean(metric, split)) for split in ("dev", "test"))
        settings.append(dataclasses.replace(setting, dev=dev, test=test))
    return settings


def _setting(name: str, entry: dict[str, Any], trials: Sequence[Trial], *estimates: Any) -> TunedSetting:
    """Return the setting that an entry of the selection, or a trial, is of."""
    values, own = entry.get("setting") or {}, [trial for trial in trials if name_of(trial) == name]
    return TunedSetting(name, values, entry.get("ratio"), entry.get("prompt_share"), _members(entry), own, *estimates)


def _members(entry: dict[str, Any]) -> list[tuple[float, float]]:
    setting = entry.get("setting") or {}
    cells = entry.get("members") or [[setting.get("prompt_weight"), setting.get("response_weight")]]
    return [(round(float(p), 9), round(float(r), 9)) for p, r in cells if p is not None and r is not None]
