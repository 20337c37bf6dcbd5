"""Small changes of the surface: misspellings, casing, punctuation and spacing. The words stay.

Misspellings are k words of the question, each with one random edit (POSIX, section 3, after Brooks et al. 1993):

    insertion  a random letter inside the word        transposition  two neighbouring letters change places
    omission   one letter dropped                     substitution   one letter becomes a neighbour on the keyboard

k runs over 1, 2, 4, 8 with fresh draws each time: 20 variants are 4 values of k times 5 draws. A question with fewer
than k words that can be changed has all of them changed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from random import Random

from holdfast.sensitivity.variants.items import Draft, PromptItem
from holdfast.sensitivity.variants.protect import WORD, change_free_text, free_words, protected_spans

EDITS_PER_VARIANT = (1, 2, 4, 8)
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Return the letters that touch each letter on a QWERTY keyboard.

    Its lower rows begin half a key and a whole key further to the right.
    """
    places: dict[str, tuple[int, float]] = {}
    for r, row in enumerate(_ROWS):
        places |= {letter: (r, c + 0.5 * r) for c, letter in enumerate(row)}
    touching = {}
    for a, (row_a, column_a) in places.items():
        near = [b for b, (row, column) in places.items() if abs(row_a - row) <= 1 and abs(column_a - column) <= 1.0]
        touching[a] = "".join(near).replace(a, "")
    return touching


KEYBOARD = _neighbours()


def _insertion(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word))
    return word[:at] + rng.choice(string.ascii_lowercase) + word[at:]


def _omission(word: str, rng: Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at + 1 :]


def _transposition(word: str, rng: Random) -> str:
    places = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
    if not places:
        return word
    at = rng.choice(places)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _substitution(word: str, rng: Random) -> str:
    places = [i for i, letter in enumerate(word) if letter.lower() in KEYBOARD]
    if not places:
        return word
    at = rng.choice(places)
    letter = rng.choice(KEYBOARD[word[at].lower()])
    return word[:at] + (letter.upper() if word[at].isupper() else letter) + word[at + 1 :]


OPERATIONS: dict[str, Callable[[str, Random], str]] = {
    "insertion": _insertion,
    "omission": _omission,
    "transposition": _transposition,
    "substitution": _substitution,
}


def spelling(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield endless misspelt prompts. Options, layout, numbers, placeholders, code and the right answer stay."""
    words = [(a, b) for a, b in free_words(item.question, item.keep) if b - a > 1]
    while words:
        for k in EDITS_PER_VARIANT:
            chosen = sorted(rng.sample(words, min(k, len(words))), reverse=True)
            question, used = item.question, []
            for start, end in chosen:
                name = rng.choice(list(OPERATIONS))
                changed = OPERATIONS[name](question[start:end], rng)
                used.append(name if changed != question[start:end] else "none")
                question = question[:start] + changed + question[end:]
            yield item.draft(question, k=k, operations=used[::-1])


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
