"""The harness's samples -> one row per item; rows -> scores with intervals.

Proportions get Wilson's interval, everything else a bootstrap over items: an item of IFEval holds several instructions that are not
independent, so whole items are drawn, and instructions are counted over the draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.bench.suites import Pin

Score = dict[str, float | int]
Row = dict[str, Any]
_DRAWS = 2000


def item_rows(results: dict[str, Any]) -> list[Row]:
    """One row per task and item, with the value of every metric under every filter, the answer, and hashes of what was asked."""
    rows: dict[tuple[str, int], Row] = {}
    for task, samples in results["samples"].items():
        for sample in samples:
            row = rows.setdefault((task, sample["doc_id"]), _row(task, sample))
            row["scores"] |= {f"{metric},{sample['filter']}": _plain(sample[metric]) for metric in sample["metrics"]}
    return list(rows.values())


def task_scores(rows: Sequence[Row], seed: int) -> dict[str, Score]:
    """Every metric over these rows; of generated answers also how many are empty, and their mean length in words."""
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    made = {name: estimate([row["scores"][name] for row in rows if row["scores"].get(name) is not None], seed) for name in names}
    answers = [row["answer"] for row in rows if row["answer"] is not None]
    if answers:
        made["empty"] = estimate([float(not text.strip()) for text in answers], seed)
        made["words"] = bootstrap([len(text.split()) for text in answers], seed)
    return {name: score for name, score in made.items() if score["n"]}


def estimate(values: Sequence[float | Sequence[float]], seed: int) -> Score:
    """Mean with a 95 % interval: Wilson's where every item is 0 or 1 as a whole, else the bootstrap's."""
    whole = [float(np.min(v)) for v in values if np.size(v) and np.min(v) == np.max(v) and np.min(v) in (0.0, 1.0)]
    if values and len(whole) == len(values) and (all(np.ndim(v) == 0 for v in values) or len(set(whole)) == 1):
        low, high = wilson(int(sum(whole)), len(whole))  # lists that are all the same: a bootstrap would see no spread
        return {"value": sum(whole) / len(whole), "low": low, "high": high, "n": sum(np.size(v) for v in values)}
    return bootstrap(values, seed)


def bootstrap(values: Sequence[float | Sequence[float]], seed: int) -> Score:
    """Mean with a percentile interval over draws of items. Values that are lists are flattened into the mean, and drawn as a whole."""
    lists = [np.atleast_1d(np.asarray(v, np.float64)) for v in values]
    if not lists:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    sums, sizes = np.array([v.sum() for v in lists]), np.array([len(v) for v in lists])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(lists), len(lists)) for _ in range(_DRAWS))
    low, high = np.quantile([sums[d].sum() / sizes[d].sum() for d in draws], (0.025, 0.975))
    return {"value": float(sums.sum() / sizes.sum()), "low": float(low), "high": float(high), "n": int(sizes.sum())}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927)."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return float(low), float(high)


def members(loaded: dict[str, Any], name: str) -> list[str]:
    """The tasks of a group, or the task itself."""
    children = loaded["group_map"].get(name)
    return [name] if children is None else list(dict.fromkeys(leaf for child in children for leaf in members(loaded, child)))


def main_metric(pin: Pin, rows: Sequence[Row]) -> str:
    """The pinned metric, else the task's first one."""
    known = rows[0]["scores"]
    return pin.metric if pin.metric in known else next(iter(known))


def flat_scores(results: dict[str, Any], loaded: dict[str, Any], pins: Sequence[Pin]) -> dict[str, dict[str, Any]]:
    """Value and items of every pin's metric; an item that is a list counts once per member."""
    rows = item_rows(results)
    made = {}
    for pin in pins:
        own = [row for task in members(loaded, pin.task) for row in rows if row["task"] == task]
        metric = main_metric(pin, own)
        items = [float(v) for row in own for v in np.atleast_1d(row["scores"][metric])]
        made[pin.task] = {"value": float(np.mean(items)), "metric": metric, "items": items}
    return made


def _row(task: str, sample: dict[str, Any]) -> Row:
    generated = isinstance(sample["resps"][0][0], str)
    return {
        "kind": "item",
        "task": task,
        "item": sample["doc_id"],
        "prompt": sample["arguments"][0][0],
        "answer": sample["resps"][0][0] if generated else None,
        "logp": None if generated else [float(r[0][0]) for r in sample["resps"]],
        "target": str(sample["target"]),
        "hash": sample["doc_hash"],
        "prompt_hash": sample["prompt_hash"],
        "scores": {},
    }


def _plain(value: Any) -> Any:
    """A metric's value of one item as JSON takes it: a number, or a list of numbers."""
    if isinstance(value, list | tuple | np.ndarray):
        return [float(v) for v in value]
    return float(value)
