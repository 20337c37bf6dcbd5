"""What else could be asked in place of an item: must-move edits (another right answer), further wordings (the same).

In: a task, an item and the wording it was asked in. Out: plain rows, ready for JSON, for the column `meta` of shipped
rows.

    must-move edit = a small change of the fields after which the right answer is another one

    who_has, where_is, colour_of   ask: another of the passage's three; swap: two values change places; value: a new one
    yes_no                         person, place: ask for the other of the two; swap: the two places change places
    sentiment                      opinion: opposite words for all words of opinion; negation: `not` goes in or out
    topic                          text: a text about another topic (no smaller change is sure to move the topic)
    opposite, plural, category     word: another word
    odd_one_out                    odd: another odd word; others: two words change, so that the third is odd
    count                          more, fewer: a word comes or goes
    largest, sort_numbers          number: another number
    reverse, drop_first            word: another word; swap: two words change places
    add                            a, b: another number

The same item has the same edits in every data set, whatever its wording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from pocket import world
from pocket.tasks import BY_NAME, Item, PocketTask, Split, ask, split_of

EDITS = 3
"""Must-move edits of an item."""
_DRAWS = 12  # of a kind of edit that has many outcomes

Candidate = tuple[str, Item]
"""The kind of an edit and the edited item, which may turn out to have the old answer or to be the old item."""


def meta(task: PocketTask, wording: int, item: Item, split: Split) -> dict[str, Any]:
    """The facts of one row."""
    return {
        "task": task.name,
        "wording": wording,
        "held_out_wording": wording >= len(task.wordings),
        "split": split,
        "fields": item.fields,
        "answer": item.answer,
        "labels": None if task.labels is None else list(task.labels),
    }


def must_move(task: PocketTask, wording: int, item: Item, prefix: str = "") -> list[dict[str, Any]]:
    """`EDITS` edited items, in the same wording: `{"edit", "split", "fields", "prompt", "answer"}`.

    Items of the item's own split come first: of another split, a model may have been trained on them.
    """
    own = split_of(task.name, item.fields)
    rng = Random("pocket:alternatives:" + "\x1f".join((task.name, *item.fields.values())))
    kinds: dict[str, dict[tuple[str, ...], Item]] = {}
    for kind, edited in _CANDIDATES[task.name](item, rng):
        if edited.answer != item.answer:
            kinds.setdefault(kind, {})[tuple(edited.fields.values())] = edited
    ranked = []
    for kind, items in kinds.items():
        for turn, edited in enumerate(_shuffled(rng, items.values(), lambda e: split_of(task.name, e.fields) != own)):
            ranked.append((split_of(task.name, edited.fields) != own, turn, rng.random(), kind, edited))
    return [
        {
            "edit": kind,
            "split": split_of(task.name, edited.fields),
            "fields": edited.fields,
            "prompt": prefix + ask(task, wording, edited),
            "answer": edited.answer,
        }
        for *_, kind, edited in sorted(ranked, key=lambda entry: entry[:3])[:EDITS]
    ]


def further_wordings(task: PocketTask, without: set[int], item: Item, prefix: str = "") -> list[dict[str, Any]]:
    """The item in every wording but those of `without`: `{"wording", "held_out_wording", "prompt"}`."""
    return [
        {"wording": i, "held_out_wording": i >= len(task.wordings), "prompt": prefix + ask(task, i, item)}
        for i in range(len(task.all_wordings))
        if i not in without
    ]


def _shuffled(rng: Random, items: Any, last: Callable[[Item], bool]) -> list[Item]:
    """Items in random order, those that `last` names at the end."""
    mixed = list(items)
    rng.shuffle(mixed)
    return sorted(mixed, key=last)


def _edited(item: Item, answer: str, **fields: str) -> Item:
    return Item({**item.fields, **fields}, answer)


def _replaced(text: str, words: dict[str, str]) -> str:
    """Whole words replaced, all at once, so that two can change places."""
    return re.sub(r"\w+", lambda word: words.get(word[0], word[0]), text)


# --- look-up in a short passage ------------------------------------------------------------------------------------


def _look_up(
    asked: str, told: Callable[[str], dict[str, str]], pool: tuple[str, ...]
) -> Callable[[Item, Random], Iterator[Candidate]]:
    """Edits of a task that asks for the value of one key of its passage; `asked` is the field that names the key."""

    def candidates(item: Item, rng: Random) -> Iterator[Candidate]:
        passage, key = item.fields["passage"], item.fields[asked]
        values = told(passage)
        for other, value in values.items():
            if other != key:
                yield "ask", _edited(item, value, **{asked: other})
                yield "swap", _edited(item, value, passage=_replaced(passage, {item.answer: value, value: item.answer}))
        for value in pool:
            if value not in values.values():
                yield "value", _edited(item, value, passage=_replaced(passage, {item.answer: value}))

    return candidates


def _things_of_people(passage: str) -> dict[str, str]:
    return {thing: person for person, thing in re.findall(r"(\w+) (?:has|found|took) an? (\w+)\.", passage)}


def _places_of_people(passage: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+) (?:is in|went to|walked to) the (\w+)\.", passage))


def _colours_of_things(passage: str) -> dict[str, str]:
    said = re.findall(r"The (\w+) is (\w+)\.", passage)
    return dict(said) or {thing: colour for colour, thing in re.findall(r"has a (\w+) (\w+)\.", passage)}


def _yes_no(item: Item, rng: Random) -> Iterator[Candidate]:
    passage, question = item.fields["passage"], item.fields["question"]
    people, places = list(_places_of_people(passage)), list(_places_of_people(passage).values())
    other = "no" if item.answer == "yes" else "yes"
    swapped_places = dict(zip(places, reversed(places), strict=True))
    yield "person", _edited(item, other, question=_replaced(question, dict(zip(people, reversed(people), strict=True))))
    yield "place", _edited(item, other, question=_replaced(question, swapped_places))
    yield "swap", _edited(item, other, passage=_replaced(passage, swapped_places))


# --- labels of a text ----------------------------------------------------------------------------------------------


_OPINIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (world.GOOD_WORDS, world.BAD_WORDS), (world.GOOD_FEELINGS, world.BAD_FEELINGS), (world.GOOD_VERBS, world.BAD_VERBS),
)  # fmt: skip
_OPPOSITE_OPINIONS: dict[str, tuple[str, ...]] = {word: bad for good, bad in _OPINIONS for word in good} | {
    word: good for good, bad in _OPINIONS for word in bad
}


def _sentiment(item: Item, rng: Random) -> Iterator[Candidate]:
    text, other = item.fields["text"], "negative" if item.answer == "positive" else "positive"
    for _ in range(_DRAWS):
        words = {word: rng.choice(opposite) for word, opposite in _OPPOSITE_OPINIONS.items()}
        turned = re.sub(r"^What an? (\w+)", lambda said: f"What {world.with_article(said[1])}", _replaced(text, words))
        yield "opinion", _edited(item, other, text=turned)
    if statement := re.fullmatch(r"The (\w+) was (not )?(\w+)\.", text):
        noun, negation, word = statement.groups()
        yield "negation", _edited(item, other, text=f"The {noun} was {'' if negation else 'not '}{word}.")


def _topic(item: Item, rng: Random) -> Iterator[Candidate]:
    for _ in range(_DRAWS):
        for topic in world.TOPICS:
            yield "text", _edited(item, topic, text=world.topic_sentence(rng, topic))


# --- tables, lists of words and numbers ----------------------------------------------------------------------------


def _table(answers: dict[str, str]) -> Callable[[Item, Random], Iterator[Candidate]]:
    """Edits of a task that looks its answer up in a table: any other word of it."""
    return lambda item, rng: (("word", _edited(item, answer, word=word)) for word, answer in answers.items())


def _listed_words(item: Item) -> list[str]:
    return item.fields["words"].split(", ")


def _odd_one_out(item: Item, rng: Random) -> Iterator[Candidate]:
    words, odd = _listed_words(item), item.answer
    others = [word for word in words if word != odd]
    for word in world.NOUNS:
        if word != odd and world.CATEGORY_OF[word] != world.CATEGORY_OF[others[0]]:
            yield "odd", _edited(item, word, words=_replaced(item.fields["words"], {odd: word}))
    of_one_kind = [word for word in world.CATEGORIES[world.CATEGORY_OF[odd]] if word != odd]
    for _ in range(_DRAWS):
        left = rng.choice(others)
        gone = [word for word in others if word != left]
        new = dict(zip(gone, rng.sample(of_one_kind, 2), strict=True))
        yield "others", _edited(item, left, words=_replaced(item.fields["words"], new))


def _count(item: Item, rng: Random) -> Iterator[Candidate]:
    words = _listed_words(item)
    if len(words) < 6:
        for word in rng.sample([noun for noun in world.NOUNS if noun not in words], _DRAWS):
            at = rng.randrange(len(words) + 1)
            yield "more", _edited(item, str(len(words) + 1), words=world.listed([*words[:at], word, *words[at:]]))
    if len(words) > 2:
        for at in range(len(words)):
            yield "fewer", _edited(item, str(len(words) - 1), words=world.listed(words[:at] + words[at + 1 :]))


def _numbers(solve: Callable[[list[int]], list[int]]) -> Callable[[Item, Random], Iterator[Candidate]]:
    """Edits of a task over a list of numbers: one of them is another number."""

    def candidates(item: Item, rng: Random) -> Iterator[Candidate]:
        numbers = [int(number) for number in item.fields["numbers"].split(", ")]
        for at in range(len(numbers)):
            for number in rng.sample([n for n in range(1, world.LARGEST_NUMBER + 1) if n not in numbers], _DRAWS):
                new = [*numbers[:at], number, *numbers[at + 1 :]]
                yield (
                    "number",
                    _edited(
                        item, world.listed([str(n) for n in solve(new)]), numbers=world.listed([str(n) for n in new])
                    ),
                )

    return candidates


def _words(solve: Callable[[list[str]], list[str]]) -> Callable[[Item, Random], Iterator[Candidate]]:
    """Edits of a task over a list of words: one is another word, or two change places."""

    def candidates(item: Item, rng: Random) -> Iterator[Candidate]:
        words = _listed_words(item)
        for at, word in enumerate(words):
            for noun in rng.sample([n for n in world.NOUNS if n not in words], _DRAWS):
                new = [*words[:at], noun, *words[at + 1 :]]
                yield "word", _edited(item, world.listed(solve(new)), words=world.listed(new))
            for other in words[at + 1 :]:
                new = _replaced(item.fields["words"], {word: other, other: word}).split(", ")
                yield "swap", _edited(item, world.listed(solve(new)), words=world.listed(new))

    return candidates


def _add(item: Item, rng: Random) -> Iterator[Candidate]:
    a, b = int(item.fields["a"]), int(item.fields["b"])
    for number in range(1, world.LARGEST_TERM + 1):
        yield "a", _edited(item, str(number + b), a=str(number))
        yield "b", _edited(item, str(a + number), b=str(number))


_CANDIDATES: dict[str, Callable[[Item, Random], Iterator[Candidate]]] = {
    "who_has": _look_up("thing", _things_of_people, world.NAMES),
    "where_is": _look_up("person", _places_of_people, world.PLACES),
    "colour_of": _look_up("thing", _colours_of_things, world.COLOURS),
    "yes_no": _yes_no,
    "sentiment": _sentiment,
    "topic": _topic,
    "opposite": _table(world.OPPOSITES),
    "plural": _table(world.PLURALS),
    "category": _table(world.CATEGORY_OF),
    "odd_one_out": _odd_one_out,
    "count": _count,
    "largest": _numbers(lambda numbers: [max(numbers)]),
    "sort_numbers": _numbers(sorted),
    "reverse": _words(lambda words: words[::-1]),
    "drop_first": _words(lambda words: words[1:]),
    "add": _add,
}
assert _CANDIDATES.keys() == BY_NAME.keys()
