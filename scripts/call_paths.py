"""How far it is from the command line to the three formulas: `python scripts/call_paths.py`, which takes seconds.

Each command is run on tiny inputs. When its formula is first called, the stack is read: every frame that is Holdfast's
own is a function on the path, with the lines of its body (without docstring, comments and blank lines).

    WIT loss          tune             weighted_nll on full logits, weighted_linear_cross_entropy on hidden states
    POSIX             sensitivity run  psi
    cross-task label  crosstask run    label_scores
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import holdfast
from holdfast.cli import main

HOUSE = Path(holdfast.__file__).parent
SOURCES = "pocket:tasks/opposite,pocket:tasks/plural"
TUNE = "tune --model pocket --data pocket:instructions --limit 20 --max-steps 1 --output out"
CROSS_TASK = (
    f"crosstask run --model pocket --sources {SOURCES} --target pocket:tasks/sentiment --limit 2 --pool-limit 4 "
    "--output out"
)
PATHS = {
    "WIT loss": (f"{TUNE} --head plain", "tune/loss.py", "weighted_nll", "compute_loss"),
    "WIT loss, fused": (TUNE, "tune/loss.py", "weighted_linear_cross_entropy", "compute_loss"),
    "POSIX": (
        "sensitivity run --model pocket --sets pocket:intents --limit 2 --max-new-tokens 2 --output out",
        "sensitivity/index.py",
        "psi",
        "measure",
    ),
    "cross-task label score": (CROSS_TASK, "crosstask/predict.py", "label_scores", "transfer"),
}
"""Formula -> command line, the file and name of the function that is the formula, and a function that leads to it: the
loss is also asked for by evaluations, and by the probe of the fused head.
"""


@dataclass(frozen=True)
class Function:
    """A function on the path."""

    file: str
    name: str
    lines: int


def call_path(line: str, file: str, name: str, through: str) -> list[Function]:
    """The functions from the command line to the first call of a formula by way of ``through``, the formula last."""
    path: list[Function] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and not path and (frame.f_code.co_name, own_file(frame.f_code)) == (name, file):
            stack = list(own_functions(frame))
            if any(function.name.endswith(through) for function in stack):
                path.extend(reversed(stack))

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        sys.setprofile(watch)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                code = main(line.split())
        finally:
            sys.setprofile(None)
    if code or not path:
        raise SystemExit(f"{line}: {said.getvalue() or 'the formula was not called'}")
    return path


def own_functions(frame: FrameType | None) -> Iterator[Function]:
    """Our functions that are under way, the innermost first. What Python makes of a comprehension is none."""
    while frame is not None:
        code, file = frame.f_code, own_file(frame.f_code)
        if file and not code.co_name.startswith("<"):
            yield Function(file, code.co_qualname, body_lines(code))
        frame = frame.f_back


def own_file(code: CodeType) -> str:
    """The file of a function in the package; empty for those of others."""
    path = Path(code.co_filename)
    return path.relative_to(HOUSE).as_posix() if path.is_relative_to(HOUSE) else ""


def body_lines(code: CodeType) -> int:
    """Lines of code in a body."""
    function = ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = inspect.getsource(code).splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def figures(path: list[Function]) -> tuple[int, int, int]:
    """Functions, lines of bodies, files."""
    return len(path), sum(function.lines for function in path), len({function.file for function in path})


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for title, place in PATHS.items():
        path = call_path(*place)
        functions, lines, files = figures(path)
        print(f"{title}: {functions} functions, {lines} lines, {files} files")
        for function in path:
            print(f"  {function.lines:4}  {function.file}  {function.name}")
