"""The small world of `pocket`: its words, and plain English about them.

In: a `random.Random`. Out: closed word tables, and short pieces of prose (stories and facts) that teach every word.

The tables are small on purpose: the embedded model has a vocabulary of 1,024 tokens, so a word that turns up often
enough becomes one token. Tasks (`tasks.py`) draw on the same tables, so whatever a held-out item asks is told here in
plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

PEOPLE: dict[str, str] = {
    "Ada": "She", "Ben": "He", "Cara": "She", "Dan": "He", "Eva": "She", "Finn": "He", "Hana": "She", "Ivan": "He",
    "Jack": "He", "Kim": "She", "Leo": "He", "Mia": "She", "Nora": "She", "Omar": "He", "Sam": "He", "Tom": "He",
}  # fmt: skip
NAMES: tuple[str, ...] = tuple(PEOPLE)

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animal": ("cat", "dog", "horse", "cow", "bird", "frog", "duck", "goat", "mouse", "wolf"),
    "food": ("apple", "pear", "plum", "lemon", "cake", "egg", "nut", "pie", "carrot", "bean"),
    "clothing": ("hat", "coat", "shirt", "sock", "shoe", "scarf", "glove", "belt", "dress", "boot"),
    "vehicle": ("car", "bus", "train", "boat", "bike", "truck", "plane", "ship", "van", "tram"),
    "tool": ("hammer", "saw", "knife", "spoon", "brush", "needle", "rope", "key", "pen", "fork"),
    "furniture": ("table", "chair", "bed", "desk", "lamp", "shelf", "bench", "sofa", "stool", "mirror"),
}
CATEGORY_OF: dict[str, str] = {noun: category for category, nouns in CATEGORIES.items() for noun in nouns}
NOUNS: tuple[str, ...] = tuple(CATEGORY_OF)
CATEGORY_PHRASE: dict[str, str] = {
    "animal": "an animal", "food": "food", "clothing": "clothing", "vehicle": "a vehicle", "tool": "a tool",
    "furniture": "furniture",
}  # fmt: skip
# What a person can carry about: look-up passages use these, so that nobody "has a bus in the kitchen".
THINGS: tuple[str, ...] = CATEGORIES["clothing"] + CATEGORIES["tool"] + CATEGORIES["food"]

_ODD_PLURALS: dict[str, str] = {
    "mouse": "mice", "wolf": "wolves", "scarf": "scarves", "knife": "knives", "shelf": "shelves", "dress": "dresses",
    "bus": "buses", "brush": "brushes", "bench": "benches",
}  # fmt: skip
PLURALS: dict[str, str] = {noun: _ODD_PLURALS.get(noun, noun + "s") for noun in NOUNS}

PLACES: tuple[str, ...] = (
    "garden", "kitchen", "school", "park", "shop", "field", "tower", "forest", "market", "station", "hall", "barn",
)  # fmt: skip
COLOURS: tuple[str, ...] = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")

OPPOSITE_PAIRS: tuple[tuple[str, str], ...] = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "new"), ("up", "down"), ("left", "right"),
    ("day", "night"), ("open", "closed"), ("full", "empty"), ("hard", "soft"), ("wet", "dry"), ("light", "dark"),
    ("happy", "sad"), ("good", "bad"), ("high", "low"), ("long", "short"), ("early", "late"), ("rich", "poor"),
    ("clean", "dirty"), ("strong", "weak"), ("loud", "quiet"), ("near", "far"), ("sweet", "sour"), ("thick", "thin"),
)  # fmt: skip
OPPOSITES: dict[str, str] = dict(OPPOSITE_PAIRS) | {b: a for a, b in OPPOSITE_PAIRS}

NUMBER_WORDS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six")
LARGEST_TERM = 20  # sums add two numbers of 1 to this
LARGEST_NUMBER = 99

GOOD_WORDS: tuple[str, ...] = ("good", "great", "lovely", "nice", "perfect", "fine")
BAD_WORDS: tuple[str, ...] = ("bad", "awful", "terrible", "boring", "ugly", "broken")
GOOD_FEELINGS: tuple[str, ...] = ("happy", "glad", "proud", "pleased")
BAD_FEELINGS: tuple[str, ...] = ("sad", "angry", "upset", "unhappy")
GOOD_VERBS: tuple[str, ...] = ("loved", "liked", "enjoyed")
BAD_VERBS: tuple[str, ...] = ("hated", "disliked", "feared")


def with_article(word: str) -> str:
    """`a` or `an` before a word of this world (no word here has a silent or consonant-like first vowel)."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def listed(words: list[str]) -> str:
    """Words in one line with commas: the only way this world writes a list."""
    return ", ".join(words)


