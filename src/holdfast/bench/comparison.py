"""``holdfast bench compare``: two runs over the same items -> difference of every benchmark, with interval and p-value.

Means:              x_i = b_i - a_i per item; interval by a bootstrap over items; p by the exact McNemar test where all
                    x_i are -1, 0 or 1, else by sign flips. An item of IFEval has several instructions: x_i is the
                    change of their sum, times n / (number of instructions), so that the mean is that of the score.
Other aggregations: interval over draws of items, the same of both runs; p by swapping the answers of items between the
                    runs at random.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench import aggregation as ag
from holdfast.bench.items import main_metric
from holdfast.bench.suites import Pin
from holdfast.compare import Finished, Row, finished, is_number, paired
from holdfast.config import BenchCompareConfig
from holdfast.errors import HoldfastError, NotComparableError
from holdfast.runs import command
from holdfast.tables import lines, with_tables
from holdfast.tables.text import counted

Summaries = tuple[dict[str, Any], dict[str, Any]]
_PAIRS = ("mcc", "f1", "brier_score", "word_perplexity", "byte_perplexity", "bits_per_byte", "likelihood")
"""Metrics of the harness whose items hold pairs, which older versions of ``bench run`` averaged by mistake."""


def compare(config: BenchCompareConfig) -> dict[str, Any]:
    """Compare run B with run A.

    Returns:
        ``{"benchmarks": {name: {"metric", "a", "b", "difference", "low", "high", "p", "items"}}}``. Where there is no
        test, ``p`` is None and ``no_test`` says why.

    Raises:
        NotComparableError: runs over different benchmarks, items, task versions or shots.
        HoldfastError: no finished bench runs.

    >>> from holdfast.bench import BenchCompareConfig, compare
    >>> compare(BenchCompareConfig(run_a="runs/bench", run_b="runs/bench"))["benchmarks"]["my_sums"]["difference"]
    0.0
    """
    runs = [_read(path) for path in (config.run_a, config.run_b)]
    names = [list(run.summary["benchmarks"]) for run in runs]
    if set(names[0]) != set(names[1]):
        raise NotComparableError(
            f"other benchmarks: {', '.join(names[0])} in {config.run_a}, {', '.join(names[1])} in {config.run_b}"
        )
    benchmarks: dict[str, Any] = {}
    for name in names[0]:
        a, b = (_rows_of(name, run) for run in runs)
        _same(name, a, b)
        benchmarks[name] = _compared(name, (runs[0].summary, runs[1].summary), a, b, config)
    summary = with_tables(
        {"command": "bench compare", "run_a": config.run_a, "run_b": config.run_b, "benchmarks": benchmarks}
    )
    # A table cuts long cells, so the reasons stand below it.
    untested = [f"{name}: no test: {one['no_test']}" for name, one in benchmarks.items() if "no_test" in one]
    print("\n".join([lines(summary), *untested]), file=sys.stderr)
    if not config.output or config.dry_run:
        return summary
    with command(config, "bench compare") as run:
        run.open({})
        return run.finish(summary)


def _rows_of(name: str, run: Finished) -> list[Row]:
    """Return the rows of a benchmark, sorted by task and item."""
    return sorted((row for row in run.rows if name in _benchmarks(row)), key=_key)


def _read(name: str) -> Finished:
    """Return a finished run, after checking that what is compared is there and of its type.

    Raises:
        HoldfastError: it is not; names the file, and the row.
    """
    run, path = finished(name, "bench run"), Path(name)
    summary, rows = run.summary, run.rows
    benchmarks = summary.get("benchmarks")
    if not isinstance(benchmarks, dict) or not benchmarks or not all(_is_benchmark(b) for b in benchmarks.values()):
        raise HoldfastError(f"{path / 'summary.json'}: no benchmarks with their metrics; the file is damaged")
    file = path / "rows.jsonl"
    if summary.get("items", len(rows)) != len(rows):
        raise HoldfastError(
            f"{file}: {counted(len(rows), 'row')}, but {counted(summary['items'], 'item')} were measured; "
            "the file was cut or changed"
        )
    for number, row in enumerate(rows, 1):
        wrong = [name for name in ("task", "benchmark", "version", "hash") if not isinstance(row.get(name), str)]
        wrong += [name for name, kinds in (("item", int | str), ("shots", int)) if not isinstance(row.get(name), kinds)]
        scores = row.get("scores")
        if not isinstance(scores, dict) or not all(map(_is_score, scores.values())):
            wrong.append("scores")
        if wrong:
            raise HoldfastError(
                f"{file}, row {number}: no {', '.join(wrong)} as a bench run writes it; the file is damaged"
            )
    bare = benchmarks.keys() - set(itertools.chain.from_iterable(map(_benchmarks, rows)))
    if bare:
        raise HoldfastError(
            f"{file}: no rows of {', '.join(sorted(bare))}, which the summary names; the file was cut or changed"
        )
    return run


def _is_benchmark(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metric"), str)


def _is_score(value: Any) -> bool:
    """Return whether a value is a number, or a list or an object (for a task's own aggregation) without nulls."""
    return is_number(value) or (isinstance(value, list | dict) and _is_whole(value))


def _is_whole(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_is_whole, value.values() if isinstance(value, dict) else value))
    return is_number(value) or isinstance(value, str | bool)


