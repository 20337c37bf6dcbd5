"""Rows of finished trials -> settings, and the scores of a split with their fit.

Trials that are the same training but for the seed are one setting. The plan has decided which cells are the same
training (``members``), because equal ratios may be different trainings, with gradient clipping for one.

Axes: N trainings, K settings, S seeds, I items.
"""

from __future__ import annotations

import itertools
import math
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast import runs
from holdfast.errors import HoldfastError, nearest
from holdfast.study import statistics as st
from holdfast.tables.text import counted

Row = dict[str, Any]


@dataclass(frozen=True)
class TrainedSetting:
    """Trainings that are the same but for their seed."""

    name: str
    fields: dict[str, Any]
    ratio: float
    prompt_share: float
    members: list[list[float]]
    runs: list[Row]

    @property
    def conventional(self) -> bool:
        """Return whether prompt tokens have no weight."""
        return self.ratio == 0


@dataclass(frozen=True)
class SplitScores:
    """The scores of one metric on one split, and their fit.

    There is one score per setting and seed; twins are averaged. ``items`` are scores per item by (setting, seed), empty
    unless every training has them. ``spread`` is that of ``statistics.spread_within``.
    """

    settings: list[TrainedSetting]
    value_N: st.Array
    setting_N: list[int]
    seed_N: list[int]
    fit: st.Fit
    spread: st.Spread
    items: dict[tuple[int, int], st.Array]

    @property
    def noisy(self) -> bool:
        """Return whether noise is seen: some setting has runs that could differ, and they do."""
        return bool(self.fit.df) and self.fit.variance > 0

    def values(self, k: int) -> st.Array:
        """Return the scores of a setting, one per seed."""
        own: st.Array = self.value_N[np.array(self.setting_N) == k]
        return own

    def item_noise(self, k: int, reference: int | None = None) -> float:
        """Return the variance that the choice of items adds to the mean of a setting, or to its difference to another;
        0 without scores per item.

        The difference is taken per seed and item where the two share seeds, else between their means over seeds.
        """
        own = {s: v for (j, s), v in self.items.items() if j == k}
        if reference is not None:
            other = {s: v for (j, s), v in self.items.items() if j == reference}
            both = own.keys() & other.keys()
            own = {s: own[s] - other[s] for s in both} if both else _difference_of_means(own, other)
        return st.item_variance(np.array(list(own.values()))) if own else 0.0

    @property
    def item_count(self) -> int:
        """Return how many items there are scores of."""
        return min((len(v) for v in self.items.values()), default=0)


def read_rows(study: Path) -> list[Row]:
    """Return the rows of a study directory, without one that a crash cut off: the next ``study run`` writes it anew."""
    return runs.read_rows(study / "rows.jsonl", problems=[])


def item_values(row: dict[str, Any], split: str, metric: str, root: Path) -> npt.NDArray[np.float64] | None:
    """Return the scores per item [I] of a trial, from the file that its row names for the split, in the order of the
    items; None where there are none for this metric, or one of them is not finite.

    Raises:
        HoldfastError: the row names a file that is missing or broken.
    """
    name = (row.get("items") or {}).get(split)
    if not name:
        return None
    try:
        with np.load(root / name, allow_pickle=False) as arrays:
            values = np.asarray(arrays[metric], np.float64) if metric in arrays else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise HoldfastError(
            f"trial {row['trial']}: cannot read its scores per item from {root / name}: {error}"
        ) from error
    return values if values is not None and np.isfinite(values).all() else None


def gather(rows: Iterable[Row], metric: str) -> tuple[list[TrainedSetting], list[str]]:
    """Return settings in the order of their prompt share, and the trials left out because their dev score is NaN.

    Raises:
        HoldfastError: there is no finished trial, or one lacks the metric.
    """
    trials = {row["trial"]: row for row in rows if row.get("kind") == "trial" and row.get("status") == "done"}
    last = max((row["rung"] for row in trials.values() if row.get("rung") is not None), default=None)
    final = [row for row in trials.values() if row.get("rung") in (None, last)]
    if not final:
        raise HoldfastError("the study has no finished trial, so there is nothing to choose from")
    left_out = [row["trial"] for row in final if not math.isfinite(_score(row, "dev", metric))]
    groups: dict[str, list[Row]] = {}
    for row in final:
        if row["trial"] not in left_out:
            groups.setdefault(_class(row), []).append(row)
    if not groups:
        raise HoldfastError(
            f"no trial has a dev {metric} that is a number",
            hint="look at the learning curves: did every training diverge?",
        )
    settings = [_setting(runs) for runs in groups.values()]
    return sorted(settings, key=lambda s: (s.prompt_share, s.name)), left_out


def stopped_settings(rows: Iterable[Row], settings: list[TrainedSetting]) -> list[dict[str, Any]]:
    """Return the settings that a search stopped before the end: ``setting_name``, ``step`` of ``steps``, the ``metric``
    of the search, their ``score``, and how far they were ``behind`` conventional tuning at that step (positive: worse).
    What an old row lacks is None."""
    finished = {_class(setting.runs[0]) for setting in settings}
    blank = dict.fromkeys(("step", "steps", "metric", "score", "behind"))
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("kind") == "trial" and row.get("status") == "stopped" and _class(row) not in finished:
            at = blank | {"step": row.get("steps")} | (row.get("stopped_at") or {})
            first.setdefault(_class(row), {"setting_name": row["setting_name"], **at})
    return list(first.values())


