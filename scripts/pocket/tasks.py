"""The tasks of `pocket`: sixteen small things to ask about the world, and which split each item belongs to.

In: a `random.Random`. Out: an `Item` (the fields of one question and its one right answer).

    split_of(task, fields) = hash(salt, task name, fields) mod 20        0-13 train | 14-15 dev | 16-19 test

An item is in the same split whatever the seed, the machine or the data set that drew it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from pocket import world
from pocket.held_out_wordings import HELD_OUT_WORDINGS
from pocket.wordings import WORDINGS

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_SPLIT_OF_BUCKET: tuple[Split, ...] = ("train",) * 14 + ("dev",) * 2 + ("test",) * 4
# Chosen once so that the three tasks over tables of about 50 words get at least 5 dev and 12 test items each.
_SALT = "pocket 151"


@dataclass(frozen=True, slots=True)
class Item:
    """One question without its wording: named fields, and the one right answer."""

    fields: dict[str, str]
    answer: str


@dataclass(frozen=True, slots=True)
class PocketTask:
    """A task: what it asks for, its answers, its wordings and how to draw an item.

    `labels` is the closed set of answers, or None where the answer is free. `cue` is the word before an answer in a
    completion prompt (`Opposite:`). `wordings` are used everywhere, `held_out_wordings` only in test data and intents.
    """

    name: str
    definition: str
    labels: tuple[str, ...] | None
    cue: str
    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]
    make: Callable[[Random], Item]

    @property
    def all_wordings(self) -> tuple[str, ...]:
        """Wordings in use, then the held-out ones: the index space of every `wording` number."""
        return self.wordings + self.held_out_wordings


def split_of(task_name: str, fields: dict[str, str]) -> Split:
    """The one split an item belongs to, from its content alone."""
    content = "\x1f".join((_SALT, task_name, *(f"{key}={fields[key]}" for key in sorted(fields))))
    return _SPLIT_OF_BUCKET[int.from_bytes(hashlib.md5(content.encode(), usedforsecurity=False).digest()[:4]) % 20]


def draw(task: PocketTask, split: Split, rng: Random) -> Item:
    """One item of `split`, by drawing until one falls into it (1.4 draws for train, 5 for test, 10 for dev)."""
    while True:
        item = task.make(rng)
        if split_of(task.name, item.fields) == split:
            return item


def ask(task: PocketTask, wording: int, item: Item) -> str:
    """The user message: wording number `wording` of the task, with the item's fields in place."""
    return task.all_wordings[wording].format_map(item.fields)


def show(item: Item) -> str:
    """The item as titled lines, without any wording: `Passage: ...` and `Thing: hat`."""
    return "\n".join(f"{key.capitalize()}: {value}" for key, value in item.fields.items())


# --- look-up in a short passage ------------------------------------------------------------------------------------


def _who_has(rng: Random) -> Item:
    people, things = rng.sample(world.NAMES, 3), rng.sample(world.THINGS, 3)
    verb = rng.choice(("has", "has", "found", "took"))
    lines = [f"{p} {verb} {world.with_article(t)}." for p, t in zip(people, things, strict=True)]
    asked = rng.randrange(3)
    return Item({"passage": " ".join(lines), "thing": things[asked]}, people[asked])


def _where_is(rng: Random) -> Item:
    people, places = rng.sample(world.NAMES, 3), rng.sample(world.PLACES, 3)
    verb = rng.choice(("is in", "is in", "went to", "walked to"))
    lines = [f"{p} {verb} the {q}." for p, q in zip(people, places, strict=True)]
    asked = rng.randrange(3)
    return Item({"passage": " ".join(lines), "person": people[asked]}, places[asked])


def _colour_of(rng: Random) -> Item:
    things, colours = rng.sample(world.NOUNS, 3), rng.sample(world.COLOURS, 3)
    if rng.random() < 0.5:
        lines = [f"The {t} is {c}." for t, c in zip(things, colours, strict=True)]
    else:
        people = rng.sample(world.NAMES, 3)
        lines = [f"{p} has a {c} {t}." for p, c, t in zip(people, colours, things, strict=True)]
    asked = rng.randrange(3)
    return Item({"passage": " ".join(lines), "thing": things[asked]}, colours[asked])


def _yes_no(rng: Random) -> Item:
    people, places = rng.sample(world.NAMES, 2), rng.sample(world.PLACES, 2)
    asked, true = rng.randrange(2), rng.random() < 0.5
    # A wrong place is one that the passage names, so that "is it mentioned?" is not enough to answer.
    place = places[asked] if true else places[1 - asked]
    passage = f"{people[0]} is in the {places[0]}. {people[1]} is in the {places[1]}."
    return Item({"passage": passage, "question": f"Is {people[asked]} in the {place}?"}, "yes" if true else "no")