def lovers_and_haters(rng: Random, positive: bool) -> str:
    """One sentence of opinion, for the sentiment task and for prose."""
    noun, name = rng.choice(NOUNS), rng.choice(NAMES)
    word = rng.choice(GOOD_WORDS if positive else BAD_WORDS)
    feeling = rng.choice(GOOD_FEELINGS if positive else BAD_FEELINGS)
    verb = rng.choice(GOOD_VERBS if positive else BAD_VERBS)
    against = rng.choice(BAD_WORDS if positive else GOOD_WORDS)
    kind = rng.randrange(8)
    if kind < 2:
        return f"The {noun} was {word}."
    if kind == 2:
        return f"{name} was {feeling} with the {noun}."
    if kind == 3:
        return f"What {with_article(word)} {noun}!"
    if kind == 4:
        return f"{name} {verb} the {noun}."
    if kind == 5:
        return f"{name} {verb} the {noun} and was {feeling}."
    if kind == 6:
        return f"The {noun} was {word} and {name} {verb} it."
    return f"The {noun} was not {against}."


def topic_sentence(rng: Random, topic: str) -> str:
    """One sentence about `topic` (weather, food, travel or school)."""
    return rng.choice(_TOPIC_MAKERS[topic])(rng)


_SKY: tuple[str, ...] = ("rain", "snow", "wind", "sun", "storm")


def _food(rng: Random) -> str:
    return rng.choice(CATEGORIES["food"])


def _vehicle(rng: Random) -> str:
    return rng.choice(CATEGORIES["vehicle"])


_TOPIC_MAKERS: dict[str, tuple[Callable[[Random], str], ...]] = {
    "weather": (
        lambda r: f"The {r.choice(_SKY)} came over the {r.choice(PLACES)} in the {r.choice(('day', 'night'))}.",
        lambda r: f"There was {r.choice(('rain', 'snow', 'wind'))} and the sky was {r.choice(('dark', 'light'))}.",
        lambda r: f"{r.choice(NAMES)} saw the {r.choice(_SKY)} from the {r.choice(PLACES)}.",
        lambda r: f"The {r.choice(_SKY)} was {r.choice(('strong', 'weak'))} at the {r.choice(PLACES)}.",
    ),
    "food": (
        lambda r: f"{r.choice(NAMES)} ate {with_article(_food(r))} in the {r.choice(PLACES)}.",
        lambda r: f"{r.choice(NAMES)} cooked {with_article(_food(r))} and {with_article(_food(r))}.",
        lambda r: f"The {_food(r)} was {r.choice(('sweet', 'sour', 'hot', 'cold'))}.",
        lambda r: f"{r.choice(NAMES)} and {r.choice(NAMES)} ate {with_article(_food(r))}.",
    ),
    "travel": (
        lambda r: f"{r.choice(NAMES)} took the {_vehicle(r)} to the {r.choice(PLACES)}.",
        lambda r: f"The {_vehicle(r)} left the {r.choice(PLACES)} {r.choice(('early', 'late'))}.",
        lambda r: f"{r.choice(NAMES)} rode {with_article(_vehicle(r))} far from the {r.choice(PLACES)}.",
        lambda r: f"The {_vehicle(r)} and the {_vehicle(r)} went to the {r.choice(PLACES)}.",
    ),
    "school": (
        lambda r: f"{r.choice(NAMES)} read a book with {r.choice(NAMES)}.",
        lambda r: f"The teacher gave {r.choice(NAMES)} a {r.choice(('hard', 'short', 'long', 'new'))} lesson.",
        lambda r: f"{r.choice(NAMES)} learned to {r.choice(('read', 'write', 'count'))} in the {r.choice(PLACES)}.",
        lambda r: f"The {r.choice(('class', 'teacher'))} read a {r.choice(('long', 'short', 'new', 'old'))} book.",
    ),
}
TOPICS: tuple[str, ...] = tuple(_TOPIC_MAKERS)


