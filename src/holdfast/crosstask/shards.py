"""Blocks of the grid over a Ray cluster: each actor loads the model once and takes the next block when it is free.

The blocks come back as bytes and are written by this process alone, so that a killed run goes on from its whole blocks as it does
without Ray.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.config import CrossTaskConfig
from holdfast.crosstask import blocks
from holdfast.errors import HoldfastError


def run_on_ray(config: CrossTaskConfig, todo: Sequence[str], files: Mapping[str, Path]) -> None:
    """Run blocks on a cluster (the one that RAY_ADDRESS names, else one started here) and write their files.

    Raises:
        HoldfastError: Ray is missing, or a worker found bad input.
    """
    try:
        import ray
    except ImportError as error:
        raise HoldfastError("--cluster ray needs Ray", hint="pip install 'holdfast[ray]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    try:
        worker: Any = ray.remote(_Worker)
        actors: list[Any] = [worker.remote(config) for _ in range(min(config.workers, len(todo)))]
        waiting, running = list(todo), dict[Any, tuple[Any, str]]()
        while waiting or running:
            while waiting and actors:
                actor, block = actors.pop(), waiting.pop(0)
                running[actor.run.remote(block)] = (actor, block)
            ready, _ = ray.wait(list(running))
            for reference in ready:
                actor, block = running.pop(reference)
                blocks.write(files[block], ray.get(reference))
                actors.append(actor)
                print(f"{blocks.block_title(block)}: done, {len(waiting) + len(running)} to go", file=sys.stderr)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HoldfastError):
            raise error.cause from error
        raise
    finally:
        if started:
            ray.shutdown()


class _Worker:
    """Holds the model. Reads the tasks itself, so that nothing but names and bytes travels."""

    def __init__(self, config: CrossTaskConfig) -> None:
        from holdfast.crosstask.grid import load_grid

        self.runner = blocks.Runner(load_grid(config))

    def run(self, block: str) -> bytes:
        return blocks.pack(self.runner.run(block))
