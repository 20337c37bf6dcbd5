"""A worker of a study: jobs in, a row per job out.

The process of a slot is started with the descriptor of a connection, the study directory and a number of threads, and
ends when the study closes the connection. Ray starts a ``Trainer`` itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from holdfast.study.jobs import Job, Row


def serve(descriptor: int, study: Path, threads: int) -> None:
    """Do jobs until the other side closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the study ends its workers itself
    _die_with(os.getppid())
    import torch

    torch.set_num_threads(threads)
    trainer = Trainer(str(study))
    with contextlib.suppress(EOFError, ConnectionError), Connection(descriptor) as connection:
        while True:
            connection.send(trainer.perform(connection.recv()))


class Trainer:
    """One worker, of a slot or of Ray, with the state that it keeps between jobs."""

    def __init__(self, study: str) -> None:
        from holdfast.study.trial import WorkerState

        self.state = WorkerState(Path(study))

    def sees(self, name: str) -> bool:
        """Return whether a file that the driver has just written can be seen from here."""
        return (self.state.study / name).is_file()

    def perform(self, job: Job) -> Row:
        """Do a job and return its row. Its output goes to its log."""
        from holdfast.study.trial import perform

        with log_to(self.state.study / job.log):
            return perform(job, self.state)


def _die_with(parent: int) -> None:
    """End this process with its parent. An orphan would go on writing where the next `study run` writes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Send stdout and stderr, also those of libraries, to a file."""
    file.parent.mkdir(exist_ok=True)
    kept = os.dup(1), os.dup(2)
    with file.open("a", encoding="utf-8") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in enumerate(kept, 1):
                os.dup2(original, number)
                os.close(original)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
