"""Rows -> things to ask (question, options, right answer), apart from the layout that makes a prompt of them.

layout  "Q:{question}\n{options}\nA:"     options  "(A)red (B)blue"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from holdfast.errors import HoldfastError, whole_text
from holdfast.sensitivity.sets import read_rows

_SLOT = re.compile(r"\{question\}|\{options\}")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BARE = "{question}"
QUESTION_LAYOUT = "Q:{question}\nA:"
CHOICE_LAYOUT = "Q:{question}\n{options}\nA:"
MARKER = "({letter}){text}"


@dataclass(frozen=True)
class PromptItem:
    """One thing to ask. ``layout`` is that of the original; ``answer`` is the number of the right option, if any."""

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
        """The right response: the letter of the right option, or the target."""
        return LETTERS[self.answer] if self.answer is not None else self.target

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text."""
        return dict(zip(LETTERS, self.choices))

    @property
    def keep(self) -> list[str]:
        """Texts that no generator may change."""
        return [self.gold] if self.gold else []

    def prompt(self, layout: str | None = None, marker: str = MARKER, join: str = " ") -> str:
        """Return the item in a layout. Nothing is stripped: tabs and double spaces stay byte for byte."""
        options = [marker.replace("{letter}", letter).replace("{text}", text) for letter, text in self.options.items()]
        values = {"{question}": self.question, "{options}": join.join(options)}
        # In one pass, so that braces inside the question and the options are left alone.
        return self.header + _SLOT.sub(lambda slot: values[slot[0]], self.layout if layout is None else layout)

    def asking(self, question: str) -> PromptItem:
        """Return the same item with the question in other words."""
        return replace(self, question=question)

    def draft(self, question: str, **meta: Any) -> Draft:
        """Return the item with the question in other words, its prompt, and the notes on what was done."""
        item = self.asking(question)
        return item, item.prompt(), meta


Draft = tuple[PromptItem, str, dict[str, Any]]
"""An item as it is asked, the prompt, and notes on what was done."""
Generator = Callable[[PromptItem, Random], Iterator[Draft]]
"""A source of drafts; it may be endless and may repeat itself."""


def like(word: str, new: str) -> str:
    """Return new words with a first capital where the word that they replace has one."""
    return new[0].upper() + new[1:] if word[0].isupper() else new


def without_options(layout: str) -> str:
    """Return a choice layout without the options and the separator before them, for an item without choices."""
    before, slot, after = layout.partition("{options}")
    if not slot:
        return layout
    separator = before.rpartition("{question}")[2]
    return before.removesuffix(separator) + after


def load_items(source: str, limit: int | None = None) -> list[PromptItem]:
    """Read rows with ``prompt``; ``question`` (with ``choices`` and ``answer``); or ``instruction`` (and ``input``).

    Raises:
        HoldfastError: with file and row.
    """
    items: dict[str, PromptItem] = {}
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


def _item(row: Any, number: int, where: str) -> PromptItem:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict):
        raise HoldfastError(f"{where}: a row is an object or a prompt, not {type(row).__name__}")
    item_id = str(row.get("id", row.get("set_id", number)))
    target = row.get("target")
    layout = QUESTION_LAYOUT
    if isinstance(row.get("prompt"), str):
        question, layout = row["prompt"], BARE
    elif isinstance(row.get("question"), str) and "choices" in row:
        return _choice_item(row, item_id, where)
    elif isinstance(row.get("question"), str):
        question, target = row["question"], row.get("answer", target)
    elif isinstance(row.get("instruction"), str):
        question = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
        target = row.get("output", target)
    else:
        raise HoldfastError(
            f"{where}: found {', '.join(row) or 'nothing'}; a row has prompt, question (choices, answer), or "
            "instruction (input)"
        )
    target = None if target is None else str(target)
    return PromptItem(item_id, question, layout, target=target, where=where, gold=target)


def _choice_item(row: dict[str, Any], item_id: str, where: str) -> PromptItem:
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
    header = ""
    if row.get("subject"):
        subject = str(row["subject"]).replace("_", " ")
        header = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    gold = None if index is None else texts[index]
    return PromptItem(item_id, row["question"], CHOICE_LAYOUT, texts, index, header=header, where=where, gold=gold)


def _answer_index(answer: Any, texts: tuple[str, ...]) -> int | None:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer if 0 <= answer < len(texts) else None
    if isinstance(answer, str) and answer in texts:
        return texts.index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer.upper() in LETTERS[: len(texts)]:
        return LETTERS.index(answer.upper())
    return None
