"""The process of one slot: jobs in, a row per job out, until the study that started it closes the connection.

It is started with the descriptor of the connection, the study directory and a number of threads. The output of a job
goes to its log.
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


def serve(descriptor: int, study: Path, threads: int) -> None:
    """Do jobs until the other side closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the study ends its workers itself
    _die_with(os.getppid())
    import torch

    from holdfast.study.trial import WorkerState, perform

    torch.set_num_threads(threads)
    state = WorkerState(study)
    with contextlib.suppress(EOFError, ConnectionError), Connection(descriptor) as connection:
        while True:
            job = connection.recv()
            with log_to(study / job.log):
                row = perform(job, state)
            connection.send(row)


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
