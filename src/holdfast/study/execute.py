"""Jobs -> rows, in one process per slot on this machine, or in one Ray worker per slot.

A process has a GPU of its own, or a share of the cores. A worker that dies fails only its job, and another one takes
its place. With Ray the study directory must lie on a file system that all nodes share, because the workers write
models, checkpoints and rows there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from holdfast.cluster import Lost, Workers
from holdfast.config import StudyConfig
from holdfast.errors import HoldfastError
from holdfast.study.jobs import Job, Row
from holdfast.study.worker import Trainer

Started = Callable[[Job], None]


def open_pool(config: StudyConfig, study: Path) -> LocalPool | RayPool:
    """Return the workers that ``--cluster`` asks for."""
    if config.cluster == "ray":
        return RayPool(study, config.slots or 2)
    return LocalPool(study, config.slots or default_slots())


def default_slots() -> int:
    """Return one slot per GPU, or per core without GPUs."""
    return len(gpus()) or cores()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs of this machine, by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(number) for number in range(count)]


class LocalPool:
    """Processes on this machine, which do up to ``slots`` jobs at a time. They start in the background."""

    def __init__(self, study: Path, slots: int) -> None:
        self.study, self.slots = study, slots
        self._workers = [_SlotProcess(study, slot, slots) for slot in range(slots)]

    def results(self, jobs: list[Job], started: Started) -> Iterator[tuple[Job, Row]]:
        """Yield (job, row) as jobs end, in any order; ``started`` is called with each job as it begins."""
        queue = list(jobs)
        busy: dict[Any, tuple[_SlotProcess, Job]] = {}
        while queue or busy:
            for worker in self._workers:
                if queue and worker.job is None:
                    job = queue.pop(0)
                    worker.give(job)
                    busy[worker.connection] = (worker, job)
                    started(job)
            for connection in wait(list(busy)):
                worker, job = busy.pop(connection)
                yield job, worker.take()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()


class _SlotProcess:
    """One process and the job that it is at."""

    def __init__(self, study: Path, slot: int, slots: int) -> None:
        self.study, self.slot, self.slots = study, slot, slots
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        devices, threads = gpus(), max(1, cores() // self.slots)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[self.slot % len(devices)]
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.study.worker", str(theirs.fileno()), str(self.study), str(threads)],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment,
        )  # fmt: skip
        theirs.close()

    def give(self, job: Job) -> None:
        """Send a job; a process that has died since the last one is replaced."""
        if self.process.poll() is not None:
            self.stop()
            self._start()
        self.job = job
        with contextlib.suppress(ConnectionError):  # the process has just died, which ``take`` reports
            self.connection.send(job)

    def take(self) -> Row:
        """Return the row of the job; a failed one if its process died."""
        job, self.job = self.job, None
        assert job is not None
        with contextlib.suppress(EOFError, ConnectionError):
            return dict(self.connection.recv())
        return job.failed(self._cause_of_death())

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def _cause_of_death(self) -> str:
        code = self.process.wait()
        self._log.seek(0)
        output = self._log.read().strip().splitlines()
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; the machine may have run out of memory" if code == -9 else ""
        return f"its process died ({why}{hint})" + (f": {output[-1]}" if output else "")


class RayPool:
    """Workers on a Ray cluster."""

    def __init__(self, study: Path, slots: int) -> None:
        self.slots = slots
        self._workers = Workers(Trainer, (str(study.resolve()),), slots)
        self._check_storage(study.resolve())

    def results(self, jobs: list[Job], started: Started) -> Iterator[tuple[Job, Row]]:
        """See ``LocalPool.results``."""
        for number, value in self._workers.results(
            "perform", [(job,) for job in jobs], lambda number: started(jobs[number])
        ):
            job = jobs[number]
            yield job, job.failed(f"its Ray worker died: {value.reason}") if isinstance(value, Lost) else value

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def _check_storage(self, study: Path) -> None:
        mark = study / f".seen-{uuid.uuid4().hex}"
        mark.touch()
        try:
            visible = self._workers.ask_all("sees", mark.name)
        finally:
            mark.unlink()
        if not all(visible):
            raise HoldfastError(
                f"{visible.count(False)} of {self.slots} Ray workers do not see {study}",
                hint="--output must lie on storage that all nodes share",
            )
