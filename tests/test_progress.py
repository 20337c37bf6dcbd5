"""One line with the time that is left: rewritten on a terminal, now and then in a log, never on stdout."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import progress
from holdfast.progress import Progress


class Clock:
    """Stands in for the module ``time``."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def work(clock: Clock, seconds: float, count: int = 100) -> None:
    with Progress("set", count, doing="scoring") as line:
        for _ in range(count):
            clock.now += seconds
            line.add()


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    work(clock, 1.0)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "scoring: 30 of 100 sets, about 1 min 10 s left",
        "scoring: 60 of 100 sets, about 40 s left",
        "scoring: 90 of 100 sets, about 10 s left",
        "scoring: 100 of 100 sets in 1 min 40 s",
    ]


def test_what_is_short_is_not_spoken_of(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 0.01)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line_and_what_is_said_stands_above_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    line = Progress("step", 1)
    line.expect(2)
    clock.now = 4.0
    line.add()
    line.say("note: something")
    clock.now = 8.0
    line.add()
    line.close()
    wiped = "\r\x1b[K"
    first = "1 of 3 steps, about 8 s left"
    assert stream.getvalue() == (
        f"{first}{wiped}note: something\n{first}{wiped}2 of 3 steps, about 4 s left{wiped}2 of 3 steps in 8 s\n"
    )


def test_where_nobody_knows_how_many_there_are_it_counts(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[int]:
        for row in range(3):
            clock.now += 20.0
            yield row

    assert list(Progress("row", doing="reading a.jsonl").each(rows())) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines() == ["reading a.jsonl: 2 rows", "reading a.jsonl: 3 rows in 1 min 00 s"]


def test_what_is_there_already_takes_no_time(clock: Clock) -> None:
    line = Progress("trial", 10)
    line.skip(6)
    clock.now = 20.0
    line.add()
    assert line.text() + line.left() == "7 of 10 trials, about 1 min 00 s left"


def test_the_end_says_what_where_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    progress.end("nothing changed", Path("runs/my run"))
    progress.end("", Path("studies/a"), "study", "best", "studies/a")
    assert capsys.readouterr().err.splitlines() == [
        "nothing changed",
        "written: runs/my run",
        "next: holdfast report 'runs/my run' --output 'runs/my run.html'",
        "written: studies/a",
        "next: holdfast study best studies/a",
    ]
