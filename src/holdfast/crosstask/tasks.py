"""Files -> tasks. A task is one YAML beside one JSONL; a library is a folder of them; ``pocket:tasks`` is one by name.

    sentiment.yaml   name, definition, fields, cue, labels (or none: free answer), template, ...
    sentiment.jsonl  {"fields": {"text": "..."}, "answer": "positive", "id": "...", "split": "test"}
                     or the fields as plain columns

A template is data: its white space is kept to the byte. ``{field}`` is a slot; a list fills it with lettered lines
(A. ..., B. ...).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, whole_text
from holdfast.tables.text import counted

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SLOT = re.compile(r"\{(\w+)\}")
_KEYS = {
    *("name", "definition", "definition_prefix", "labels", "fields", "cue", "template", "answer", "answer_is"),
    *("answer_prefix", "data", "embed_fields", "option_end", "split", "columns", "dataset"),
}


@dataclass(frozen=True)
class Item:
    """One input: its fields as text, its answer if it has one, and the place to name in an error."""

    id: str
    fields: dict[str, str]
    answer: str | None
    where: str
    split: str | None = None
    columns: dict[str, str] | None = None
    """The columns of the data that the fields were filled from, where a field holds a finished prompt."""


@dataclass(frozen=True)
class Task:
    """A task: what it asks for, the template of its inputs, and its items.

    ``template`` ends with the cue. An answer follows it after ``answer_prefix`` (one space; none where the template
    ends in white space). ``labels`` is the closed set of answers, or None for free answers. ``embed_fields`` are the
    fields that retrieval looks at, in that order.
    """

    name: str
    definition: str
    template: str
    labels: tuple[str, ...] | None
    items: tuple[Item, ...]
    definition_prefix: str = "Definition: "
    answer_prefix: str = " "
    embed_fields: tuple[str, ...] = ()
    where: str = ""
    slots: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", tuple(_SLOT.findall(self.template)))

    def render(self, item: Item) -> str:
        """Return the input with its field names and the cue at the end, without definition and answer."""
        return _SLOT.sub(lambda match: item.fields[match[1]], self.template)

    def behind(self, answer: str) -> str:
        """Return an answer as it stands behind the cue: after the prefix, unless both are white space."""
        return answer if self.answer_prefix.isspace() and answer[:1].isspace() else self.answer_prefix + answer

    def content(self, item: Item) -> str:
        """Return a hash of the written input, case and white space aside. Items of one content are the same item."""
        return hashlib.blake2b(" ".join(self.render(item).lower().split()).encode(), digest_size=16).hexdigest()

    def part(self, *splits: str) -> tuple[Item, ...]:
        """Return the items of these splits; all items if the task has no splits."""
        return self.items if not self.has_splits else tuple(item for item in self.items if item.split in splits)

    @property
    def has_splits(self) -> bool:
        """Whether any item says which split it is in."""
        return any(item.split for item in self.items)

    @property
    def pool(self) -> tuple[Item, ...]:
        """The labelled items that may serve as demonstrations: the train split, or all."""
        return tuple(item for item in self.part("train") if item.answer is not None)

    @property
    def test(self) -> tuple[Item, ...]:
        """The items to be labelled: the test split, or all."""
        return self.part("test")

    @property
    def dev(self) -> tuple[Item, ...]:
        """Labelled items for choosing, apart from the test items: the dev (or validation) split, or none."""
        items = self.part("dev", "validation") if self.has_splits else ()
        return tuple(item for item in items if item.answer is not None)


def make_task(settings: Mapping[str, Any], rows: Sequence[tuple[dict[str, Any], str]], where: str) -> Task:
    """Return a task from the content of its YAML and its rows (each with its place).

    Raises:
        HoldfastError: names file and row: a slot without a field, a label outside the label space, an id that comes
            twice, ...
    """
    _check_keys(settings, where)
    definition = _text(settings, "definition", where)
    labels = _labels(settings.get("labels"), where)
    template = str(settings["template"]) if "template" in settings else _template(settings, rows, where)
    task = Task(
        str(settings.get("name") or Path(where).stem), definition, template, labels, (),
        definition_prefix=str(settings.get("definition_prefix", "Definition: ")),
        answer_prefix=str(settings.get("answer_prefix", "" if template[-1:].isspace() else " ")),
        embed_fields=_names(settings.get("embed_fields", []), where), where=where,
    )  # fmt: skip
    if not task.slots:
        raise HoldfastError(
            f"{where}: the template {template!r} has no slot", hint="a slot is a field's name in braces: {text}"
        )
    if not rows:
        raise HoldfastError(f"{where}: the task has no rows")
    return replace(task, items=make_items(task, rows, settings))


def make_items(
    task: Task, rows: Sequence[tuple[dict[str, Any], str]], settings: Mapping[str, Any] | None = None
) -> tuple[Item, ...]:
    """Return items of a task from rows, each with its place; ``settings`` (the task's YAML) says how to read a row.

    Raises:
        HoldfastError: names file and row, as ``make_task`` does.
    """
    items: dict[str, Item] = {}
    for number, (row, place) in enumerate(rows, 1):
        item = _item(row, place, number, task, settings or {})
        if item.id in items:
            first = items[item.id].where
            raise HoldfastError(
                f"{place}: id '{item.id}' is already used ({first})", hint="ids are unique within a task"
            )
        items[item.id] = item
    return tuple(items.values())


def _item(row: dict[str, Any], where: str, number: int, task: Task, settings: Mapping[str, Any]) -> Item:
    values = row["fields"] if isinstance(row.get("fields"), dict) else row
    end = str(settings.get("option_end", ""))
    fields = {}
    for slot in dict.fromkeys(task.slots):
        if slot not in values:
            raise HoldfastError(
                f"{where}: the template wants '{slot}'; the row has {', '.join(map(str, values)) or 'no fields'}"
            )
        fields[slot] = _field(values[slot], slot, where, end)
    answer = row.get(str(settings.get("answer", "answer")), values.get("answer"))
    split = None if row.get("split") is None else str(row["split"])
    answer = _answer(answer, task, where, str(settings.get("answer_is", "label")))
    return Item(str(row.get("id", number)), fields, answer, where, split)


def _answer(value: Any, task: Task, where: str, kind: str) -> str | None:
    if value is None:
        return None
    if kind == "index":
        labels = task.labels or ()
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(labels):
            raise HoldfastError(
                f"{where}: answer {value!r} is no index into the {counted(len(labels), 'label')}",
                hint="indices count from 0",
            )
        return labels[value]
    text = str(value)
    if task.labels is not None and text not in task.labels:
        hint = "labels are taken to the letter"
        if isinstance(value, int):
            hint = "with 'answer_is: index' in the task's YAML a number counts the labels from 0"
        raise HoldfastError(f"{where}: answer {text!r} is outside the label space {', '.join(task.labels)}", hint=hint)
    if not text.strip():
        raise HoldfastError(f"{where}: the answer is empty", hint="leave 'answer' out for an unlabelled item")
    return text


def _field(value: Any, name: str, where: str, end: str) -> str:
    if isinstance(value, list):
        if not 0 < len(value) <= len(LETTERS):
            raise HoldfastError(f"{where}: field '{name}' has {len(value)} options; 1 to {len(LETTERS)} are possible")
        value = lettered(value, end)
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise HoldfastError(
            f"{where}: field '{name}' is a {type(value).__name__}, not text, a number or a list of options"
        )
    return whole_text(str(value), f"{where}: field '{name}'")


def lettered(options: Sequence[Any], end: str = "") -> str:
    """Return options as lettered lines (A. ..., B. ...), each but the last with ``end`` behind it."""
    return f"{end}\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options))


def _template(settings: Mapping[str, Any], rows: Sequence[tuple[dict[str, Any], str]], where: str) -> str:
    """Return a titled line per field, then the cue, for a task whose YAML has no template."""
    names = settings.get("fields")
    if names is None and rows and isinstance(rows[0][0].get("fields"), dict):
        names = list(rows[0][0]["fields"])
    if not isinstance(names, list) or not names:
        raise HoldfastError(
            f"{where}: neither 'template' nor 'fields'",
            hint="fields: [premise, hypothesis] makes the template 'Premise: {premise}\\n...'",
        )
    cue = str(settings.get("cue", "Answer:"))
    return "".join(f"{name.replace('_', ' ').capitalize()}: {{{name}}}\n" for name in map(str, names)) + cue


def _names(listed: Any, where: str) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise HoldfastError(f"{where}: 'embed_fields' is {listed!r}; it is a list of fields")
    return tuple(map(str, listed))


def _labels(listed: Any, where: str) -> tuple[str, ...] | None:
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) < 2:
        raise HoldfastError(
            f"{where}: 'labels' is {listed!r}; it must list at least two labels, or be left out for free answers"
        )
    if any(isinstance(label, bool) for label in listed):
        raise HoldfastError(
            f"{where}: YAML reads yes, no, true and false as truth values", hint='write labels in quotes: ["yes", "no"]'
        )
    labels = tuple(map(str, listed))
    for label in labels:
        if label != label.strip() or not label:
            raise HoldfastError(f"{where}: label {label!r} is empty or has white space around it")
        if labels.count(label) > 1:
            raise HoldfastError(f"{where}: label '{label}' is listed twice")
    return labels


def _check_keys(settings: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(map(str, settings)) - _KEYS)
    if unknown:
        raise HoldfastError(f"{where}: unknown key '{unknown[0]}'; known: {', '.join(sorted(_KEYS))}")
    if settings.get("answer_is", "label") not in ("label", "index"):
        raise HoldfastError(f"{where}: 'answer_is' is {settings['answer_is']!r}; it is label or index")


def _text(settings: Mapping[str, Any], key: str, where: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value.strip():
        raise HoldfastError(f"{where}: '{key}' is missing or empty")
    return value.strip("\n")
