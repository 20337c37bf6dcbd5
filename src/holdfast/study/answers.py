"""Scores of one answer against its target, 0 to 1. Plain functions, by name in ``ANSWER_METRICS``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

AnswerMetric = Callable[[str, str], float]


def exact_match(answer: str, target: str) -> float:
    """Whether the answer is the target, white space at the ends aside."""
    return float(answer.strip() == target.strip())


def token_f1(answer: str, target: str) -> float:
    """Harmonic mean of precision and recall over words, case and punctuation aside (Rajpurkar et al. 2016; articles are
    kept).
    """
    answer_words, target_words = _words(answer), _words(target)
    shared = sum((answer_words & target_words).values())
    if not shared:
        return float(answer_words == target_words)
    return 2 * shared / (answer_words.total() + target_words.total())


def empty_answers(answer: str, target: str) -> float:
    """Whether there is no answer at all: how a model fails that has learned when to stop from too few responses."""
    return float(not answer.strip())


# name -> function, whether more is better
ANSWER_METRICS: dict[str, tuple[AnswerMetric, bool]] = {
    "exact_match": (exact_match, True),
    "token_f1": (token_f1, True),
    "empty_answers": (empty_answers, False),
}


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))