def _benchmarks(row: Row) -> list[str]:
    """Return the benchmarks that an item counts in; older runs name one."""
    return list(row.get("benchmarks", [row["benchmark"]]))


def _key(row: Row) -> tuple[str, str]:
    return row["task"], f"{row['item']:>9}"


def _same(name: str, a: list[Row], b: list[Row]) -> None:
    of_a, of_b = (set(map(itemgetter("task", "version", "shots"), rows)) for rows in (a, b))
    if of_a != of_b:
        only_a, only_b = _tasks_text(of_a - of_b), _tasks_text(of_b - of_a)
        raise NotComparableError(f"{name}: other tasks, versions or shots. A only: {only_a}. B only: {only_b}")
    if [(*_key(r), r["hash"]) for r in a] != [(*_key(r), r["hash"]) for r in b]:
        shared = len({r["hash"] for r in a} & {r["hash"] for r in b})
        raise NotComparableError(
            f"{name}: other items; {len(a)} and {len(b)}, {shared} of them the same",
            hint="run both with the same --data-dir and --limit",
        )


def _tasks_text(tasks: set[Any]) -> str:
    texts = [f"{task} version {version}, {counted(shots, 'shot')}" for task, version, shots in sorted(tasks)[:3]]
    return "; ".join(texts) or "none"


def _compared(
    name: str, summaries: Summaries, a: list[Row], b: list[Row], config: BenchCompareConfig
) -> dict[str, Any]:
    metric = main_metric(Pin(name, summaries[0]["benchmarks"][name]["metric"], None, ""), a)
    both = [(x, y) for x, y in zip(a, b, strict=True) if metric in x["scores"] and metric in y["scores"]]
    scores = [summary.get("scores", {}).get(name, {}).get(metric) for summary in summaries]
    about: dict[str, Any] = {"metric": metric, "left_out": len(a) - len(both)}
    about |= (
        {"higher_is_better": scores[0]["higher_is_better"]} if scores[0] and "higher_is_better" in scores[0] else {}
    )
    ways = [(score or {}).get("aggregation", ag.MEAN) for score in scores]
    if not both:
        return about | {"difference": None, "items": 0, "p": None}
    if any("scores" in summary and score is None for summary, score in zip(summaries, scores, strict=True)):
        return _untested(about, scores, len(both), "one of the runs has no score of it")
    if ways == [ag.MEAN, ag.MEAN] and not _was_averaged(metric, scores, both):
        return about | _means(metric, both, len(a), config)
    if ag.MEAN in ways and ways[0] == ways[1]:
        return _untested(
            about,
            [None, None],
            len(both),
            "the runs are of a version that took its mean over items, which it is not; measure it again",
        )
    if ways[0] != ways[1] or any((score or {}).get("weights") != (scores[0] or {}).get("weights") for score in scores):
        return _untested(
            about,
            [None, None],
            len(both),
            f"not comparable: the runs make one number of the items in other ways ({ways[0]}; {ways[1]})",
        )
    sides = [
        _parts(name, metric, summary, rows) for summary, rows in zip(summaries, zip(*both, strict=True), strict=True)
    ]
    values = [None if side is None else ag.total(side) for side in sides]
    if values[0] is None or values[1] is None or not _agree(values, scores, about["left_out"]):
        reason = "the task makes one number of its items with a function of its own, which a run's files do not have"
        return _untested(about, scores, len(both), reason)
    ends, p = ag.paired(sides[0] or [], sides[1] or [], config.seed, config.bootstrap)
    low, high = ends or (None, None)
    numbers = {
        "a": values[0],
        "b": values[1],
        "difference": values[1] - values[0],
        "low": low,
        "high": high,
        "p": p,
        "items": len(both),
    }
    return about | numbers | ({"no_test": "draws of items do not give a number each"} if p is None else {})


