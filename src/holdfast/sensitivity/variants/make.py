"""Things to ask -> sets of variants: named kinds, distinct, seeded, with edit distance and diff.

    make(items, {"spelling": spelling, "templates": templates}, per_kind=20, seed=0)  ->  sets, Report

The draws of an item depend only on the seed, the kind and its id, so that more items or kinds change nothing else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from holdfast.sensitivity.sets import ORIGINAL, PromptSet, Variant
from holdfast.sensitivity.variants.items import Generator, PromptItem

Accept = Callable[[str, str], bool]
"""(original prompt, variant) -> whether the meaning is kept."""

_TRIES = 30
_EXACT = 250_000


class Report:
    """How many variants were made and how many candidates were left out, by reason and kind.

    ``no_variant`` counts pieces of a paraphraser's answers that are no paraphrase (thoughts, remarks, program text),
    and ``short`` counts items that got fewer variants of a kind than asked for.
    """

    REASONS = ("made", "unchanged", "repeated", "lost_protected", "no_variant", "other_meaning", "short")

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {reason: {} for reason in self.REASONS}

    def add(self, reason: str, kind: str, count: int = 1) -> None:
        """Count something about a kind."""
        self.counts[reason][kind] = self.counts[reason].get(kind, 0) + count


def make(
    items: Sequence[PromptItem],
    generators: Mapping[str, Generator],
    per_kind: int,
    seed: int,
    accept: Mapping[str, Accept] | None = None,
) -> tuple[list[PromptSet], Report]:
    """Return the original of every item and up to ``per_kind`` distinct variants of each kind.

    Args:
        generators: by kind.
        accept: checks of the meaning, by kind.
    """
    report = Report()
    sets = []
    for item in items:
        variants = [_original(item)]
        variants += extend(item, {item.prompt()}, generators, per_kind, seed, report, accept or {})
        sets.append(PromptSet(item.item_id, tuple(variants)))
    return sets, report


def extend(
    item: PromptItem,
    taken: set[str],
    generators: Mapping[str, Generator],
    per_kind: int,
    seed: int,
    report: Report,
    accept: Mapping[str, Accept],
) -> Iterator[Variant]:
    """Yield the variants of one item whose prompts are not ``taken``."""
    original = item.prompt()
    for kind, generate in generators.items():
        count = 0
        drafts = generate(item, Random(f"{seed}:{kind}:{item.item_id}"))
        for _ in range(per_kind * _TRIES):
            draft = next(drafts, None) if count < per_kind else None
            if draft is None:
                break
            asked, prompt, meta = draft
            reason = _reason_against(original, prompt, meta, taken, accept.get(kind))
            if reason:
                report.add(reason, kind)
                continue
            taken.add(prompt)
            yield Variant(f"{kind}-{count}", kind, prompt, seed, asked.expected, _meta(asked, original, prompt, meta))
            count += 1
        report.add("made", kind, count)
        if count < per_kind:
            report.add("short", kind)


def _reason_against(
    original: str, prompt: str, meta: dict[str, Any], taken: set[str], accept: Accept | None
) -> str | None:
    """Return why a prompt is left out, or None for one that is a variant."""
    if "no_variant" in meta:
        return "no_variant"
    if not prompt:
        return "lost_protected"
    if prompt == original:
        return "unchanged"
    if prompt in taken:
        return "repeated"
    return None if accept is None or accept(original, prompt) else "other_meaning"


def _original(item: PromptItem) -> Variant:
    meta = {"options": item.options} if item.choices else {}
    return Variant(ORIGINAL, ORIGINAL, item.prompt(), 0, item.expected, meta, item.where)


def _meta(asked: PromptItem, original: str, prompt: str, meta: dict[str, Any]) -> dict[str, Any]:
    options = {"options": asked.options} if asked.choices else {}
    return {**options, **meta, "edits": edit_distance(original, prompt), "diff": diff(original, prompt)}


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance in characters (Myers' bit-parallel algorithm, after Hyyro 2003)."""
    if not a:
        return len(b)
    full, top = (1 << len(a)) - 1, 1 << (len(a) - 1)
    matches: dict[str, int] = {}
    for i, letter in enumerate(a):
        matches[letter] = matches.get(letter, 0) | 1 << i
    plus, minus, distance = full, 0, len(a)
    for letter in b:
        match = matches.get(letter, 0)
        diagonal = (((match & plus) + plus) ^ plus) | match | minus
        up, down = minus | (~(diagonal | plus) & full), plus & diagonal
        distance += bool(up & top) - bool(down & top)
        up = (up << 1 | 1) & full
        plus, minus = (down << 1 | ~(diagonal | up)) & full, up & diagonal
    return distance


def diff(a: str, b: str) -> str:
    """Return a word diff on one line: ``What [-colour-]{+color+} is it?``. Long equal stretches are cut to ``...``."""
    left, right = re.findall(r"\s+|\w+|[^\w\s]", a), re.findall(r"\s+|\w+|[^\w\s]", b)
    marked = ""
    # The time grows with the square where words repeat, so in long texts frequent words are no anchors.
    long = len(left) * len(right) > _EXACT
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, left, right, autojunk=long).get_opcodes():
        old, new = "".join(left[a0:a1]), "".join(right[b0:b1])
        if tag == "equal":
            marked += old if a1 - a0 <= 6 else "".join(left[a0 : a0 + 3]) + "..." + "".join(left[a1 - 3 : a1])
        else:
            marked += (f"[-{old}-]" if old else "") + (f"{{+{new}+}}" if new else "")
    return marked
