"""Work spread over Ray. Each worker builds its object once, and the next free worker takes the next job.

    workers = Workers(make, (argument, ...), count)       worker 1..count: held = make(argument, ...)
    workers.results("method", jobs)                       held.method(*job) -> (number of the job, value), as they end

Used by POSIX (sets), cross-task prompting (blocks) and studies (trials). Needs the extra ``ray``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from holdfast.errors import HoldfastError

_SECONDS = 5.0


@dataclass(frozen=True)
class Lost:
    """Stands in place of a value when the worker died, or raised an error that is not the user's bad input."""

    error: Exception

    @property
    def reason(self) -> str:
        """Return the first line of Ray's message."""
        return (str(self.error).splitlines() or [type(self.error).__name__])[0]


class Workers:
    """Ray actors on the cluster at RAY_ADDRESS. Without that variable a cluster is started on this machine and is shut
    down with them.

    Args:
        make: called once in each worker; returns the object whose methods are the jobs.
        arguments: of ``make``; they are pickled.
        count: number of workers. Each gets an equal share of the cores, and a GPU where there is one for each.

    Raises:
        HoldfastError: Ray is not installed, or nothing answers at RAY_ADDRESS.
    """

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...], count: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise HoldfastError("--cluster ray needs Ray", hint="pip install 'holdfast[ray]'") from error
        self.ray, self.count = ray, count
        self._make, self._arguments = make, arguments
        self._started = not ray.is_initialized()
        if self._started:
            check_address(os.environ.get("RAY_ADDRESS"))
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        resources = ray.cluster_resources()
        cores, gpus = float(resources.get("CPU", 1)), float(resources.get("GPU", 0))
        self._share = min(1.0, cores / count)  # more workers than cores would wait for each other for ever
        self._gpus = 1 if gpus >= count else 0
        self._threads = max(1, int(cores) // count)
        if 0 < gpus < count:
            print(f"note: {gpus:g} GPUs for {count} workers: they compute on CPUs", file=sys.stderr)
        self._actors = [self._actor() for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def results(
        self, method: str, jobs: Sequence[tuple[Any, ...]], started: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Call a method of the workers' objects, once per job.

        Args:
            jobs: the arguments of each call.
            started: called with the number of a job when a worker takes it.

        Yields:
            (number of the job, value), in the order in which they end. If the worker died the value is ``Lost``, and a
            new worker takes its place.

        Raises:
            HoldfastError: a worker found bad input.
        """
        waiting, idle = list(range(len(jobs))), list(range(self.count))
        running: dict[Any, tuple[int, int]] = {}
        while waiting or running:
            while waiting and idle:
                actor, number = idle.pop(), waiting.pop(0)
                running[self._actors[actor].call.remote(method, jobs[number])] = (actor, number)
                if started is not None:
                    started(number)
            ended, _ = self.ray.wait(list(running), num_returns=1)
            actor, number = running.pop(ended[0])
            value = self._value(ended[0])
            if isinstance(value, Lost):
                self._actors[actor] = self._actor()
            idle.append(actor)
            yield number, value

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the first worker's object."""
        return whole(self._value(self._actors[0].call.remote(method, arguments)))

    def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every worker's object; return the values in the order of the workers."""
        references = [
            actor.call.remote(method, arguments) for actor in self._actors
        ]  # all at work before one is waited for
        return [whole(self._value(reference)) for reference in references]

    def close(self) -> None:
        """End the workers, and the cluster if it was started for them."""
        for actor in self._actors:
            self.ray.kill(actor)
        if self._started:
            self.ray.shutdown()

    def _actor(self) -> Any:
        remote = self.ray.remote(num_cpus=self._share, num_gpus=self._gpus)(_Actor)
        return remote.remote(self._make, self._arguments, self._threads)

    def _value(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HoldfastError):
                raise error.cause from error
            return Lost(error)
        except self.ray.exceptions.RayError as error:
            return Lost(error)


def whole(value: Any) -> Any:
    """Return the value of a job, for callers that cannot go on without it. If the job was lost, its error is raised."""
    if isinstance(value, Lost):
        raise value.error
    return value


def check_address(address: str | None) -> None:
    """Check with a short time-out that something listens at RAY_ADDRESS, because Ray itself would wait for minutes.

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
            hint="start the cluster with `ray start --head`, or unset RAY_ADDRESS to start one here, or leave out "
            "--cluster ray",
        ) from error


class _Actor:
    """A worker."""

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.held = make(*arguments)

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self.held, method)(*arguments)
