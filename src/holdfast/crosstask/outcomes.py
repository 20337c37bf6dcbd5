"""Results of cells -> predictions -> the numbers that are always reported together, and the choice of a source.

Accuracy never stands alone: beside it are validity (share of outputs inside the label space), the label distribution,
the probability mass on the label space, intervals, and the accuracy after batch calibration. A source is chosen
without the target's test labels; the best one by test accuracy is an oracle, and reported apart:

    definition    cosine of the two definitions
    confidence    mean probability of the predicted label within the label space, on the unlabelled inputs
    validity      share of inputs whose most probable next token begins a label (or whose text names one)
    mass          mean probability of the label space
    dev           accuracy on labelled dev items (``--dev-items``)
    oracle        accuracy on the test items themselves
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.config import CrossTaskConfig
from holdfast.crosstask.blocks import CellResult
from holdfast.crosstask.encoders import Encoder, cosines
from holdfast.crosstask.grid import Target
from holdfast.crosstask.predict import (
    Vote,
    calibrate_batch,
    calibrate_contextual,
    choose,
    label_scores,
    majority,
    normalise,
    parse_label,
    same_answer,
)
from holdfast.crosstask.tasks import Task
from holdfast.stats import paired_t, percentage

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """Predictions for the items of a target, test items first."""

    condition: str
    predictions: tuple[str | None, ...]
    valid: Bools
    correct: Bools | None
    """None where the items have no answers."""
    logp: Floats | None = None
    """Log-probs within the label space [I, Y], if the labels were scored."""
    mass: Floats | None = None
    calibrated: tuple[str | None, ...] | None = None
    """Predictions after batch calibration."""

    @property
    def confidence(self) -> Floats | None:
        """Probability of the most probable label within the label space [I]."""
        return None if self.logp is None else np.asarray(np.exp(self.logp.max(-1)), np.float64)


def outcome_of(result: CellResult, target: Target, config: CrossTaskConfig) -> Outcome:
    """Return the predictions of one cell: the most probable labels where labels were scored, else the parsed texts."""
    labels = target.task.labels
    if result.scores is None:
        assert result.texts is not None
        parsed = tuple(parse_label(text, labels, config.rule) for text in result.texts)
        return _unscored(result.condition, parsed, target, config)
    assert labels is not None
    scores = label_scores(result.scores.sums, result.scores.lengths, config.score)
    batch = calibrated_batch(scores, target.test)
    used = normalise(scores)
    if config.calibration == "batch":
        used = batch
    elif config.calibration == "contextual":
        used = calibrate_contextual(scores, label_scores(result.scores.empty, result.scores.lengths, config.score))
    predictions = tuple(labels[i] for i in choose(used))
    calibrated = tuple(labels[i] for i in choose(batch))
    correct = right(predictions, target, config.rule)
    return Outcome(result.condition, predictions, result.scores.begins, correct, used, result.scores.mass, calibrated)


def _unscored(condition: str, predictions: tuple[str | None, ...], target: Target, config: CrossTaskConfig) -> Outcome:
    valid = np.array([prediction is not None for prediction in predictions])
    return Outcome(condition, predictions, valid, right(predictions, target, config.rule))


def calibrated_batch(scores_IY: Floats, test: int) -> Floats:
    """Calibrate within the test items, and within the dev items, so that no dev item bears on a test item."""
    parts = [part for part in (scores_IY[:test], scores_IY[test:]) if len(part)]
    return np.concatenate([calibrate_batch(part) for part in parts])


def vote(outcomes: Sequence[Outcome], target: Target, config: CrossTaskConfig) -> tuple[Outcome, list[Vote]]:
    """Return the majority vote of several conditions, item by item. Free answers are voted on as they are spelled."""
    votes = []
    for i in range(len(target.items)):
        answers = [o.predictions[i] for o in outcomes]
        labels = target.task.labels or tuple(dict.fromkeys(a for a in answers if a is not None))
        logp = [o.logp[i] for o in outcomes if o.logp is not None]
        votes.append(majority(answers, labels, np.array(logp) if len(logp) == len(outcomes) else None))
    return _unscored("vote", tuple(v.label for v in votes), target, config), votes


def right(predictions: Sequence[str | None], target: Target, rule: str) -> Bools | None:
    """Return which predictions are the gold answers [I], or None if any item has no answer."""
    golds = [item.answer for item in target.items if item.answer is not None]
    if len(golds) < len(target.items):
        return None
    return np.array([same_answer(answer, gold, rule) for answer, gold in zip(predictions, golds, strict=True)])


def row(outcome: Outcome, target: Target, baseline: Outcome | None) -> dict[str, Any]:
    """Return all about one condition on the test items of one target; shares in percent with 95 % intervals."""
    n = target.test
    counts = Counter(outcome.predictions[:n])
    if target.task.labels is None:
        distribution = {"distinct answers": len(counts.keys() - {None}), "(none)": counts[None]}
    else:
        distribution = {label: counts[label] for label in target.task.labels}
        distribution |= {"(none)": counts[None]} if counts[None] else {}
    result: dict[str, Any] = {
        "condition": outcome.condition,
        "accuracy": _test_accuracy(outcome.correct, target),
        "validity": percentage(int(outcome.valid[:n].sum()), n),
        "labels": distribution,
    }
    if outcome.mass is not None and outcome.confidence is not None:
        result |= {"mass": float(outcome.mass[:n].mean()), "confidence": float(outcome.confidence[:n].mean())}
    if outcome.calibrated is not None and outcome.correct is not None:
        calibrated = right(outcome.calibrated, target, "normalised")
        result["accuracy_batch_calibrated"] = _test_accuracy(calibrated, target)
    if baseline is not None and outcome.correct is not None and baseline.correct is not None:
        result["against_zero_shot"] = paired_t(outcome.correct[:n], baseline.correct[:n])
    return result


def _test_accuracy(correct: Bools | None, target: Target) -> dict[str, Any] | None:
    """Return the share of right test items with its interval; None where the items have no answers."""
    return None if correct is None else percentage(int(correct[: target.test].sum()), target.test)


Chooser = Callable[[Outcome, Target], float]
"""How promising a source looks from its outcome on a target; nan where this cannot be said."""


def _mean(values: Floats | Bools | None, items: slice) -> float:
    return math.nan if values is None or not len(values[items]) else float(values[items].mean())


CHOOSERS: dict[str, Chooser] = {
    "confidence": lambda outcome, target: _mean(outcome.confidence, slice(target.test)),
    "validity": lambda outcome, target: _mean(outcome.valid, slice(target.test)),
    "mass": lambda outcome, target: _mean(outcome.mass, slice(target.test)),
    "dev": lambda outcome, target: _mean(outcome.correct, slice(target.test, None)),
    "oracle": lambda outcome, target: _mean(outcome.correct, slice(target.test)),
}


def definition_similarity(
    sources: Mapping[str, Task], targets: Mapping[str, Target], encode: Encoder
) -> dict[str, dict[str, float]]:
    """Return the cosines of the definitions, by target and source."""
    pool, queries = encode([s.definition for s in sources.values()], [t.task.definition for t in targets.values()])
    rows = cosines(queries, pool).tolist()
    return {target: dict(zip(sources, row)) for target, row in zip(targets, rows)}


def choices(outcomes: Mapping[str, Outcome], target: Target, definitions: Mapping[str, float]) -> dict[str, Any]:
    """Return, for each way of choosing, the chosen source, all scores, and the test accuracy that comes with it.

    Ties go to the first source. A way that says nothing of any source is left out.
    """
    scored = {"definition": {name: definitions[name] for name in outcomes}}
    for way, chooser in CHOOSERS.items():
        scored[way] = {name: chooser(outcome, target) for name, outcome in outcomes.items()}
    chosen = {}
    for way, scores in scored.items():
        finite = {name: value for name, value in scores.items() if not math.isnan(value)}
        if finite:
            best = max(finite, key=lambda name: round(finite[name], 9))
            chosen[way] = {
                "source": best,
                "accuracy": _test_accuracy(outcomes[best].correct, target),
                "uses_test_labels": way == "oracle",
                "scores": finite,
            }
    return chosen
