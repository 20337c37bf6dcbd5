"""What the golden tests and ``scripts/make_golden.py`` have in common: how a command is asked for its config or run,
and what two runs must share. ``parse``, ``call`` and ``options`` alone know by which door Holdfast is entered: a new
house changes nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import holdfast
from holdfast import cli

HOME = Path(__file__).parents[1] / "golden"
LINES = HOME / "command_lines"
NUMBERS = HOME / "numbers"
RUNS = HOME / "runs"
INPUTS = HOME / "inputs"
SHARED = HOME.parents[2] / "shared"

RELATIVE, ABSOLUTE = 1e-5, 1e-5
"""How far a number may be from the recorded one. Log-probs are sums in float32, which another processor adds up in
another
order: between SSE4 and AVX-512 the runs recorded here differ by up to 7e-6 in what an untrained model says, and by as
much after their few small steps. A changed formula, seed or order of examples changes the first four digits. The
absolute part is for differences of such numbers, which have fewer digits than they."""


@dataclass(frozen=True)
class Answer:
    """What a command line led to. ``config`` is None where it led to no command."""

    exit_code: int
    out: str
    err: str
    config: dict[str, Any] | None = None


_caught: list[Any] = []


def catch(config: Any) -> dict[str, Any]:
    """Stands in for every command: keeps the config and does nothing."""
    _caught.append(config)
    return {}


def parse(line: str) -> Answer:
    """The config that a command line gives its command, as JSON values; nothing is run."""
    table = {name: (config_class, f"{__name__}:catch") for name, (config_class, _) in cli.COMMANDS.items()}
    _caught.clear()
    with mock.patch.object(cli, "COMMANDS", table):
        answer = call(line)
    config = json.loads(json.dumps(dataclasses.asdict(_caught[0]))) if _caught else None
    return dataclasses.replace(answer, config=config)


def call(line: str) -> Answer:
    """Run a command line (without the word ``holdfast``) in this process and in the current directory."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = cli.main(shlex.split(line))
        except SystemExit as error:  # how errors of arguments and --help leave
            code = int(error.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


def options() -> Iterator[tuple[str, type]]:
    """Every command and its config class."""
    for name, (config_class, _) in cli.COMMANDS.items():
        yield name, config_class


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Files that a command line names, such as its --config."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def differences(recorded: Any, now: Any, place: str = "") -> list[str]:
    """Where ``now`` is not what was recorded. Keys may have been added to objects; nothing may be lost or have
    changed.
    """
    if isinstance(recorded, dict) and isinstance(now, dict):
        lost = [f"{place}/{key} is gone" for key in recorded.keys() - now.keys()]
        for key in recorded.keys() & now.keys():
            lost += differences(recorded[key], now[key], f"{place}/{key}")
        return sorted(lost)
    if isinstance(recorded, list) and isinstance(now, list):
        if len(recorded) != len(now):
            return [f"{place}: {len(now)} items, recorded were {len(recorded)}"]
        lost = []
        for number, (old, new) in enumerate(zip(recorded, now)):
            lost += differences(old, new, f"{place}/{number}")
        return lost
    return [] if _same(recorded, now) else [f"{place} is {now!r}, recorded was {recorded!r}"]


def _same(recorded: Any, now: Any) -> bool:
    """A whole number may have become a float, and the other way round; a truth value may not have become a number."""
    if isinstance(recorded, bool) or isinstance(now, bool) or not isinstance(recorded, int | float):
        return type(recorded) is type(now) and recorded == now
    return isinstance(now, int | float) and math.isclose(recorded, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


# What no two runs share, or two machines: places, sizes on disk, versions, digests of trained weights, the noise of an
# audit. Costs may fall; a study may keep tokens and scores per item under another name.
_VOLATILE = {
    "cost",
    "audit",
    "version",
    "harness",
    "model_path",
    "data_path",
    "labels_path",
    "path",
    "files",
    "bytes",
    "model_sha",
    "way",
}


def stable(value: Any) -> Any:
    """A summary or row without what no two runs, or two machines, share."""
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if not _volatile(key, item)}
    return [stable(item) for item in value] if isinstance(value, list) else value


def _volatile(key: str, item: Any) -> bool:
    digest = key == "weights" and isinstance(item, str)
    cached = (key == "source" and re.fullmatch("[0-9a-f]{12}", str(item))) or (
        key == "items" and isinstance(item, dict)
    )
    return bool(digest or cached) or key in _VOLATILE or key.endswith(("seconds", "per_second"))


def read_rows(file: Path) -> list[Any]:
    """The rows of a run directory; none where a command leaves none."""
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    return [json.loads(line) for line in lines if line]


def prepare(folder: Path, *, runs: bool = False) -> None:
    """Go to a folder in which short runs find what they read, with ``runs`` also the committed run directories. One
    thread: the order in which numbers are added up counts."""
    import torch

    torch.set_num_threads(1)
    shutil.copytree(INPUTS, folder / "inputs")
    if runs:
        shutil.copytree(RUNS, folder / "runs")
    if SHARED.is_dir():
        (folder / "stories260k").symlink_to(SHARED / "models" / "stories260k")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(
        Path(holdfast.__file__).parents[1]
    )  # of the processes that a study starts: this very code


def perform(line: str) -> dict[str, Any]:
    """Run a command line in the current directory: exit code, and without what no two runs share its summary and its
    rows.
    """
    answer = call(f"{line} --json")
    words = shlex.split(line)
    output = Path(words[words.index("--output") + 1]) if "--output" in words else None
    made: dict[str, Any] = {"exit_code": answer.exit_code}
    if not answer.out:
        return made | {"error": answer.err}
    made["summary"] = stable(json.loads(answer.out))
    rows = stable(read_rows(output / "rows.jsonl")) if output else []
    return made | ({"rows": rows} if rows else {})


def dump(value: Any) -> str:
    """How golden data is written: sorted and one value a line, for people and for diffs."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
