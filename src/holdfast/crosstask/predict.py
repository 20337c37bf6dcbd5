"""What the model said -> a label: the most probable one (log-probs), the one it wrote (text), or a vote.

    likelihood   argmax_y  log P(y | x)            sum over the label's tokens, or the mean per token
    contextual   argmax_y  log P(y | x) - log P(y | x with the input emptied)             Zhao et al. 2021 (2102.09690)
    batch        argmax_y  log P(y | x) - log mean_x' P(y | x')                           Zhou et al. 2023 (2309.17249)
    vote         argmax_y  votes for y       margin = (votes of the first - votes of the second) / voters

A voter that names no label abstains, and counts as a voter.
Axes: I items, Y labels. Log-probs in nats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Return the score of each label [I, Y]: its log-prob, or its log-prob per token."""
    return token_sums_IY if score == "sum" else token_sums_IY / lengths_Y


def choose(scores_IY: Floats) -> Ints:
    """Return the place of the best label of each item [I]; the first among equals."""
    return np.asarray(scores_IY.argmax(-1), np.int64)


def normalise(scores_IY: Floats) -> Floats:
    """Return log-probs within the label space: each row sums to 1 as probabilities."""
    top = scores_IY.max(-1, keepdims=True)
    return np.asarray(scores_IY - top - np.log(np.exp(scores_IY - top).sum(-1, keepdims=True)), np.float64)


def calibrate_contextual(scores_IY: Floats, empty_IY: Floats) -> Floats:
    """Return scores less what the prompt alone says: ``empty_IY`` are the scores with a content-free input."""
    # contextual calibration: log P(y | x) - log P(y | x with the input emptied)
    return normalise(normalise(scores_IY) - normalise(empty_IY))


def calibrate_batch(scores_IY: Floats) -> Floats:
    """Return scores less what the items have in common: the mean probability of each label over the batch."""
    # batch calibration: log P(y | x) - log mean_x' P(y | x')
    logp_IY = normalise(scores_IY)
    return normalise(logp_IY - np.log(np.exp(logp_IY).mean(0)))


def parse_label(text: str, labels: Sequence[str] | None, rule: Rule | str = "normalised") -> str | None:
    """Return the label that a generated text names, as it is spelled in the label space; None if it names none.

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
    """Return the string that the released scoring compares with the gold label in lower case."""
    line = text.removeprefix("\n\n").split("\n", 1)[0]
    line = line.replace("Label:", "").strip(" .[]:'\"").lower()
    return re.split(r"[.,:\-]", line, maxsplit=1)[0]


def _paper(text: str, labels: Sequence[str] | None) -> str | None:
    answer = paper_answer(text)
    if labels is None:
        return answer or None
    return next((label for label in labels if label.lower() == answer), None)


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
    others = (re.escape(label.lower()) for label in labels if label != named[0] and len(label) > 1)
    return None if any(re.search(rf"\b{other}\b", rest) for other in others) else named[0]


def _starts(line: str, label: str) -> bool:
    if not line.startswith(label):
        return False
    after = line[len(label) :]
    if len(label) == 1 and label.isalpha():  # "A dog" is no answer A
        return not after or after[0] in ".,;:)]}-\"'"
    return not after or not (after[0].isalnum() or after[0] == "_")


RULES: dict[str, Callable[[str, Sequence[str] | None], str | None]] = {"paper": _paper, "normalised": _normalised}


def same_answer(answer: str | None, gold: str, rule: Rule | str = "normalised") -> bool:
    """Whether a parsed answer is the gold one. Case does not count; under the paper's rule both are cut alike."""
    wanted = paper_answer(gold) if rule == "paper" else " ".join(gold.split())
    return answer is not None and answer.lower() in (gold.lower(), wanted.lower())


@dataclass(frozen=True)
class Vote:
    """The label of most votes, or None. ``margin`` is the confidence, 0 to 1; ``counts`` are the votes per label."""

    label: str | None
    margin: float
    counts: dict[str, int]


def majority(
    answers: Sequence[str | None], labels: Sequence[str], logp_SY: Floats | None = None, *, least_margin: float = 0.0
) -> Vote:
    """Return the majority vote over answers in the label space; None among the answers is an abstention.

    Args:
        logp_SY: log-probs of the labels from each voter. A tie goes to the tied label with the largest sum; without
            log-probs, or if the sums tie as well, it goes to the label that is listed first.
        least_margin: below this margin no label is chosen.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0, {})
    ranked = sorted((-counts[label], place) for place, label in enumerate(labels) if counts[label])
    most = -ranked[0][0]
    tied = [place for count, place in ranked if -count == most]
    if len(tied) > 1 and logp_SY is not None and len(logp_SY):
        sums = np.round(np.asarray(logp_SY).sum(0), 9)
        tied.sort(key=lambda place: (-sums[place], place))
    second = most if len(tied) > 1 else (-ranked[1][0] if len(ranked) > 1 else 0)
    margin = (most - second) / len(answers)
    votes = {label: counts[label] for label in labels if counts[label]}
    return Vote(labels[tied[0]] if margin >= least_margin else None, margin, votes)


def majority_raw(texts: Sequence[str]) -> str:
    """Return the vote of the released code, to compare with: over raw strings; a tie goes to the smallest string."""
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text))
