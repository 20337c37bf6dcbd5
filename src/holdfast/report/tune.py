"""A ``tune`` or ``align`` run -> curves, target tokens by role, and one example with its roles coloured."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from holdfast.records import Role
from holdfast.report.figures import Axis, Series, bars, points
from holdfast.report.parts import FactList, Figure, Note, Part, Passage, TextPiece
from holdfast.report.reading import ReadRun
from holdfast.tables.text import counted, number

MEANINGS = {
    Role.SYSTEM: "system message", Role.USER: "what the user says", Role.TOOL: "what a tool returns",
    Role.TEMPLATE: "text that the template adds", Role.ASSISTANT: "the response", Role.EOS: "the end of the response",
    Role.THINK: "what the model thinks", Role.TOOL_CALL: "what the model calls", Role.EMPTY_THINK: "empty thoughts",
    Role.FORMAT: "what the model writes around them",
}  # fmt: skip
COLOURS = {
    Role.TEMPLATE: "@faint", Role.SYSTEM: "@4", Role.USER: "@1",
    Role.TOOL: "@6", Role.ASSISTANT: "@3", Role.EOS: "@5", Role.THINK: "@7", Role.TOOL_CALL: "@8",
    Role.FORMAT: "@muted",
}  # fmt: skip
_CURVE_POINTS = 400


def tuned(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of one training."""
    return [_facts(run), *_curves(run), *_roles(run), *_example(run)]


def aligned(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of one preference tuning: measures before and after, rewards and margins, and its lineage."""
    figures = (
        (
            "Rewards",
            "reward",
            ("rewards/chosen", "rewards/rejected"),
            "Implicit reward of the preferred and of the rejected response",
        ),
        (
            "Reward margin",
            "margin",
            ("rewards/margins",),
            "How far the preferred response is ahead of the rejected one",
        ),
        (
            "Preference accuracy",
            "share",
            ("rewards/accuracies",),
            "Share of pairs in which the preferred response has the higher reward",
        ),
        ("Loss", "loss", ("loss",), "The training loss"),
        (
            "Log-probs",
            "nats",
            ("logps/chosen", "logps/rejected"),
            "Log-prob of the two responses under the model in training",
        ),
    )
    drawn = filter(None, itertools.starmap(functools.partial(_curve, run), figures))
    before, after = (run.titled(title) for title in ("Preferences before and after", "Where the model comes from"))
    return [_facts(run), *before, *drawn, *after]


def _curves(run: ReadRun) -> list[Part]:
    """Return loss, and prompt and response NLL, by step: training batches as lines, held-out data as dots."""
    figures = (
        ("Response NLL", "nats per token", ("response_nll",), "Negative log-likelihood of response tokens"),
        (
            "Prompt NLL",
            "nats per token",
            ("prompt_nll",),
            "Negative log-likelihood of prompt tokens, trained on or not",
        ),
        ("Weighted loss", "loss", ("loss",), "The loss that is minimised, with the run's weights"),
    )
    return list(filter(None, itertools.starmap(functools.partial(_curve, run), figures))) or [
        Note("The rows hold no curves.")
    ]


def thinned(values: Sequence[Any], most: int = _CURVE_POINTS) -> list[Any]:
    """Return at most ``most`` of the values, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _curve(run: ReadRun, title: str, unit: str, keys: Sequence[str], what: str) -> Figure | None:
    series = []
    for place, key in enumerate(keys, start=1):
        name = f"{key.rpartition('/')[2]}, " if len(keys) > 1 else ""
        if train := _rows(run, "train", key):
            steps, values = [r["step"] for r in train], [r[key] for r in train]
            series.append(Series(f"{name}training batches", steps, values, colour=f"@{place}", width=1.5, dash="dot"))
        if held_out := _rows(run, "eval", key):
            steps, values = [r["step"] for r in held_out], [r[key] for r in held_out]
            series.append(Series(f"{name}held-out data", steps, values, look="both", colour=f"@{place}"))
    if not series:
        return None
    rows = {"log steps": len(run.of_kind("train")), "evaluations": len(run.of_kind("eval"))}
    counts = [f"{count:,} {unit_of}" for unit_of, count in rows.items() if count]
    caption = f"{what}, over {' and '.join(counts)} of one run (single values, so no intervals)."
    return points(title, caption, series, step_axis(series), Axis(unit), height=320)


def step_axis(series: Sequence[Series]) -> Axis:
    """Return the axis of optimizer steps. Every step gets a tick where they are few."""
    last = max(itertools.chain.from_iterable(one.x for one in series), default=0)
    return Axis("step", {"dtick": 1} if last <= 10 else {}, 0)


def _rows(run: ReadRun, kind: str, key: str) -> list[dict[str, Any]]:
    rows = [row for row in run.of_kind(kind) if isinstance(row.get(key), int | float)]
    return thinned([row for row in rows if isinstance(row.get("step"), int)])


def _facts(run: ReadRun) -> FactList:
    values = run.summary | run.resolved
    before, after, weights = (values.get(key) or {} for key in ("before", "after", "weights"))
    pair = f"{weights['user']:g}, {weights['assistant']:g}" if {"user", "assistant"} <= weights.keys() else None
    return FactList.of(
        ("model", run.config.get("model")),
        ("data", run.config.get("data")),
        ("weights (user, assistant)", pair),
        ("prompt share of the loss", values.get("prompt_share")),
        ("steps", values.get("steps")),
        ("peak learning rate", values.get("learning_rate")),
        ("examples trained on", values.get("train_examples")),
        ("examples held out", values.get("eval_examples")),
        ("response NLL", _change(before, after, "response_nll")),
        ("prompt NLL", _change(before, after, "prompt_nll")),
        ("seconds", values.get("seconds")),
        ("seed", run.config.get("seed")),
    )


def _change(before: dict[str, Any], after: dict[str, Any], key: str) -> str | None:
    """Return the values before and after the training, as text."""
    return f"{number(before.get(key))} → {number(after.get(key))}" if key in after else None


def _roles(run: ReadRun) -> list[Part]:
    tables = run.titled("Target tokens by role")
    if not tables:
        return []
    rows: list[Any] = list(tables[0].rows)
    total = sum(row[2] for row in rows)
    colours = {role.label: colour for role, colour in COLOURS.items()}
    figure = bars(
        "Where the loss looks",
        f"Share of each role in the {total:,} target tokens, and in the weighted mass that the gradient comes from.",
        ["of the tokens", "of the weighted mass"],
        [Series(role, [], [tokens, weighted], colour=colours.get(role, "@2")) for role, _, _, tokens, weighted in rows],
        Axis("percent", {"range": [0, 100]}, 1),
        height=190,
    )
    return [figure, *tables]


def _example(run: ReadRun) -> list[Part]:
    tokens = run.summary.get("example")
    if not isinstance(tokens, list) or not tokens:
        return []
    pieces = list(map(_piece, tokens))
    used = {piece.role for piece in pieces}
    legend = [(role.label, meaning) for role, meaning in MEANINGS.items() if role.label in used]
    size = f"{counted(len(pieces), 'token')}; a pointer over a token shows its weight"
    caption = f"The first training example as the model sees it, {size}."
    return [Passage("An example, by role", caption, [("example 1", pieces)], legend)]


def _piece(token: dict[str, Any]) -> TextPiece:
    hint = f"{token['role']}, weight {number(token['weight'], 2)}"
    return TextPiece(str(token["text"]), str(token["role"]), hint=hint)
