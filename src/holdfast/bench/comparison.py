"""``holdfast bench compare``: two runs over the same items -> difference of every benchmark, with interval and p-value.

Per item x_i = b_i - a_i. Interval: bootstrap over items. p: exact McNemar where all x_i are -1, 0 or 1, else sign
flips. An item of IFEval holds several instructions: x_i is the change of their sum times n / (instructions in all), so
that the mean is the change of the score. What is no mean is made of drawn items by the harness's aggregation: items in
pairs for the interval, the two answers of an item swapped between the runs for p.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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

Summaries = tuple[dict[str, Any], dict[str, Any]]
_PAIRS = ("mcc", "f1", "brier_score", "word_perplexity", "byte_perplexity", "bits_per_byte", "likelihood")
"""Metrics of the harness whose items are pairs, which older versions of ``bench run`` averaged."""


def compare(config: BenchCompareConfig) -> dict[str, Any]:
    """Compare run B with run A.

    Returns:
        ``{"benchmarks": {name: {"metric", "a", "b", "difference", "low", "high", "p", "items"}}}``; without a test,
        ``p`` is None and ``no_test`` says why

    Raises:
        NotComparableError: runs over different benchmarks, items, task versions or shots.
        HoldfastError: no finished bench runs.
    """
    runs = [_read(path) for path in (config.run_a, config.run_b)]
    names = [list(run.summary["benchmarks"]) for run in runs]
    if set(names[0]) != set(names[1]):
        raise NotComparableError(
            f"other benchmarks: {', '.join(names[0])} in {config.run_a}, {', '.join(names[1])} in {config.run_b}"
        )
    benchmarks: dict[str, Any] = {}
    for name in names[0]:
        a, b = (sorted((r for r in run.rows if name in _benchmarks(r)), key=_key) for run in runs)
        _same(name, a, b)
        benchmarks[name] = _compared(name, (runs[0].summary, runs[1].summary), a, b, config)
    summary = with_tables(
        {"command": "bench compare", "run_a": config.run_a, "run_b": config.run_b, "benchmarks": benchmarks}
    )
    untested = [
        f"{name}: no test: {one['no_test']}" for name, one in benchmarks.items() if "no_test" in one
    ]  # a table cuts long cells
    print("\n".join([lines(summary), *untested]), file=sys.stderr)
    if not config.output or config.dry_run:
        return summary
    with command(config, "bench compare") as run:
        run.open({})
        return run.finish(summary)


def _read(path: str) -> Finished:
    run = finished(path, "bench run")
    _check(Path(path), run.summary, run.rows)
    return run


def _check(path: Path, summary: dict[str, Any], rows: list[Row]) -> None:
    """What is compared is there, whole, and of its type.

    Raises:
        HoldfastError: names the file, and the row.
    """
    benchmarks = summary.get("benchmarks")
    if not isinstance(benchmarks, dict) or not benchmarks or not all(_is_benchmark(b) for b in benchmarks.values()):
        raise HoldfastError(f"{path / 'summary.json'}: no benchmarks with their metrics; the file is damaged")
    file = path / "rows.jsonl"
    if summary.get("items", len(rows)) != len(rows):
        raise HoldfastError(
            f"{file}: {len(rows)} rows, but {summary['items']} items were measured; the file was cut or changed"
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
    bare = benchmarks.keys() - {name for row in rows for name in _benchmarks(row)}
    if bare:
        raise HoldfastError(
            f"{file}: no rows of {', '.join(sorted(bare))}, which the summary names; the file was cut or changed"
        )


def _is_benchmark(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metric"), str)


def _is_score(value: Any) -> bool:
    """A number, or in a list or an object whatever a task's own aggregation takes, but null."""
    return is_number(value) or (isinstance(value, list | dict) and _is_whole(value))


def _is_whole(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_is_whole, value.values() if isinstance(value, dict) else value))
    return is_number(value) or isinstance(value, str | bool)


def _benchmarks(row: Row) -> list[str]:
    """The benchmarks that an item counts in; older runs name one."""
    return list(row.get("benchmarks", [row["benchmark"]]))


def _key(row: Row) -> tuple[str, str]:
    return row["task"], f"{row['item']:>9}"


def _same(name: str, a: list[Row], b: list[Row]) -> None:
    settings = [{(r["task"], r["version"], r["shots"]) for r in rows} for rows in (a, b)]
    if settings[0] != settings[1]:
        only = [sorted(own - other)[:3] for own, other in (settings, settings[::-1])]
        texts = [
            "; ".join(f"{task} version {version}, {shots} shots" for task, version, shots in side) or "none"
            for side in only
        ]
        raise NotComparableError(f"{name}: other tasks, versions or shots. A only: {texts[0]}. B only: {texts[1]}")
    if [(*_key(r), r["hash"]) for r in a] != [(*_key(r), r["hash"]) for r in b]:
        shared = len({r["hash"] for r in a} & {r["hash"] for r in b})
        raise NotComparableError(
            f"{name}: other items; {len(a)} and {len(b)}, {shared} of them the same",
            hint="run both with the same --data-dir and --limit",
        )


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
    sums_a, sums_b = (np.array([np.sum(pair[side]) for pair in pairs]) * weight for side in (0, 1))
    test = paired(list(sums_a), list(sums_b), config.seed, config.bootstrap)
    return test | {"items": test.pop("sets"), "left_out": rows - len(pairs)}


def _untested(
    about: dict[str, Any], scores: Sequence[dict[str, Any] | None], items: int, reason: str
) -> dict[str, Any]:
    """The two values as the runs have them, and why nothing is said about their difference."""
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
    """Whether a run of an older version averaged what the harness does not: it kept no word of how the number is
    made.
    """
    base = metric.rpartition(",")[0]
    if all("aggregation" in (score or {}) for score in scores):
        return False
    return base == "perplexity" or (
        base in _PAIRS and any(isinstance(row["scores"][metric], list) for pair in both for row in pair)
    )


def _parts(name: str, metric: str, summary: dict[str, Any], rows: Sequence[Row]) -> list[ag.Part] | None:
    """The items by task, with what makes one number of them; None where that is a function of a task's own."""
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
    """Whether the rows give the values that the runs were given by the harness; not where rows are left out."""
    return bool(left_out) or all(
        ag.same(float(v or 0.0), float((s or {})["value"])) for v, s in zip(values, scores, strict=True)
    )
