"""``holdfast bench compare``: two runs over the same items -> difference of every benchmark, with interval and p-value.

Per item x_i = b_i - a_i. Interval: bootstrap over items. p: exact McNemar where all x_i are -1, 0 or 1, else sign flips. An item of IFEval
holds several instructions: x_i is the change of their sum times n / (instructions in all), so that the mean is the change of the score.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.items import main_metric
from holdfast.bench.suites import Pin
from holdfast.config import BenchCompareConfig
from holdfast.errors import HoldfastError
from holdfast.runs import check_output, open_run, read_json
from holdfast.sensitivity.comparison import is_number, read_lines

Row = dict[str, Any]


def compare(config: BenchCompareConfig) -> dict[str, Any]:
    """Compare run B with run A.

    Returns:
        ``{"benchmarks": {name: {"metric", "a", "b", "difference", "low", "high", "p", "items"}}}``

    Raises:
        HoldfastError: no finished bench runs, or runs over different benchmarks, items, task versions or shots.
    """
    runs = [_read(Path(path)) for path in (config.run_a, config.run_b)]
    names = [list(summary["benchmarks"]) for summary, _ in runs]
    if set(names[0]) != set(names[1]):
        raise HoldfastError(f"other benchmarks: {', '.join(names[0])} in {config.run_a}, {', '.join(names[1])} in {config.run_b}")
    found: dict[str, Any] = {}
    for name in names[0]:
        a, b = (sorted((r for r in rows if r["benchmark"] == name), key=_key) for _, rows in runs)
        _same(name, a, b)
        found[name] = _compared(name, runs[0][0]["benchmarks"][name]["metric"], a, b, config)
    summary = {"command": "bench compare", "run_a": config.run_a, "run_b": config.run_b, "benchmarks": found}
    for name, c in found.items():
        print(f"{name} {c['metric']}: {_line(c)}", file=sys.stderr)
    if not config.output or config.dry_run:
        return summary
    check_output(config, "bench compare")
    return open_run(config, "bench compare", {}).finish(summary)


def _read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    if not os.path.isdir(path):
        raise HoldfastError(f"{path}: no such run directory")
    summary = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    if not isinstance(summary, dict) or summary.get("command") != "bench run":
        raise HoldfastError(f"{path}: not a finished bench run", hint="holdfast bench run --output makes one")
    rows = read_lines(path / "rows.jsonl")
    _check(path, summary, rows)
    return summary, rows


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
        raise HoldfastError(f"{file}: {len(rows)} rows, but {summary['items']} items were measured; the file was cut or changed")
    for number, row in enumerate(rows, 1):
        wrong = [name for name in ("task", "benchmark", "version", "hash") if not isinstance(row.get(name), str)]
        wrong += [name for name, kinds in (("item", int | str), ("shots", int)) if not isinstance(row.get(name), kinds)]
        scores = row.get("scores")
        if not isinstance(scores, dict) or not all(map(_is_score, scores.values())):
            wrong.append("scores")
        if wrong:
            raise HoldfastError(f"{file}, row {number}: no {', '.join(wrong)} as a bench run writes it; the file is damaged")
    bare = benchmarks.keys() - {row["benchmark"] for row in rows}
    if bare:
        raise HoldfastError(f"{file}: no rows of {', '.join(sorted(bare))}, which the summary names; the file was cut or changed")


def _is_benchmark(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metric"), str)


def _is_score(value: Any) -> bool:
    return is_number(value) or (isinstance(value, list) and all(map(is_number, value)))


def _key(row: Row) -> tuple[str, str]:
    return row["task"], f"{row['item']:>9}"


def _same(name: str, a: list[Row], b: list[Row]) -> None:
    settings = [{(r["task"], r["version"], r["shots"]) for r in rows} for rows in (a, b)]
    if settings[0] != settings[1]:
        only = [sorted(own - other)[:3] for own, other in (settings, settings[::-1])]
        texts = ["; ".join(f"{task} version {version}, {shots} shots" for task, version, shots in side) or "none" for side in only]
        raise HoldfastError(f"{name}: other tasks, versions or shots. A only: {texts[0]}. B only: {texts[1]}")
    if [(*_key(r), r["hash"]) for r in a] != [(*_key(r), r["hash"]) for r in b]:
        shared = len({r["hash"] for r in a} & {r["hash"] for r in b})
        raise HoldfastError(
            f"{name}: other items; {len(a)} and {len(b)}, {shared} of them the same", hint="run both with the same --data-dir and --limit"
        )


def _compared(name: str, metric: str, a: list[Row], b: list[Row], config: BenchCompareConfig) -> dict[str, Any]:
    from holdfast.stats import paired_difference

    metric = main_metric(Pin(name, metric, None, ""), a) if a and a[0]["scores"] else metric
    both = [(x["scores"], y["scores"]) for x, y in zip(a, b, strict=True)]
    pairs = [(x[metric], y[metric]) for x, y in both if metric in x and metric in y]
    pairs = [(x, y) for x, y in pairs if np.size(x) == np.size(y)]
    if not pairs:
        return {"metric": metric, "difference": None, "items": 0, "left_out": len(a)}
    sizes = np.array([np.size(x) for x, _ in pairs])
    weight = len(pairs) / sizes.sum()
    sums_a, sums_b = (np.array([np.sum(pair[side]) for pair in pairs]) * weight for side in (0, 1))
    made = paired_difference(list(sums_a), list(sums_b), config.seed, config.bootstrap)
    flips = np.unique(sums_b - sums_a)
    if (sizes == 1).all() and np.isin(flips, (-1.0, 0.0, 1.0)).all():
        made["p"] = _mcnemar(int((sums_b > sums_a).sum()), int((sums_b < sums_a).sum()))
    made["items"] = made.pop("sets")
    return {"metric": metric, "a": float(sums_a.mean()), "b": float(sums_b.mean()), **made, "left_out": len(a) - len(pairs)}


def _mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value of so many items gained and lost, if either were as likely (McNemar 1947)."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _line(c: dict[str, Any]) -> str:
    if c["difference"] is None:
        return "no item has a score in both runs"
    change = f"difference {c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}], p = {c['p']:.3g}"
    return f"{c['a']:.4f} -> {c['b']:.4f}, {change}, {c['items']} items"
