"""Prompts -> requests for the log-probs of all labels, and their answers cell by cell.

The log-prob of a label is computed in ``lm.score`` (``Readout._read`` per token, ``Scored.total`` over them), and made
a prediction in ``predict.label_scores``.

The prompt is tokenised whole, once; a label's tokens are what follows when the label is written behind it. All tokens
of a label count: labels that begin alike are told apart. Axes: I items, Y labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.crosstask.grid import Cell
from holdfast.crosstask.prompts import Prompt
from holdfast.crosstask.tasks import Task
from holdfast.data.chat_template import generation_prompt
from holdfast.errors import HoldfastError
from holdfast.records import Ids, Message, Role


class Reader:
    """Texts -> ids, in the way that the run wants prompts to be written: plain, or as a user message in the chat
    template.
    """

    def __init__(self, tokenizer: Any, template: str = "plain") -> None:
        if template == "chat" and not tokenizer.chat_template:
            raise HoldfastError("--template chat, but the tokenizer has no chat template", hint="use --template plain")
        self.tokenizer, self.template = tokenizer, template
        self._labels: dict[tuple[str, tuple[str, ...]], tuple[int, tuple[Ids, ...]]] = {}
        self._beginnings: dict[str, frozenset[str]] = {}
        self._texts: dict[int, str] = {}

    def written(self, prompt: str) -> str:
        """The prompt with BOS or inside the chat template: exactly what the model is given."""
        return generation_prompt([Message(Role.USER, prompt)], self.template, self.tokenizer)

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of written texts."""
        return (
            [tuple(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []
        )

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Numbers of tokens of prompts, as written."""
        written = [self.written(prompt) for prompt in prompts]
        return [len(ids) for ids in self.ids(written)]

    def offset(self, prompt: str) -> int:
        """Where the prompt begins in what is written."""
        return self.written(prompt).index(prompt)

    def answers(self, task: Task) -> tuple[str, ...]:
        """The labels as they are written behind a prompt. A chat answer starts a message, so it has no space before
        it.
        """
        return tuple((task.answer_prefix if self.template == "plain" else "") + label for label in task.labels or ())

    def beginnings(self, task: Task) -> frozenset[str]:
        """Texts of tokens that begin a label in capitals or not and with a space before it or not; parts of one letter
        are left out.
        """
        if task.answer_prefix.strip():
            return frozenset()  # the model would say the prefix first
        if task.name not in self._beginnings:
            beginnings = set()
            for label in task.labels or ():
                for form in _spellings(label):
                    for ids in filter(None, self.ids([form, f" {form}"])):
                        piece = self.text(ids[0])
                        if piece == form or (len(piece) > 1 and form.startswith(piece)):
                            beginnings.add(piece)
            self._beginnings[task.name] = frozenset(beginnings)
        return self._beginnings[task.name]

    def text(self, token: int) -> str:
        """What a token says, without the space before it."""
        if token not in self._texts:
            self._texts[token] = str(self.tokenizer.decode([token])).strip()
        return self._texts[token]

    def continuations(
        self, prompt: str, answers: tuple[str, ...], *, whole: bool = False
    ) -> tuple[int, tuple[Ids, ...]]:
        """How many tokens of the written prompt stay, and the ids of each answer behind them.

        They depend on the last line of the prompt alone, unless the tokenizer joins tokens over a line break; ``whole``
        looks at all of it.
        """
        written = self.written(prompt)
        text = written if whole else written[written.rfind("\n") + 1 :]
        if whole:
            return self._continuations(text, answers)
        if (text, answers) not in self._labels:
            self._labels[text, answers] = self._continuations(text, answers)
        return self._labels[text, answers]

    def _continuations(self, text: str, answers: tuple[str, ...]) -> tuple[int, tuple[Ids, ...]]:
        alone, *full = self.ids([text, *(text + answer for answer in answers)])
        from holdfast.lm.tree import common_length  # which brings torch: not before there is a model

        same = min(common_length(alone, ids) for ids in full)
        return same - len(alone), tuple(ids[same:] for ids in full)


@dataclass
class CellScores:
    """What the model thinks of the labels in one cell. ``sums`` [I, Y] nats; ``lengths`` [I, Y] tokens; ``begins`` [I]
    whether the most probable next token begins a label, in capitals or not; ``mass`` [I] the probability of the label
    space; ``entropy`` [I] of the next token, nats. ``empty`` [I, Y]: as ``sums``, for the content-free input, or no
    rows.
    """

    sums: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    begins: npt.NDArray[np.bool_]
    mass: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]
    empty: npt.NDArray[np.float64]


@dataclass
class Batch:
    """Requests of several cells, scored together so that they share prefixes."""

    reader: Reader
    tasks: dict[str, Task]
    cells: Sequence[Cell]
    states: bool = False
    collisions: dict[str, str] = field(default_factory=dict)
    """Targets with labels whose first tokens are the same."""

    @cached_property
    def requests(self) -> list[Any]:
        """One request per prompt, cell by cell: the inputs, then the emptied inputs."""
        return [request for cell in self.cells for request in self._of_cell(cell)]

    def _of_cell(self, cell: Cell) -> list[Any]:
        from holdfast.lm.engine import Request

        task = self.tasks[cell.target]
        answers = self.reader.answers(task)
        prompts = [*cell.prompts, *cell.empty]
        written = [self.reader.written(prompt.text) for prompt in prompts]
        first = self.reader.continuations(prompts[0].text, answers, whole=True)
        whole = first != self.reader.continuations(prompts[0].text, answers)
        self._check_labels(task, answers, first[1])
        requests = []
        for prompt, ids, text in zip(prompts, self.reader.ids(written), written, strict=True):
            cut, labels = self.reader.continuations(prompt.text, answers, whole=whole)
            requests.append(
                Request(ids[: len(ids) + cut], labels, self._taps(prompt, text, len(ids) + cut) if self.states else ())
            )
        return requests

    def _taps(self, prompt: Prompt, written: str, length: int) -> tuple[int, ...]:
        """Positions for ``crosstask analyse``: ends of source definition, target definition, demonstration's label,
        prompt; or none.
        """
        ends = [
            prompt.end_of("source definition"),
            prompt.end_of("target definition"),
            prompt.end_of("demonstration", answer=True),
        ]
        if None in ends:
            return ()
        starts = written.index(prompt.text)
        offsets = self.reader.tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        positions = []
        for end in ends:
            assert end is not None
            positions.append(max(i for i, (start, stop) in enumerate(offsets) if start < starts + end and stop > start))
        return (*(min(i, length - 1) for i in positions), length - 1)

    def _check_labels(self, task: Task, answers: tuple[str, ...], ids: tuple[Ids, ...]) -> None:
        for i, a in enumerate(ids):
            for j in range(i):
                if a == ids[j]:
                    raise HoldfastError(
                        f"{task.where}: labels {answers[j].strip()!r} and {answers[i].strip()!r} have the same token "
                        "ids",
                        hint="rename one of them",
                    )
        first = [a[0] for a in ids]
        colliding = [label for label, token in zip(task.labels or (), first) if first.count(token) > 1]
        if colliding:
            self.collisions[task.name] = ", ".join(colliding)

    def scores(self, answers: Sequence[Any]) -> list[CellScores]:
        """The answers to ``requests``, cell by cell."""
        cell_scores, at = [], 0
        for cell in self.cells:
            inputs, empty = len(cell.prompts), len(cell.empty)
            requests, part = self.requests[at : at + inputs], answers[at : at + inputs]
            names = self.reader.beginnings(self.tasks[cell.target])
            begins = []
            for request, answer in zip(requests, part, strict=True):
                first = {continuation[0] for continuation in request.continuations}
                begins.append(answer.next_token in first or self.reader.text(answer.next_token) in names)
            cell_scores.append(_cell_scores(requests, part, begins, answers[at + inputs : at + inputs + empty]))
            at += inputs + empty
        return cell_scores


def _cell_scores(
    requests: Sequence[Any], answers: Sequence[Any], begins: Sequence[bool], empty: Sequence[Any]
) -> CellScores:
    sums = np.array([answer.total for answer in answers])
    roots = [_roots(request.continuations) for request in requests]
    mass = [min(1.0, float(np.exp(row[root]).sum())) for row, root in zip(sums, roots)]
    return CellScores(
        sums,
        np.array([list(map(len, request.continuations)) for request in requests], np.int64),
        np.array(begins),
        np.array(mass),
        np.array([answer.next_entropy for answer in answers]),
        np.array([answer.total for answer in empty]).reshape(len(empty), sums.shape[1]),
    )


def _spellings(label: str) -> list[str]:
    """A label in small letters and in capitals. A small "a" is an article, not the label A."""
    forms = dict.fromkeys((label, label.lower(), label.upper(), label.capitalize(), label.title()))
    return [form for form in forms if form != "a" or label == "a"]


def _roots(labels: Sequence[Ids]) -> list[int]:
    """Labels that do not go on from another one: their probabilities add up to that of the label space."""
    return [i for i, a in enumerate(labels) if not any(a != b and a[: len(b)] == b for b in labels)]
