"""The whole of ``holdfast crosstask run``, top to bottom: tasks -> prompts -> blocks -> tables -> run directory.

Whatever is wrong with the input is reported before a byte is written. The model runs once per block; votes,
calibration, the choice of a source and every table are computed from the stored log-probs afterwards.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from typing import Any

from holdfast import runs
from holdfast.cluster import Workers, whole
from holdfast.config import CrossTaskConfig
from holdfast.crosstask import blocks
from holdfast.crosstask.blocks import Block, Runner
from holdfast.crosstask.grid import Grid, data_digest, load_grid
from holdfast.crosstask.preview import as_text, preview
from holdfast.crosstask.tables import rows, summarise
from holdfast.runs import RunDir, finite, write_text
from holdfast.tables import with_tables


def transfer(config: CrossTaskConfig, lm: Any = None) -> dict[str, Any]:
    """Label target tasks from examples of source tasks, and write a run directory.

    Args:
        config: see ``holdfast.config.CrossTaskConfig``.
        lm: a loaded model to use instead of ``config.model`` (``holdfast.lm.LM``).

    Returns:
        The summary: per target every condition, the vote and the choice of a source; per source the pooled test; the
        cost. A run that is already complete in ``config.output`` is returned, not repeated; an unfinished one goes on
        after its last whole block.

    Raises:
        HoldfastError: bad input; nothing has been written then.
    """
    with runs.command(config, "crosstask run") as run:
        load = functools.cache(lambda: load_grid(config))
        run.check_data(lambda: data_digest(load()), always=False)
        if summary := run.finished():
            return summary
        grid = load()
        runner = Runner(grid, lm)
        if config.dry_run:
            return preview(grid, runner)
        # Every prompt is built once before anything is written, because then one that does not fit is refused in time.
        for block in grid.blocks:
            runner.cells(block)
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
        results = _run_blocks(grid, runner, run)
        summary = with_tables(finite(summarise(grid, results)) | {"seconds": round(time.perf_counter() - started, 2)})
        write_text(run.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(grid, results)))
        if not config.json:
            print(as_text(summary))
        return run.finish(summary)


def _run_blocks(grid: Grid, runner: Runner, run: RunDir) -> list[Block]:
    """Return all blocks: from their files where these exist, else by a run here or on a cluster."""
    files = {block: blocks.block_file(run.path, grid, block) for block in grid.blocks}
    todo = [block for block, file in files.items() if not file.is_file()]
    if grid.config.cluster == "ray" and todo:
        with Workers(BlockWorker, (grid.config,), min(grid.config.workers, len(todo))) as workers:
            for left, (number, block) in enumerate(workers.results("run", [(block,) for block in todo]), 1):
                # Only this process writes, so that a killed run goes on from whole blocks.
                blocks.write(files[todo[number]], whole(block))
                print(f"{left}/{len(todo)} {blocks.block_title(todo[number])}: done", file=sys.stderr)
    else:
        for number, block in enumerate(todo, 1):
            started = time.perf_counter()
            blocks.write(files[block], blocks.pack(runner.run(block)))
            seconds = time.perf_counter() - started
            print(f"{number}/{len(todo)} {blocks.block_title(block)}: {seconds:.1f} s", file=sys.stderr)
    return [blocks.read(file) for file in files.values()]


class BlockWorker:
    """Holds the model. It reads the tasks itself, so that only names and bytes travel."""

    def __init__(self, config: CrossTaskConfig) -> None:
        self.runner = Runner(load_grid(config))

    def run(self, block: str) -> bytes:
        """Return a block as the bytes of its file."""
        return blocks.pack(self.runner.run(block))
