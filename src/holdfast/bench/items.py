"""The harness's samples -> one row per item; rows -> scores with intervals.

The value of a score is the harness's own. The interval of a proportion is Wilson's, that of another mean a bootstrap
over items. The instructions of an IFEval item are not independent, so whole items are drawn, and the mean is over the
instructions of the draw. Other aggregations are applied to drawn items (``aggregation``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast import stats
from holdfast.bench import aggregation as ag
from holdfast.bench.suites import Pin
from holdfast.errors import HoldfastError

Score = dict[str, Any]
Row = dict[str, Any]
Loaded = dict[str, Any]
"""Tasks and groups of the harness; see ``harness.find_tasks``."""
RAW = "raw"
_SHARES = ("f1", "matthews_corrcoef")
"""Aggregations whose largest value is 1, so that they can be given in percent."""


def item_rows(results: dict[str, Any]) -> list[Row]:
    """Return one row per task and item: every metric's value under every filter, the answer, and hashes of the prompt.

    ``RAW`` holds the values as the task's aggregation takes them; the caller removes it before it writes the rows.
    """
    rows: dict[tuple[str, int], Row] = {}
    for task, samples in results["samples"].items():
        for sample in samples:
            row = rows.setdefault((task, sample["doc_id"]), _row(task, sample))
            values = {
                f"{metric},{sample['filter']}": sample[metric]
                for metric in sample["metrics"]
                if sample[metric] is not None
            }
            row["scores"] |= {name: _plain(value) for name, value in values.items()}
            row[RAW] |= values
    return list(rows.values())


def task_scores(rows: Sequence[Row], seed: int) -> dict[str, Score]:
    """Return the mean of every metric over these rows, and of generated answers the share that is empty and the mean
    length in words."""
    scores = {name: estimate(_values(rows, name), seed) for name in _metrics(rows)}
    return {name: score for name, score in (scores | _of_answers(rows, seed)).items() if score["n"]}


def benchmark_scores(
    name: str, rows: Sequence[Row], results: dict[str, Any], loaded: Loaded, seed: int
) -> dict[str, Score]:
    """Return every metric of a task or group with the harness's value, over the rows of its tasks.

    A metric without a value of the harness is left out, because its aggregation failed or gave no number. For a group
    or tag that the harness does not add up it is the mean over all items of its tasks, if every task takes a mean.
    """
    scores: dict[str, Score] = {}
    for metric in _metrics(rows):
        if not _has_failed(name, metric, results, loaded):
            score = _score(name, metric, rows, results, loaded, seed)
            scores |= {metric: score} if score else {}
    return scores | _of_answers(rows, seed)


def remarks(
    name: str,
    metric: str,
    scores: dict[str, dict[str, Score]],
    rows: Sequence[Row],
    results: dict[str, Any],
    loaded: Loaded,
) -> list[str]:
    """Return notes on a benchmark: which metrics of its tasks have no score and why, and what a group's number is."""
    notes = []
    for task in tasks_of(name, loaded):
        own = [row for row in rows if row["task"] == task]
        reasons = results["failed"].get(task, {})
        notes += [f"{task}: no score ({reasons['']})"] if "" in reasons else []
        for other in _metrics(own) if "" not in reasons else ():
            reason = reasons.get(other, "the harness's value is no number; it is in lm-eval/results.json")
            notes += [] if other in scores.get(task, scores[name]) else [f"{task} {other}: no score ({reason})"]
    if name in loaded["tasks"]:
        return notes
    if metric not in scores[name]:
        return [*notes, f"{name} {metric}: no score; the harness has none of this group, or one of its tasks has none"]
    if metric not in results["results"].get(name, {}):
        notes.append(
            f"{name} {metric}: the harness adds nothing up for it; this is the mean over all items of its tasks"
        )
    return notes


def halves(
    name: str, metric: str, rows: Sequence[Row], results: dict[str, Any], loaded: Loaded
) -> list[dict[str, Any]]:
    """Return the harness's value of the even items and that of the odd ones, with the items' shares where it is a mean.

    Raises:
        HoldfastError: the aggregation fails on a half, or gives no number.
    """
    return [_half(name, metric, half, results, loaded) for half in (rows[0::2], rows[1::2])]


def tasks_of(name: str, loaded: Loaded) -> list[str]:
    """Return the tasks of a benchmark; a task is its own only one."""
    return list(loaded["benchmarks"].get(name, [name]))


def shares_of(values: Sequence[Any]) -> list[float]:
    """Return what every item adds to the mean over all values, scaled so that the mean over items is that mean."""
    lists = ag.flat(values) or []
    scale = len(lists) / sum(len(own) for own in lists)
    return [float(own.sum() * scale) for own in lists]


