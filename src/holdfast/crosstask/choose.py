"""Which source for a target, without looking at its test labels. The best one by test accuracy is shown apart: it is an
oracle.

definition    cosine of the two definitions
confidence    mean probability of the predicted label within the label space, on the unlabelled inputs
validity      share of inputs whose most probable next token begins a label (or whose text names one)
mass          mean probability of the label space
dev           accuracy on labelled dev items (``--dev-items``)
oracle        accuracy on the test items themselves
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from holdfast.crosstask.encoders import Encoder
from holdfast.crosstask.grid import Target
from holdfast.crosstask.outcomes import Outcome
from holdfast.crosstask.tasks import Task
from holdfast.stats import percentage

Chooser = Callable[[Outcome, Target], float]
"""How promising a source looks from its outcome on a target; nan where this cannot be said."""


def _confidence(found: Outcome, target: Target) -> float:
    return math.nan if found.confidence is None else float(found.confidence[: target.test].mean())


def _validity(found: Outcome, target: Target) -> float:
    return float(found.valid[: target.test].mean())


def _mass(found: Outcome, target: Target) -> float:
    return math.nan if found.mass is None else float(found.mass[: target.test].mean())


def _dev(found: Outcome, target: Target) -> float:
    dev = None if found.correct is None else found.correct[target.test :]
    return math.nan if dev is None or not len(dev) else float(dev.mean())


def _oracle(found: Outcome, target: Target) -> float:
    return math.nan if found.correct is None else float(found.correct[: target.test].mean())


CHOOSERS: dict[str, Chooser] = {
    "confidence": _confidence,
    "validity": _validity,
    "mass": _mass,
    "dev": _dev,
    "oracle": _oracle,
}


def definition_similarity(
    sources: Mapping[str, Task], targets: Mapping[str, Target], encode: Encoder
) -> dict[str, dict[str, float]]:
    """Cosine of the definitions, by target and source."""
    pool, queries = encode([s.definition for s in sources.values()], [t.task.definition for t in targets.values()])
    product = queries @ pool.T
    cosines = np.asarray(product.toarray() if hasattr(product, "toarray") else product, float)
    return {t: {s: round(float(cosines[i, j]), 6) for j, s in enumerate(sources)} for i, t in enumerate(targets)}


def choices(outcomes: Mapping[str, Outcome], target: Target, definitions: Mapping[str, float]) -> dict[str, Any]:
    """For each way of choosing: the chosen source, all scores, and the test accuracy that comes with it. Ties go to the
    first source.
    """
    scored = {"definition": {name: definitions[name] for name in outcomes}}
    scored |= {
        way: {name: chooser(found, target) for name, found in outcomes.items()} for way, chooser in CHOOSERS.items()
    }
    made = {}
    for way, scores in scored.items():
        known = {name: value for name, value in scores.items() if not math.isnan(value)}
        if known:
            best = max(known, key=lambda name: round(known[name], 9))
            correct = outcomes[best].correct
            accuracy = None if correct is None else percentage(int(correct[: target.test].sum()), target.test)
            made[way] = {"source": best, "accuracy": accuracy, "uses_test_labels": way == "oracle", "scores": known}
    return made
