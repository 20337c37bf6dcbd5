"""Results of cells -> predictions; predictions -> the numbers that are always reported together.

Accuracy never stands alone: beside it are validity (share of outputs inside the label space), the label distribution,
the probability mass on the label space, intervals, and the accuracy after batch calibration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.config import CrossTaskConfig
from holdfast.crosstask.blocks import Result
from holdfast.crosstask.grid import Target
from holdfast.crosstask.predict import (
    calibrate_batch,
    calibrate_contextual,
    choose,
    label_scores,
    normalise,
    parse_label,
    same_answer,
)
from holdfast.crosstask.vote import Vote, majority
from holdfast.stats import paired_t, percentage

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """Predictions for the items of a target, test items first. ``logp`` [I, Y]: log-probs within the label space, if
    scored.
    """

    target: str
    condition: str
    predictions: tuple[str | None, ...]
    valid: Bools
    correct: Bools | None
    """None where the items have no answers."""
    logp: Floats | None = None
    mass: Floats | None = None
    calibrated: tuple[str | None, ...] | None = None
    """Predictions after batch calibration."""

    @property
    def confidence(self) -> Floats | None:
        """Probability of the most probable label within the label space [I]."""
        return None if self.logp is None else np.asarray(np.exp(self.logp.max(-1)), np.float64)


def outcome(result: Result, target: Target, config: CrossTaskConfig) -> Outcome:
    """Predictions of one cell, as the config wants them made."""
    labels = target.task.labels
    if result.scores is None:
        assert result.texts is not None
        found = tuple(parse_label(text, labels, config.rule) for text in result.texts)
        return Outcome(
            result.target,
            result.condition,
            found,
            np.array([p is not None for p in found]),
            right(found, target, config.rule),
        )
    assert labels is not None
    scores = label_scores(result.scores.sums, result.scores.lengths, config.score)
    batch = calibrated_batch(scores, target.test)
    used = normalise(scores)
    if config.calibration == "batch":
        used = batch
    elif config.calibration == "contextual":
        used = calibrate_contextual(scores, label_scores(result.scores.empty, result.scores.lengths, config.score))
    found = tuple(labels[i] for i in choose(used))
    calibrated = tuple(labels[i] for i in choose(batch))
    return Outcome(
        result.target,
        result.condition,
        found,
        result.scores.begins,
        right(found, target, config.rule),
        used,
        result.scores.mass,
        calibrated,
    )


def calibrated_batch(scores_IY: Floats, test: int) -> Floats:
    """Batch calibration within the test items, and within the dev items: no dev item tells anything about a test
    item.
    """
    parts = [part for part in (scores_IY[:test], scores_IY[test:]) if len(part)]
    return np.concatenate([calibrate_batch(part) for part in parts])


def vote(
    outcomes: Sequence[Outcome], target: Target, config: CrossTaskConfig, name: str = "vote"
) -> tuple[Outcome, list[Vote]]:
    """Majority vote of several conditions, item by item. Free answers are voted on as they are spelled."""
    votes = []
    for i in range(len(target.items)):
        answers = [o.predictions[i] for o in outcomes]
        labels = target.task.labels or tuple(dict.fromkeys(a for a in answers if a is not None))
        logp = [o.logp[i] for o in outcomes if o.logp is not None]
        votes.append(majority(answers, labels, np.array(logp) if len(logp) == len(outcomes) else None))
    found = tuple(v.label for v in votes)
    return Outcome(
        target.task.name, name, found, np.array([p is not None for p in found]), right(found, target, config.rule)
    ), votes


def right(predictions: Sequence[str | None], target: Target, rule: str) -> Bools | None:
    """Which predictions are the gold answers [I]; None if any test item has no answer."""
    if any(item.answer is None for item in target.items):
        return None
    return np.array(
        [same_answer(found, item.answer or "", rule) for found, item in zip(predictions, target.items, strict=True)]
    )


def row(found: Outcome, target: Target, baseline: Outcome | None) -> dict[str, Any]:
    """Everything about one condition on the test items of one target; shares in percent with 95 % intervals."""
    n = target.test
    counted = Counter(found.predictions[:n])
    made: dict[str, Any] = {
        "condition": found.condition,
        "accuracy": None if found.correct is None else percentage(int(found.correct[:n].sum()), n),
        "validity": percentage(int(found.valid[:n].sum()), n),
        "labels": {str(label): counted[label] for label in (target.task.labels or ())}
        | ({"(none)": counted[None]} if counted[None] else {}),
    }
    if target.task.labels is None:
        made["labels"] = {"distinct answers": len(set(found.predictions[:n]) - {None}), "(none)": counted[None]}
    if found.mass is not None and found.confidence is not None:
        made |= {"mass": float(found.mass[:n].mean()), "confidence": float(found.confidence[:n].mean())}
    if found.calibrated is not None and found.correct is not None:
        made["accuracy_batch_calibrated"] = percentage(int(right(found.calibrated, target, "normalised")[:n].sum()), n)  # type: ignore[index]
    if baseline is not None and found.correct is not None and baseline.correct is not None:
        made["against_zero_shot"] = paired_t(found.correct[:n], baseline.correct[:n])
    return made
