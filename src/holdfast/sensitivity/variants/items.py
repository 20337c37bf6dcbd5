"""A thing to ask, apart from how it is asked: question, options, right answer; and the layouts that make a prompt of
it.

layout  "Q:{question}\\n{options}\\nA:"     options  "(A)red (B)blue"
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from holdfast.errors import HoldfastError, whole_text
from holdfast.sensitivity.sets import read_rows

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BARE = "{question}"
QUESTION_LAYOUT = "Q:{question}\nA:"
CHOICE_LAYOUT = "Q:{question}\n{options}\nA:"


@dataclass(frozen=True)
class Item:
    """One thing to ask. ``layout`` is how the original asks it; ``answer`` is the number of the right option, if there
    are options.
    """

    item_id: str
    question: str
    layout: str = BARE
    choices: tuple[str, ...] = ()
    answer: int | None = None
    target: str | None = None
    header: str = ""
    where: str = ""
    gold: str | None = None
    """Text that must stay as it is wherever it occurs: the right answer."""

    @property
    def expected(self) -> str | None:
        """The right response: the letter of the right option, or the given target."""
        return LETTERS[self.answer] if self.answer is not None else self.target

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text."""
        return dict(zip(LETTERS, self.choices))

    def prompt(self, layout: str | None = None, marker: str = "({letter}){text}", join: str = " ") -> str:
        """The item in a layout. Nothing is stripped: tabs and double spaces stay byte for byte."""
        options = join.join(
            marker.replace("{letter}", letter).replace("{text}", text) for letter, text in self.options.items()
        )
        return self.header + _fill(
            layout if layout is not None else self.layout, {"question": self.question, "options": options}
        )

    def asking(self, question: str) -> Item:
        """The same item with the question in other words."""
        return replace(self, question=question)


def without_options(layout: str) -> str:
    """A choice layout for an item without choices: the options and the separator before them are gone."""
    before, found, after = layout.partition("{options}")
    if not found:
        return layout
    separator = before.rpartition("{question}")[2]
    return before.removesuffix(separator) + after


def load_items(source: str, limit: int | None = None) -> list[Item]:
    """Read things to ask: rows with ``prompt``; ``question`` (with ``choices`` and ``answer``); or ``instruction`` (and
    ``input``).

    Raises:
        HoldfastError: with file and row.
    """
    items: dict[str, Item] = {}
    for number, (row, where) in enumerate(read_rows(source)[:limit], 1):
        item = _item(row, number, where)
        if item.item_id in items:
            raise HoldfastError(
                f"{item.where}: id '{item.item_id}' is there twice (first in {items[item.item_id].where})"
            )
        whole_text(item.prompt(), f"{item.where}: the prompt")
        items[item.item_id] = item
    if not items:
        raise HoldfastError(f"{source}: no prompts in it")
    return list(items.values())


def _item(row: Any, number: int, where: str) -> Item:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict):
        raise HoldfastError(f"{where}: a row is an object or a prompt, not {type(row).__name__}")
    item_id = str(row.get("id", row.get("set_id", number)))
    target = row.get("target")
    if isinstance(row.get("prompt"), str):
        return Item(
            item_id, row["prompt"], target=None if target is None else str(target), where=where, gold=_text(target)
        )
    if isinstance(row.get("question"), str) and "choices" in row:
        return _choice_item(row, item_id, where)
    if isinstance(row.get("question"), str):
        target = row.get("answer", target)
        return Item(item_id, row["question"], QUESTION_LAYOUT, target=_text(target), where=where, gold=_text(target))
    if isinstance(row.get("instruction"), str):
        question = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
        target = row.get("output", target)
        return Item(item_id, question, QUESTION_LAYOUT, target=_text(target), where=where, gold=_text(target))
    raise HoldfastError(
        f"{where}: found {', '.join(row) or 'nothing'}; a row has prompt, question (choices, answer), or instruction "
        "(input)"
    )


def _choice_item(row: dict[str, Any], item_id: str, where: str) -> Item:
    choices, answer = row["choices"], row.get("answer")
    if isinstance(choices, dict) and "text" in choices:  # the shape of ARC and its kin
        choices, labels = choices["text"], choices.get("label")
        answer = labels.index(answer) if isinstance(labels, list) and answer in labels else answer
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise HoldfastError(f"{where}: 'choices' must be a list of 2 to {len(LETTERS)} options")
    texts = tuple(str(choice) for choice in choices)
    index = _answer_index(answer, texts)
    if answer is not None and index is None:
        raise HoldfastError(
            f"{where}: the answer {answer!r} is no option", hint="give its number (from 0), its letter, or its text"
        )
    header = (
        f"The following are multiple choice questions (with answers) about {str(row['subject']).replace('_', ' ')}.\n\n"
        if row.get("subject")
        else ""
    )
    return Item(
        item_id,
        row["question"],
        CHOICE_LAYOUT,
        texts,
        index,
        header=header,
        where=where,
        gold=texts[index] if index is not None else None,
    )


def _answer_index(answer: Any, texts: tuple[str, ...]) -> int | None:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer if 0 <= answer < len(texts) else None
    if isinstance(answer, str) and answer in texts:
        return texts.index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer.upper() in LETTERS[: len(texts)]:
        return LETTERS.index(answer.upper())
    return None


def _fill(layout: str, values: dict[str, str]) -> str:
    """Put values into their places; braces inside the values are left alone."""
    made, rest = "", layout
    while True:
        places = [(rest.find("{" + key + "}"), key) for key in values if "{" + key + "}" in rest]
        if not places:
            return made + rest
        at, key = min(places)
        made, rest = made + rest[:at] + values[key], rest[at + len(key) + 2 :]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
