"""The progress of a study on stderr: one live table on a terminal, else a line per trial."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

from holdfast.study.jobs import Job, Row
from holdfast.tables.text import duration

_SHOWN = 8


class Progress:
    """How many trials have ended, which run, the last results, and the time that is left."""

    def __init__(self, metric: str) -> None:
        self.metric, self.slots, self.total = metric, 1, 0
        self.done = self.failed = self.skipped = 0
        self.running: dict[str, float] = {}
        self.recent: deque[tuple[str, str, str]] = deque(maxlen=_SHOWN)
        self._seconds: list[float] = []
        self._live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), get_renderable=self._table, refresh_per_second=2)
            self._live.start()

    def expect(self, count: int) -> None:
        """Add jobs to those that are expected."""
        self.total += count

    def already_there(self, count: int) -> None:
        """Count the jobs whose rows are on disk already."""
        self.skipped += count
        if count and self._live is None:
            print(f"{count} of {self.total} {'is' if count == 1 else 'are'} there already", file=sys.stderr)

    def started(self, job: Job) -> None:
        """Note that a job has begun."""
        self.running[job.name] = time.monotonic()

    def ended(self, job: Job, row: Row) -> None:
        """Note that a job has ended, and print its result."""
        began = self.running.pop(job.name, time.monotonic())
        if job.trial is not None:
            self._seconds.append(time.monotonic() - began)
        bad = row["status"] == "failed"
        self.done, self.failed = self.done + (not bad), self.failed + bad
        outcome = f"failed: {str(row['error']).splitlines()[0]}" if bad else self._score(row)
        self.recent.append((job.name, row["status"], outcome))
        if self._live is None:
            ended = self.done + self.failed + self.skipped
            print(f"{ended}/{self.total} {job.name}: {outcome}{self._left()}", file=sys.stderr)

    def not_started(self, job: Job, why: str) -> None:
        """Note that a job will not be done, and print why."""
        self.total -= 1
        self.recent.append((job.name, "not started", why))
        if self._live is None:
            print(f"not started: {job.name}, {why}", file=sys.stderr)

    def close(self) -> None:
        """End the live table; its last state stays on the screen."""
        if self._live is not None:
            self._live.stop()

    def _score(self, row: Row) -> str:
        name = self.metric if row["dev"].get(self.metric) is not None else "response_nll"
        value = row["dev"].get(name)
        return f"dev {name} {value:.4g}" if value is not None else row["status"]

    def _left(self) -> str:
        left = self.total - self.done - self.failed - self.skipped
        if not self._seconds or left <= 0:
            return ""
        return f"; about {duration(sum(self._seconds) / len(self._seconds) * left / self.slots)} left"

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        counts = f"{self.done + self.skipped}/{self.total} done, {len(self.running)} running, {self.failed} failed"
        table = Table()
        for column in ("trial", "state", "result"):
            table.add_column(column)
        for name, state, outcome in self.recent:
            table.add_row(name, state, outcome, style="red" if state == "failed" else "")
        for name, began in self.running.items():
            table.add_row(name, "running", duration(time.monotonic() - began))
        return Group(counts + self._left(), table)
