"""A table of results made elsewhere.

In: a CSV file with a header, one run per line. Out: the scores of one metric, cell by cell.

    model,data,prompt_weight,response_weight,seed,exact_match,posix        wide: one column per score
    model,data,prompt_weight,response_weight,seed,metric,value             long: one line per score

``prompt_weight`` and ``response_weight`` must be there, ``seed`` may. In the wide form columns with numbers are scores; columns of text,
and those named as an option of ``holdfast tune`` (learning_rate, ...), say which setting (model, data, ...) a run belongs to. In the long
form every other column does. Weights (0, 0) are the untuned model.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, fields
from pathlib import Path

from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError, nearest
from holdfast.tune.csvrows import csv_records
from holdfast.tune.weights import check_weight

WEIGHTS = ("prompt_weight", "response_weight")
SEED = "seed"
LONG = ("metric", "value")
SETTINGS = {f.name for f in fields(TuneConfig)} | {"base", "base_model", "dataset", "group", "setting", "stage", "twin", "lr", "size"}
"""Columns that are no scores, even if they hold numbers."""

Record = tuple[int, dict[str, str]]  # line number, column -> text


@dataclass(frozen=True)
class Run:
    """One score. ``cell`` is (prompt weight, response weight); ``setting`` the values of the table's setting columns."""

    setting: tuple[str, ...]
    cell: tuple[float, float]
    seed: str
    value: float


@dataclass(frozen=True)
class Table:
    """The runs of one metric."""

    columns: tuple[str, ...]
    """The setting columns that tell lines apart."""
    metric: str
    runs: list[Run]


def read_table(path: Path, metric: str = "", where: str = "") -> Table:
    """Read the scores of one metric.

    Args:
        metric: which score; may be left out where there is only one.
        where: ``column=value,...``: only these lines.

    Raises:
        HoldfastError: no such file, a missing column, a value that is no number, two lines for one run, an unknown metric or filter.
    """
    header, records = _read(path)
    for name in WEIGHTS:
        if name not in header:
            raise HoldfastError(f"{path}: no column '{name}'; columns are {', '.join(header)}", hint=nearest(name, header))
    long = all(name in header for name in LONG)
    records = _filtered(records, where, header, path)
    others = [name for name in header if name not in (*WEIGHTS, SEED, *(LONG if long else ()))]
    numeric = [] if long else [name for name in others if name not in SETTINGS and _numeric(name, records)]
    scores = sorted({record["metric"] for _, record in records}) if long else numeric
    metric = _metric(metric, scores, path)
    kept = [(line, record) for line, record in records if not long or record["metric"] == metric]
    columns = tuple(n for n in others if (long or n not in scores) and len({record[n] for _, record in kept}) > 1)
    return Table(columns, metric, _runs(kept, columns, "value" if long else metric, path))


def _read(path: Path) -> tuple[list[str], list[Record]]:
    lines = csv_records(path)
    header = [name.strip() for name in lines[0].fields] if lines else []
    records = []
    for _, line, values in lines[1:]:
        if len(values) != len(header):
            raise HoldfastError(f"{path}, line {line}: {len(values)} values for {len(header)} columns")
        records.append((line, dict(zip(header, (value.strip() for value in values), strict=True))))
    if not records:
        raise HoldfastError(f"{path}: no data", hint="the first line names the columns, every other line is a run")
    if len(set(header)) < len(header):
        raise HoldfastError(f"{path}: column '{next(n for n in header if header.count(n) > 1)}' appears twice")
    return header, records


def _filtered(records: list[Record], where: str, header: list[str], path: Path) -> list[Record]:
    for part in filter(None, (p.strip() for p in where.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise HoldfastError(f"--where {where}: '{part}' is not column=value")
        if name not in header:
            raise HoldfastError(
                f"--where {where}: {path} has no column '{name}'; columns are {', '.join(header)}", hint=nearest(name, header)
            )
        known = sorted({record[name] for _, record in records})
        records = [(line, record) for line, record in records if record[name] == value]
        if not records:
            raise HoldfastError(
                f"--where {where}: no line has {name} {value}; there are {', '.join(known[:20])}", hint=nearest(value, known)
            )
    return records


def _metric(metric: str, scores: list[str], path: Path) -> str:
    if not scores:
        raise HoldfastError(f"{path}: no column of scores", hint="a score is a column of numbers that is no option of `holdfast tune`")
    if metric and metric not in scores:
        raise HoldfastError(f"{path}: no scores '{metric}'; there are {', '.join(scores)}", hint=nearest(metric, scores))
    if not metric and len(scores) > 1:
        raise HoldfastError(f"{path} holds several scores: {', '.join(scores)}", hint="choose one with --metric")
    return metric or scores[0]


def _runs(records: list[Record], columns: tuple[str, ...], value: str, path: Path) -> list[Run]:
    seen: dict[tuple[object, ...], int] = {}
    runs = []
    for line, record in records:
        place = f"{path}, line {line}"
        weights = [check_weight(_number(record, name, place), name, place) for name in WEIGHTS]
        run = Run(tuple(record[c] for c in columns), (weights[0], weights[1]), record.get(SEED, ""), _number(record, value, place))
        first = seen.setdefault((run.setting, run.cell, run.seed), line)
        if first != line:
            raise HoldfastError(
                f"{place}: weights ({weights[0]:g}, {weights[1]:g}) of this setting stand on line {first} already",
                hint="what tells the two apart needs a column of its own"
                if SEED in record
                else "runs of one setting that differ in their seed need a column 'seed'",
            )
        runs.append(run)
    return runs


def _number(record: dict[str, str], name: str, place: str) -> float:
    try:
        value = float(record[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HoldfastError(f"{place}: {name} is '{record[name]}', not a finite number", hint="leave out the line of a run without a score")
    return value


def _numeric(name: str, records: list[Record]) -> bool:
    """Whether a column is meant as numbers: one of its values is. Another that is not is an error, not a setting."""
    for _, record in records:
        with contextlib.suppress(ValueError):
            float(record[name])
            return True
    return False