def unscored_settings(rows: Iterable[Row], settings: list[TrainedSetting], left_out: list[str]) -> list[str]:
    """Return the settings without a score though a run of theirs was tried to the end, each with the reason."""
    scored = {_class(setting.runs[0]) for setting in settings}
    why: dict[str, tuple[str, str]] = {}
    for row in rows:
        failed = row.get("kind") == "trial" and row.get("status") == "failed"
        if (failed or row.get("trial") in left_out) and _class(row) not in scored:
            reason = "diverged" if row.get("diverged") else "failed" if failed else "no score on dev"
            if reason == "diverged" or _class(row) not in why:
                why[_class(row)] = (row["setting_name"], reason)
    return [f"{name} ({reason})" for name, reason in why.values()]


def count_trials(rows: Iterable[Row], planned: int) -> dict[str, int]:
    """Return how the trials of a plan have ended. One without a row was not started, or is still at work."""
    status = {row["trial"]: row.get("status") for row in rows if row.get("kind") == "trial"}
    counts = Counter(status.values())
    ended = {name: counts[name] for name in ("done", "stopped", "failed")}
    return {"planned": planned, **ended, "not_started": max(0, planned - sum(ended.values()))}


def in_words(counts: dict[str, int], *, complete: bool = True) -> str:
    """Return the counts of ``count_trials`` as one line."""
    rest = "not started" if complete else "not started or still at work"
    ended = f"{counts['done']} done, {counts['stopped']} stopped early, {counts['failed']} failed"
    return f"{counted(counts['planned'], 'trial')} planned: {ended}, {counts['not_started']} {rest}"


def split_scores(
    settings: list[TrainedSetting], split: str, metric: str, root: str | Path | None = None
) -> SplitScores | None:
    """Return the scores of a split over the settings that have a finite one; None if no setting has.

    Args:
        root: the study directory, from which scores per item are read; None: they are not read.
    """
    present: list[TrainedSetting] = []
    points: list[tuple[int, Row, float]] = []
    for one in settings:
        scores = [_score(run, split, metric, needed=split == "dev") for run in one.runs]
        finite = [
            (len(present), run, score) for run, score in zip(one.runs, scores, strict=True) if math.isfinite(score)
        ]
        points += finite
        present += [one] if finite else []
    if not points:
        return None
    setting, trials, values = (list(column) for column in zip(*points, strict=True))
    value_N, setting_N, seed_N = st.average_twins(np.array(values), setting, [run["seed"] for run in trials])
    items = _items(setting, trials, split, metric, Path(root)) if root is not None else {}
    fit = st.fit(value_N, setting_N, seed_N)
    spread = st.spread_within(fit, value_N, setting_N)
    return SplitScores(present, value_N, setting_N, seed_N, fit, spread, items)


def _items(setting: list[int], runs: list[Row], split: str, metric: str, root: Path) -> dict[tuple[int, int], st.Array]:
    """Return (setting, seed) -> scores per item, if every trial has them and they are of one length."""
    by_cell: dict[tuple[int, int], list[st.Array]] = {}
    for k, run in zip(setting, runs, strict=True):
        values = item_values(run, split, metric, root)
        if values is None:
            return {}
        by_cell.setdefault((k, run["seed"]), []).append(values)
    if len(set(map(len, itertools.chain.from_iterable(by_cell.values())))) != 1:
        return {}
    return {cell: np.mean(values, axis=0) for cell, values in by_cell.items()}


def _difference_of_means(own: dict[int, st.Array], other: dict[int, st.Array]) -> dict[int, st.Array]:
    return {0: np.mean(list(own.values()), axis=0) - np.mean(list(other.values()), axis=0)} if own and other else {}


def _score(row: Row, split: str, metric: str, *, needed: bool = True) -> float:
    scores = row.get(split) or {}
    if metric in scores:
        value = scores[metric]
        return float(value) if isinstance(value, int | float) else math.nan
    if not needed:
        return math.nan
    held = ", ".join(scores) or "none"
    raise HoldfastError(
        f"trial {row['trial']} has no {split} score '{metric}'; it has {held}", hint=nearest(metric, scores)
    )


def _class(row: Row) -> str:
    """Return a key that is equal for trials of the same training but for the seed."""
    others = {k: v for k, v in row["setting"].items() if k not in ("prompt_weight", "response_weight", "seed")}
    return repr((sorted(others.items(), key=str), row["ratio"], sorted(map(tuple, row.get("members") or []))))


def _setting(runs: list[Row]) -> TrainedSetting:
    first = runs[0]
    share = first.get("prompt_share")
    return TrainedSetting(
        first["setting_name"],
        first["setting"],
        float(first["ratio"]),
        float(first["ratio"] if share is None else share),
        first.get("members") or [],
        runs,
    )
