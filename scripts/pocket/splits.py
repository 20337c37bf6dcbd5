"""The named data sets of `pocket` beside its corpus: instructions, intents, tasks and preferences.

In: a split, a size and a seed. Out: plain rows, ready for JSON. The same arguments give the same rows on every machine.

An item belongs to one split (`tasks.split_of`), so no two splits share an item, whichever data set draws it. Held-out
wordings appear in the test split of the instructions, and in intents.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from pocket import world
from pocket.alternatives import further_wordings, meta, must_move
from pocket.tasks import TASKS, Item, PocketTask, Split, ask, draw, show, split_of

Row = dict[str, Any]

_INSTRUCTION_ROWS: dict[Split, int] = {"train": 8000, "dev": 600, "test": 900}
_PREFERENCE_ROWS: dict[Split, int] = {"train": 2000, "dev": 200, "test": 400}
_TASK_ROWS: dict[Split, int] = {"train": 240, "dev": 60, "test": 120}

_SYSTEM_MESSAGES = ("You are a helpful assistant.", "Answer with few words.", "Be short.")
_POLITE_PREFIXES = ("Hello! ", "Please help me. ", "A small question. ")
_TRIES = 30  # draws to look for a prompt not yet used; small tables run out, and then a prompt may come twice


def instructions(split: Split, n: int | None = None, seed: int = 0) -> list[Row]:
    """Chat rows `{"messages", "task", "wording", "held_out_wording", "meta"}`, balanced over tasks and shuffled.

    About one row in ten has a short system message or a polite prefix. In the test split every second row of a task is
    asked in a held-out wording.
    """
    rng = Random(f"pocket:instructions:{split}:{seed}")
    rows, seen = [], set[str]()
    for i in range(_INSTRUCTION_ROWS[split] if n is None else n):
        task = TASKS[i % len(TASKS)]
        held_out = split == "test" and i // len(TASKS) % 2 == 1
        wording, item = _fresh(task, split, held_out, rng, seen)
        opening = _opening(rng, ask(task, wording, item))
        rows.append({
            "messages": [*opening, {"role": "assistant", "content": item.answer}],
            "task": task.name,
            "wording": wording,
            "held_out_wording": held_out,
            "meta": _meta(task, wording, item, split, opening),
        })  # fmt: skip
    rng.shuffle(rows)
    return rows


def intents(split: Split = "test", n_sets: int = 120, n_variants: int = 8, seed: int = 0) -> list[Row]:
    """Sets of prompts of one intent: one item per set, asked in `n_variants` different wordings.

    Variant 0 (`kind` "original") uses a wording in use; the others (`kind` "wording") take held-out wordings and
    wordings in use in turn. Rows: `{"set_id", "variant_id", "kind", "seed", "prompt", "target", "meta"}`. Every variant
    has its must-move edits; variant 0 alone has the wordings that are in no variant of the set.
    """
    rng = Random(f"pocket:intents:{split}:{seed}")
    rows, seen = [], set[str]()
    for i in range(n_sets):
        task = TASKS[i % len(TASKS)]
        item = _fresh_item(task, split, rng, seen)
        wordings = _wording_order(task, rng)[:n_variants]
        for variant, wording in enumerate(wordings):
            facts = meta(task, wording, item, split) | {"alternatives": must_move(task, wording, item)}
            if variant == 0:
                facts["wordings"] = further_wordings(task, set(wordings), item)
            rows.append({
                "set_id": f"{task.name}-{i // len(TASKS)}",
                "variant_id": variant,
                "kind": "original" if variant == 0 else "wording",
                "seed": seed,
                "prompt": ask(task, wording, item),
                "target": item.answer,
                "meta": facts,
            })  # fmt: skip
    return rows


def tasks(seed: int = 0) -> list[Row]:
    """Labelled tasks for cross-task prompting: `{"name", "definition", "labels", "cue", "rows"}`.

    A row is `{"fields", "input", "answer", "split"}`; `input` shows the fields as titled lines and holds no wording. No
    item comes twice; a task over a small table has all of its items.
    """
    return [
        {
            "name": task.name,
            "definition": task.definition,
            "labels": None if task.labels is None else list(task.labels),
            "cue": task.cue,
            "rows": _labelled_rows(task, Random(f"pocket:tasks:{task.name}:{seed}")),
        }
        for task in TASKS
    ]


def preferences(split: Split, n: int | None = None, seed: int = 0) -> list[Row]:
    """Pairs `{"prompt", "chosen", "rejected"}`, each a list of messages, with `task`, the `fault` rejected, and `meta`.

    The rejected answer is wrong (another label, another item's answer) or right but badly formed (wrapped, doubled).
    """
    rng = Random(f"pocket:preferences:{split}:{seed}")
    rows, seen = [], set[str]()
    for i in range(_PREFERENCE_ROWS[split] if n is None else n):
        task = TASKS[i % len(TASKS)]
        wording, item = _fresh(task, split, False, rng, seen)
        fault = rng.choices(tuple(FAULTS), (0.6, 0.25, 0.15))[0]
        opening = _opening(rng, ask(task, wording, item))
        rows.append({
            "prompt": opening,
            "chosen": [{"role": "assistant", "content": item.answer}],
            "rejected": [{"role": "assistant", "content": FAULTS[fault](task, item, rng)}],
            "task": task.name,
            "fault": fault,
            "meta": _meta(task, wording, item, split, opening),
        })  # fmt: skip
    rng.shuffle(rows)
    return rows


def _meta(task: PocketTask, wording: int, item: Item, split: Split, opening: list[dict[str, str]]) -> Row:
    """The facts of a row; in the test split with its must-move edits and all further wordings, under the same polite
    prefix.
    """
    facts = meta(task, wording, item, split)
    if split == "test":
        prefix = opening[-1]["content"].removesuffix(ask(task, wording, item))
        facts["alternatives"] = must_move(task, wording, item, prefix)
        facts["wordings"] = further_wordings(task, {wording}, item, prefix)
    return facts


def _wrong(task: PocketTask, item: Item, rng: Random) -> str:
    """A wrong answer of the right shape: another label, order or word of the input; else the answer of another item."""
    if task.labels is not None:
        return rng.choice([label for label in task.labels if label != item.answer])
    if ", " in item.answer:
        words = item.answer.split(", ")
        while (shuffled := world.listed(rng.sample(words, len(words)))) == item.answer:
            pass
        return shuffled
    if rivals := _rivals(item):
        return rng.choice(rivals)
    while (other := draw(task, "train", rng).answer) == item.answer:
        pass
    return other


_KINDS: tuple[frozenset[str], ...] = (
    frozenset(world.NAMES), frozenset(world.PLACES), frozenset(world.NOUNS), frozenset(world.OPPOSITES),
    frozenset(str(n) for n in range(1, world.LARGEST_NUMBER + 1)),
)  # fmt: skip


def _rivals(item: Item) -> list[str]:
    """Words of the input that are of one kind with the answer, without the answer: what a careless reader would say."""
    words = re.findall(r"\w+", " ".join(item.fields.values()))
    return [word for word in words for kind in _KINDS if word in kind and item.answer in kind and word != item.answer]


def _wrapped(task: PocketTask, item: Item, rng: Random) -> str:
    """The right answer in words nobody asked for."""
    return rng.choice(("The answer is {}.", "I think it is {}.", "{}, so the answer is {}.")).replace("{}", item.answer)


def _doubled(task: PocketTask, item: Item, rng: Random) -> str:
    """The right answer, said again and again."""
    return " ".join([item.answer] * rng.randint(2, 3))


FAULTS: dict[str, Callable[[PocketTask, Item, Random], str]] = {
    "wrong": _wrong,
    "wrapped": _wrapped,
    "doubled": _doubled,
}


def _fresh(task: PocketTask, split: Split, held_out: bool, rng: Random, seen: set[str]) -> tuple[int, Item]:
    """A wording and an item whose prompt is not in `seen`, as far as the task's space allows; adds it to `seen`."""
    first, count = (len(task.wordings), len(task.held_out_wordings)) if held_out else (0, len(task.wordings))
    for _ in range(_TRIES):
        wording, item = first + rng.randrange(count), draw(task, split, rng)
        if ask(task, wording, item) not in seen:
            break
    seen.add(ask(task, wording, item))
    return wording, item


def _fresh_item(task: PocketTask, split: Split, rng: Random, seen: set[str]) -> Item:
    """An item not in `seen`, as far as the task's space allows; adds it to `seen`."""
    for _ in range(_TRIES):
        item = draw(task, split, rng)
        if task.name + show(item) not in seen:
            break
    seen.add(task.name + show(item))
    return item


def _opening(rng: Random, question: str) -> list[dict[str, str]]:
    """The messages before the answer."""
    chance = rng.random()
    if chance < 0.05:
        return [{"role": "system", "content": rng.choice(_SYSTEM_MESSAGES)}, {"role": "user", "content": question}]
    if chance < 0.10:
        question = rng.choice(_POLITE_PREFIXES) + question
    return [{"role": "user", "content": question}]


def _wording_order(task: PocketTask, rng: Random) -> list[int]:
    """Every wording once: one in use, then held-out ones and ones in use in turn, then the rest."""
    used = rng.sample(range(len(task.wordings)), len(task.wordings))
    held = [len(task.wordings) + k for k in rng.sample(range(len(task.held_out_wordings)), len(task.held_out_wordings))]
    turns = [wording for pair in zip(held, used[1:], strict=False) for wording in pair]
    return [used[0], *turns, *used[1 + len(held) :]]


def _labelled_rows(task: PocketTask, rng: Random) -> list[Row]:
    """Distinct items of every split, up to `_TASK_ROWS`; stops early where new items have become rare."""
    wanted, rows, misses = dict(_TASK_ROWS), dict[str, Row](), 0
    while any(wanted.values()) and misses < 3000:
        item = task.make(rng)
        split, text = split_of(task.name, item.fields), show(item)
        if wanted[split] == 0 or text in rows:
            misses += 1
            continue
        wanted[split] -= 1
        misses = 0
        rows[text] = {"fields": item.fields, "input": text, "answer": item.answer, "split": split}
    return list(rows.values())
