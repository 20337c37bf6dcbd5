"""The code blocks of README and docs: found, run, and their printed output compared.

A comment in front of a block says what is done with it:

    <!-- run -->          commands (`$ ...`, below each what it prints) or Python; run by the default tests
    <!-- run full -->     the same, by `make test-full` alone, because it takes minutes
    <!-- real-model -->   the same, with SmolLM2-135M-Instruct in the folder that HOLDFAST_REAL_MODEL names
    <!-- server -->       the same, behind a server that the test starts
    <!-- file NAME -->    the block is written to NAME, for the commands after it
    <!-- show: WHY -->    not run

Blocks of a page share a folder and a Python namespace, in the order of the page. A line `...` in an output stands for
any lines. Numbers are compared with a tolerance; times, dates and sizes of memory, not at all.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

KINDS = ("run", "run full", "real-model", "server", "file", "show")
HOME = "/home/you/holdfast"
"""What stands in the docs for the folder in which the commands were run."""
_MARK = re.compile(r"<!-- (run full|run|real-model|server|file|show)(?::? (.+?))? -->")
_NUMBER = re.compile(r"(?<![A-Za-z_])[-+\u2212]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_UNSTEADY = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ][\d:.+]+)?|\d+:\d\d(?::\d\d)?|"
    r"[\d.,]+ ?(?:ms|s|sec|seconds?|min|minutes?|h|hours?|tokens/s|rows/s|[kMG]i?B|bytes)\b(?:/s)?"
)


@dataclass
class Block:
    """A fenced block: its place in the page (1-based lines of the fences), language, mark and content."""

    page: Path
    first: int
    last: int
    language: str
    kind: str
    argument: str
    lines: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Return file and line."""
        return f"{self.page.name}:{self.first}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order. A block without a mark has the kind ''."""
    result: list[Block] = []
    mark: tuple[str, str] = ("", "")
    current: Block | None = None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if current is not None:
            if line.strip() == "```":
                current.last = number
                result.append(current)
                current, mark = None, ("", "")
            else:
                current.lines.append(line)
        elif line.startswith("```"):
            current = Block(page, number, number, line.strip("`").strip(), *mark)
        elif line.startswith("    ") and number > 1 and not lines[number - 2].strip() and not _in_list(lines, number):
            result.append(Block(page, number, number, "", "", "", [line]))  # indented code cannot be marked
        elif match := _MARK.fullmatch(line.strip()):
            mark = (match[1], match[2] or "")
        elif line.strip():
            mark = ("", "")
    return result


def _in_list(lines: list[str], number: int) -> bool:
    """Return whether an indented line goes on with an item of a list, or with an admonition."""
    for line in reversed(lines[: number - 1]):
        if line.strip() and not line.startswith("    "):
            return bool(re.match(r"\s*([-*+]|\d+\.|!!!|\?\?\?|===)\s", line))
    return False


class Page:
    """Runs the blocks of a page in one folder and one Python namespace."""

    def __init__(self, folder: Path, replaced: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.replaced = replaced or {}
        """Text of the page, such as a server's address -> what stands there in the commands that are run."""
        self.names: dict[str, Any] = {}

    def run(self, block: Block) -> list[str]:
        """Return the lines of the block as they should be: those that are typed, and below them what is printed.

        Where the block shows less, with `...`, the whole is returned.
        """
        if block.kind == "file":
            path = self.folder / block.argument
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(block.lines) + "\n", encoding="utf-8")
            return block.lines
        with _inside(self.folder):
            if block.language == "python":
                return self._python(block)
            result: list[str] = []
            for command, output in entries(block.lines, "$ "):
                printed, code = _command(self._put(_joined(command)))
                assert output or not code, f"{block.where}: {command[0]} ends with {code}\n{printed}"
                result += command
                result += self._printed(printed)
            return result

    def _python(self, block: Block) -> list[str]:
        if not any(line.startswith(">>> ") for line in block.lines):
            exec(compile("\n".join(block.lines), block.where, "exec"), self.names)
            return block.lines
        result: list[str] = []
        for typed, _ in entries(block.lines, ">>> "):
            source = "\n".join(line[4:] for line in typed)
            result += typed
            call = partial(exec, compile(source + "\n", block.where, "single"), self.names)
            result += self._printed(_captured(call, log=False)[0])
        return result

    def _put(self, command: str) -> str:
        for shown, real in self.replaced.items():
            command = command.replace(shown, real)
        return command

    def _printed(self, text: str) -> list[str]:
        for shown, real in self.replaced.items():
            text = text.replace(real, shown)
        text = text.replace(str(self.folder.resolve()), HOME).replace(str(self.folder), HOME)
        return [line.rstrip() for line in text.rstrip().splitlines()]


