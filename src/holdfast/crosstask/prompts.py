"""Tasks and demonstrations -> prompts made of named segments; prompts that are too long -> prompts that fit.

    source definition   Definition: D_s\n
    demonstration       source input + cue + space + label\n     the most similar one first, farthest from the target
    target definition   Definition: D_t\n
    label line          (optional) the label space, spelled out\n
    in-task example     target input + cue + space + label\n     the nearest one last
    input               target input + cue                       no newline: the model goes on from here

Every segment ends with its newline, except the last. This is the prompt of the paper (arXiv 2405.10548).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError
from holdfast.tables.text import counted

Kind = Literal["source definition", "demonstration", "target definition", "label line", "in-task example", "input"]
Order = Literal["similar-first", "similar-last"]


@dataclass(frozen=True)
class Segment:
    """A named part of a prompt. ``source`` and ``item`` are its task and item; ``answer_end``: where its label ends."""

    kind: Kind
    text: str
    source: str = ""
    item: str = ""
    answer_end: int = 0


@dataclass(frozen=True)
class Prompt:
    """A prompt, and how many demonstrations were dropped or cut so that it fits."""

    segments: tuple[Segment, ...]
    dropped: int = 0
    """Demonstrations left out."""
    shortened: int = 0
    """Characters cut from the beginning of a demonstration's input."""

    @property
    def text(self) -> str:
        """The text that the model reads."""
        return "".join(segment.text for segment in self.segments)

    @property
    def demos(self) -> tuple[tuple[str, str], ...]:
        """(task, item id) of every demonstration, in the order of the prompt."""
        return tuple((p.source, p.item) for p in self.segments if p.item and p.kind != "input")

    def end_of(self, kind: Kind, *, answer: bool = False) -> int | None:
        """Return the position in ``text`` after the last segment of a kind, without its newline, or after its label."""
        end, position = None, 0
        for segment in self.segments:
            if segment.kind == kind:
                end = position + (segment.answer_end if answer else len(segment.text.rstrip("\n")))
            position += len(segment.text)
        return end


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrations of one task, the most similar first."""

    task: Task
    items: tuple[Item, ...]


def demonstration(task: Task, item: Item, kind: Kind = "demonstration") -> Segment:
    """Return a labelled example as a segment.

    Raises:
        HoldfastError: the item has no answer.
    """
    if item.answer is None:
        raise HoldfastError(f"{item.where}: no answer, so it cannot be a demonstration")
    text = task.render(item) + task.behind(item.answer)
    return Segment(kind, text + "\n", task.name, item.id, len(text))


def definition(task: Task, kind: Kind) -> Segment:
    """Return the definition of a task as a segment."""
    return Segment(kind, f"{task.definition_prefix}{task.definition}\n", task.name)


def label_line(task: Task) -> Segment:
    """Return the label space in words as a segment, because it keeps the model from copying labels of the source."""
    return Segment("label line", f"Possible answers: {', '.join(task.labels or ())}\n", task.name)


def build(
    target: Task,
    item: Item,
    cross: Sequence[Demonstrations] = (),
    in_task: Sequence[Item] = (),
    *,
    order: Order = "similar-first",
    with_labels: bool = False,
) -> Prompt:
    """Return the prompt for one input. With neither ``cross`` nor ``in_task`` it is the zero-shot prompt.

    Args:
        cross: demonstrations by source task, the best source first; each source has its own definition.
        in_task: labelled examples of the target, the most similar first; they are written nearest last.
        order: whether the most similar demonstration (and the best source) stands first, as in the paper, or last.
    """
    segments: list[Segment] = []
    step = 1 if order == "similar-first" else -1
    for demos in cross[::step]:
        segments.append(definition(demos.task, "source definition"))
        segments += [demonstration(demos.task, demo) for demo in demos.items[::step]]
    segments.append(definition(target, "target definition"))
    if with_labels and target.labels is not None:
        segments.append(label_line(target))
    segments += [demonstration(target, demo, "in-task example") for demo in reversed(in_task)]
    segments.append(Segment("input", target.render(item), target.name, item.id))
    return Prompt(tuple(segments))


def fit(
    target: Task,
    item: Item,
    cross: Sequence[Demonstrations],
    in_task: Sequence[Item],
    *,
    count: Callable[[str], int],
    limit: int,
    order: Order = "similar-first",
    with_labels: bool = False,
    shorten: bool = True,
) -> Prompt:
    """Return what ``build`` returns, but within ``limit`` tokens. The target's definition and input are never touched.

    While the prompt is too long, the least similar demonstration of the last source is left out; then in-task examples,
    least similar first. The only demonstration left is cut at the beginning of its input instead, if that is enough.

    Args:
        count: tokens of a text.
        shorten: whether demonstrations may be cut at all.

    Raises:
        HoldfastError: the prompt does not fit even with no demonstration.
    """

    groups, inside, dropped = [demos for demos in cross if demos.items], tuple(in_task), 0
    while True:
        prompt = build(target, item, groups, inside, order=order, with_labels=with_labels)
        if count(prompt.text) <= limit:
            return replace(prompt, dropped=dropped)
        if not groups and not inside:
            raise HoldfastError(
                f"{item.where}: the prompt has {counted(count(prompt.text), 'token')} even with no "
                "demonstration; the model "
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
                groups.append(Demonstrations(last.task, last.items[:-1]))
        else:
            inside = inside[:-1]
        dropped += 1


def _cut(prompt: Prompt, count: Callable[[str], int], limit: int, written: str) -> Prompt | None:
    """Cut the one demonstration at the beginning of its input, by as few characters as possible.

    Return None if even its last line, the cue, would have to be cut.
    """
    index = next(i for i, segment in enumerate(prompt.segments) if segment.kind == "demonstration")

    def with_cut(cut: int) -> Prompt:
        segment = prompt.segments[index]
        shorter = replace(segment, text=segment.text[cut:], answer_end=segment.answer_end - cut)
        return Prompt((*prompt.segments[:index], shorter, *prompt.segments[index + 1 :]), shortened=cut)

    low, high = 1, written.rfind("\n") + 1  # the last line is the cue
    if high < low or count(with_cut(high).text) > limit:
        return None
    while low < high:
        middle = (low + high) // 2
        if count(with_cut(middle).text) <= limit:
            high = middle
        else:
            low = middle + 1
    return with_cut(low)
