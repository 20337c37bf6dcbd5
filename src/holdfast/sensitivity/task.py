"""What is to be scored and what is known already; and what a back end must be able to do.

SetTask: the prompts of a set, and which pairs are wanted        ScoreTable: responses and cells so far, over all sets
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.errors import HoldfastError
from holdfast.records import Ids
from holdfast.sensitivity.responses import Cells, Response, Scores, assemble
from holdfast.tables.text import counted

SETS_PER_BATCH = 32
"""Sets that are scored together and stored in one transaction."""


@dataclass(frozen=True)
class SetTask:
    """One set to score. ``name`` is for errors; ``groups``: within each, every response is scored after every
    prompt.
    """

    name: str
    prompts: tuple[Ids, ...]
    groups: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(name: str, prompts: Sequence[Ids], groups: Sequence[Sequence[int]] | None = None) -> SetTask:
        """A task; without groups, all pairs are wanted."""
        return SetTask(name, tuple(prompts), tuple(map(tuple, groups)) if groups else (tuple(range(len(prompts))),))

    def wanted(self, score_table: ScoreTable) -> dict[Ids, list[Ids]]:
        """Distinct prompt -> distinct responses that are wanted after it and not scored yet."""
        missing: dict[Ids, dict[Ids, None]] = {}
        for group in self.groups:
            responses = dict.fromkeys(score_table.responses[self.prompts[i]].ids for i in group)
            for i in group:
                wanted = missing.setdefault(self.prompts[i], {})
                wanted.update((r, None) for r in responses if (self.prompts[i], r) not in score_table.cells)
        return {prompt: list(responses) for prompt, responses in missing.items() if responses}


@dataclass
class ScoreTable:
    """Everything scored so far."""

    responses: dict[Ids, Response] = field(default_factory=dict)
    cells: Cells = field(default_factory=dict)

    def of(self, tasks: Sequence[SetTask]) -> ScoreTable:
        """The part about these tasks."""
        prompts = {p for task in tasks for p in task.prompts}
        responses = {p: r for p, r in self.responses.items() if p in prompts}
        return ScoreTable(responses, {pair: logp for pair, logp in self.cells.items() if pair[0] in prompts})

    def scores(self, task: SetTask) -> Scores:
        """The matrix of a task."""
        return assemble(task.prompts, self.responses, self.cells)


class Backend(Protocol):
    """What measures: ``complete`` adds the missing responses and cells of some tasks to ``score_table``."""

    parallel: int
    """Batches of sets that it works on at a time."""

    def complete(self, tasks: Sequence[SetTask], score_table: ScoreTable) -> None:
        """Respond and score."""

    def check(self, tasks: Sequence[SetTask]) -> None:
        """Refuse prompts that cannot be scored, before any work is done."""

    def audit(self, tasks: Sequence[SetTask], score_table: ScoreTable, cells: int, seed: int) -> dict[str, float]:
        """Score some cells again in the plainest way there is."""

    def identity(self) -> dict[str, str]:
        """What the numbers depend on beside the ids."""

    def cost(self) -> dict[str, int]:
        """Work done so far."""

    def way(self) -> str:
        """How it was done, for the summary."""


def check_lengths(tasks: Sequence[SetTask], context: int, max_new_tokens: int, added: int = 0) -> None:
    """Refuse prompts that are empty or leave no room for a response, and for what a server adds when it scores.

    Raises:
        HoldfastError: naming the set and the prompt.
    """
    for task in tasks:
        for x, prompt in enumerate(task.prompts):
            if not prompt:
                raise HoldfastError(
                    f"set '{task.name}', prompt {x} is empty, and the tokenizer adds no BOS",
                    hint="a model needs one token to start from; drop this prompt",
                )
            if len(prompt) + max_new_tokens + added > context:
                more = f" and {added} that the server adds" if added else ""
                raise HoldfastError(
                    f"set '{task.name}', prompt {x} has {counted(len(prompt), 'token')}; with "
                    f"{max_new_tokens} new ones{more} "
                    "that is beyond "
                    f"the model's context of {context}",
                    hint="shorten the prompt, take fewer --shots or a smaller --max-new-tokens",
                )
