"""What the tests of `pocket` judge rows by: independent answers to every task, and the way from a prompt to its
item.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pocket import splits, world
from pocket.tasks import BY_NAME, Item

# What a field may look like, so that a prompt can be taken apart again.
FIELD_PATTERNS = {
    "passage": r".+\.",
    "question": r"Is [^?]+\?",
    "text": r".+[.!]",
    "a": r"\d+",
    "b": r"\d+",
} | dict.fromkeys(("thing", "person", "word", "words", "numbers"), r"\w+(?:, \w+)*")


def fields_in(task: str, wording: int, prompt: str) -> dict[str, str]:
    """The fields of the item that `prompt` asks about, read back from the prompt."""
    for prefix in splits._POLITE_PREFIXES:
        prompt = prompt.removeprefix(prefix)
    places = re.split(r"{(\w+)}", BY_NAME[task].all_wordings[wording])
    pattern = "".join(f"(?P<{p}>{FIELD_PATTERNS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(places))
    found = re.fullmatch(pattern, prompt)
    assert found, (pattern, prompt)
    return found.groupdict()


def numbers_of(item: Item) -> list[int]:
    return [int(n) for n in item.fields["numbers"].split(", ")]


def words_of(item: Item) -> list[str]:
    return item.fields["words"].split(", ")


def odd_word(item: Item) -> str:
    """The word whose category no other word of the list has."""
    kinds = [next(kind for kind, nouns in world.CATEGORIES.items() if word in nouns) for word in words_of(item)]
    [odd] = [word for word, kind in zip(words_of(item), kinds, strict=True) if kinds.count(kind) == 1]
    return odd


def said_of(item: Item, asked: str) -> str:
    """The one sentence of the passage that names what is asked for."""
    [sentence] = [s for s in item.fields["passage"].rstrip(".").split(". ") if re.search(rf"\b{asked}\b", s)]
    return sentence


def told_yes_or_no(item: Item) -> str:
    statement = re.sub(r"^Is (\w+) in the (\w+)\?$", r"\1 is in the \2.", item.fields["question"])
    return "yes" if statement in item.fields["passage"] else "no"


GOOD = r"\b(good|great|lovely|nice|perfect|fine|happy|glad|proud|pleased|loved|liked|enjoyed)\b"
BAD = r"\b(bad|awful|terrible|boring|ugly|broken|sad|angry|upset|unhappy|hated|disliked|feared)\b"


def told_sentiment(item: Item) -> str:
    """All words of opinion say one thing, and `not` the opposite."""
    text = item.fields["text"]
    good, bad = re.search(GOOD, text) is not None, re.search(BAD, text) is not None
    assert good != bad, text
    return "positive" if good != (" not " in text) else "negative"


TOPIC_WORDS = {
    "school": r"\b(book|lesson|teacher|class|learned)\b",
    "weather": r"\b(rain|snow|wind|sun|storm)\b",
    "travel": rf"\b({'|'.join(world.CATEGORIES['vehicle'])})\b",
    "food": rf"\b({'|'.join(world.CATEGORIES['food'])})\b",
}


def told_topic(item: Item) -> str:
    [topic] = [topic for topic, words in TOPIC_WORDS.items() if re.search(words, item.fields["text"])]
    return topic


COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"]
ORACLES: dict[str, Callable[[Item], str]] = {
    "add": lambda item: str(int(item.fields["a"]) + int(item.fields["b"])),
    "largest": lambda item: str(max(numbers_of(item))),
    "sort_numbers": lambda item: ", ".join(map(str, sorted(numbers_of(item)))),
    "reverse": lambda item: ", ".join(reversed(words_of(item))),
    "drop_first": lambda item: item.fields["words"].split(", ", 1)[1],
    "count": lambda item: str(item.fields["words"].count(",") + 1),
    "odd_one_out": odd_word,
    "who_has": lambda item: said_of(item, item.fields["thing"]).split()[0],
    "where_is": lambda item: said_of(item, item.fields["person"]).split()[-1],
    "colour_of": lambda item: next(w for w in said_of(item, item.fields["thing"]).split() if w in COLOURS),
    "yes_no": told_yes_or_no,
    "sentiment": told_sentiment,
    "topic": told_topic,
    "opposite": lambda item: world.OPPOSITES[item.fields["word"]],
    "plural": lambda item: world.PLURALS[item.fields["word"]],
    "category": lambda item: next(kind for kind, nouns in world.CATEGORIES.items() if item.fields["word"] in nouns),
}
