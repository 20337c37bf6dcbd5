"""When two answers of a chat endpoint are equal: letter by letter, as read, by meaning, or by a judge.

    labels(s, texts_VK)  ->  a label per answer [V][K]; answers that are equal have equal labels

Meaning and a judge compare pairs, which need not be transitive: an answer gets the label of the first earlier answer
that it is equal to, in the order of the wordings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Sequence

from holdfast.sensitivity.answers import Rule
from holdfast.sensitivity.sets import ORIGINAL, PromptSet
from holdfast.sensitivity.variants.wording import Similarity

Texts = Sequence[Sequence[str]]
"""Answers to the wordings of a prompt [V][K], thoughts taken out."""
Equality = Callable[[PromptSet, Texts], list[list[Hashable]]]
AskJudge = Callable[[str], str]
"""An instruction for the judge -> what it says."""

_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
JUDGE_INSTRUCTION = (
    "Two answers to a question are below. Do both say the same, whatever their words? Reply with yes or no only.\n\n"
    "Question: {question}\n\nAnswer 1: {one}\n\nAnswer 2: {other}"
)


def exact(s: PromptSet, texts_VK: Texts) -> list[list[Hashable]]:
    """Return the texts themselves, without white space around them."""
    return [list(map(str.strip, texts)) for texts in texts_VK]


def as_read(rule: Rule) -> Equality:
    """Return the equality of what ``rule`` reads. A text that it cannot read is equal to no other."""

    def labels(s: PromptSet, texts_VK: Texts) -> list[list[Hashable]]:
        rows: list[list[Hashable]] = []
        for variant, texts in zip(s.variants, texts_VK, strict=True):
            answers = [rule(text, variant) for text in texts]
            rows.append([object() if answer is None else answer for answer in answers])
        return rows

    return labels


def by_meaning(similar: Similarity, least: float) -> Equality:
    """Return the equality of texts whose cosine is ``least`` or more."""

    def labels(s: PromptSet, texts_VK: Texts) -> list[list[Hashable]]:
        def first_equal(text: str, leaders: Sequence[str]) -> str | None:
            cosines = similar([text] * len(leaders), leaders) if leaders else []
            return next((leader for leader, cosine in zip(leaders, cosines, strict=True) if cosine >= least), None)

        return _by_leader(texts_VK, first_equal)

    return labels


def by_judge(ask: AskJudge, unread: list[str]) -> Equality:
    """Return the equality that a judge sees.

    A verdict that is neither yes nor no counts as no, and goes to ``unread``.
    """

    def labels(s: PromptSet, texts_VK: Texts) -> list[list[Hashable]]:
        question = next((v.prompt for v in s.variants if v.kind == ORIGINAL), s.variants[0].prompt)

        def is_same(one: str, other: str) -> bool:
            said = ask(JUDGE_INSTRUCTION.format(question=question, one=one, other=other))
            verdict = _VERDICT.search(said)
            if verdict is None:
                unread.append(said)
            return verdict is not None and verdict.group().lower() == "yes"

        return _by_leader(texts_VK, lambda text, leaders: next((x for x in leaders if is_same(x, text)), None))

    return labels


def _by_leader(texts_VK: Texts, first_equal: Callable[[str, Sequence[str]], str | None]) -> list[list[Hashable]]:
    """Return the leader of every text, which is the first earlier one that it is equal to, or itself."""
    leader_of: dict[str, str] = {}
    for text in _distinct(texts_VK):
        leaders = list(dict.fromkeys(leader_of.values()))
        leader = first_equal(text, leaders)
        leader_of[text] = text if leader is None else leader
    return [list(map(leader_of.__getitem__, map(str.strip, texts))) for texts in texts_VK]


def _distinct(texts_VK: Texts) -> Iterable[str]:
    return dict.fromkeys(text.strip() for text in itertools.chain.from_iterable(texts_VK))
