"""Two sets of items -> the inputs that they share, whatever the templates, the names of fields and their order.

An input is compared as a whole: all its texts, each normalised. Left out are fields that are empty or the same in every
row of the task. Options count only where both sides have some. So a question is the same question with and without its
options, and two tasks that ask different things of one passage share a text, not an input.

A single word ("apple", or "glove, cow") is no proof of a leak, because many tasks are about common words. It counts
where the rendered inputs are equal, where the tasks have a label in common, or where both give it the same answer. The
same holds for inputs of any length that are to be labelled and are not tested on, because no score depends on them.
Sources and pools that share inputs with what is tested are refused.
"""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.crosstask.tasks import LETTERS, Item, Task
from holdfast.errors import HoldfastError
from holdfast.tables.text import counted

_QUOTES, _APOSTROPHES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", "\u2018\u2019\u201a\u201b\u02bc\u2032`"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_PLAIN = str.maketrans(dict.fromkeys(_QUOTES, '"') | dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_DASHES, "-"))
_BEFORE, _AFTER = " \"'([{\u00bf\u00a1", " \"')]}.,;:!?\u2026\u3002\u3001"
"""Marks that are cut off. A minus and a currency sign are none of them, because they belong to a number."""
_LONG = 5
"""A text of so many words does not occur twice by chance."""
Parts = list[tuple[tuple[str, ...], tuple[str, ...]]]
"""The texts and the options of an item, with and without the fields that are the same in every row of its task."""

Pair = tuple[Item, Item]
"""An item of the pool, and the item that it is the same as."""


@dataclass
class Inputs:
    """The inputs of some items of a task, in every form in which they may turn up elsewhere."""

    task: Task
    items: tuple[Item, ...]
    parts: list[Parts] = field(init=False)
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
        """Return which of the others' items are among these: those that are leaks, and those that are harmless.

        Args:
            tested: whether the others are test items, so that any whole input is a leak.
        """
        leaks: list[Pair] = []
        harmless: list[Pair] = []
        for item, parts in zip(others.items, others.parts, strict=True):
            twin = self._twin(others.task, item, parts)
            if twin is not None:
                same_text = self.task.content(twin) == others.task.content(item)
                leak = (tested and not _is_word(parts)) or same_text or self._alike(twin, others.task, item)
                (leaks if leak else harmless).append((twin, item))
        return leaks, harmless

    def shared_texts(self, others: Inputs) -> list[Pair]:
        """Return which of the others' items have a long text in common with these."""
        pairs = []
        for item, parts in zip(others.items, others.parts, strict=True):
            twin = next((self._by_text[text] for text in _long_texts(parts) if text in self._by_text), None)
            if twin is not None:
                pairs.append((twin, item))
        return pairs

    def _twin(self, task: Task, item: Item, parts: Parts) -> Item | None:
        keys: list[Hashable] = [task.content(item)]
        for texts, options in parts:
            keys += [(texts, options), (texts, not options)]  # with options on one side only, the rest decides
        return next((self._by_key[key] for key in keys if key in self._by_key), None)

    def _alike(self, twin: Item, task: Task, item: Item) -> bool:
        """Whether the two tasks have a label in common, or give the two items the same answer."""
        ours = {label.casefold() for label in self.task.labels or ()}
        if any(label.casefold() in ours for label in task.labels or ()):
            return True
        return None not in (twin.answer, item.answer) and normalised(str(twin.answer)) == normalised(str(item.answer))


def check_disjoint(task: Task, pool: Sequence[Item], test: Sequence[Item], what: str) -> None:
    """Check that pool and test share no input: neither as it is written nor, normalised, by its fields.

    Raises:
        HoldfastError: names both rows.
    """
    seen: dict[Hashable, Item] = {}
    for item in test:
        for key in (task.content(item), same_inputs(task, item)):
            seen.setdefault(key, item)
    pairs = [(item, seen.get(task.content(item), seen.get(same_inputs(task, item)))) for item in pool]
    both = [(item.where, twin.where) for item, twin in pairs if twin is not None]
    if both:
        raise HoldfastError(
            f"{both[0][0]}: {len(both)} of the {len(pool)} {what} of '{task.name}' "
            f"{'is a test item' if len(both) == 1 else 'are test items'} too (this one is {both[0][1]})",
            hint="keep them apart: give rows a 'split', or take the shared rows out of one of the files",
        )


def check_apart(
    sources: Mapping[str, Task], targets: Mapping[str, tuple[Task, Sequence[Item]]], *, tested: bool = True
) -> None:
    """Check that no source is a target under another name, or has items of one in its pool.

    Raises:
        HoldfastError: names both rows.
    """
    asked = {name: Inputs(task, tuple(items)) for name, (task, items) in targets.items()}
    for source in sources.values():
        rows, pool = Inputs(source, source.items), Inputs(source, source.pool)
        for inputs in asked.values():
            _check_pair(rows, pool, inputs, tested)


def _check_pair(rows: Inputs, pool: Inputs, asked: Inputs, tested: bool) -> None:
    source, task = pool.task, asked.task
    both, _ = rows.shared(asked, tested=tested)
    alike = source.definition == task.definition and source.labels == task.labels and 2 * len(both) >= len(asked.items)
    if alike and source.name != task.name:
        raise HoldfastError(
            f"{source.where}: source '{source.name}' is the target '{task.name}' under another name "
            f"({len(both)} of {counted(len(asked.items), 'test item')} {'is' if len(both) == 1 else 'are'} in it)",
            hint="leave it out of the sources",
        )
    if source.name == task.name and not alike:
        raise HoldfastError(
            f"{source.where}: a source and the target are both called '{task.name}', but they differ",
            hint="give one of them another name",
        )
    if alike:
        return
    leaked, harmless = pool.shared(asked, tested=tested)
    if leaked:
        number = counted(len(leaked), "test item") if tested else f"{counted(len(leaked), 'input')} to label"
        ours, theirs = leaked[0]
        how = "" if source.content(ours) == task.content(theirs) else ", under another template or in another spelling"
        raise HoldfastError(
            f"{ours.where}: the pool of source '{source.name}' holds {number} of '{task.name}' "
            f"(this one is {theirs.where}){how}",
            hint="take them out of the pool",
        )
    pairs = harmless or pool.shared_texts(asked)
    if pairs:
        one, (ours, theirs) = len(pairs) == 1, pairs[0]
        if harmless:
            what = (
                f"{counted(len(pairs), 'single word' if tested else 'input')} {'is' if one else 'are'} in the pool of"
            )
        else:
            what = f"{counted(len(pairs), 'input')} {'shares' if one else 'share'} a text with the"
        print(
            f"note: {task.name}: {what} source '{source.name}' too (the first: {theirs.where} and {ours.where}); "
            "not taken for a leak",
            file=sys.stderr,
        )


def normalised(text: str) -> str:
    """Return a text in a form in which two spellings of it are equal.

    Case, white space, HTML, spaces before punctuation and punctuation at the ends are taken away, and letters, dashes
    and quotation marks are written in one form.
    """
    plain = re.sub(r"(?i)<br\s*/?>", " ", html.unescape(text)).replace("``", '"').replace("''", '"')
    plain = unicodedata.normalize("NFKC", plain).translate(_PLAIN).casefold()
    if not plain.isascii():
        plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")  # zero-width marks and soft hyphens
    plain = re.sub(r"\s+([.,;:!?])", r"\1", plain)
    return " ".join(plain.split()).lstrip(_BEFORE).rstrip(_AFTER)


def same_inputs(task: Task, item: Item) -> Hashable:
    """Return what tells the items of one task apart: their fields, normalised, in the order of the template."""
    return tuple(normalised(item.fields[name]) for name in dict.fromkeys(task.slots))


def _parts(item: Item, same: frozenset[str]) -> Parts:
    parts = []
    for left_out in dict.fromkeys((frozenset[str](), same)):
        texts, options = list[str](), list[str]()
        for name, value in (item.columns or item.fields).items():
            listed = _options(value)
            if name not in left_out and listed is None:
                texts.append(normalised(value))
            elif name not in left_out:
                options += map(normalised, listed or ())
        whole = tuple(sorted(filter(None, texts)))
        if whole:
            parts.append((whole, tuple(sorted(options))))
    return parts


def _same_everywhere(task: Task) -> frozenset[str]:
    """Return the texts with one value in all rows, such as an instruction; none if that is all there is."""
    written = [item.columns or item.fields for item in task.items]
    first = written[0] if written else {}
    names = [name for name, value in first.items() if _options(value) is None]
    same = frozenset(name for name in names if all(values.get(name) == first[name] for values in written))
    return same if len(written) > 1 and len(same) < len(names) else frozenset()


def _options(value: str) -> list[str] | None:
    """Return the options of a field that is a lettered list (A. ..., B. ...), else None."""
    start, *rest = re.split(r"(?m)^([A-Z])[.)] ", value)
    letters, options = rest[::2], rest[1::2]
    is_list = len(letters) > 1 and not start.strip() and letters == list(LETTERS[: len(letters)])
    return options if is_list else None


def _is_word(parts: Parts) -> bool:
    """Whether the input is a word, a number, or two of them in a list."""
    words: list[str] = []
    for text in parts[-1][0] if parts else ():
        words += re.split(r"\s*[,;/]\s*", text)
    return len(words) < 3 and not any(" " in word for word in words)


def _long_texts(parts: Parts) -> list[str]:
    return [text for text in (parts[0][0] if parts else ()) if len(text.split()) >= _LONG]
