"""Jobs -> rows, on a Ray cluster: one actor per slot, each with the base model loaded once. Same jobs, same rows as on one machine.

The study directory must be one that every node sees (a shared file system): models, checkpoints and rows are written there by the actors.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.study.jobs import Job, Row

_SECONDS = 5.0


class Actor:
    """A slot."""

    def __init__(self, study: str, threads: int) -> None:
        import torch

        from holdfast.study.trial import Workbench

        torch.set_num_threads(threads)
        self.bench = Workbench(Path(study))

    def sees(self, name: str) -> bool:
        """Whether a file that the driver has just written is here too."""
        return (self.bench.study / name).is_file()

    def perform(self, job: Job) -> Row:
        """See ``trial.perform``."""
        from holdfast.study.trial import perform
        from holdfast.study.worker import log_to

        with log_to(self.bench.study / job.log):
            return perform(job, self.bench)


class RayPool:
    """Actors of the cluster at RAY_ADDRESS, or of one that is started on this machine. See ``jobs.Pool``."""

    def __init__(self, study: Path, slots: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise HoldfastError("--cluster ray needs Ray", hint="pip install 'holdfast[ray]'") from error
        self.ray, self.slots, self.study = ray, slots, study.resolve()
        if not ray.is_initialized():
            check_address(os.environ.get("RAY_ADDRESS"))
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        resources = ray.cluster_resources()
        self._gpus = 1 if resources.get("GPU", 0) >= slots else 0
        self._cores = max(1, int(resources.get("CPU", 1)) // slots)
        self._actors = [self._actor() for _ in range(slots)]
        self._check_storage()

    def results(self, jobs: list[Job], started: Callable[[Job], None]) -> Iterator[tuple[Job, Row]]:
        """See ``jobs.Pool``."""
        queue, free = list(jobs), list(range(self.slots))
        busy: dict[Any, tuple[int, Job]] = {}
        while queue or busy:
            while queue and free:
                slot, job = free.pop(), queue.pop(0)
                busy[self._actors[slot].perform.remote(job)] = (slot, job)
                started(job)
            ended, _ = self.ray.wait(list(busy), num_returns=1)
            slot, job = busy.pop(ended[0])
            free.append(slot)
            yield job, self._row(ended[0], slot, job)

    def close(self) -> None:
        """See ``jobs.Pool``."""
        for actor in self._actors:
            self.ray.kill(actor)

    def _actor(self) -> Any:
        return self.ray.remote(num_cpus=1, num_gpus=self._gpus)(Actor).remote(str(self.study), self._cores)

    def _row(self, reference: Any, slot: int, job: Job) -> Row:
        try:
            row: Row = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._actors[slot] = self._actor()
            row = job.failed(f"its Ray actor died: {str(error).splitlines()[0]}")
        return row

    def _check_storage(self) -> None:
        mark = self.study / f".seen-{uuid.uuid4().hex}"
        mark.touch()
        try:
            blind = [seen for seen in self.ray.get([actor.sees.remote(mark.name) for actor in self._actors]) if not seen]
        finally:
            mark.unlink()
        if blind:
            raise HoldfastError(
                f"{len(blind)} of {self.slots} Ray actors do not see {self.study}", hint="--output must lie on storage that all nodes share"
            )


def check_address(address: str | None) -> None:
    """Whether something listens at RAY_ADDRESS, asked with a short time-out; Ray itself would wait for minutes.

    Raises:
        HoldfastError: it does not.
    """
    host, _, port = (address or "").rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdigit():  # `auto`, `local`, or none at all: Ray finds or starts a cluster here
        return
    try:
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_SECONDS)):
            return
    except OSError as error:
        raise HoldfastError(
            f"RAY_ADDRESS {address} does not answer ({error.strerror or error}, waited {_SECONDS:.0f} s at most)",
            hint="start the cluster with `ray start --head`, or unset RAY_ADDRESS to start one here, or use --cluster local",
        ) from error
