"""Small changes of the surface: casing, punctuation and spacing, contractions. The words stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from holdfast.sensitivity.variants.items import Item
from holdfast.sensitivity.variants.protect import change_free_text, free_words

Made = Iterator[tuple[Item, str, dict[str, Any]]]


def casing(item: Item, rng: Random) -> Made:
    """The question in lower case, upper case, title case and with a lower first letter; then endless draws of words in capitals."""
    keep = _keep(item)
    whole: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "upper": str.upper,
        "title": lambda text: re.sub(r"[^\W\d_]+", lambda m: m.group().capitalize(), text),
        "first": lambda text: text[:1].lower() + text[1:],
    }
    for name, change in whole.items():
        yield _asked(item, change(item.question) if name == "first" and not keep else change_free_text(item.question, keep, change), name)
    words = free_words(item.question, keep)
    while words:
        question = item.question
        for start, end in rng.sample(words, rng.randint(1, max(1, len(words) // 2))):
            question = question[:start] + question[start:end].swapcase() + question[end:]
        yield _asked(item, question, "words")


def punctuation(item: Item, rng: Random) -> Made:
    """The end mark dropped, doubled or set apart; commas dropped; double spaces; then endless draws of them together."""
    keep = _keep(item)
    changes: dict[str, Callable[[str], str]] = {
        "no-end-mark": lambda text: re.sub(r"\s*[?.!]+$", "", text),
        "double-end-mark": lambda text: re.sub(r"([?.!])$", r"\1\1", text) if re.search(r"[?.!]$", text) else text + ".",
        "end-mark-apart": lambda text: re.sub(r"\s*([?.!])$", r" \1", text),
        "no-commas": lambda text: change_free_text(text, keep, lambda free: re.sub(r",(?=\s)", "", free)),
        "double-spaces": lambda text: change_free_text(text, keep, lambda free: re.sub(r"(?<=\w) (?=\w)", "  ", free)),
        "trailing-space": lambda text: text + " ",
        "leading-newline": lambda text: "\n" + text,
    }
    for name, change in changes.items():
        yield _asked(item, change(item.question), name)
    while True:
        names = rng.sample(list(changes), rng.randint(2, 4))
        question = item.question
        for name in names:
            question = changes[name](question)
        yield _asked(item, question, "+".join(names))


_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "are not": "aren't", "was not": "wasn't",
    "were not": "weren't", "cannot": "can't", "can not": "can't", "will not": "won't", "would not": "wouldn't", "should not": "shouldn't",
    "could not": "couldn't", "have not": "haven't", "has not": "hasn't", "had not": "hadn't", "it is": "it's", "that is": "that's",
    "what is": "what's", "who is": "who's", "where is": "where's", "there is": "there's", "i am": "I'm", "you are": "you're",
    "we are": "we're", "they are": "they're", "i will": "I'll", "you will": "you'll", "let us": "let's", "i have": "I've",
}  # fmt: skip
_EXPANSIONS = {short: long for long, short in _CONTRACTIONS.items() if long != "can not"}


def contractions(item: Item, rng: Random) -> Made:
    """``do not`` becomes ``don't`` and back: every place at once, then each place alone."""
    text, keep = item.question, _keep(item)
    for name, table in (("contracted", _CONTRACTIONS), ("expanded", _EXPANSIONS)):
        pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, sorted(table, key=len, reverse=True))) + r")(?!\w)", re.IGNORECASE)

        def put(match: re.Match[str], table: dict[str, str] = table) -> str:
            new = table[match.group().lower()]
            return new[0].upper() + new[1:] if match.group()[0].isupper() else new

        yield _asked(item, change_free_text(text, keep, lambda free, pattern=pattern, put=put: pattern.sub(put, free)), name)  # type: ignore[misc]
        free = free_words(text, keep)
        for match in pattern.finditer(text):
            if any(start <= match.start() < end for start, end in free):
                yield _asked(item, text[: match.start()] + put(match) + text[match.end() :], f"{name}-one")


def _asked(item: Item, question: str, change: str) -> tuple[Item, str, dict[str, Any]]:
    made = item.asking(question)
    return made, made.prompt(), {"change": change}


def _keep(item: Item) -> list[str]:
    return [item.gold] if item.gold else []
