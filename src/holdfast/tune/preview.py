"""``--dry-run``: the first example as the model will see it, and what the run will cost.

Tokens are coloured by their role and stand with their weight.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Example, Role, Tokens
from holdfast.tables.text import counted
from holdfast.tune.cost import needs, tell_start, too_few
from holdfast.tune.spans import span_rules

if TYPE_CHECKING:
    from holdfast.tune.plan import TrainingPlan

COLOURS = {Role.TEMPLATE: 90, Role.SYSTEM: 35, Role.USER: 34, Role.TOOL: 36, Role.ASSISTANT: 32, Role.EOS: 33}
COLOURS |= {Role.THINK: 92, Role.TOOL_CALL: 96, Role.FORMAT: 93, Role.EMPTY_THINK: 93}


def preview(plan: TrainingPlan) -> dict[str, Any]:
    """With ``--row`` that row instead of the first example.

    Print the preview on stdout (unless the summary is wanted as JSON) and return its figures."""
    figures = _figures(plan)
    if plan.config.row is not None:
        tokens = _row(plan, plan.config.row)
        described = _described(plan, tokens, longest=None)
        figures["row"] = [{"id": int(i)} | token for i, token in zip(tokens.ids, described, strict=True)]
    if not plan.config.json:
        lines = first_example(plan, colour=sys.stdout.isatty())
        print("\n".join([*lines, "", *_counts(plan), "", *_cost(figures), *needs(plan, _longest(plan))]))
        tell_start(too_few(plan.held_out))
    return figures


def start(plan: TrainingPlan) -> list[str]:
    """Return what is said before a training: the lines of ``preview`` without the example."""
    weights = ", ".join(f"{role.label} {plan.weights[role]:g}" for role in plan.weights if plan.report.targets[role])
    return [
        *needs(plan, _longest(plan)),
        *_cost(_figures(plan)),
        f"weights: {weights}; prompt share {plan.share:.4f}",
        *too_few(plan.held_out),
    ]


def _longest(plan: TrainingPlan) -> int:
    return min(plan.report.longest, plan.max_length)


def _figures(plan: TrainingPlan) -> dict[str, Any]:
    return {
        "command": "tune",
        "dry_run": True,
        **plan.resolved(),
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        "tokens_to_come": round(plan.report.tokens * plan.passes),
        "data_report": plan.report.as_dict(),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
    }


def first_example(plan: TrainingPlan, *, colour: bool) -> list[str]:
    """A line per token: position, id (of ``--row`` alone), text, role, weight. The first token is no target."""
    row = plan.config.row
    tokens = plan.train[0] if row is None else _row(plan, row)
    named = [Role(int(role)).label for role in {*tokens.roles.tolist()}]
    width = max(9, *map(len, named))
    head = "" if row is None else f"{'id':>7}  "
    lines = [f"{'position':>8}  {head}{'role':<{width}}  {'weight':>6}  token"]
    for position, token in enumerate(_described(plan, tokens, longest=None)):
        weight = "-" if token["weight"] is None else f"{token['weight']:.4g}"
        number = "" if row is None else f"{tokens.ids[position]:>7}  "
        line = f"{position:>8}  {number}{token['role']:<{width}}  {weight:>6}  {token['text']!r}"
        lines.append(f"\x1b[{COLOURS.get(Role[token['role'].upper()], 0)}m{line}\x1b[0m" if colour else line)
    return lines


def example(plan: TrainingPlan, longest: int | None = 400) -> list[dict[str, Any]]:
    """Return text, role and weight of the first ``longest`` tokens of the first training example.

    The weight of the first token is None, because it is no target.
    """
    return _described(plan, plan.train[0], longest)


def _described(plan: TrainingPlan, tokens: Tokens, longest: int | None) -> list[dict[str, Any]]:
    scale = [1.0] * len(tokens) if tokens.scale is None else tokens.scale.tolist()
    return [
        {
            "text": _text(plan, tokens.ids, i),
            "role": Role(int(role)).label,
            "weight": plan.weights[Role(int(role))] * scale[i] if i else None,
        }
        for i, role in enumerate(tokens.roles[:longest])
    ]


def _row(plan: TrainingPlan, number: int) -> Tokens:
    """The tokens of one row of --data, whether it is trained on or held out.

    Raises:
        HoldfastError: there is no such row, or it is a bad one or too long.
    """
    from holdfast.data.chat_template import prepare, with_kwargs
    from holdfast.data.examples import load_examples
    from holdfast.data.shapes import shape_of
    from holdfast.data.sources import sources_of
    from holdfast.tune.roles import tokenize

    config = plan.config
    responses = any(plan.weights[role] for role in RESPONSE_ROLES)
    bad_rows: list[str] = []
    shape = shape_of(config)
    examples: list[Example] = []
    for source in sources_of(config.data):  # of several, the first that has the row
        read = load_examples(source, layout=config.layout, needs_response=responses, bad_rows=bad_rows, shape=shape)
        examples += [example for example in read if example.where.endswith(f", row {number}")]
    if examples:
        kwargs = prepare(plan.tokenizer, config.chat_template, config.chat_template_kwargs, config.stop)
        rows, _ = tokenize(
            with_kwargs(examples[:1], kwargs), plan.tokenizer, plan.weights,
            template=config.template, max_length=plan.max_length, truncation=config.truncation,
            turns=config.turns, spans=span_rules(config.spans),
        )  # fmt: skip
        if rows:
            return rows[0]
        raise HoldfastError(f"--row {number}: nothing of it is left in {plan.max_length} tokens")
    bad = next((message for message in bad_rows if f", row {number}:" in message), None)
    raise HoldfastError(f"--row {number}: {bad or f'{config.data} has no such row'}")


def _text(plan: TrainingPlan, ids: Any, position: int) -> str:
    """The text that a token adds after the one before it; decoded alone, many tokens lose their leading space."""
    before = [int(token) for token in ids[max(position - 1, 0) : position]]
    return str(plan.tokenizer.decode([*before, int(ids[position])]))[
        len(plan.tokenizer.decode(before)) if before else 0 :
    ]


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
        f"{counted(figures['train_examples'], 'example')} to train on, {figures['eval_examples']:,} held out; longest "
        f"{counted(report['longest'], 'token')}, limit {figures['max_length']:,}; "
        f"template {', '.join(report['templates'])}",
        f"{counted(figures['steps'], 'step')}, about {counted(figures['tokens_to_come'], 'token')}; peak learning rate "
        f"{figures['learning_rate']:.3g}",
    ]
    lines += [_drawn(source) for source in figures.get("data_sources", [])]
    if report["truncated"] or report["dropped_too_long"]:
        lines.append(
            f"too long: {report['truncated']:,} cut by {counted(report['tokens_cut'], 'token')} in all "
            f"({report['eos_cut']:,} "
            f"lost their end), {report['dropped_too_long']:,} dropped"
        )
    if report["prompt_too_long"]:
        lines.append(f"left out because the prompt fills the context: {report['prompt_too_long']:,}")
    if report["special_tokens_inside_content"]:
        lines.append(
            f"warning: special tokens inside the contents of messages: {report['special_tokens_inside_content']:,}"
        )
    if figures["bad_rows"]["count"]:
        lines.append(
            f"{counted(figures['bad_rows']['count'], 'bad row')} left out; the first: {figures['bad_rows']['first'][0]}"
        )
    return lines


def _drawn(source: dict[str, Any]) -> str:
    line = f"{source['source']}: {source['drawn']:,} of {counted(source['rows'], 'row')}"
    more = f" per epoch, {source['distinct']:,} different ones in all"
    return line + (more if source["distinct"] > source["drawn"] else "")
