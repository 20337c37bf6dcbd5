"""Other layouts around the same question: the twenty of the paper, and more that a grammar draws.

The paper's lists (POSIX, tables 4 and 5) are byte-exact: some have two spaces, a tab, or no space at all. The list for
questions without options is the same with the options left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from holdfast.sensitivity.variants.items import Draft, PromptItem, without_options

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