# --- labels of a text ----------------------------------------------------------------------------------------------


def _sentiment(rng: Random) -> Item:
    positive = rng.random() < 0.5
    return Item({"text": world.lovers_and_haters(rng, positive)}, "positive" if positive else "negative")


def _topic(rng: Random) -> Item:
    topic = rng.choice(world.TOPICS)
    return Item({"text": world.topic_sentence(rng, topic)}, topic)


# --- closed word tables --------------------------------------------------------------------------------------------


_OPPOSITE_WORDS: tuple[str, ...] = tuple(world.OPPOSITES)


def _opposite(rng: Random) -> Item:
    word = rng.choice(_OPPOSITE_WORDS)
    return Item({"word": word}, world.OPPOSITES[word])


def _plural(rng: Random) -> Item:
    word = rng.choice(world.NOUNS)
    return Item({"word": word}, world.PLURALS[word])


def _category(rng: Random) -> Item:
    word = rng.choice(world.NOUNS)
    return Item({"word": word}, world.CATEGORY_OF[word])


# --- lists of words and numbers ------------------------------------------------------------------------------------


def _odd_one_out(rng: Random) -> Item:
    many, one = rng.sample(tuple(world.CATEGORIES), 2)
    words, odd = rng.sample(world.CATEGORIES[many], 3), rng.choice(world.CATEGORIES[one])
    words.insert(rng.randrange(4), odd)
    return Item({"words": world.listed(words)}, odd)


def _count(rng: Random) -> Item:
    count = rng.randint(2, 6)
    return Item({"words": world.listed(rng.sample(world.NOUNS, count))}, str(count))


def _largest(rng: Random) -> Item:
    numbers = rng.sample(range(1, world.LARGEST_NUMBER + 1), 3)
    return Item({"numbers": world.listed([str(n) for n in numbers])}, str(max(numbers)))


def _sort_numbers(rng: Random) -> Item:
    numbers = rng.sample(range(1, world.LARGEST_NUMBER + 1), 3)
    return Item({"numbers": world.listed([str(n) for n in numbers])}, world.listed([str(n) for n in sorted(numbers)]))


def _reverse(rng: Random) -> Item:
    words = rng.sample(world.NOUNS, rng.randint(2, 4))
    return Item({"words": world.listed(words)}, world.listed(words[::-1]))


def _drop_first(rng: Random) -> Item:
    words = rng.sample(world.NOUNS, rng.randint(3, 4))
    return Item({"words": world.listed(words)}, world.listed(words[1:]))


def _add(rng: Random) -> Item:
    a, b = rng.randint(1, world.LARGEST_TERM), rng.randint(1, world.LARGEST_TERM)
    return Item({"a": str(a), "b": str(b)}, str(a + b))


def _task(
    name: str, definition: str, labels: tuple[str, ...] | None, cue: str, make: Callable[[Random], Item]
) -> PocketTask:
    return PocketTask(name, definition, labels, cue, WORDINGS[name], HELD_OUT_WORDINGS[name], make)


TASKS: tuple[PocketTask, ...] = (
    _task("who_has", "Name the person in the passage that has the thing.", None, "Person:", _who_has),
    _task("where_is", "Name the place in the passage that the person is in.", None, "Place:", _where_is),
    _task("colour_of", "Name the colour that the thing has in the passage.", world.COLOURS, "Colour:", _colour_of),
    _task("yes_no", "Answer the question about the passage with yes or no.", ("yes", "no"), "Answer:", _yes_no),
    _task("sentiment", "Is the text positive or negative?", ("positive", "negative"), "Sentiment:", _sentiment),
    _task("topic", "Name the topic: weather, food, travel or school.", world.TOPICS, "Topic:", _topic),
    _task("opposite", "Write a word that is the opposite of the word.", None, "Opposite:", _opposite),
    _task("plural", "Write the plural of the word.", None, "Plural:", _plural),
    _task("category", "Name the category that the word is in.", tuple(world.CATEGORIES), "Category:", _category),
    _task("odd_one_out", "Find the word of another category than the others.", None, "Odd:", _odd_one_out),
    _task("count", "Count how many words are in the list.", ("2", "3", "4", "5", "6"), "Count:", _count),
    _task("largest", "Find the largest number in the list.", None, "Largest:", _largest),
    _task("sort_numbers", "Write the numbers in order, from small to large.", None, "Order:", _sort_numbers),
    _task("reverse", "Write the words in reverse order, last word first.", None, "Reverse:", _reverse),
    _task("drop_first", "Write all words of the list without the first.", None, "Rest:", _drop_first),
    _task("add", "Write the sum of the two numbers.", None, "Sum:", _add),
)
BY_NAME: dict[str, PocketTask] = {task.name: task for task in TASKS}
