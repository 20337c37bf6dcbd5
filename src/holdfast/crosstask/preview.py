"""What a person sees of a run: the tables on stdout, and with ``--dry-run`` one full prompt with its pieces named and
the cost.
"""

from __future__ import annotations

import sys
from typing import Any

from holdfast.crosstask.blocks import Runner
from holdfast.crosstask.grid import ZERO, Grid
from holdfast.tables import lines
from holdfast.tables.crosstask import means

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
    cells = [cell for block in grid.blocks for cell in runner.cells(block)]
    first = next((cell for cell in cells if cell.condition != ZERO), cells[0])
    texts = [prompt.text for cell in cells for prompt in (*cell.prompts, *cell.empty)]
    tokens = sum(runner.reader.count(texts)) if runner.reader else None
    figures = {
        "command": "crosstask run",
        "dry_run": True,
        "targets": {
            name: {"items": target.test, "dev_items": len(target.items) - target.test}
            for name, target in grid.targets.items()
        },
        "sources": {name: {"pool": len(task.pool[: grid.config.pool_limit])} for name, task in grid.sources.items()},
        "prompts": len(texts),
        "prompt_tokens": tokens,
        "demonstrations_dropped": sum(p.dropped for cell in cells for p in cell.prompts),
        "demonstrations_shortened": sum(1 for cell in cells for p in cell.prompts if p.shortened),
        "first_prompt": first.prompts[0].text,
    }
    if not grid.config.json:
        colour = sys.stdout.isatty()
        print(f"{first.condition} -> {first.target}, item {first.prompts[0].pieces[-1].item}\n")
        for piece in first.prompts[0].pieces:
            for line in piece.text.splitlines(keepends=True):
                shown = f"{piece.kind:>18} | {line!r}"
                print(f"\x1b[{_COLOURS[piece.kind]}m{shown}\x1b[0m" if colour else shown)
        print(f"\n{len(texts):,} prompts" + (f", {tokens:,} tokens before any sharing" if tokens is not None else ""))
        print(
            f"{figures['demonstrations_shortened']:,} demonstrations shortened and "
            f"{figures['demonstrations_dropped']:,} dropped to fit"
        )
    return figures


def as_text(summary: dict[str, Any]) -> str:
    """The tables of a summary, then the whole in a line and what it cost."""
    said = [means(summary)]
    for name, labels in summary["labels_with_colliding_first_tokens"].items():
        said.append(f"note: in {name} labels begin with the same token ({labels}); all their tokens are scored")
    cost = summary["cost"]
    if cost["plain_tokens"]:
        said.append(
            f"{cost['tokens']:,} tokens through the model in {cost['calls']:,} calls: "
            f"{cost['share_of_plain_percent']} % of the prompts' {cost['plain_tokens']:,}"
        )
    return "\n".join([lines(summary), "", *filter(None, said)])
