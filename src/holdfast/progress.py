"""What a command says on stderr beside its warnings: how far it is, what it has shown, and what may be done next.

A terminal has one line, which is rewritten in place; a log file gets a line every half minute and one at the end. What
is over before the first line is not spoken of. Nothing here writes to stdout.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from holdfast.errors import redacted
from holdfast.tables.text import counted, duration

Item = TypeVar("Item")

_PATIENCE = 2.0
"""Seconds that pass before anything is said."""
_BETWEEN = {True: 0.2, False: 30.0}
"""Seconds between two lines, on a terminal and elsewhere."""


_NOISE = (
    ".*gradient_checkpointing` is deprecated",  # peft and TRL call transformers by a name that is to change
)
"""Beginnings of warnings, as regular expressions, each with the reason why it is noise."""


class Progress:
    """How much of a long work is done, and about how long the rest will take.

    Args:
        unit: what is counted, in the singular: ``set``.
        total: how many there are to do, as far as is known.
        doing: what is done with them, said in front: ``scoring``.
    """

    def __init__(self, unit: str, total: int = 0, doing: str = "") -> None:
        self.unit, self.total, self.doing = unit, total, f"{doing}: " if doing else ""
        self.stream = sys.stderr  # as it is now: a library may be kept from it later
        self.done = self.skipped = 0
        self.started = self._said = time.perf_counter()
        self._in_place = False
        self._has_spoken = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def expect(self, count: int) -> None:
        """Add to what is expected; less than nothing takes away from it."""
        self.total += count

    def skip(self, count: int) -> None:
        """Count what is there already and takes no time."""
        self.skipped += count

    def add(self, count: int = 1, what: str = "") -> None:
        """Count what has just been done, and say so when it is time to.

        Args:
            what: is said of it in a line of its own, with the count and the time that is left, whatever the time.
        """
        self.done += count
        now = time.perf_counter()
        if what:
            self._said = now
            self.say(f"{self.text()}, {what}{self.left()}")
        elif now - self.started >= _PATIENCE and now - self._said >= _BETWEEN[self.stream.isatty()]:
            self._said = now
            self._write(self.text() + self.left())

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, each of which counts as done when the next one is asked for; ends as ``close`` does."""
        for item in items:
            yield item
            self.add()
        self.close()

    def say(self, line: str) -> None:
        """Print a line of its own; where one is rewritten in place, above that."""
        self._clear()
        print(line, file=self.stream, flush=True)
        if self._has_spoken and self.stream.isatty():
            self._write(self.text() + self.left())

    def text(self) -> str:
        """Return the count: ``scoring: 32 of 100 sets``; ``reading: 32 rows`` where nobody knows how many there are."""
        if not self.total:
            return f"{self.doing}{counted(self.done + self.skipped, self.unit)}"
        return f"{self.doing}{self.done + self.skipped:,} of {counted(self.total, self.unit)}"

    def left(self) -> str:
        """Return the time that is left, ``, about 2 min 10 s left``; nothing in the first two seconds and at the end.

        Work that goes on side by side is not counted apart: what counts is how much was done in the time so far.
        """
        rest = self.total - self.done - self.skipped
        seconds = time.perf_counter() - self.started
        if not self.done or rest <= 0 or seconds < _PATIENCE:
            return ""
        return f", about {duration(float(f'{seconds / self.done * rest:.2g}'))} left"

    def close(self) -> None:
        """Say how much was done, and in what time, if it took long enough to be spoken of."""
        seconds = time.perf_counter() - self.started
        self._clear()
        if self.done and (self._has_spoken or seconds >= _BETWEEN[False]):
            print(f"{self.text()} in {duration(seconds)}", file=self.stream, flush=True)
        self._has_spoken, self.done = False, 0

    def _write(self, text: str) -> None:
        self._clear()
        self._has_spoken = True
        self._in_place = self.stream.isatty()
        print(text, end="" if self._in_place else "\n", file=self.stream, flush=True)

    def _clear(self) -> None:
        if self._in_place:
            print("\r\x1b[K", end="", file=self.stream, flush=True)
        self._in_place = False


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Keep off stderr what libraries warn each other of and no user can change. Every other warning is shown.

    The filters hold while a command of Holdfast runs, and for this process's other warnings they change nothing.
    """
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message, FutureWarning)
        yield


def begin(lines: list[str]) -> None:
    """Say what a command is about to do."""
    print(redacted("\n".join(lines)), file=sys.stderr, flush=True)


def end(finding: str, place: Path, *following: str) -> None:
    """Say what a command has shown, where it lies, and the command line that may come next.

    Args:
        finding: a sentence; none where nothing was compared.
        place: what was written.
        following: the words of the next command line after ``holdfast``; without any, those that make a page.
    """
    following = following or ("report", str(place), "--output", f"{place}.html")
    lines = [finding] if finding else []
    lines += [f"written: {place}", f"next: {shlex.join(['holdfast', *following])}"]
    print(redacted("\n".join(lines)), file=sys.stderr)
