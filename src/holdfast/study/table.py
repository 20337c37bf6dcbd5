"""A CSV file of results from elsewhere -> the scores of one metric, cell by cell.

The file has a header and one run per line. Semicolons, tabs, decimal commas and percent signs of spreadsheets are read.

    model,data,prompt_weight,response_weight,seed,exact_match,posix        wide: one column per score
    model,data,prompt_weight,response_weight,seed,metric,value             long: one line per score

``prompt_weight`` and ``response_weight`` are needed, ``seed`` is not. In the wide form a column says which setting
(model, data, rank, ...) a run belongs to if it holds text, is a known hyperparameter (``columns.is_setting``), or is
named by the user; other columns of numbers are scores. In the long form every other column is a setting. Weights (0, 0)
are the untuned model.

A column of numbers whose name does not say what it is counts as a score, unless runs of one setting and pair of weights
differ in it: then the user has to say. A run without a score is left out and named.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.data.files import csv_records
from holdfast.data.weights import check_weight
from holdfast.errors import HoldfastError, nearest
from holdfast.study.columns import is_score, is_setting
from holdfast.tables.text import counted

WEIGHTS = ("prompt_weight", "response_weight")
SEED = "seed"
LONG = ("metric", "value")
_NO_SCORE = frozenset(("", "na", "n/a", "#n/a", "-", "--", "none", "null"))
"""Texts that tables hold where a run has no score, beside numbers that are not finite."""

Record = tuple[int, dict[str, str]]  # line number, column -> text


@dataclass(frozen=True)
class TableRun:
    """One score. ``cell`` is (prompt weight, response weight); ``setting`` has the values of the setting columns."""

    setting: tuple[str, ...]
    cell: tuple[float, float]
    seed: str
    value: float


@dataclass(frozen=True)
class ResultTable:
    """The runs of one metric.

    columns: the setting columns that tell lines apart.
    settings: all columns that are read as settings.
    scores: all columns of scores; in the long form all metrics.
    long: whether the table has the long form.
    seeds: whether there is a column of seeds.
    numbered: whether there is a column of row numbers, without a name, which is not read.
    without_score: the runs that are left out: ``line``, ``setting`` (values of ``columns``), ``weights``, whether they
        are ``conventional``, ``seed``, and ``value``, the text in the place of the score.
    """

    columns: tuple[str, ...]
    metric: str
    runs: list[TableRun]
    settings: tuple[str, ...]
    scores: tuple[str, ...]
    long: bool
    seeds: bool
    numbered: bool
    without_score: list[dict[str, Any]]

    @property
    def about(self) -> str:
        """Return one line on what the columns are read as."""
        scores = "scores (in column metric)" if self.long else "scores"
        seeds = "runs of one setting differ in seed" if self.seeds else "no column tells runs of one setting apart"
        unread = "; row numbers (a column without a name) are not read" if self.numbered else ""
        return f"settings: {', '.join(self.settings) or 'none'}; {scores}: {', '.join(self.scores)}; {seeds}{unread}"


def read_table(path: Path, metric: str = "", where: str = "", settings: str = "") -> ResultTable:
    """Return the scores of one metric.

    Args:
        metric: which score; may be left out where there is only one.
        where: ``column=value,...``: only these lines.
        settings: ``column,...``: these are settings, and all other numbers scores; ``none``: there are no further
            settings.

    Raises:
        HoldfastError: no such file, a missing column, a value that is no number, two lines for one run, runs of one
            setting that differ in a number which may be a setting, an unknown metric, filter or column.
    """
    header, records = _read(path)
    for name in WEIGHTS:
        if name not in header:
            raise HoldfastError(
                f"{path}: no column '{name}'; columns are {', '.join(header)}", hint=nearest(name, header)
            )
    long = all(name in header for name in LONG)
    numbered = "" in header and len({record[""] for _, record in records}) == len(records)  # as pandas numbers rows
    records = _filtered(records, where, header, path)
    read = [name for name in header if name or not numbered]
    others = [name for name in read if name not in (*WEIGHTS, SEED, *(LONG if long else ()))]
    told = _named_settings(settings, others, path)
    numeric = [] if long else [n for n in others if n not in told and _scored(n, metric, records)]
    scores = sorted({record["metric"] for _, record in records}) if long else numeric
    metric = _metric(metric, scores, path, told)
    kept = [(line, record) for line, record in records if not long or record["metric"] == metric]
    column = "value" if long else metric
    named = tuple(name for name in others if long or name not in scores)
    kept = _one_spelling(kept, (*named, SEED))
    varied = tuple(name for name in named if len({record[name] for _, record in kept}) > 1)
    scored = [(line, record) for line, record in kept if not _missing(record[column])]
    if not scored:
        raise HoldfastError(f"{path}: no line has a score in '{metric}'", hint="a score is a finite number")
    unclear = () if long or settings else tuple(name for name in scores if name != metric and not is_score(name))
    runs = _runs(scored, varied, column, path, unclear)
    lost = [_without_score(line, record, varied, column) for line, record in kept if _missing(record[column])]
    return ResultTable(varied, metric, runs, named, tuple(scores), long, SEED in header, numbered, lost)


def _named_settings(settings: str, others: list[str], path: Path) -> set[str]:
    """Return the columns that the user has named as settings."""
    names = [name.strip() for name in settings.split(",") if name.strip()]
    if names == ["none"] and "none" not in others:
        return set()
    for name in names:
        if name in (*WEIGHTS, SEED):
            raise HoldfastError(
                f"--settings {settings}: {name} has a meaning of its own", hint="name columns that tell settings apart"
            )
        if name not in others:
            columns = ", ".join(others) or "none"
            raise HoldfastError(
                f"--settings {settings}: {path} has no column '{name}' to be one; there are {columns}",
                hint=nearest(name, others),
            )
    return set(names)


def _read(path: Path) -> tuple[list[str], list[Record]]:
    lines, delimiter = csv_records(path)
    header = _plain_names([name.strip() for name in lines[0].fields]) if lines else []
    records = []
    for _, line, values in lines[1:]:
        if len(values) != len(header):
            raise HoldfastError(
                f"{path}, line {line}: {counted(len(values), 'value')} for {counted(len(header), 'column')}"
            )
        records.append((line, dict(zip(header, (_dotted(value.strip(), delimiter) for value in values), strict=True))))
    if not records:
        raise HoldfastError(f"{path}: no data", hint="the first line names the columns, every other line is a run")
    if header.count("") == 1 and not any(record[""] for _, record in records):  # a comma at the end of every line
        header.remove("")
    if len(set(header)) < len(header):
        raise HoldfastError(f"{path}: column '{next(n for n in header if header.count(n) > 1)}' appears twice")
    units: dict[tuple[str, str], list[Record]] = {}  # in the long form every metric may have its own
    for name in header:
        for record in records:
            units.setdefault((name, record[1].get("metric", "") if name == "value" else ""), []).append(record)
    for (name, _), alike in units.items():
        _take_percent(name, alike, path)
    return header, records


def _plain_names(header: list[str]) -> list[str]:
    """Return the header with ``Prompt Weight`` as ``prompt_weight`` and ``Seed`` or ``random_seed`` as ``seed``, unless
    there is a column of that very name, too."""
    names = {name: "_".join(re.findall(r"[a-z0-9]+", name.lower())) for name in header}
    names = {name: SEED if plain == f"random_{SEED}" else plain for name, plain in names.items()}
    return [
        names[name] if names[name] in (*WEIGHTS, SEED, *LONG) and names[name] not in header else name for name in header
    ]


def _dotted(text: str, delimiter: str) -> str:
    """Return a number with a decimal comma as one with a point. Where commas separate values, text stays as it is."""
    return text.replace(",", ".") if delimiter != "," and re.fullmatch(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?", text) else text


def _take_percent(name: str, records: list[Record], path: Path) -> None:
    """Take the percent signs off a column of numbers. Signs on some numbers only would be two units in one column."""
    signed = [
        (line, record)
        for line, record in records
        if isinstance(_spelling(record[name].removesuffix("%").strip()), float)
    ]
    bare = [line for line, record in signed if not record[name].endswith("%")]
    if bare and len(bare) < len(signed):
        message = f"{path}, line {bare[0]}: '{name}' is in percent on some lines only, and not on this one"
        raise HoldfastError(message, hint="write all of its numbers in one unit")
    for _, record in signed if not bare else ():
        record[name] = record[name].removesuffix("%").strip()


def _filtered(records: list[Record], where: str, header: list[str], path: Path) -> list[Record]:
    for part in filter(None, (p.strip() for p in where.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise HoldfastError(f"--where {where}: '{part}' is not column=value")
        if name not in header:
            raise HoldfastError(
                f"--where {where}: {path} has no column '{name}'; columns are {', '.join(header)}",
                hint=nearest(name, header),
            )
        values = sorted({record[name] for _, record in records})
        records = [(line, record) for line, record in records if record[name] == value]
        if not records:
            raise HoldfastError(
                f"--where {where}: no line has {name} {value}; there are {', '.join(values[:20])}",
                hint=nearest(value, values),
            )
    return records


def _metric(metric: str, scores: list[str], path: Path, told: set[str]) -> str:
    listed = ", ".join(scores)
    for refused, message, hint in (
        (
            metric in told,
            f"--metric {metric}: --settings says that it is a setting",
            "leave it out of one of the two",
        ),
        (
            not scores,
            f"{path}: no column of scores",
            "a score is a column of numbers that is no known hyperparameter, or that --metric names",
        ),
        (metric and metric not in scores, f"{path}: no scores '{metric}'; there are {listed}", nearest(metric, scores)),
        (
            not metric and len(scores) > 1,
            f"{path} holds several scores: {listed}",
            "choose one with --metric; --settings names those that are none",
        ),
    ):
        if refused:
            raise HoldfastError(message, hint=hint)
    return metric or scores[0]


def _runs(
    records: list[Record], columns: tuple[str, ...], value: str, path: Path, unclear: tuple[str, ...]
) -> list[TableRun]:
    first_of: dict[tuple[object, ...], int] = {}
    runs = []
    for line, record in records:
        place = f"{path}, line {line}"
        weights = [check_weight(_number(record, name, place), name, place) for name in WEIGHTS]
        run = TableRun(
            tuple(record[c] for c in columns),
            (weights[0], weights[1]),
            record.get(SEED, ""),
            _number(record, value, place),
        )
        runs.append(run)
    _check_alike(records, runs, unclear, path)
    for (line, record), run in zip(records, runs, strict=True):
        first = first_of.setdefault((run.setting, run.cell, run.seed), line)
        if first != line:
            raise HoldfastError(
                f"{path}, line {line}: weights ({run.cell[0]:g}, {run.cell[1]:g}) of this setting stand on line "
                f"{first} already",
                hint="what tells the two apart needs a column of its own"
                if SEED in record
                else "runs of one setting that differ in their seed need a column 'seed'",
            )
    return runs


def _check_alike(records: list[Record], runs: list[TableRun], unclear: tuple[str, ...], path: Path) -> None:
    """Refuse runs that would be pooled although they differ in a number that may be a setting."""
    for name in unclear:
        first_of: dict[tuple[object, ...], tuple[int, str]] = {}
        for (line, record), run in zip(records, runs, strict=True):
            first, value = first_of.setdefault((run.setting, run.cell), (line, record[name]))
            if _spelling(value) != _spelling(record[name]):
                raise HoldfastError(
                    f"{path}, line {line}: '{name}' is '{record[name]}', but '{value}' on line {first}, which has the "
                    "same weights and "
                    "setting: a setting or a score?",
                    hint=f"--settings {name} if such runs are unlike; if it is a score, --settings with the numbers "
                    "that are none, or "
                    "--settings none",
                )


def _without_score(line: int, record: dict[str, str], columns: tuple[str, ...], value: str) -> dict[str, Any]:
    prompt, response = (_spelling(record[name]) for name in WEIGHTS)
    pair = ", ".join(f"{w:g}" if isinstance(w, float) else w for w in (prompt, response))
    return {
        "line": line,
        "setting": " ".join(record[c] for c in columns),
        "weights": f"({pair})",
        "conventional": prompt == 0 and response != 0,
        "seed": record.get(SEED, ""),
        "value": record[value],
    }


def _number(record: dict[str, str], name: str, place: str) -> float:
    value = _spelling(record[name])
    if not isinstance(value, float):
        raise HoldfastError(
            f"{place}: {name} is '{record[name]}', not a finite number",
            hint="where a run has no score, leave its cell empty or write nan",
        )
    return value


def _missing(text: str) -> bool:
    """Return whether a text says that there is no score."""
    if text.lower() in _NO_SCORE:
        return True
    with contextlib.suppress(ValueError):
        return not math.isfinite(float(text))
    return False


def _spelling(text: str) -> float | str:
    """Return a finite number as such, so that 1e-4 equals 0.0001, and other text as it is."""
    with contextlib.suppress(ValueError):
        if "_" not in text and math.isfinite(value := float(text)):  # Python reads 1_0 as 10
            return value
    return text


def _one_spelling(records: list[Record], names: tuple[str, ...]) -> list[Record]:
    """Return the records with equal numbers of a setting written as the first of them, so that they are one setting."""
    first: dict[tuple[str, float | str], str] = {}
    alike = []
    for line, record in records:
        texts = {name: record[name] for name in names if name in record}
        alike.append(
            (line, record | {name: first.setdefault((name, _spelling(text)), text) for name, text in texts.items()})
        )
    return alike


def _scored(name: str, metric: str, records: list[Record]) -> bool:
    """Return whether a column is meant as scores: it has a number, and is no known hyperparameter or is the metric that
    is asked for. Other text in such a column is an error later, and does not make it a setting."""
    values = [record[name] for _, record in records]
    if name == metric and all(map(_missing, values)):
        return True
    return (name == metric or not is_setting(name)) and any(isinstance(_spelling(value), float) for value in values)
