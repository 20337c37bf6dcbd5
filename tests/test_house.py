"""The house stands: who may import whom, nothing heavy at the door, docstrings everywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

HOUSE = Path(holdfast.__file__).parent
# Rooms from left to right; a room may import those of earlier groups, and itself.
GROUPS = [
    {"errors"},
    {"records", "config", "stats", "tables", "results"},
    {"runs", "pocket"},
    {"data", "http", "cluster", "compare"},
    {"chat"},
    {"lm"},
    {"tune", "sensitivity", "crosstask"},
    {"align", "bench", "integrations"},
    {"study"},
    {"demo", "door"},
    {"cli"},
]
SIDE_ROOM = {"report": {"errors", "records", "config", "tables", "runs"}}
RANK = {room: rank for rank, group in enumerate(GROUPS) for room in group}


def room_of(path: Path) -> str:
    part = path.relative_to(HOUSE).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("holdfast.")} & (RANK.keys() | SIDE_ROOM.keys())


FILES = [p for p in sorted(HOUSE.rglob("*.py")) if p.parent != HOUSE or p.name not in ("__init__.py", "__main__.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_left_never_imports_right(path: Path) -> None:
    room = room_of(path)
    assert room in RANK or room in SIDE_ROOM, f"{room} has no place in the design"
    for other in imports(path) - {room}:
        if room in SIDE_ROOM:
            assert other in SIDE_ROOM[room], f"{room} must not import {other}"
        elif other in SIDE_ROOM:
            assert RANK[room] >= RANK["study"], f"{room} must not import {other}"
        else:
            assert RANK[other] < RANK[room] or GROUPS[RANK[room]] == GROUPS[1], f"{room} must not import {other}"


@pytest.mark.parametrize(
    "door",
    [
        "import holdfast",
        "import holdfast.cli",
        "import holdfast.tune",
        "import holdfast.pocket",
        "import holdfast.report",
    ],
)
def test_nothing_heavy_at_the_door(door: str) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'datasets', 'peft', 'accelerate', 'trl', 'scipy', 'sklearn', 'pandas'}"
    code = f"import sys; {door}; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_help_is_instant_and_light() -> None:
    code = (
        "import sys; from holdfast.cli import main; main(['--help']); main(['--version']);"
        "assert not {'torch', 'transformers', 'tyro'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "holdfast COMMAND" in run.stdout
    assert "tune" in run.stdout


def test_trl_is_not_imported_by_tune() -> None:
    for path in (HOUSE / "tune").rglob("*.py"):
        assert "trl" not in {n.split(".")[0] for n in _all_imports(path)}


READERS = {
    "errors.py": {"json.loads"},  # from_json, on which the others stand
    "runs.py": {"json.loads"},  # what Holdfast itself has written
    "data/read.py": {"csv.reader", "yaml.load", "datasets.load_from_disk", "datasets.load_dataset"},
    "study/pipeline.py": {"json.loads"},  # of json.dumps: a value as it will be found in a file
    "bench/alpaca_driver.py": {
        "json.load",
        "json.loads",
        "yaml.safe_load",
    },  # a script for another environment, without Holdfast
}
"""The files that may parse, and what they may call."""
_PARSERS = {
    "json": {"load", "loads"},
    "csv": {"reader", "DictReader"},
    "yaml": {"load", "safe_load", "full_load", "unsafe_load", "load_all", "safe_load_all"},
    "datasets": {"load_from_disk", "load_dataset"},
}


def test_rows_and_files_are_parsed_in_the_readers_only() -> None:
    for path in HOUSE.rglob("*.py"):
        name, calls = path.relative_to(HOUSE).as_posix(), set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in _PARSERS:
                calls |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name in _PARSERS[node.module]}
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.attr in _PARSERS.get(node.value.id, ())
            ):
                calls.add(f"{node.value.id}.{node.attr}")
        assert calls == READERS.get(name, set()), f"{name}: read through data.read, runs or errors.from_json"


def test_every_module_says_what_comes_in_and_goes_out() -> None:
    for path in HOUSE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def _all_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found
