"""The whole of ``holdfast crosstask run``, top to bottom: tasks -> prompts -> blocks -> tables -> run directory.

Everything that can be wrong with the input is found before a byte is written. The model runs once per block; voting,
calibration, choosing and every table are made from the stored log-probs afterwards.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.cluster import Workers, whole
from holdfast.config import CrossTaskConfig
from holdfast.crosstask import blocks
from holdfast.crosstask.blocks import Block, Runner
from holdfast.crosstask.grid import Grid, data_digest, load_grid
from holdfast.crosstask.tables import all_outcomes, rows, summarise
from holdfast.runs import RunDir, finite, write_text
from holdfast.tables import with_tables


def transfer(config: CrossTaskConfig, lm: Any = None) -> dict[str, Any]:
    """Label target tasks from examples of source tasks, and write a run directory.

    Args:
        config: see ``holdfast.config.CrossTaskConfig``.
        lm: a loaded model to use instead of ``config.model`` (``holdfast.lm.LM``).

    Returns:
        The summary: per target every condition, the vote, the choice of a source; per source the pooled test; what it
            cost. A run that is
        already complete in ``config.output`` is returned, not repeated; an unfinished one goes on after its last whole
        block.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> from holdfast.crosstask import CrossTaskConfig, transfer
    >>> summary = transfer(CrossTaskConfig(model="pocket", target="pocket:tasks/sentiment", limit=6, pool_limit=20,
    ...     sources="pocket:tasks/opposite,pocket:tasks/plural", output="runs/cross-task", json=True))
    >>> summary["targets"]["sentiment"]["conditions"][0]["condition"]
    'zero-shot'
    """
    with runs.command(config, "crosstask run") as run:
        load = functools.cache(lambda: load_grid(config))
        run.check_data(lambda: data_digest(load()), always=False)
        if summary := run.finished():
            return summary
        grid = load()
        runner = Runner(grid, lm)
        if config.dry_run:
            from holdfast.crosstask.preview import preview

            return preview(grid, runner)
        for block in grid.blocks:
            runner.cells(
                block
            )  # every prompt is built once before anything is written: the last moment to find that one does not fit
        run.open(
            {
                "data_digest": data_digest(grid),
                "sources": list(grid.sources),
                "targets": list(grid.targets),
                "context": runner.limit,
            }
        )
        runner.answers = blocks.answers_file(run.path)
        started = time.perf_counter()
        scored = _run_blocks(grid, runner, run)
        outcomes = all_outcomes(grid, scored)
        figures = finite(summarise(grid, scored, outcomes))
        summary = with_tables(figures | {"seconds": round(time.perf_counter() - started, 2)})
        written = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(grid, scored, outcomes))
        write_text(run.rows, "".join(written))
        if not config.json:
            from holdfast.crosstask.preview import as_text

            print(as_text(summary))
        return run.finish(summary)


def _run_blocks(grid: Grid, runner: Runner, run: RunDir) -> list[Block]:
    """All blocks: from their files where they are done, else by running them, here or on a cluster."""
    files = {block: blocks.block_file(run.path, grid, block) for block in grid.blocks}
    todo = [block for block, file in files.items() if not file.is_file()]
    if grid.config.cluster == "ray" and todo:
        with Workers(_Worker, (grid.config,), min(grid.config.workers, len(todo))) as workers:
            for left, (number, block) in enumerate(workers.results("run", [(block,) for block in todo]), 1):
                blocks.write(
                    files[todo[number]], whole(block)
                )  # by this process alone: a killed run goes on from whole blocks
                print(f"{left}/{len(todo)} {blocks.block_title(todo[number])}: done", file=sys.stderr)
    else:
        for number, block in enumerate(todo, 1):
            started = time.perf_counter()
            blocks.write(files[block], blocks.pack(runner.run(block)))
            print(
                f"{number}/{len(todo)} {blocks.block_title(block)}: {time.perf_counter() - started:.1f} s",
                file=sys.stderr,
            )
    return [blocks.read(Path(file)) for file in files.values()]


class _Worker:
    """Holds the model. Reads the tasks itself, so that nothing but names and bytes travels."""

    def __init__(self, config: CrossTaskConfig) -> None:
        self.runner = Runner(load_grid(config))

    def run(self, block: str) -> bytes:
        return blocks.pack(self.runner.run(block))
