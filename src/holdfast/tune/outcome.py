"""Evaluations before and after -> the sentence that ``holdfast tune`` ends with: it claims no more than they show."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast import stats
from holdfast.tables.text import counted

_COLUMNS = {"response_nll": ("response NLL", 2), "prompt_nll": ("prompt NLL", 0)}
"""Metric -> its words, and the column of its sums in ``trainer.evaluation_metrics``; its targets are in the next."""


def changed(summary: dict[str, Any], before_NK: Any, after_NK: Any, seed: int) -> str:
    """Return what the training did to the NLL of held-out responses, or of prompts where these have no responses.

    Args:
        summary: of the run, with the evaluations before and after.
        before_NK, after_NK: sums per example [N, K] of ``evaluation_metrics``; None where the first evaluation was made
            before the run was interrupted, and so has no sums.
        seed: of the interval's draws.
    """
    before, after = summary["before"], summary["after"]
    if before is None or after is None:
        return (
            "no example was held out, so what the training did is not known; --eval-data or --eval-share holds out some"
        )
    name = next((n for n in _COLUMNS if before[n] is not None and after[n] is not None), None)
    if name is None:
        return "the held-out examples have no token to compare"
    words, column = _COLUMNS[name]
    count = counted(summary["eval_examples"], "held-out example")
    text = f"{words} {before[name]:.3f} -> {after[name]:.3f} on {count}"
    if before_NK is None or after_NK is None or len(before_NK) != len(after_NK):
        few = ": too few to say" if summary["eval_examples"] < stats.FEW else "; no interval, as the run was continued"
        return text + few
    say = _signs if summary["eval_examples"] < stats.FEW else _difference
    return text + say(np.asarray(before_NK), np.asarray(after_NK), column, seed) + _caution(summary)


def _signs(before_NK: Any, after_NK: Any, column: int, seed: int) -> str:
    """Return on how many examples the NLL fell, where these are too few for an interval but not for a sign test."""
    lower = int((after_NK[:, column] < before_NK[:, column]).sum())
    higher = int((after_NK[:, column] > before_NK[:, column]).sum())
    if stats.sign_test(lower, higher) > 0.05:
        return ": too few to say"
    side, count = ("lower", lower) if lower > higher else ("higher", higher)
    return f": {side} on {count} of them, too few to say by how much"


def _difference(before_NK: Any, after_NK: Any, column: int, seed: int) -> str:
    """Return the difference per token with the 95 % interval over examples that were drawn together with their
    tokens."""
    gained_N = (after_NK[:, column] - before_NK[:, column]).astype(np.float64)
    targets_N = after_NK[:, column + 1].astype(np.float64)

    def per_token(gained: Any, targets: Any, axis: int) -> Any:
        return gained.sum(axis) / np.maximum(targets.sum(axis), 1)

    low, high = stats.bootstrap_of((gained_N, targets_N), per_token, seed)
    mean = float(gained_N.sum() / targets_N.sum())
    if low <= 0 <= high:
        return f": no difference shown ({mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
    side, bounds = ("lower", (-high, -low)) if mean < 0 else ("higher", (low, high))
    return f": {side} by {abs(mean):.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _caution(summary: dict[str, Any]) -> str:
    best = summary.get("best_step")
    return "" if best is None else f"; step {best} was chosen on the same examples, which flatters it"
