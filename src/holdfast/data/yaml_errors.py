"""What is wrong with a YAML file, in words: the line, a pointer, and the cure.

PyYAML's error and the text -> a ``HoldfastError``. PyYAML names the place where it gave up; the mistake often stands
before it (a quote that is never closed, a space that is missing behind a colon).
"""

from __future__ import annotations

import re
from typing import Any

from holdfast.errors import HoldfastError

_NO_SPACE = re.compile(r"\s*(?:- )?([\w.-]+):([^\s:/\\].*)")
_OPENED = {"while parsing a flow sequence": ("[", "]"), "while parsing a flow mapping": ("{", "}")}


def broken_yaml(text: str, place: str, error: Any) -> HoldfastError:
    """Return the error for a ``yaml.MarkedYAMLError``.

    Args:
        text: what was read.
        place: what the file is called in errors.
    """
    lines = [*text.splitlines(), ""]
    row, column, what, cure = _explained(lines, error)
    if row is None:
        return HoldfastError(f"{place}: broken YAML: {what}", hint=cure)
    line = lines[row][:200]
    pointer = f"\n    {line.expandtabs(1)}\n    {' ' * column}^" if column <= len(line) <= 199 else ""
    return HoldfastError(f"{place}, line {row + 1}, column {column + 1}: broken YAML: {what}{pointer}", hint=cure)


def options_hint(content: Any) -> str:
    """Return how a file must look that holds something else than ``option: value`` lines."""
    if isinstance(content, list):
        return "leave out the '- ' before each line: option: value"
    match = _NO_SPACE.fullmatch(content) if isinstance(content, str) else None
    return f"a space belongs behind the colon: '{match[1]}: {match[2]}'" if match else "write option: value"


def _explained(lines: list[str], error: Any) -> tuple[int | None, int, str, str | None]:
    """Return line and column, both from 0, of a mistake, what it is, and what to do."""
    problem, context = error.problem or error.context or "", error.context or ""
    mark, opened = error.problem_mark, error.context_mark
    if mark is None:
        return None, 0, problem, None
    at = mark.line, mark.column
    if "expected ':'" in problem or "mapping values" in problem:
        for row in range(mark.line, max(mark.line - 2, -1), -1):
            match = _NO_SPACE.fullmatch(lines[row])
            if match:
                return row, match.start(2), "no space behind the colon", f"write '{match[1]}: {match[2]}'"
    if "'\\t'" in problem:
        return *at, "a tab", "indent with spaces; YAML takes no tabs"
    if "quoted scalar" in context and opened and "end of stream" in problem:
        quote = lines[opened.line][opened.column : opened.column + 1]
        return opened.line, opened.column, f"the quote {quote} is never closed", f"close it with {quote}"
    if context in _OPENED and opened:
        begin, end = _OPENED[context]
        return opened.line, opened.column, f"the bracket {begin} is not closed with {end}", f"close it with {end}"
    if "is there twice" in problem:
        return *at, problem, "keep one of the two lines"
    if "expected ':'" in problem and opened:
        word = lines[opened.line].strip()
        return opened.line, opened.column, f"no colon behind '{word[:60]}'", f"write '{word[:60]}: VALUE'"
    if "mapping values" in problem and re.search(r":\s.*:(\s|$)", lines[mark.line]):
        return *at, "a second colon in one line", "put the value into quotes, or what it holds on lines of its own"
    if "mapping values" in problem or "block end" in problem:
        return *at, "the line does not begin where its neighbours do", "lines of one level begin in the same column"
    if "cannot start any token" in problem or "undefined alias" in problem:
        return *at, problem, "put the value into quotes"
    if "escape" in problem:
        return *at, problem, "single quotes leave a backslash as it is"
    return *at, problem, None
