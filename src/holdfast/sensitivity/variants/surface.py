"""Small changes of the surface: casing, punctuation and spacing. The words stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random

from holdfast.sensitivity.variants.items import Draft, PromptItem
from holdfast.sensitivity.variants.protect import WORD, change_free_text, free_words, protected_spans


def casing(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield the question in lower, upper and title case and with a lower first letter, then with words in capitals."""
    keep = item.keep
    whole: dict[str, Callable[[str], str]] = {
        "lower": str.lower,
        "upper": str.upper,
        "title": lambda text: WORD.sub(lambda m: m.group().capitalize(), text),
    }
    for name, change in whole.items():
        yield item.draft(change_free_text(item.question, keep, change), change=name)
    first = 0 if any(start == 0 for start, _ in protected_spans(item.question, keep)) else 1
    yield item.draft(item.question[:first].lower() + item.question[first:], change="first")
    words = free_words(item.question, keep)
    while words:
        question = item.question
        chosen = rng.sample(words, rng.randint(1, max(1, len(words) // 2)))
        for start, end in sorted(chosen, reverse=True):  # from the end, since a letter may become two
            question = question[:start] + question[start:end].swapcase() + question[end:]
        yield item.draft(question, change="words")


def punctuation(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield the end mark dropped, doubled or set apart; commas dropped; double spaces; then draws of them together.

    A prompt without an end mark gets none, and three dots are left alone, because both may ask for a continuation.
    """
    keep = item.keep

    def at_end(text: str, pattern: str, new: str) -> str:
        match = re.search(pattern, text)
        closed = match is None or any(start <= match.start(1) < end for start, end in protected_spans(text, keep))
        return text if closed else re.sub(pattern, new, text)

    changes: dict[str, Callable[[str], str]] = {
        "no-end-mark": lambda text: at_end(text, r"(?<![?.!])\s*([?.!])$", ""),
        "double-end-mark": lambda text: at_end(text, r"(?<![?.!])([?.!])$", r"\1\1"),
        "end-mark-apart": lambda text: at_end(text, r"(?<![?.!\s])\s*([?.!])$", r" \1"),
        "no-commas": lambda text: change_free_text(text, keep, lambda free: re.sub(r",(?=\s)", "", free)),
        "double-spaces": lambda text: change_free_text(text, keep, lambda free: re.sub(r"(?<=\w) (?=\w)", "  ", free)),
        "trailing-space": lambda text: text + " ",
        "leading-newline": lambda text: "\n" + text,
    }
    for name, change in changes.items():
        yield item.draft(change(item.question), change=name)
    while True:
        names = rng.sample(list(changes), rng.randint(2, 4))
        question = item.question
        for name in names:
            question = changes[name](question)
        yield item.draft(question, change="+".join(names))