def estimate(values: Sequence[float | Sequence[float]], seed: int) -> Score:
    """Return the mean with a 95 % interval: Wilson's where every item is 0 or 1 as a whole, else the bootstrap's."""
    whole = [float(np.min(v)) for v in values if np.size(v) and np.min(v) == np.max(v) and np.min(v) in (0.0, 1.0)]
    if values and len(whole) == len(values) and (all(np.ndim(v) == 0 for v in values) or len(set(whole)) == 1):
        # Also for lists that are all the same, because a bootstrap over them shows no spread.
        low, high = stats.wilson(int(sum(whole)), len(whole))
        return {"value": sum(whole) / len(whole), "low": low, "high": high, **_counts([np.size(v) for v in values])}
    return bootstrap(values, seed)


def bootstrap(values: Sequence[float | Sequence[float]], seed: int) -> Score:
    """Return the mean with a percentile interval over draws of items. The mean is over all values of an item that is a
    list, and such an item is drawn as a whole."""
    lists = [np.atleast_1d(np.asarray(v, np.float64)) for v in values]
    if not lists:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    sums, sizes = np.array([v.sum() for v in lists]), np.array([len(v) for v in lists])
    low, high = stats.bootstrap_of(
        (sums, sizes), lambda totals, counts, axis: totals.sum(axis) / counts.sum(axis), seed
    )
    return {"value": float(sums.sum() / sizes.sum()), "low": low, "high": high, **_counts(sizes)}


def main_metric(pin: Pin, rows: Sequence[Row]) -> str:
    """Return the pinned metric, else the task's first one. Without any score it is the pinned name."""
    names = _metrics(rows)
    return pin.metric if pin.metric in names else next(iter(names), pin.metric)


def flat_scores(results: dict[str, Any], loaded: Loaded, pins: Sequence[Pin]) -> dict[str, dict[str, Any]]:
    """Return the value of every pin's metric and of its two halves, with a number per item where it is a mean."""
    rows = item_rows(results)
    scores = {}
    for pin in pins:
        tasks = tasks_of(pin.task, loaded)
        own = sorted((row for row in rows if row["task"] in tasks), key=lambda row: tasks.index(row["task"]))
        metric = main_metric(pin, own)
        failed = _has_failed(pin.task, metric, results, loaded)
        score = None if failed else _score(pin.task, metric, own, results, loaded, None)
        if score is None:
            failures = itertools.chain.from_iterable(results["failed"].get(task, {}).values() for task in tasks)
            reasons = [f"{metric}: {text}" for text in failures]
            raise HoldfastError(
                f"{pin.task}: the harness gives no score ({'; '.join(reasons) or metric or 'no metric'})"
            )
        items = shares_of(_values(own, metric)) if score["aggregation"] == ag.MEAN else None
        scores[pin.task] = {"value": score["value"], "metric": metric, "items": items}
        scores[pin.task] |= {"halves": halves(pin.task, metric, own, results, loaded)}
    return scores


def _has_failed(name: str, metric: str, results: dict[str, Any], loaded: Loaded) -> bool:
    """Return whether one of the tasks has no number of this metric because its own code failed."""
    return any({metric, ""} & results["failed"].get(task, {}).keys() for task in tasks_of(name, loaded))


def _score(
    name: str, metric: str, rows: Sequence[Row], results: dict[str, Any], loaded: Loaded, seed: int | None
) -> Score | None:
    """Return the score of a task or group; None if there is no number. Without a ``seed`` the interval is left out if
    the aggregation is not the mean, because it takes many draws."""
    official = results["results"].get(name, {}).get(metric)
    if official is not None and not _is_number(official):
        return None
    parts = _parts(name, metric, rows, results, loaded)
    if any(part.name == "bypass" for part in parts):  # the harness's sign for no score
        return None
    means = all(part.name == ag.MEAN for part in parts)
    values = _values(rows, metric)
    about = {"higher_is_better": _direction(name, metric, results, loaded), "share": _in_percent(parts)}
    pooled = estimate(values, seed or 0) if means else None
    if pooled and (
        (official is None and name not in loaded["tasks"])
        or (official is not None and ag.same(pooled["value"], official))
    ):
        return (
            pooled | {"value": pooled["value"] if official is None else float(official), "aggregation": ag.MEAN} | about
        )
    if official is None:
        return None
    low, high = (None if seed is None else ag.interval(parts, float(official), seed)) or (None, None)
    counts = _counts([len(own) for own in ag.flat(values) or []]) if means else {"n": len(values)}
    score = {"value": float(official), "low": low, "high": high, **counts}
    if name in loaded["tasks"]:
        return score | {"aggregation": parts[0].name} | about
    return score | {"aggregation": ag.GROUP, "weights": _weights(name, metric, results, loaded)} | about