def entries(lines: list[str], prompt: str) -> list[tuple[list[str], list[str]]]:
    """Split a block into what is typed (lines that go on end in `\\` or begin with `... `) and what is printed."""
    result: list[tuple[list[str], list[str]]] = []
    for line in lines:
        typed = result[-1][0] if result else []
        goes_on = bool(typed) and not result[-1][1] and (typed[-1].endswith("\\") or _continues(line, prompt))
        if line.startswith(prompt):
            result.append(([line], []))
        elif goes_on:
            typed.append(line)
        elif result:
            result[-1][1].append(line)
    return result


def _continues(line: str, prompt: str) -> bool:
    return prompt == ">>> " and (line.startswith("... ") or line == "...")


def _joined(command: list[str]) -> str:
    text = " ".join(line.removeprefix("$ ").rstrip("\\").strip() for line in command)
    return text


def _command(command: str) -> tuple[str, int]:
    """Return what a command prints on both streams, and its exit code. `holdfast` runs in this process, which has
    imported torch.
    """
    words = shlex.split(command, comments=True)
    if words[0] == "holdfast" and not re.search(r"[|><;&`$]", command):
        from holdfast.cli import main

        return _captured(lambda: main(words[1:]))
    source = Path(__file__).resolve().parents[2] / "src"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(source)}
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout, done.returncode


def _captured(call: Callable[[], Any], *, log: bool = True) -> tuple[str, int]:
    """Return what is printed on stdout, and on stderr where the log counts: of Python it does not, as in a doctest."""
    stream, code = io.StringIO(), 0
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream if log else io.StringIO()):
        try:
            code = call() or 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception:
            stream.write(traceback.format_exc())
    return stream.getvalue(), code


@contextlib.contextmanager
def _inside(folder: Path) -> Any:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def differences(block: Block, actual: list[str]) -> str:
    """Return '' if a block shows what is printed, else where the two part."""
    if block.kind in ("file", "show"):
        return ""
    prompt = ">>> " if block.language == "python" else "$ "
    printed = {tuple(typed): lines for typed, lines in entries(actual, prompt)}
    for typed, expected in entries(block.lines, prompt):
        got = printed.get(tuple(typed), [])
        if not expected and prompt == "$ ":
            continue  # only the command is shown
        if not _fits([line for line in expected if line.strip()], [line for line in got if line.strip()]):
            return "\n".join([f"{block.where}: {typed[0]}", "the page shows", *expected, "printed is", *got])
    return ""


def _fits(expected: list[str], actual: list[str]) -> bool:
    if not expected:
        return not actual
    if expected[0].strip() == "...":
        return any(_fits(expected[1:], actual[start:]) for start in range(len(actual) + 1))
    return bool(actual) and same_line(expected[0], actual[0]) and _fits(expected[1:], actual[1:])


def same_line(expected: str, actual: str) -> bool:
    """Return whether two lines say the same: equal words; numbers within 10 % or three units of the last digit."""
    left, right = _UNSTEADY.sub("TIME", expected), _UNSTEADY.sub("TIME", actual)
    if " ".join(_NUMBER.sub("0", left).split()) != " ".join(_NUMBER.sub("0", right).split()):
        return False
    return all(_near(a, b) for a, b in zip(_NUMBER.findall(left), _NUMBER.findall(right), strict=True))


def _near(expected: str, actual: str) -> bool:
    digits = expected.partition(".")[2].partition("e")[0]
    a, b = (float(text.replace(",", "").replace("\u2212", "-")) for text in (expected, actual))
    unit = 10.0 ** -len(digits) if digits else 0.0
    return abs(a - b) <= max(0.1 * abs(a), 3 * unit)


def updated(page: Path, results: dict[int, list[str]], *, fill: bool = False) -> str:
    """Return the text of a page with the outputs of its blocks (by first line) replaced by what is printed now.

    An output that still fits is left as it is. ``fill`` writes outputs under commands that show none, too.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in reversed(blocks(page)):
        if block.first in results and (fill or differences(block, results[block.first])):
            lines[block.first : block.last - 1] = results[block.first]
    return "\n".join(lines) + "\n"
