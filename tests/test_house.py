"""The house stands: who may import whom, nothing heavy at the door, docstrings everywhere, words, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

HOUSE = Path(holdfast.__file__).parent
TESTS = Path(__file__).parent
# Rooms from left to right; a room may import those of earlier groups, and itself.
GROUPS = [
    {"errors"},
    {"records", "config", "stats", "tables", "results", "progress"},
    {"runs", "pocket"},
    {"data", "http", "cluster", "compare"},
    {"chat"},
    {"lm"},
    {"tune", "sensitivity", "crosstask"},
    {"align", "bench", "audit", "integrations"},
    {"study"},
    {"demo", "door"},
    {"cli"},
]
SIDE_ROOM = {"report": {"errors", "records", "config", "tables", "runs"}}
RANK = {room: rank for rank, group in enumerate(GROUPS) for room in group}


def room_of(path: Path) -> str:
    part = path.relative_to(HOUSE).parts[0]
    return part.removesuffix(".py")


def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(path: Path) -> set[str]:
    """Modules, and names of modules, that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, anywhere in it."""
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("holdfast.")}
    return rooms & (RANK.keys() | SIDE_ROOM.keys())


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
        assert "trl" not in {n.split(".")[0] for n in imported(path)}


READERS = {
    "errors.py": {"json.loads"},  # from_json, on which the others stand
    "runs.py": {"json.loads"},  # what Holdfast itself has written
    "data/files.py": {"csv.reader"},
    "data/read.py": {"yaml.load", "datasets.load_from_disk", "datasets.load_dataset"},
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
        for node in nodes(path):
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


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count. An ``__init__`` is left out: it hands on names of its room."""
    modules = {
        "holdfast." + path.relative_to(HOUSE).with_suffix("").as_posix().replace("/", "."): path
        for path in HOUSE.rglob("*.py")
        if path.name != "__init__.py"
    }
    waiting = {name: imported(path) & modules.keys() for name, path in modules.items()}
    while free := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert not waiting, {name: sorted(needs & waiting.keys()) for name, needs in waiting.items()}


def test_no_class_name_stands_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in HOUSE.rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(path.relative_to(HOUSE).as_posix())
    assert not {name: places for name, places in homes.items() if len(places) > 1}


SMALL = {
    "__main__.py": "what `python -m holdfast` runs",
    "bench/alpaca_driver.py": "a script for the interpreter of another environment",
    "config/align.py": "each command's options have a file of their own",
    "config/audit.py": "each command's options have a file of their own",
    "config/legacy.py": "a table that grows by a line with every option",
    "data/joint.py": "what the reader of columns, the templates and the adapter of TRL all ask",
    "sensitivity/identity.py": "digests that the local scorer, the served one and bench all need",
    "tables/audit.py": "each wing's tables have a file of their own",
    "tables/bench.py": "each wing's tables have a file of their own",
    "tables/tune.py": "each wing's tables have a file of their own",
}
"""Files under 60 lines, and why they are files. An ``__init__`` needs no reason."""


def test_a_small_file_has_a_reason() -> None:
    paths = [path for path in HOUSE.rglob("*.py") if path.name != "__init__.py"]
    small = {str(path.relative_to(HOUSE)) for path in paths if len(path.read_text(encoding="utf-8").splitlines()) < 60}
    assert small <= SMALL.keys(), small - SMALL.keys()


NO_NAMES = {"found", "made", "known", "given", "shown"}


def test_a_variable_is_named_for_what_it_holds() -> None:
    """Of variables, fields, arguments and attributes that are set."""
    places = []
    for path in HOUSE.rglob("*.py"):
        for node in nodes(path):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                    places += [f"{path.relative_to(HOUSE)}:{node.lineno} {name}"] if name in NO_NAMES else []
    assert not places


def test_lines_have_at_most_120_columns() -> None:
    wide = []
    for path in [*HOUSE.rglob("*.py"), *TESTS.rglob("*.py")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > 120:
                wide.append(f"{path.name}:{number}")
    assert not wide


def test_few_comprehensions_are_nested_or_have_several_generators() -> None:
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    nested, several = [], []
    for path in HOUSE.rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, comprehensions):
                place = f"{path.relative_to(HOUSE)}:{node.lineno}"
                if sum(isinstance(part, comprehensions) for part in ast.walk(node)) > 1:
                    nested.append(place)
                if len(node.generators) > 1:
                    several.append(place)
    assert len(nested) <= 20, nested
    assert len(several) <= 20, several
