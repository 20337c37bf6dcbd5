"""``--dry-run``: the first pair as the model will see it, and what the run will cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from holdfast.tables.text import counted
from holdfast.tune.cost import needs, tell_start, too_few

if TYPE_CHECKING:
    from holdfast.align.plan import PreferencePlan

_COLOURS = {"prompt": 34, "chosen": 32, "rejected": 31}


def preview(plan: PreferencePlan) -> dict[str, Any]:
    """Print the preview on stdout (unless the summary is wanted as JSON) and return its figures."""
    figures = _figures(plan)
    if not plan.config.json:
        lines = [*first_pair(plan, colour=sys.stdout.isatty()), "", *_cost(figures), *needs(plan, _longest(plan), 2)]
        print("\n".join(lines))
        tell_start(too_few(plan.held_out, "pair"))
    return figures


def start(plan: PreferencePlan) -> list[str]:
    """Return what is said before a training: the lines of ``preview`` without the pair."""
    return [*needs(plan, _longest(plan), 2), *_cost(_figures(plan)), *too_few(plan.held_out, "pair")]


def _longest(plan: PreferencePlan) -> int:
    return min(plan.report.longest, plan.max_length)


def _figures(plan: PreferencePlan) -> dict[str, Any]:
    return {
        "command": "align",
        "dry_run": True,
        **plan.resolved(),
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        "tokens_to_come": round(plan.report.tokens * plan.passes),
        "reference_tokens": plan.report.tokens,
        "data_report": plan.report.as_dict(),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
    }


def first_pair(plan: PreferencePlan, *, colour: bool) -> list[str]:
    """Prompt and both answers, special tokens included, with their lengths in tokens."""
    pair = plan.train[0]
    lines = [pair.where]
    for name, ids in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
        line = f"{name:<8}  {len(ids):>5} tokens  {plan.tokenizer.decode(ids)!r}"
        lines.append(f"\x1b[{_COLOURS[name]}m{line}\x1b[0m" if colour else line)
    return lines


def _cost(figures: dict[str, Any]) -> list[str]:
    report = figures["data_report"]
    lines = [
        f"{counted(figures['train_examples'], 'pair')} to train on, {figures['eval_examples']:,} held out; longest "
        f"{counted(report['longest'], 'token')}, limit {figures['max_length']:,}; "
        f"template {', '.join(report['templates'])}",
        f"{counted(figures['steps'], 'step')} of loss {'+'.join(figures['losses'])}, beta {figures['beta']:g}, "
        f"peak learning rate {figures['learning_rate']:.3g}",
        f"about {figures['tokens_to_come']:,} tokens forward and backward, and {figures['reference_tokens']:,} "
        "forward for the reference",
    ]
    if report["truncated"] or report["dropped_too_long"] or report["nothing_left_to_compare"]:
        lines.append(
            f"too long: {report['truncated']:,} with a cut answer, {report['dropped_too_long']:,} dropped, "
            f"{report['nothing_left_to_compare']:,} left out as nothing was left to compare"
        )
    if figures["bad_rows"]["count"]:
        lines.append(
            f"{counted(figures['bad_rows']['count'], 'bad row')} left out; the first: {figures['bad_rows']['first'][0]}"
        )
    return lines
