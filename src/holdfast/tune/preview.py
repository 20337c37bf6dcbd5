"""``--dry-run``: the first example as the model will see it, and what the run will cost.

Tokens are coloured by their role and stand with their weight.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from holdfast.records import Role

if TYPE_CHECKING:
    from holdfast.tune.plan import TrainingPlan

_COLOURS = {Role.TEMPLATE: 90, Role.SYSTEM: 35, Role.USER: 34, Role.TOOL: 36, Role.ASSISTANT: 32, Role.EOS: 33}


def preview(plan: TrainingPlan) -> dict[str, Any]:
    """Print the preview on stdout (unless the summary is wanted as JSON) and return its figures."""
    report = plan.report
    figures = {
        "command": "tune",
        "dry_run": True,
        **plan.resolved(),
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        "tokens_to_come": round(report.tokens * _passes(plan)),
        "data_report": report.as_dict(),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
    }
    if not plan.config.json:
        print("\n".join([*first_example(plan, colour=sys.stdout.isatty()), "", *_counts(plan), "", *_cost(figures)]))
    return figures


def first_example(plan: TrainingPlan, *, colour: bool) -> list[str]:
    """A line per token: position, text, role, weight. The first token is no target."""
    lines = [f"{'position':>8}  {'role':<9}  {'weight':>6}  token"]
    for position, token in enumerate(example(plan, longest=None)):
        weight = "-" if token["weight"] is None else f"{token['weight']:.4g}"
        line = f"{position:>8}  {token['role']:<9}  {weight:>6}  {token['text']!r}"
        lines.append(f"\x1b[{_COLOURS.get(Role[token['role'].upper()], 0)}m{line}\x1b[0m" if colour else line)
    return lines


def example(plan: TrainingPlan, longest: int | None = 400) -> list[dict[str, Any]]:
    """Return text, role and weight of the first ``longest`` tokens of the first training example.

    The weight of the first token is None, because it is no target.
    """
    tokens = plan.train[0]
    scale = [1.0] * len(tokens) if tokens.scale is None else tokens.scale.tolist()
    return [
        {
            "text": _text(plan, tokens.ids, i),
            "role": Role(int(role)).label,
            "weight": plan.weights[Role(int(role))] * scale[i] if i else None,
        }
        for i, role in enumerate(tokens.roles[:longest])
    ]


def _text(plan: TrainingPlan, ids: Any, position: int) -> str:
    """The text that a token adds after the one before it; decoded alone, many tokens lose their leading space."""
    before = [int(token) for token in ids[max(position - 1, 0) : position]]
    return str(plan.tokenizer.decode([*before, int(ids[position])]))[
        len(plan.tokenizer.decode(before)) if before else 0 :
    ]


def _passes(plan: TrainingPlan) -> float:
    if plan.config.max_steps <= 0:
        return plan.config.epochs
    return plan.steps * plan.config.batch_size / max(len(plan.train), plan.config.batch_size)


def _counts(plan: TrainingPlan) -> list[str]:
    total = sum(plan.report.targets.values()) or 1
    lines = [f"{'role':<9}  {'weight':>6}  {'targets':>10}  share of targets"]
    for role, weight in plan.weights.items():
        count = plan.report.targets[role]
        if count:
            lines.append(f"{role.label:<9}  {weight:>6.4g}  {count:>10,}  {count / total:.1%}")
    lines.append(f"effective prompt share s = {plan.share:.4f} of the weighted targets")
    return lines


def _cost(figures: dict[str, Any]) -> list[str]:
    report = figures["data_report"]
    lines = [
        f"{figures['train_examples']:,} examples to train on, {figures['eval_examples']:,} held out; longest "
        f"{report['longest']:,} tokens, limit {figures['max_length']:,}; template {', '.join(report['templates'])}",
        f"{figures['steps']:,} steps, about {figures['tokens_to_come']:,} tokens; peak learning rate "
        f"{figures['learning_rate']:.3g}",
    ]
    lines += [f"{s['source']}: {s['drawn']:,} of {s['rows']:,} rows" for s in figures.get("data_sources", [])]
    if report["truncated"] or report["dropped_too_long"]:
        lines.append(
            f"too long: {report['truncated']:,} cut by {report['tokens_cut']:,} tokens in all ({report['eos_cut']:,} "
            f"lost their end), {report['dropped_too_long']:,} dropped"
        )
    if report["prompt_too_long"]:
        lines.append(f"left out because the prompt fills the context: {report['prompt_too_long']:,}")
    if report["special_tokens_inside_content"]:
        lines.append(
            f"warning: {report['special_tokens_inside_content']:,} special tokens stand inside the contents of messages"
        )
    if figures["bad_rows"]["count"]:
        lines.append(
            f"{figures['bad_rows']['count']:,} bad rows left out; the first: {figures['bad_rows']['first'][0]}"
        )
    return lines
