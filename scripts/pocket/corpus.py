"""The text the embedded model is pre-trained on: prose about the world, and solved items in plain formats.

In: a number of documents and a seed. Out: documents of about 400-1,200 characters, as an iterator.

    document = pieces of one kind, joined by blank lines      kind ~ MIXTURE

Only train items are solved here and only wordings in use are asked. Chat markers never occur, and asked wordings are
rare (kind `asked`), so that answering in chat format is left for instruction tuning to teach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from pocket import world
from pocket.tasks import TASKS, Item, PocketTask, ask, draw, show

_SHORTEST, _LONGEST = 400, 850  # characters; the last piece may run over


def corpus(n_documents: int, seed: int = 0) -> Iterator[str]:
    """`n_documents` documents; document i is the same for every `n_documents` > i."""
    rng = Random(f"pocket:corpus:{seed}")
    kinds, weights = tuple(MIXTURE), tuple(weight for _, weight in MIXTURE.values())
    for _ in range(n_documents):
        make, _weight = MIXTURE[rng.choices(kinds, weights)[0]]
        target = rng.randint(_SHORTEST, _LONGEST)
        pieces, length = [], 0
        while length < target:
            pieces.append(make(rng))
            length += len(pieces[-1]) + 2
        yield "\n\n".join(pieces)


def one_task(rng: Random) -> str:
    """Three to eight solved items of one task in one format, with or without the definition before them."""
    task = rng.choice(TASKS)
    form, gap = rng.choice(FORMS)
    solved = gap.join(form(task, item) for item in _distinct(rng, task, rng.randint(3, 8)))
    return rng.choice(_HEADS)(task) + solved


def mixed_tasks(rng: Random) -> str:
    """Two to four blocks, each the definition of another task and one or two solved items, as in cross-task prompts."""
    form, gap = rng.choice(_TITLED_FORMS)
    head = rng.choice(_SOLID_HEADS)
    blocks = []
    for task in rng.sample(TASKS, rng.randint(2, 4)):
        solved = gap.join(form(task, item) for item in _distinct(rng, task, rng.choice((1, 1, 2))))
        blocks.append(head(task) + solved)
    return rng.choice(("\n", "\n\n")).join(blocks)


def asked(rng: Random) -> str:
    """One to three items asked in a wording in use, answered after a plain cue."""
    question, answer = rng.choice((("Question: ", "\nAnswer: "), ("Q: ", "\nA: "), ("", "\n")))
    lines = []
    for _ in range(rng.randint(1, 3)):
        task = rng.choice(TASKS)
        item = draw(task, "train", rng)
        lines.append(question + ask(task, rng.randrange(len(task.wordings)), item) + answer + item.answer)
    return "\n".join(lines)


# Kind of document -> (maker of one piece, weight). `asked` stays small: see the module docstring.
MIXTURE: dict[str, tuple[Callable[[Random], str], float]] = {
    "prose": (world.prose, 0.33),
    "one task": (one_task, 0.37),
    "mixed tasks": (mixed_tasks, 0.24),
    "asked": (asked, 0.06),
}


def _distinct(rng: Random, task: PocketTask, count: int) -> list[Item]:
    """`count` train items, none twice: a repeated item could be answered by copying."""
    items: dict[tuple[str, ...], Item] = {}
    while len(items) < count:
        item = draw(task, "train", rng)
        items[tuple(item.fields.values())] = item
    return list(items.values())


def _flat(item: Item) -> str:
    return " | ".join(item.fields.values())


def _titled(task: PocketTask, item: Item) -> str:
    return f"{show(item)}\n{task.cue} {item.answer}"


def _titled_answer(task: PocketTask, item: Item) -> str:
    return f"{show(item)}\nAnswer: {item.answer}"


def _input_output(task: PocketTask, item: Item) -> str:
    return f"Input: {_flat(item)}\nOutput: {item.answer}"


def _question_answer(task: PocketTask, item: Item) -> str:
    return f"Q: {_flat(item)}\nA: {item.answer}"


def _arrow(task: PocketTask, item: Item) -> str:
    return f"{_flat(item)} -> {item.answer}"


def _own_line(task: PocketTask, item: Item) -> str:
    return f"### Input\n{_flat(item)}\n### Answer\n{item.answer}"


Form = Callable[[PocketTask, Item], str]
_TITLED_FORMS: tuple[tuple[Form, str], ...] = (
    (_titled, "\n"), (_titled, "\n\n"), (_titled_answer, "\n"), (_input_output, "\n"), (_input_output, "\n\n"),
)  # fmt: skip
FORMS: tuple[tuple[Form, str], ...] = (*_TITLED_FORMS, (_question_answer, "\n"), (_arrow, "\n"), (_own_line, "\n"))

_SOLID_HEADS: tuple[Callable[[PocketTask], str], ...] = (
    lambda task: f"Definition: {task.definition}\n",
    lambda task: f"Definition: {task.definition}\n",
    lambda task: f"### Task\n{task.definition}\n",
    lambda task: f"Task: {task.definition}\n",
    lambda task: f"{task.definition}\n",
)
_HEADS: tuple[Callable[[PocketTask], str], ...] = (*_SOLID_HEADS, *[lambda task: ""] * 3)
