"""The whole of ``holdfast crosstask run``, top to bottom: tasks -> prompts -> blocks -> tables -> run directory.

Whatever is wrong with the input is reported before a byte is written. The model runs once per block; votes,
calibration, the choice of a source and every table are computed from the stored log-probs afterwards.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from typing import Any

from holdfast import runs
from holdfast.cluster import Workers, whole
from holdfast.config import CrossTaskConfig
from holdfast.crosstask import blocks
from holdfast.crosstask.blocks import Block, Runner
from holdfast.crosstask.grid import ZERO, Grid, data_digest, load_grid
from holdfast.crosstask.prompts import Prompt
from holdfast.crosstask.tables import all_outcomes, rows, summarise
from holdfast.progress import Progress, begin, end
from holdfast.runs import RunDir, finite, write_text
from holdfast.stats import FEW, holm
from holdfast.tables import lines, with_tables
from holdfast.tables.crosstask import means
from holdfast.tables.text import counted

_COLOURS = {
    "source definition": 35,
    "demonstration": 34,
    "target definition": 36,
    "label line": 33,
    "in-task example": 34,
    "input": 32,
}


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
        begin(start(grid, runner))
        started = time.perf_counter()
        scored = _run_blocks(grid, runner, run)
        outcomes = all_outcomes(grid, scored)
        figures = finite(summarise(grid, scored, outcomes))
        summary = with_tables(figures | {"seconds": round(time.perf_counter() - started, 2)})
        written = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(grid, scored, outcomes))
        write_text(run.rows, "".join(written))
        if not config.json:
            print(as_text(summary))
        summary = run.finish(summary)
        end(finding(summary), run.path)
        return summary


def _run_blocks(grid: Grid, runner: Runner, run: RunDir) -> list[Block]:
    """Return all blocks: from their files where these exist, else by a run here or on a cluster."""
    files = {block: blocks.block_file(run.path, grid, block) for block in grid.blocks}
    todo = [block for block, file in files.items() if not file.is_file()]
    progress = Progress("block", len(todo))
    if grid.config.cluster == "ray" and todo:
        with Workers(BlockWorker, (grid.config,), min(grid.config.workers, len(todo))) as workers:
            for number, block in workers.results("run", [(block,) for block in todo]):
                # Only this process writes, so that a killed run goes on from whole blocks.
                blocks.write(files[todo[number]], whole(block))
                progress.add(what=f"{blocks.block_title(todo[number])}: done")
    else:
        for block in todo:
            started = time.perf_counter()
            blocks.write(files[block], blocks.pack(runner.run(block)))
            progress.add(what=f"{blocks.block_title(block)}: {time.perf_counter() - started:.1f} s")
    progress.close()
    return [blocks.read(file) for file in files.values()]


class BlockWorker:
    """Holds the model. It reads the tasks itself, so that only names and bytes travel."""

    def __init__(self, config: CrossTaskConfig) -> None:
        self.runner = Runner(load_grid(config))

    def run(self, block: str) -> bytes:
        """Return a block as the bytes of its file."""
        return blocks.pack(self.runner.run(block))


def start(grid: Grid, runner: Runner) -> list[str]:
    """Return what is said before a model is asked: which one, about what, with how many prompts."""
    config, prompts, cut = grid.config, 0, 0
    for cell in itertools.chain.from_iterable(map(runner.cells, grid.blocks)):
        prompts += len(cell.prompts) + len(cell.empty)
        cut += sum(prompt.shortened or bool(prompt.dropped) for prompt in cell.prompts)
    items = sum(target.test for target in grid.targets.values())
    at = f" at {config.endpoint}" if config.endpoint else ""
    return [
        f"model {config.model}{at}; template {config.template}; context "
        f"{'unknown' if runner.limit is None else counted(runner.limit, 'token')}",
        f"{counted(len(grid.targets), 'target')} with {counted(items, 'test item')}, "
        f"{counted(len(grid.sources), 'source')}; {counted(prompts, 'prompt')}"
        + (f", of which {cut:,} lost examples to fit" if cut else ""),
    ]


def finding(summary: dict[str, Any]) -> str:
    """Return which sources are shown to help, by one-tailed tests over all items with Holm's correction."""
    tests = {name: source.get("against_zero_shot") for name, source in summary["sources"].items()}
    tests = {name: test for name, test in tests.items() if test and test["count"]}
    if not tests:
        return ""
    items = max(test["count"] for test in tests.values())
    text = f"{counted(len(tests), 'source')} against no example, on {counted(items, 'item')}"
    if items < FEW:
        return f"{text}: too few to say"
    adjusted = dict(zip(tests, holm([test["p"] for test in tests.values()]), strict=True))
    better = [name for name, p in adjusted.items() if p < 0.05]
    gains = [f"{name} ({tests[name]['difference']:+.1f} points)" for name in better]
    return f"{text}: " + (f"shown to be better: {', '.join(gains)}" if better else "none is shown to be better")


def preview(grid: Grid, runner: Runner) -> dict[str, Any]:
    """Print the first cross-task prompt and what the run will cost; no weights are loaded."""
    cells = list(itertools.chain.from_iterable(map(runner.cells, grid.blocks)))
    first = next((cell for cell in cells if cell.condition != ZERO), cells[0])
    prompts: list[Prompt] = []
    texts: list[str] = []
    for cell in cells:
        prompts += cell.prompts
        texts += [prompt.text for prompt in (*cell.prompts, *cell.empty)]
    tokens = sum(runner.reader.count(texts)) if runner.reader else None
    figures: dict[str, Any] = {
        "command": "crosstask run",
        "dry_run": True,
        "targets": {
            name: {"items": target.test, "dev_items": len(target.items) - target.test}
            for name, target in grid.targets.items()
        },
        "sources": {name: {"pool": len(task.pool[: grid.config.pool_limit])} for name, task in grid.sources.items()},
        "prompts": len(texts),
        "prompt_tokens": tokens,
        "demonstrations_dropped": sum(prompt.dropped for prompt in prompts),
        "demonstrations_shortened": sum(1 for prompt in prompts if prompt.shortened),
        "first_prompt": first.prompts[0].text,
    }
    if not grid.config.json:
        colour = sys.stdout.isatty()
        print(f"{first.condition} -> {first.target}, item {first.prompts[0].segments[-1].item}\n")
        for segment in first.prompts[0].segments:
            for line in segment.text.splitlines(keepends=True):
                text = f"{segment.kind:>18} | {line!r}"
                print(f"\x1b[{_COLOURS[segment.kind]}m{text}\x1b[0m" if colour else text)
        count = "" if tokens is None else f", {counted(tokens, 'token')} before any sharing"
        print(f"\n{counted(len(texts), 'prompt')}{count}")
        print(
            f"{counted(figures['demonstrations_shortened'], 'demonstration')} shortened and "
            f"{figures['demonstrations_dropped']:,} dropped to fit"
        )
    return figures


def as_text(summary: dict[str, Any]) -> str:
    """Return the tables of a summary, then the means in a sentence and the cost."""
    notes = [means(summary)]
    for name, labels in summary["labels_with_colliding_first_tokens"].items():
        notes.append(f"note: in {name} labels begin with the same token ({labels}); all their tokens are scored")
    cost = summary["cost"]
    if cost["plain_tokens"]:
        notes.append(
            f"{counted(cost['tokens'], 'token')} through the model in {counted(cost['calls'], 'call')}: "
            f"{cost['share_of_plain_percent']} % of the prompts' {cost['plain_tokens']:,}"
        )
    return "\n".join([lines(summary), "", *filter(None, notes)])
