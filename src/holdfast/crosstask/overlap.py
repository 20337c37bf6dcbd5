"""Do two sets of items share an input, however it is written? Templates, names of fields and their order aside.

An input is compared as a whole: all its texts, each normalised. Left out are fields that are empty or the same in every
row of the task; options count only where both sides have some. So a question is the same question with and without its
options, and two tasks that share a passage but ask different things of it share a text, not an input.

A single word ("apple", or "glove, cow") is no input to tell a leak by, since many tasks are asked of common words: it
counts where it is written in the same way, where the tasks have a label in common, or where both give it the same
answer. So do inputs that are to be labelled and are no test items, of whatever length: nobody is judged by them.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from holdfast.crosstask.tasks import LETTERS, Item, Task

_QUOTES, _APOSTROPHES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", "\u2018\u2019\u201a\u201b\u02bc\u2032`"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_PLAIN = str.maketrans(dict.fromkeys(_QUOTES, '"') | dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_DASHES, "-"))
_BEFORE, _AFTER = (
    " \"'([{\u00bf\u00a1",
    " \"')]}.,;:!?\u2026\u3002\u3001",
)  # a minus and a currency sign belong to a number
_LONG = 5
"""A text of so many words does not come twice by chance."""

Pair = tuple[Item, Item]
"""An item of the pool, and the item that it is the same as."""


@dataclass
class Inputs:
    """The inputs of some items of a task, in every form in which they may turn up elsewhere."""

    task: Task
    items: tuple[Item, ...]
    parts: list[list[tuple[tuple[str, ...], tuple[str, ...]]]] = field(init=False)
    """Of each item its texts and its options, with and without the fields that are the same in every row."""
    _by_key: dict[Hashable, Item] = field(init=False, default_factory=dict)
    _by_text: dict[str, Item] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        same = _same_everywhere(self.task)
        self.parts = [_parts(item, same) for item in self.items]
        for item, parts in zip(self.items, self.parts, strict=True):
            self._by_key.setdefault(self.task.content(item), item)
            for texts, options in parts:
                self._by_key.setdefault((texts, options), item)
                self._by_key.setdefault((texts, bool(options)), item)
            for text in _long_texts(parts):
                self._by_text.setdefault(text, item)

    def shared(self, others: Inputs, *, tested: bool = True) -> tuple[list[Pair], list[Pair]]:
        """Which of the others' items are among these: those that count, and those that do not. ``tested``: the others
        are test items.
        """
        counted: list[Pair] = []
        harmless: list[Pair] = []
        for item, parts in zip(others.items, others.parts, strict=True):
            twin = self._twin(others.task, item, parts)
            if twin is not None:
                telling = tested and not _is_word(parts)
                counts = (
                    telling
                    or self.task.content(twin) == others.task.content(item)
                    or self._alike(twin, others.task, item)
                )
                (counted if counts else harmless).append((twin, item))
        return counted, harmless

    def shared_texts(self, others: Inputs) -> list[Pair]:
        """Which of the others' items have a long text in common with these."""
        found = (
            (next((self._by_text[text] for text in _long_texts(parts) if text in self._by_text), None), item)
            for item, parts in zip(others.items, others.parts, strict=True)
        )
        return [(twin, item) for twin, item in found if twin is not None]

    def _twin(self, task: Task, item: Item, parts: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> Item | None:
        keys: list[Hashable] = [task.content(item)]
        for texts, options in parts:
            keys += [(texts, options), (texts, not options)]  # with options on one side only, the rest decides
        return next((self._by_key[key] for key in keys if key in self._by_key), None)

    def _alike(self, twin: Item, task: Task, item: Item) -> bool:
        ours, theirs = ({label.casefold() for label in labels or ()} for labels in (self.task.labels, task.labels))
        same = (
            twin.answer is not None and item.answer is not None and normalised(twin.answer) == normalised(item.answer)
        )
        return bool(ours & theirs) or same


def normalised(text: str) -> str:
    """A text without case, white space, forms of letters, dashes and quotation marks, marks of HTML, spaces before
    punctuation, and punctuation at its ends."""
    plain = re.sub(r"(?i)<br\s*/?>", " ", html.unescape(text)).replace("``", '"').replace("''", '"')
    plain = unicodedata.normalize("NFKC", plain).translate(_PLAIN).casefold()
    if not plain.isascii():
        plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")  # zero-width marks and soft hyphens
    plain = re.sub(r"\s+([.,;:!?])", r"\1", plain)
    return " ".join(plain.split()).lstrip(_BEFORE).rstrip(_AFTER)


def same_inputs(task: Task, item: Item) -> Hashable:
    """What tells the items of one task apart: their fields, normalised, in the order of the template."""
    return tuple(normalised(item.fields[name]) for name in dict.fromkeys(task.slots))


def _parts(item: Item, same: frozenset[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    made = []
    for left_out in dict.fromkeys((frozenset[str](), same)):
        values = [value for name, value in item.written_of.items() if name not in left_out]
        listed = [_options(value) for value in values]
        texts = sorted(normalised(value) for value, options in zip(values, listed, strict=True) if options is None)
        options = sorted(normalised(option) for options in listed for option in options or ())
        whole = tuple(text for text in texts if text)
        if whole:
            made.append((whole, tuple(options)))
    return made


def _same_everywhere(task: Task) -> frozenset[str]:
    """Texts with one value in all rows, such as an instruction; none if that is all there is."""
    first = task.items[0].written_of if task.items else {}
    names = [name for name, value in first.items() if _options(value) is None]
    same = frozenset(name for name in names if len({item.written_of.get(name) for item in task.items}) == 1)
    return same if len(task.items) > 1 and len(same) < len(names) else frozenset()


def _options(value: str) -> list[str] | None:
    """The options of a field that is a lettered list (A. ..., B. ...), else None."""
    pieces = re.split(r"(?m)^([A-Z])[.)] ", value)
    letters = pieces[1::2]
    return (
        pieces[2::2]
        if len(letters) > 1 and not pieces[0].strip() and letters == list(LETTERS[: len(letters)])
        else None
    )


def _is_word(parts: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> bool:
    """Whether the input is a word, a number, or two of them in a list."""
    words = [word for text in parts[-1][0] for word in re.split(r"\s*[,;/]\s*", text)] if parts else []
    return len(words) < 3 and not any(" " in word for word in words)


def _long_texts(parts: list[tuple[tuple[str, ...], tuple[str, ...]]]) -> Iterator[str]:
    yield from (text for text in (parts[0][0] if parts else ()) if len(text.split()) >= _LONG)
