"""Misspellings: k words of the question, each with one random edit (POSIX, section 3, after Brooks et al. 1993).

    insertion  a random letter inside the word        transposition  two neighbouring letters change places
    omission   one letter dropped                     substitution   one letter becomes a neighbour on the keyboard

k runs over 1, 2, 4, 8 with fresh draws each time: 20 variants are 4 values of k times 5 draws. A question with fewer
than k words that can be changed has all of them changed.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from random import Random

from holdfast.sensitivity.variants.items import Draft, PromptItem
from holdfast.sensitivity.variants.protect import free_words

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
