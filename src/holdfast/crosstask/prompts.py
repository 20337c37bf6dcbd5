"""Tasks and demonstrations -> prompts, every piece of which has a name; and prompts that are too long -> prompts that
fit.

    source definition   Definition: D_s\n
    demonstration       source input + cue + space + label\n          the most similar one first, farthest from the
    target
    target definition   Definition: D_t\n
    label line          (optional) the label space, spelled out\n
    in-task example     target input + cue + space + label\n          the nearest one last
    input               target input + cue                            no newline: the model goes on from here

Every piece ends with its newline, except the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError

Kind = Literal["source definition", "demonstration", "target definition", "label line", "in-task example", "input"]
Order = Literal["similar-first", "similar-last"]


@dataclass(frozen=True)
class Piece:
    """A named part of a prompt. ``source`` and ``item`` say what it shows; ``answer_end``: length of ``text`` up to its
    label's end.
    """

    kind: Kind
    text: str
    source: str = ""
    item: str = ""
    answer_end: int = 0


@dataclass(frozen=True)
class Prompt:
    """A prompt and what had to be done to make it fit."""

    pieces: tuple[Piece, ...]
    dropped: int = 0
    """Demonstrations left out."""
    shortened: int = 0
    """Characters cut from the beginning of a demonstration's input."""

    @property
    def text(self) -> str:
        """What the model sees."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def demos(self) -> tuple[tuple[str, str], ...]:
        """(task, item id) of every demonstration, in the order of the prompt."""
        return tuple((p.source, p.item) for p in self.pieces if p.item and p.kind != "input")

    def end_of(self, kind: Kind, *, answer: bool = False) -> int | None:
        """The position in ``text`` after the last piece of a kind (after its label, if ``answer``), its newline left
        out.
        """
        found, position = None, 0
        for piece in self.pieces:
            if piece.kind == kind:
                found = position + (piece.answer_end if answer else len(piece.text.rstrip("\n")))
            position += len(piece.text)
        return found


@dataclass(frozen=True)
class Shown:
    """Demonstrations of one task, the most similar first."""

    task: Task
    items: tuple[Item, ...]


def demonstration(task: Task, item: Item, kind: Kind = "demonstration", cut: int = 0) -> Piece:
    """A labelled example as a piece; ``cut`` characters are missing at the beginning of its input.

    Raises:
        HoldfastError: the item has no answer.
    """
    if item.answer is None:
        raise HoldfastError(f"{item.where}: no answer, so it cannot be a demonstration")
    shown = task.render(item)[cut:] + task.behind(item.answer)
    return Piece(kind, shown + "\n", task.name, item.id, len(shown))


def definition(task: Task, kind: Kind) -> Piece:
    """The definition of a task as a piece."""
    return Piece(kind, f"{task.definition_prefix}{task.definition}\n", task.name)


def label_line(task: Task) -> Piece:
    """The label space in words: the direct cure for copying the labels of the source."""
    return Piece("label line", f"Possible answers: {', '.join(task.labels or ())}\n", task.name)


def build(
    target: Task,
    item: Item,
    cross: Sequence[Shown] = (),
    in_task: Sequence[Item] = (),
    *,
    order: Order = "similar-first",
    with_labels: bool = False,
) -> Prompt:
    """The prompt for one input. With neither ``cross`` nor ``in_task`` it is the zero-shot prompt.

    Args:
        cross: demonstrations by source task, the best source first; each source has its own definition.
        in_task: labelled examples of the target, the most similar first; they are written nearest last.
        order: whether the most similar demonstration (and the best source) stands first, as in the paper, or last.
    """
    pieces: list[Piece] = []
    for shown in cross if order == "similar-first" else reversed(cross):
        items = shown.items if order == "similar-first" else tuple(reversed(shown.items))
        pieces.append(definition(shown.task, "source definition"))
        pieces += [demonstration(shown.task, demo) for demo in items]
    pieces.append(definition(target, "target definition"))
    if with_labels and target.labels is not None:
        pieces.append(label_line(target))
    pieces += [demonstration(target, demo, "in-task example") for demo in reversed(in_task)]
    pieces.append(Piece("input", target.render(item), target.name, item.id))
    return Prompt(tuple(pieces))


def fit(
    target: Task, item: Item, cross: Sequence[Shown], in_task: Sequence[Item], *,
    count: Callable[[str], int], limit: int, order: Order = "similar-first", with_labels: bool = False, shorten: bool = True,
) -> Prompt:  # fmt: skip
    """As ``build``, but within ``limit`` tokens. The target's definition and input are never touched.

    While the prompt is too long, the least similar demonstration of the last source goes; then in-task examples, least
    similar first. The last demonstration that would have to go is instead cut at the beginning of its input, if that is
    enough.

    Args:
        count: tokens of a text.
        shorten: whether demonstrations may be cut at all.

    Raises:
        HoldfastError: the prompt does not fit even with no demonstration.
    """

    def make(cross: Sequence[Shown], in_task: Sequence[Item]) -> Prompt:
        return build(target, item, cross, in_task, order=order, with_labels=with_labels)

    groups, inside = [Shown(s.task, s.items) for s in cross if s.items], tuple(in_task)
    prompt, dropped = make(groups, inside), 0
    while count(prompt.text) > limit:
        if not groups and not inside:
            raise HoldfastError(
                f"{item.where}: the prompt has {count(prompt.text)} tokens even with no demonstration; the model "
                f"takes {limit}",
                hint="shorten the input or the definition, or use a model with a longer context",
            )
        if shorten and len(groups) == 1 and len(groups[0].items) == 1:
            cut = _cut(prompt, count, limit, groups[0].task.render(groups[0].items[0]))
            if cut is not None:
                return replace(cut, dropped=dropped)
        if groups:
            last = groups.pop()
            if len(last.items) > 1:
                groups.append(Shown(last.task, last.items[:-1]))
        else:
            inside = inside[:-1]
        dropped += 1
        prompt = make(groups, inside)
    return replace(prompt, dropped=dropped)


def _cut(prompt: Prompt, count: Callable[[str], int], limit: int, shown: str) -> Prompt | None:
    """Cut the one demonstration at the beginning of its input, by as few characters as possible; None if its last line
    has to go.
    """
    index = next(i for i, piece in enumerate(prompt.pieces) if piece.kind == "demonstration")

    def with_cut(cut: int) -> Prompt:
        piece = prompt.pieces[index]
        shorter = replace(piece, text=piece.text[cut:], answer_end=piece.answer_end - cut)
        return Prompt((*prompt.pieces[:index], shorter, *prompt.pieces[index + 1 :]), shortened=cut)

    low, high = 1, shown.rfind("\n") + 1  # the last line is the cue
    if high < low or count(with_cut(high).text) > limit:
        return None
    while low < high:
        middle = (low + high) // 2
        if count(with_cut(middle).text) <= limit:
            high = middle
        else:
            low = middle + 1
    return with_cut(low)