def _means(metric: str, both: list[tuple[Row, Row]], rows: int, config: BenchCompareConfig) -> dict[str, Any]:
    pairs = [(x["scores"][metric], y["scores"][metric]) for x, y in both]
    pairs = [(x, y) for x, y in pairs if np.size(x) == np.size(y)]
    if not pairs:
        return {"difference": None, "items": 0, "left_out": rows}
    sizes = np.array([np.size(x) for x, _ in pairs])
    weight = len(pairs) / sizes.sum()
    sums_a = np.array([np.sum(x) for x, _ in pairs]) * weight
    sums_b = np.array([np.sum(y) for _, y in pairs]) * weight
    test = paired(list(sums_a), list(sums_b), config.seed, config.bootstrap)
    return test | {"items": test.pop("sets"), "left_out": rows - len(pairs)}


def _untested(
    about: dict[str, Any], scores: Sequence[dict[str, Any] | None], items: int, reason: str
) -> dict[str, Any]:
    """Return the two values as the runs have them, and why their difference is not tested."""
    a, b = ((score or {}).get("value") for score in scores)
    difference = None if a is None or b is None or about["left_out"] else b - a
    return about | {
        "a": a,
        "b": b,
        "difference": difference,
        "low": None,
        "high": None,
        "p": None,
        "items": items,
        "no_test": reason,
    }


def _was_averaged(metric: str, scores: Sequence[dict[str, Any] | None], both: list[tuple[Row, Row]]) -> bool:
    """Return whether a run of an older version averaged what the harness does not. Such a run names no aggregation."""
    base = metric.rpartition(",")[0]
    if all("aggregation" in (score or {}) for score in scores):
        return False
    rows = itertools.chain.from_iterable(both)
    return base == "perplexity" or (base in _PAIRS and any(isinstance(row["scores"][metric], list) for row in rows))


def _parts(name: str, metric: str, summary: dict[str, Any], rows: Sequence[Row]) -> list[ag.Part] | None:
    """Return the items by task with their aggregation; None where that is a function of a task's own."""
    score = summary["scores"][name][metric]
    weights = score.get("weights", {name: 1.0})
    parts = []
    for task, weight in weights.items():
        values = [row["scores"][metric] for row in rows if row["task"] == task]
        way = summary["scores"].get(task, {}).get(metric, {}).get("aggregation")
        function = None if way is None else ag.function_of(way)
        if values and function is None:
            return None
        parts += [ag.Part(values, way, function, weight)] if values else []
    return parts


def _agree(values: Sequence[float | None], scores: Sequence[dict[str, Any] | None], left_out: int) -> bool:
    """Return whether the rows give the values that the runs have from the harness. With rows left out they need not."""
    return bool(left_out) or all(
        ag.same(float(v or 0.0), float((s or {})["value"])) for v, s in zip(values, scores, strict=True)
    )
