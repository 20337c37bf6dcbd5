"""Things to ask -> sets of variants: named kinds, distinct, seeded, with edit distance and diff.

    make(items, {"spelling": spelling, "templates": templates}, per_kind=20, seed=0)  ->  sets, Report

A generator yields (item as asked, prompt, what was done); it may be endless and may repeat itself. An item's draws
depend on the seed, the kind and its id alone, so that adding items or kinds changes nothing else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from holdfast.sensitivity.sets import ORIGINAL, PromptSet, Variant
from holdfast.sensitivity.variants.items import Item

Generator = Callable[[Item, Random], Iterator[tuple[Item, str, dict[str, Any]]]]
Accept = Callable[[str, str], bool]
"""(original prompt, variant) -> whether the meaning is kept."""

_TRIES = 30
_EXACT = 250_000


@dataclass
class Report:
    """What was made and what was not, per kind."""

    made: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    lost_protected: dict[str, int] = field(default_factory=dict)
    no_variant: dict[str, int] = field(default_factory=dict)
    """Pieces of a paraphraser's answers that are no paraphrase: thoughts, remarks, program text."""
    other_meaning: dict[str, int] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)
    """Items that got fewer variants of this kind than asked for."""

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For the summary."""
        return asdict(self)


def make(
    items: Sequence[Item],
    generators: Mapping[str, Generator],
    per_kind: int,
    seed: int,
    accept: Mapping[str, Accept] | None = None,
) -> tuple[list[PromptSet], Report]:
    """The original of every item and up to ``per_kind`` distinct variants of each kind.

    Args:
        items: things to ask.
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
    item: Item,
    taken: set[str],
    generators: Mapping[str, Generator],
    per_kind: int,
    seed: int,
    report: Report,
    accept: Mapping[str, Accept],
) -> Iterator[Variant]:
    """The variants of one item whose prompts are not ``taken``."""
    original = item.prompt()
    for kind, generate in generators.items():
        made = 0
        source = generate(item, Random(f"{seed}:{kind}:{item.item_id}"))
        for _ in range(per_kind * _TRIES):
            if made == per_kind:
                break
            try:
                asked, prompt, meta = next(source)
            except StopIteration:
                break
            if "no_variant" in meta:
                report.no_variant[kind] = report.no_variant.get(kind, 0) + 1
                continue
            if _refused(kind, original, prompt, taken, report, accept.get(kind)):
                continue
            taken.add(prompt)
            yield Variant(f"{kind}-{made}", kind, prompt, seed, asked.expected, _meta(asked, original, prompt, meta))
            made += 1
        report.made[kind] = report.made.get(kind, 0) + made
        if made < per_kind:
            report.short[kind] = report.short.get(kind, 0) + 1


def _refused(kind: str, original: str, prompt: str, taken: set[str], report: Report, accept: Accept | None) -> bool:
    """Whether a prompt is left out, and count why."""
    if not prompt:
        reason = report.lost_protected
    elif prompt == original:
        reason = report.unchanged
    elif prompt in taken:
        reason = report.repeated
    elif accept is not None and not accept(original, prompt):
        reason = report.other_meaning
    else:
        return False
    reason[kind] = reason.get(kind, 0) + 1
    return True


def _original(item: Item) -> Variant:
    meta = {"options": item.options} if item.choices else {}
    return Variant(ORIGINAL, ORIGINAL, item.prompt(), 0, item.expected, meta, item.where)


def _meta(asked: Item, original: str, prompt: str, meta: dict[str, Any]) -> dict[str, Any]:
    options = {"options": asked.options} if asked.choices else {}
    return {**options, **meta, "edits": edit_distance(original, prompt), "diff": diff(original, prompt)}


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance in characters (Myers' bit-parallel algorithm, as given by Hyyro 2003)."""
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
    """Word diff on one line: ``What [-colour-]{+color+} is it?``; equal stretches of more than six pieces are cut to
    ``...``.
    """
    left, right = re.findall(r"\s+|\w+|[^\w\s]", a), re.findall(r"\s+|\w+|[^\w\s]", b)
    made = ""
    long = (
        len(left) * len(right) > _EXACT
    )  # its time grows with the square where words repeat, so frequent ones are no anchors then
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, left, right, autojunk=long).get_opcodes():
        old, new = "".join(left[a0:a1]), "".join(right[b0:b1])
        if tag == "equal":
            made += old if a1 - a0 <= 6 else "".join(left[a0 : a0 + 3]) + "..." + "".join(left[a1 - 3 : a1])
        else:
            made += (f"[-{old}-]" if old else "") + (f"{{+{new}+}}" if new else "")
    return made
