"""What a person sees of a run: the tables on stdout, and with ``--dry-run`` one full prompt with its pieces named and the cost."""

from __future__ import annotations

import sys
from typing import Any

from holdfast.crosstask.blocks import Runner
from holdfast.crosstask.grid import ZERO, Grid

_COLOURS = {"source definition": 35, "demonstration": 34, "target definition": 36, "label line": 33, "in-task example": 34, "input": 32}


def preview(grid: Grid, runner: Runner) -> dict[str, Any]:
    """Print the first cross-task prompt and what the run will cost; no weights are loaded."""
    cells = [cell for block in grid.blocks for cell in runner.cells(block)]
    first = next((cell for cell in cells if cell.condition != ZERO), cells[0])
    texts = [prompt.text for cell in cells for prompt in (*cell.prompts, *cell.empty)]
    tokens = sum(runner.reader.count(texts)) if runner.reader else None
    figures = {
        "command": "crosstask run",
        "dry_run": True,
        "targets": {name: {"items": target.test, "dev_items": len(target.items) - target.test} for name, target in grid.targets.items()},
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
        print(f"{figures['demonstrations_shortened']:,} demonstrations shortened and {figures['demonstrations_dropped']:,} dropped to fit")
    return figures


def tables(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of text: a table per target, then the choice of a source, then the whole."""
    lines = []
    for name, target in summary["targets"].items():
        lines += [f"{name}  ({target['items']} items{', free answers' if target['free_answers'] else ''})"]
        lines.append(f"  {'':<26} {'accuracy [95 %]':>22} {'validity':>9} {'mass':>6} {'batch-cal.':>10} {'vs zero-shot':>13} {'p':>8}")
        lines += [_line(row) for row in target["conditions"]]
        for way, choice in target["choice"].items():
            accuracy = "" if choice["accuracy"] is None else f"  accuracy {choice['accuracy']['value']:.1f}"
            note = "  (read off the test labels)" if choice["uses_test_labels"] else ""
            lines.append(f"  best source by {way}: {choice['source']}{accuracy}{note}")
        lines.append("")
    if summary["grand"]:
        g = summary["grand"]
        lines.append(
            f"mean over targets: zero-shot {g['zero_shot']:.1f}, cross-task {g['cross_task']:.1f} ({g['points']:+.1f} points), "
            f"vote {g['vote']:.1f}"
        )
    for name, labels in summary["labels_with_colliding_first_tokens"].items():
        lines.append(f"note: in {name} labels begin with the same token ({labels}); all their tokens are scored")
    cost = summary["cost"]
    if cost["plain_tokens"]:
        lines.append(
            f"{cost['tokens']:,} tokens through the model in {cost['calls']:,} calls: "
            f"{cost['share_of_plain_percent']} % of the prompts' {cost['plain_tokens']:,}"
        )
    return lines


def _line(row: dict[str, Any]) -> str:
    accuracy = "-"
    if row["accuracy"] is not None:
        a = row["accuracy"]
        accuracy = f"{a['value']:.1f} [{a['low']:.1f}, {a['high']:.1f}]"
    test = row.get("against_zero_shot")
    change, p = (f"{test['difference']:+.1f}", _p(test["p"])) if test else ("", "")
    mass = f"{row['mass']:.2f}" if "mass" in row else ""
    batch = f"{row['accuracy_batch_calibrated']['value']:.1f}" if "accuracy_batch_calibrated" in row else ""
    return f"  {row['condition']:<26} {accuracy:>22} {row['validity']['value']:>8.1f}% {mass:>6} {batch:>10} {change:>13} {p:>8}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"
