"""What the model said -> a label. Two ways: the most probable label (log-probs), or what it wrote (text and a parsing
rule).

    likelihood   argmax_y  log P(y | x)            sum over the label's tokens, or the mean per token
    contextual   argmax_y  log P(y | x) - log P(y | x with the input emptied)             Zhao et al. 2021 (2102.09690)
    batch        argmax_y  log P(y | x) - log mean_x' P(y | x')                           Zhou et al. 2023 (2309.17249)

Axes: I items, Y labels. Log-probs in nats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.errors import HoldfastError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rule = Literal["paper", "normalised"]
Score = Literal["sum", "mean"]

_AROUND = " \t\r\n.,;:!\"'`*_()[]<>{}"
_LEAD = re.compile(
    r"^(?:the\s+)?(?:correct\s+)?(?:answer|label|option|output|choice)\s*(?:is\b|:|=|-)?\s*", re.IGNORECASE
)


def label_scores(token_sums_IY: Floats, lengths_Y: Ints, score: Score = "sum") -> Floats:
    """Score of each label [I, Y]: its log-prob, or its log-prob per token."""
    return token_sums_IY if score == "sum" else token_sums_IY / lengths_Y


def choose(scores_IY: Floats) -> Ints:
    """Place of the best label of each item [I]; the first among equals."""
    return np.asarray(scores_IY.argmax(-1), np.int64)


def normalise(scores_IY: Floats) -> Floats:
    """Log-probs within the label space: each row sums to 1 as probabilities."""
    top = scores_IY.max(-1, keepdims=True)
    return np.asarray(scores_IY - top - np.log(np.exp(scores_IY - top).sum(-1, keepdims=True)), np.float64)


def calibrate_contextual(scores_IY: Floats, empty_IY: Floats) -> Floats:
    """Take away what the prompt says of the labels when its input is emptied: ``empty_IY`` are scores with a
    content-free input.
    """
    return normalise(normalise(scores_IY) - normalise(empty_IY))


def calibrate_batch(scores_IY: Floats) -> Floats:
    """Take away what the items have in common: the mean probability of each label over the batch."""
    logp_IY = normalise(scores_IY)
    return normalise(logp_IY - np.log(np.exp(logp_IY).mean(0)))


def parse_label(text: str, labels: Sequence[str] | None, rule: Rule | str = "normalised") -> str | None:
    """The label that a generated text names, as it is spelled in the label space; None if it names none.

    Args:
        text: what the model wrote after the prompt, leading white space included.
        labels: the label space; None for free answers, which come back cleaned, None if nothing is left.
        rule: ``paper`` is the released scoring (strip, lower-case, cut at the first of . , : -, exact match).
            ``normalised`` is ours: the first line that is not blank, without quotes, brackets and "Answer:"; the label
            alone or followed by punctuation; a label of more than one letter also followed by other words, unless a
            second label is named.

    Raises:
        HoldfastError: unknown rule.
    """
    if rule not in RULES:
        raise HoldfastError(f"unknown parsing rule '{rule}'; known: {', '.join(RULES)}")
    return RULES[rule](text, labels)


def paper_answer(text: str) -> str:
    """The string that the released scoring compares with the gold label in lower case."""
    line = text.removeprefix("\n\n").split("\n", 1)[0]
    line = line.replace("Label:", "").strip(" .[]:'\"").lower()
    return re.split(r"[.,:\-]", line, maxsplit=1)[0]


def _paper(text: str, labels: Sequence[str] | None) -> str | None:
    found = paper_answer(text)
    if labels is None:
        return found or None
    return next((label for label in labels if label.lower() == found), None)


def _normalised(text: str, labels: Sequence[str] | None) -> str | None:
    lines = text.strip().splitlines()
    line = " ".join((lines[0] if lines else "").split())
    if labels is None:
        return line.strip(" \"'").removesuffix(".") or None
    line = _LEAD.sub("", line.strip(_AROUND)).strip(_AROUND).lower()
    named = [label for label in sorted(labels, key=len, reverse=True) if _starts(line, label.lower())]
    if not named:
        return None
    rest = line[len(named[0]) :]
    others = [
        label
        for label in labels
        if label != named[0] and len(label) > 1 and re.search(rf"\b{re.escape(label.lower())}\b", rest)
    ]
    return None if others else named[0]


def _starts(line: str, label: str) -> bool:
    if not line.startswith(label):
        return False
    after = line[len(label) :]
    if len(label) == 1 and label.isalpha():  # "A dog" is no answer A
        return not after or after[0] in ".,;:)]}-\"'"
    return not after or not (after[0].isalnum() or after[0] == "_")


RULES: dict[str, Callable[[str, Sequence[str] | None], str | None]] = {"paper": _paper, "normalised": _normalised}


def same_answer(found: str | None, gold: str, rule: Rule | str = "normalised") -> bool:
    """Whether a parsed answer is the gold one. Case does not count; free answers under the paper's rule are cut as the
    answer was.
    """
    if found is None:
        return False
    wanted = paper_answer(gold) if rule == "paper" else " ".join(gold.split())
    return found.lower() in (gold.lower(), wanted.lower())