def story(rng: Random) -> str:
    """Four to ten sentences: people, the coloured things they have and the places they are in."""
    people = rng.sample(NAMES, rng.randint(2, 3))
    things = rng.sample(THINGS, len(people))
    places = rng.sample(PLACES, len(people))
    colours = rng.sample(COLOURS, len(people))
    lines = []
    for name, thing, place, colour in zip(people, things, places, colours, strict=True):
        lines.append(_arrival(rng, name, thing, place, colour))
    told = rng.randrange(len(people))
    lines.append(rng.choice((
        f"The {things[told]} of {people[told]} is {colours[told]}.",
        f"So {people[told]} has the {things[told]}, and it is {colours[told]}.",
        f"{people[told]} is still in the {places[told]}.",
        f"It is {people[told]} who has the {things[told]}.",
    )))  # fmt: skip
    for _ in range(rng.randint(0, 2)):
        extra = rng.randrange(5)
        if extra == 0:
            lines.append(lovers_and_haters(rng, rng.random() < 0.5))
        elif extra == 1:
            lines.append(topic_sentence(rng, rng.choice(TOPICS)))
        elif extra == 2:
            lines.append(f"{rng.choice(NAMES)} wants to know where {people[told]} is.")
        elif extra == 3:
            lines.append(f"{rng.choice(NAMES)} would write down the word {rng.choice(NOUNS)} here.")
        else:
            noun, count = rng.choice(NOUNS), rng.randint(2, 6)
            lines.append(f"There are {NUMBER_WORDS[count]} {PLURALS[noun]} in the {rng.choice(PLACES)}.")
    return " ".join(lines)


def _arrival(rng: Random, name: str, thing: str, place: str, colour: str) -> str:
    """A person, the coloured thing they have and the place they are in, in one or two sentences."""
    kind, pronoun = rng.randrange(5), PEOPLE[name]
    if kind == 0:
        return f"{name} has a {colour} {thing}. {pronoun} is in the {place}."
    if kind == 1:
        return f"{name} went to the {place} with a {colour} {thing}."
    if kind == 2:
        return f"{name} is in the {place}. {pronoun} has {with_article(thing)}. The {thing} is {colour}."
    if kind == 3:
        return f"{name} has {with_article(thing)} and it is {colour}. {pronoun} walked to the {place}."
    return f"In the {place}, {name} found a {colour} {thing}."


def opposite_fact(rng: Random) -> str:
    """Two words that are opposites, told in one of several ways."""
    word, other = rng.choice(_OPPOSITE_ITEMS)
    return rng.choice((
        f"The opposite of {word} is {other}.",
        f"The opposite of {word} is {other}, and the opposite of {other} is {word}.",
        f"A thing that is not {word} may be {other}.",
        f"Some say {word}, others say {other}: they are opposites.",
        f"Opposites: {word}, {other}.",
    ))  # fmt: skip


_OPPOSITE_ITEMS: tuple[tuple[str, str], ...] = tuple(OPPOSITES.items())


