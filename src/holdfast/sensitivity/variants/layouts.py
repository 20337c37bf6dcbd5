"""The same question in another layout, or with its options in another order.

The paper's lists of layouts (POSIX, tables 4 and 5) are byte-exact: some have two spaces, a tab, or no space at all.
The list for questions without options is the same with the options left out. A grammar draws more layouts.

The letter of the right option changes with its place. Options that speak of the others ("None of the above") keep their
place at the end. Where one names others by letter or place ("Both A and B", "the first two"), or the question does,
there is no variant, because another order would be another question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from holdfast.sensitivity.variants.items import LETTERS, Draft, PromptItem, without_options

PAPER_TEMPLATES = (
    "q:{question}\n{options}\na:",
    "Q::{question}\n{options}\nA::",
    "Q: {question}\n{options}\nA:",
    "q:: {question}\n{options}\na::",
    "Q::: {question}\n{options}\nA:::",
    "Q: {question} || {options} || A:",
    "q:::{question}\n{options}\na:::",
    "Q: {question}\n{options}\nAnswer:",
    "QUESTION:{question}\n{options}\nA:",
    "Question:{question}\n{options}\nAnswer:",
    "QUESTION:{question}\n{options}\nANSWER:",
    "Question: {question}\n{options}\nAnswer:",
    "Question::: {question}\n{options}\nAnswer:::",
    "QUESTION: {question}\n{options}\nAnswer:",
    "Question - {question}\n{options}\nAnswer -",
    "question::{question}\n{options}\nanswer::",
    "question: {question}\n{options}\nanswer:",
    "Question: {question} || {options} || Answer:",
    "QUESTION\t{question}\n{options}\nANSWER\t",
    "Question: {question} , {options} , Answer:",
)


def templates(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield the prompt in the paper's twenty layouts, in their order."""
    for number, template in enumerate(PAPER_TEMPLATES):
        layout = template if item.choices else without_options(template)
        yield item, item.prompt(layout), {"template": number, "layout": layout}


# The grammar follows FormatSpread (arXiv 2310.11324): what separates name and content, what joins the parts, the casing
# of the names, the names themselves, and how options are marked.
_SEPARATORS = (":", ": ", ":: ", " - ", " ", "\n", ":\n", "\t", " | ", ":   ")
_JOINS = ("\n", "\n\n", " ", " || ", " , ", "; ", "  ", "\n\t")
_CASINGS = (str.lower, str.upper, str.title, str)
_NAMES = (
    ("question", "answer"),
    ("q", "a"),
    ("problem", "solution"),
    ("input", "output"),
    ("task", "response"),
    ("query", "reply"),
)
_MARKERS = (
    "({letter}) {text}",
    "({letter}){text}",
    "{letter}) {text}",
    "{letter}. {text}",
    "[{letter}] {text}",
    "{letter}: {text}",
    "<{letter}> {text}",
)
_OPTION_JOINS = (" ", "\n", ", ", "; ", " | ")


def grammar(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield endless drawn formats: separators, spacing, casing, field names and option markers. The letters stay."""
    while True:
        names, casing = rng.choice(_NAMES), rng.choice(_CASINGS)
        separator, join = rng.choice(_SEPARATORS), rng.choice(_JOINS)
        marker, option_join = rng.choice(_MARKERS), rng.choice(_OPTION_JOINS)
        first, last = (casing(name) for name in names)
        middle = f"{join}{{options}}" if item.choices else ""
        layout = f"{first}{separator}{{question}}{middle}{join}{last}{separator.rstrip(' ')}"
        meta = {"layout": layout, "marker": marker if item.choices else None}
        yield item, item.prompt(layout, marker, option_join), meta


_OF_ALL = re.compile(
    r"""^\W*(?: (?:all|none|both|neither|either|any|some|two|three|more\ than\ one|one\ or\ more)
              \ (?:of|from)\ (?:the\ )?(?:above|these|those|them|others?|options|choices|answers|statements|two|three
                |given|listed)\b .*
           | (?:all|none|both|neither)\W* | .*\b(?:the|of)\ (?:above|below)\b.*
           | .*\babove\ (?:options|choices|answers|statements)\b.* )$""",
    re.VERBOSE | re.IGNORECASE,
)
_OTHER_PLACES = re.compile(
    r"""\b(?:previous|preceding|following|other|first|last|second|third|fourth)
        \ (?:\w+\ )?(?:options?|choices?|answers?|statements?)\b
      | \bthe\ (?:first|last|other)\ (?:two|three|ones?)\b
      | \b(?:options?|choices?|answers?)\ (?:before|after|above|below|\d) """,
    re.VERBOSE | re.IGNORECASE,
)


def option_order(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield distinct drawn orders of the options, their own order left out. Items without options have none."""
    free = _free(item)
    pinned = tuple(range(free, len(item.choices)))
    seen = {tuple(range(len(item.choices)))}
    while len(seen) < math.factorial(free):
        order = (*rng.sample(range(free), free), *pinned)
        if order in seen:
            continue
        seen.add(order)
        answer = None if item.answer is None else order.index(item.answer)
        reordered = replace(item, choices=tuple(item.choices[i] for i in order), answer=answer)
        yield reordered.draft(item.question, order=list(order))


def _free(item: PromptItem) -> int:
    """Return how many options, from the first, may change places."""
    letters = LETTERS[: len(item.choices)]
    if not letters:
        return 0
    if any(_names_others(choice, letters) for choice in item.choices) or _option_named(item.question, letters):
        return 0
    last = [_OF_ALL.match(choice) is not None for choice in item.choices]
    free = last.index(True) if True in last else len(last)
    return free if all(last[free:]) else 0


def _names_others(choice: str, letters: str) -> bool:
    """Whether an option names others by their letters or places. A letter alone is an answer such as a blood group."""
    one = rf"\(?[{letters}]\)?"
    lists = rf"(?<!\w){one}(?:,\s*{one})*,?\s+(?:and|or|nor|&)\s+{one}(?!\w)|(?<!\w){one}\s*&\s*{one}(?!\w)"
    by_letter = (
        rf"{lists}|^\W*(?:only\s+{one}|{one}\s+only|(?:both|neither|either|not)\s+{one})\W*$|\bneither\s+{one}\s+nor\b"
    )
    small = letters.lower()
    by_letter += rf"|\b(?i:both|neither|either)\s+\(?[{small}]\)?\s+(?:and|or|nor)\s+\(?[{small}]\)?(?!\w)"
    by_letter += rf"|^\W*\(?[{small}]\)?\s+(?:and|or|nor|&)\s+\(?[{small}]\)?\W*$"
    by_letter += rf"|^\W*{one}\s*(?:[-\u2013+/]|to|through|thru)\s*{one}\W*$|\b(?i:same\s+as)\s+{one}(?!\w)"
    return (
        re.search(by_letter, choice) is not None
        or _OTHER_PLACES.search(choice) is not None
        or _option_named(choice, letters)
    )


def _option_named(text: str, letters: str) -> bool:
    return re.search(rf"\b(?i:options?|choices?|answers?) \(?[{letters}]\)?(?!\w)", text) is not None