def _parts(name: str, metric: str, rows: Sequence[Row], results: dict[str, Any], loaded: Loaded) -> list[ag.Part]:
    """Return the items of every task that has this metric, with the task's aggregation and its weight."""
    weights = _weights(name, metric, results, loaded)
    parts = []
    for task in tasks_of(name, loaded):
        values = _values([row for row in rows if row["task"] == task], metric)
        if values:
            function = ag.aggregation_of(loaded["tasks"][task], metric.rpartition(",")[0], values)
            parts.append(ag.Part(values, *function, weights[task]))
    return parts


def _weights(name: str, metric: str, results: dict[str, Any], loaded: Loaded) -> dict[str, float]:
    """Return the weight of each task: its number of items, or 1 where the group says so."""
    sizes = {task: results["results"][task].get("sample_len", 0) for task in tasks_of(name, loaded)}
    return {task: float(size) if _by_size(name, metric, loaded) else 1.0 for task, size in sizes.items()}


def _by_size(name: str, metric: str, loaded: Loaded) -> bool:
    group = loaded["groups"].get(name)
    rules = {rule.metric: rule.weight_by_size for rule in ((group.aggregate_metric_list or []) if group else [])}
    return bool(rules.get(metric.rpartition(",")[0], True))


def _half(name: str, metric: str, rows: Sequence[Row], results: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
    by_size = _by_size(name, metric, loaded)
    parts = [
        replace(p, weight=float(len(p.values)) if by_size else 1.0) for p in _parts(name, metric, rows, results, loaded)
    ]
    if parts and all(part.name == ag.MEAN for part in parts) and (by_size or len(parts) == 1):
        items = shares_of(_values(rows, metric))
        return {"value": float(np.mean(items)), "items": items}
    numbers = ag.numbers_over(lambda _: ag.total(parts), [None] if parts else [])
    if not numbers:
        raise HoldfastError(
            f"{name}: {metric} cannot be made of half of the items ({len(rows)})", hint="more items, or another task"
        )
    return {"value": numbers[0], "items": None}


def _direction(name: str, metric: str, results: dict[str, Any], loaded: Loaded) -> bool | None:
    """Return whether more is better, as the harness says; None where it does not, or where tasks differ."""
    base = metric.rpartition(",")[0]
    directions = {results["higher_is_better"].get(task, {}).get(base) for task in tasks_of(name, loaded)}
    return directions.pop() if len(directions) == 1 else None


def _in_percent(parts: Sequence[ag.Part]) -> bool:
    """Return whether the number is a share of 1, which an average of benchmarks in percent may hold."""
    return all(part.name in _SHARES or (part.name == ag.MEAN and _from_0_to_1(part.values)) for part in parts)


def _from_0_to_1(values: Sequence[Any]) -> bool:
    numbers = np.concatenate(ag.flat(values) or [np.zeros(0)])
    return bool(((numbers >= 0) & (numbers <= 1)).all())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _counts(sizes: Sequence[int] | Any) -> dict[str, int]:
    """Return the number of items, and that of their values where an item has several."""
    items, values = len(sizes), int(np.sum(sizes))
    return {"n": items} | ({"values": values} if values != items else {})


def _metrics(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of these rows, in the order in which they occur."""
    return list(dict.fromkeys(itertools.chain.from_iterable(row["scores"] for row in rows)))


def _values(rows: Sequence[Row], metric: str) -> list[Any]:
    values = ((row[RAW] if RAW in row else row["scores"]).get(metric) for row in rows)
    return [value for value in values if value is not None]


def _of_answers(rows: Sequence[Row], seed: int) -> dict[str, Score]:
    """Return of generated answers the share that is empty, and the mean length in words."""
    answers = [row["answer"] for row in rows if row["answer"] is not None]
    if not answers:
        return {}
    empty = estimate([float(not text.strip()) for text in answers], seed)
    return {"empty": empty, "words": bootstrap([len(text.split()) for text in answers], seed)}


def _row(task: str, sample: dict[str, Any]) -> Row:
    first = sample["resps"][0][0]
    generated = isinstance(first, str)
    logps = [answers[0] if np.ndim(answers[0]) == 0 else answers[0][0] for answers in sample["resps"]]
    return {
        "kind": "item",
        "task": task,
        "item": sample["doc_id"],
        "prompt": sample["arguments"][0][0],
        "answer": first if generated else None,
        "logp": None if generated else [float(logp) for logp in logps],
        "target": str(sample["target"]),
        "hash": sample["doc_hash"],
        "prompt_hash": sample["prompt_hash"],
        "scores": {},
        RAW: {},
    }


def _plain(value: Any) -> Any:
    """Return a metric's value of one item in JSON types. Values that are no numbers, such as (label, guess) pairs for a
    task's own aggregation, keep their form."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    return _inside(value)


def _inside(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _inside(value.tolist())
    if isinstance(value, list | tuple):
        return [_inside(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _inside(part) for key, part in value.items()}
    return value if value is None or isinstance(value, str | int | float) else str(value)