def state_fact(rng: Random) -> str:
    """A thing in one of two opposite states, so that both words are known outside their table."""
    word, other = rng.choice(_STATE_ITEMS)
    noun = rng.choice(NOUNS)
    return rng.choice((
        f"The {noun} is {word}, not {other}.",
        f"This is {with_article(word)} {noun}.",
        f"One {noun} was {word} and the other was {other}.",
    ))  # fmt: skip


# Pairs that can be said of any thing: no directions and no times of day.
_STATE_ITEMS: tuple[tuple[str, str], ...] = tuple(
    (word, other) for word, other in _OPPOSITE_ITEMS if not {word, other} & {"up", "left", "day"}
)


def category_fact(rng: Random) -> str:
    """What kind of thing a noun is."""
    noun = rng.choice(NOUNS)
    category = CATEGORY_OF[noun]
    phrase, others = CATEGORY_PHRASE[category], rng.sample([n for n in CATEGORIES[category] if n != noun], 2)
    return rng.choice((
        f"{with_article(noun).capitalize()} is {phrase}.",
        f"The {noun} is {phrase}.",
        f"The category of {noun} is {category}.",
        f"Some {category} words: {noun}, {others[0]}, {others[1]}.",
        f"Is {with_article(noun)} {phrase}? It is.",
    ))  # fmt: skip


def plural_fact(rng: Random) -> str:
    """One and many of a noun."""
    noun = rng.choice(NOUNS)
    many = PLURALS[noun]
    count = NUMBER_WORDS[rng.randint(2, 6)]
    return rng.choice((
        f"{count.capitalize()} {many} are in the {rng.choice(PLACES)}.",
        f"One {noun}, {count} {many}.",
        f"The plural of {noun} is {many}.",
        f"{rng.choice(NAMES)} saw one {noun}, and then {count} {many}.",
        f"More than one {noun} are {many}.",
    ))  # fmt: skip


def sum_fact(rng: Random) -> str:
    """A sum of two small numbers, written out."""
    a, b = rng.randint(1, LARGEST_TERM), rng.randint(1, LARGEST_TERM)
    return rng.choice((f"{a} plus {b} is {a + b}.", f"{a} + {b} = {a + b}.", f"The sum of {a} and {b} is {a + b}."))


def order_fact(rng: Random) -> str:
    """Which number is larger, or a run of numbers in order."""
    if rng.random() < 0.5:
        low, high = sorted(rng.sample(range(1, LARGEST_NUMBER + 1), 2))
        return rng.choice((f"{high} is larger than {low}.", f"{low} is smaller than {high}.", f"{low} < {high}."))
    step, length = rng.choice((1, 1, 2, 5, 10)), rng.randint(4, 6)
    start = rng.randint(1, LARGEST_NUMBER - step * length)
    return listed([str(start + step * i) for i in range(length)]) + "."


def colour_fact(rng: Random) -> str:
    """A coloured thing, named twice, so that colour sticks to its noun within the sentence."""
    noun, colour = rng.choice(NOUNS), rng.choice(COLOURS)
    return f"The {noun} is {colour}. It is {with_article(colour)} {noun}."


FACTS: tuple[Callable[[Random], str], ...] = (
    *(opposite_fact, opposite_fact, opposite_fact), *(category_fact, category_fact), *(plural_fact, plural_fact),
    *(sum_fact, sum_fact), *(state_fact, state_fact), order_fact, colour_fact,
)  # fmt: skip


def facts(rng: Random) -> str:
    """Four to eight facts, of one kind or mixed."""
    count = rng.randint(4, 8)
    if rng.random() < 0.5:
        make = rng.choice(FACTS)
        return " ".join(make(rng) for _ in range(count))
    return " ".join(rng.choice(FACTS)(rng) for _ in range(count))


def prose(rng: Random) -> str:
    """One piece of plain text: a story or some facts."""
    return story(rng) if rng.random() < 0.5 else facts(rng)
