"""A run -> text for people: its tables, and with ``--dry-run`` one full prompt, each part named, and the cost."""

from __future__ import annotations

import itertools
import sys
from typing import Any

from holdfast.crosstask.blocks import Runner
from holdfast.crosstask.grid import ZERO, Grid
from holdfast.crosstask.prompts import Prompt
from holdfast.tables import lines
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
