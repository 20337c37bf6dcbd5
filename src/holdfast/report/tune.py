"""A ``tune`` or ``align`` run -> curves, what the tokens were, and one example with its roles coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.records import Role
from holdfast.report.figures import Axis, Series, bars, points
from holdfast.report.parts import Facts, Figure, Note, Part, Passage, Piece
from holdfast.report.reading import Run
from holdfast.tables.record import Cell
from holdfast.tables.text import number

_MEANINGS = {
    Role.SYSTEM: "system message", Role.USER: "what the user says", Role.TOOL: "what a tool returns",
    Role.TEMPLATE: "text that the template adds", Role.ASSISTANT: "the response", Role.EOS: "the end of the response",
}  # fmt: skip
_COLOURS = {
    Role.TEMPLATE: "@faint",
    Role.SYSTEM: "@4",
    Role.USER: "@1",
    Role.TOOL: "@6",
    Role.ASSISTANT: "@3",
    Role.EOS: "@5",
}
_CURVE_POINTS = 400


def tuned(run: Run, limit: int) -> list[Part]:
    """What one training shows."""
    return [_facts(run), *curves(run), *_roles(run), *_example(run)]


def aligned(run: Run, limit: int) -> list[Part]:
    """What one preference tuning shows: rewards and their margins first."""
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
    made = [_curve(run, *figure) for figure in figures]
    return [
        _facts(run), *run.titled("Preferences before and after"),
        *(figure for figure in made if figure), *run.titled("Where the model comes from"),
    ]  # fmt: skip


def curves(run: Run) -> list[Part]:
    """Loss, and prompt and response NLL, by step: training batches as lines, held-out data as dots."""
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
    made = [_curve(run, *figure) for figure in figures]
    return [figure for figure in made if figure] or [Note("The rows hold no curves.")]


def thinned(values: Sequence[Any], most: int = _CURVE_POINTS) -> list[Any]:
    """At most ``most`` of them, evenly spread, the first and the last included."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _curve(run: Run, title: str, unit: str, keys: Sequence[str], what: str) -> Figure | None:
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
    counts = [
        f"{len(found):,} {said}"
        for kind, said in (("train", "log steps"), ("eval", "evaluations"))
        if (found := run.of_kind(kind))
    ]
    caption = f"{what}, over {' and '.join(counts)} of one run (single values, so no intervals)."
    return points(title, caption, series, step_axis(series), Axis(unit), height=320)


def step_axis(series: Sequence[Series]) -> Axis:
    """The axis of optimizer steps; of few, every one gets its tick."""
    last = max((step for one in series for step in one.x), default=0)
    return Axis("step", {"dtick": 1} if last <= 10 else {}, 0)


def _rows(run: Run, kind: str, key: str) -> list[dict[str, Any]]:
    return thinned(
        [r for r in run.of_kind(kind) if isinstance(r.get(key), int | float) and isinstance(r.get("step"), int)]
    )


def _facts(run: Run) -> Facts:
    found = run.summary | run.resolved
    before, after, weights = (found.get(key) or {} for key in ("before", "after", "weights"))
    pair = f"{weights['user']:g}, {weights['assistant']:g}" if {"user", "assistant"} <= weights.keys() else None
    pairs: list[tuple[str, Cell]] = [
        ("model", run.config.get("model")),
        ("data", run.config.get("data")),
        ("weights (user, assistant)", pair),
        ("prompt share of the loss", found.get("prompt_share")),
        ("steps", found.get("steps")),
        ("peak learning rate", found.get("learning_rate")),
        ("examples trained on", found.get("train_examples")),
        ("examples held out", found.get("eval_examples")),
        ("response NLL", _change(before, after, "response_nll")),
        ("prompt NLL", _change(before, after, "prompt_nll")),
        ("seconds", found.get("seconds")),
        ("seed", run.config.get("seed")),
    ]
    return Facts([(name, value) for name, value in pairs if value is not None])


def _change(before: dict[str, Any], after: dict[str, Any], key: str) -> str | None:
    """Before and after the training."""
    return f"{number(before.get(key))} → {number(after.get(key))}" if key in after else None


def _roles(run: Run) -> list[Part]:
    tables = run.titled("Target tokens by role")
    if not tables:
        return []
    rows: list[Any] = list(tables[0].rows)
    total = sum(row[2] for row in rows)
    colours = {role.label: colour for role, colour in _COLOURS.items()}
    figure = bars(
        "Where the loss looks",
        f"Share of each role in the {total:,} target tokens, and in the weighted mass that the gradient comes from.",
        ["of the tokens", "of the weighted mass"],
        [Series(role, [], [tokens, weighted], colour=colours.get(role, "@2")) for role, _, _, tokens, weighted in rows],
        Axis("percent", {"range": [0, 100]}, 1),
        height=190,
    )
    return [figure, *tables]


def _example(run: Run) -> list[Part]:
    tokens = run.summary.get("example")
    if not isinstance(tokens, list) or not tokens:
        return []
    pieces = [
        Piece(str(t["text"]), str(t["role"]), hint=f"{t['role']}, weight {number(t['weight'], 2)}") for t in tokens
    ]
    used = {piece.role for piece in pieces}
    legend = [(role.label, meaning) for role, meaning in _MEANINGS.items() if role.label in used]
    caption = f"The first training example as the model sees it, {len(pieces)} tokens; a pointer over a token shows its weight."
    return [Passage("An example, by role", caption, [("example 1", pieces)], legend)]
