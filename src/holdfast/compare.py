"""Two finished runs -> whether they are comparable, and how their paired values differ. Used by every command that
compares.

    finished(path, command)          the summary and the rows, whole and of one command
    refuse_unlike(a, b, checks)      both measured the same: exit code 3 if not
    paired(a, b)                     mean of b - a over units that both have, interval, p

The wings say what a unit is (a set of prompts, an item), and which values of it are compared.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError, NotComparableError
from holdfast.runs import read_json, read_rows, write_text
from holdfast.stats import paired_difference, sign_test

Row = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished run; ``config`` is what it was told, empty where config.json is absent."""

    path: str
    summary: dict[str, Any]
    rows: list[Row]
    config: dict[str, Any] = field(default_factory=dict)


Checks = Mapping[str, Sequence[str] | Callable[[Finished], Any]]
"""What two runs must agree on: name in the error message -> keys that lead to the value in the summary, or a function
that returns it."""


def finished(path: str, command: str) -> Finished:
    """Read the run directory of a command such as ``sensitivity run``.

    Raises:
        HoldfastError: there is no such run, it is not finished, or one of its files was cut short.
    """
    folder = Path(path)
    summary, config = (_read(folder / name) for name in ("summary.json", "config.json"))
    if summary is None and config is not None and config.get("command") == command:
        raise HoldfastError(f"{path}: this run is not finished", hint="the same command continues it")
    if any(file is not None and file.get("command") != command for file in (summary, config)) or summary is None:
        raise HoldfastError(
            f"{path}: not a {command.removesuffix(' run')} run", hint=f"give the --output of holdfast {command}"
        )
    told = (config or {}).get("config")
    return Finished(path, summary, read_rows(folder / "rows.jsonl"), told if isinstance(told, dict) else {})


def refuse_unlike(a: Finished, b: Finished, checks: Checks) -> None:
    """Raise if the two runs did not measure the same thing.

    Raises:
        NotComparableError: says what differs.
    """
    for what, place in checks.items():
        left, right = (place(run) if callable(place) else value_at(run, place) for run in (a, b))
        if left != right:
            raise NotComparableError(
                f"not comparable: the {what} differ: {_short(left)} in {a.path}, {_short(right)} in {b.path}",
                hint="measure both models with the same sets and the same options",
            )


def value_at(run: Finished, place: Sequence[str]) -> Any:
    """Return the value of a summary that these keys lead to, outermost key first."""
    value: Any = run.summary
    for key in place:
        value = value[key]
    return value


def paired(a: Sequence[float], b: Sequence[float], seed: int, draws: int) -> dict[str, Any]:
    """Return both means, and the mean of b - a with its interval and p-value.

    Where every difference is -1, 0 or 1, p comes from the exact sign test (McNemar), otherwise from random sign flips.

    >>> paired([0, 0, 1, 0], [1, 1, 1, 1], seed=0, draws=100)["p"]
    0.25
    """
    test = paired_difference(a, b, seed, draws)
    changes = np.asarray(b, float) - np.asarray(a, float)
    if np.isin(changes, (-1.0, 0.0, 1.0)).all():
        test["p"] = sign_test(int((changes > 0).sum()), int((changes < 0).sum()))
    return {"a": float(np.mean(a)), "b": float(np.mean(b)), **test}


def is_number(value: Any) -> bool:
    """Whether a value of a row is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # hundreds of digits
        return False


def write_files(output: str, files: Mapping[str, str]) -> None:
    """Write the files of a comparison into --output; ``files`` maps a name to its text.

    Raises:
        HoldfastError: --output is not a folder, or cannot be written.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
    except OSError as error:
        raise HoldfastError(f"cannot write to --output {folder}: {error.strerror}") from error


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _read(file: Path) -> dict[str, Any] | None:
    if not os.path.lexists(file):
        return None
    value = read_json(file)
    if not isinstance(value, dict):
        raise HoldfastError(f"{file}: not a JSON object; the file is damaged")
    return value
