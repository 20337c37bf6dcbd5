"""Sources x targets -> conditions, items and prompts: everything about a run that needs no model.

    zero-shot          D_t, input
    in-task            D_t, labelled examples of the target, input
    SOURCE             D_s, k examples of it, D_t, input
    SOURCE+in-task     both
    mixed              D_s, one example, for each of several sources; D_t, input

A block is scored in one go: the baselines, or one source with all targets (so that its prefixes are shared over the
grid), or the mix.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast import http
from holdfast.config import CrossTaskConfig
from holdfast.crosstask.encoders import encoder, window
from holdfast.crosstask.library import load_library, read_items
from holdfast.crosstask.overlap import check_apart, check_disjoint
from holdfast.crosstask.prompts import Demonstrations, Prompt, build, fit
from holdfast.crosstask.retrieve import retrieve
from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError

ZERO, IN_TASK, MIXED = "zero-shot", "in-task", "mixed"


@dataclass(frozen=True)
class Target:
    """A task to label: the first ``test`` of its ``items`` are test items, the rest dev items.

    ``in_task`` are labelled examples of it.
    """

    task: Task
    items: tuple[Item, ...]
    test: int
    in_task: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One condition on one target, a prompt per item.

    ``empty`` are the prompts with a content-free input, for contextual calibration.
    """

    target: str
    condition: str
    prompts: tuple[Prompt, ...]
    empty: tuple[Prompt, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The checked input of a run."""

    config: CrossTaskConfig
    sources: dict[str, Task]
    targets: dict[str, Target]

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, in the order in which they are scored."""
        return (ZERO, *self.sources, *((MIXED,) if self.config.mixed else ()))

    def sources_of(self, target: str) -> list[str]:
        """Sources that serve this target: all but itself."""
        return [name for name in self.sources if name != target]


def data_digest(grid: Grid) -> str:
    """Return the SHA-256 of every task and item of a run: what is asked, in which order, and what counts as right."""
    tasks = [*grid.sources.values(), *(target.task for target in grid.targets.values())]
    groups = [task.items for task in tasks] + [(*target.items, *target.in_task) for target in grid.targets.values()]
    about = [
        [task.name, task.definition, task.definition_prefix, task.template, task.answer_prefix, task.labels]
        for task in tasks
    ]
    listed = []
    for items in groups:
        listed.append([[item.id, item.fields, item.answer, item.split] for item in items])
    content = [about, listed]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_grid(config: CrossTaskConfig, targets: dict[str, Target] | None = None) -> Grid:
    """Read the tasks and check them against one another.

    Args:
        targets: to use instead of those that the config names; they are to be labelled, not tested.

    Raises:
        HoldfastError: names file and row.
    """
    _check_options(config)
    library = load_library(config.sources)
    for name, task in library.items():
        if not task.pool:
            raise HoldfastError(
                f"{task.where}: source '{name}' has an empty pool: no row with an answer",
                hint="with splits, demonstrations come from split 'train'",
            )
    tested = targets is None
    targets = targets or {name: _target(task, config) for name, task in load_library(config.target).items()}
    check_apart(library, {name: (target.task, target.items) for name, target in targets.items()}, tested=tested)
    grid = Grid(config, library, targets)
    for name in targets:
        if not grid.sources_of(name):
            raise HoldfastError(
                f"{library[name].where}: the only source is the target '{name}' itself",
                hint="cross-task prompting needs examples of another task",
            )
    for name in config.mixed:
        if name not in library:
            raise HoldfastError(f"--mixed {name}: no such source; there are {', '.join(library)}")
    same = sorted(set(library) & set(targets))
    if same:
        print(f"note: {', '.join(same)}: source and target alike, so left out as a source for itself", file=sys.stderr)
    return grid


def make_block(grid: Grid, block: str, count: Callable[[Sequence[str]], list[int]], limit: int | None) -> list[Cell]:
    """Return all cells of a block with their prompts.

    Args:
        count: numbers of tokens of texts.
        limit: longest prompt in tokens; None where it is not known.

    Raises:
        HoldfastError: a prompt does not fit even with no demonstration.
    """
    cells = []
    for name, target in grid.targets.items():
        if block == ZERO:
            sources, k, with_in_task = [], 0, True
        elif block == MIXED:
            sources, k, with_in_task = [grid.sources[s] for s in grid.config.mixed if s != name], 1, False
        elif block == name:  # no source serves itself
            continue
        else:
            sources, k, with_in_task = [grid.sources[block]], grid.config.k, grid.config.with_in_task
        cross = _cross_task(grid, sources, target, k)
        cells.append(_cell(grid, target, block, cross, [()] * len(target.items), count, limit))
        if target.in_task and with_in_task:
            condition = IN_TASK if block == ZERO else f"{block}+{IN_TASK}"
            in_task = _retrieved(grid, target.task, target.in_task, target, grid.config.in_task_k)
            cells.append(_cell(grid, target, condition, cross, in_task, count, limit))
    return cells


def _cross_task(grid: Grid, sources: Sequence[Task], target: Target, k: int) -> list[list[Demonstrations]]:
    """Return the demonstrations of these sources for each item of the target; none where k is 0."""
    cross: list[list[Demonstrations]] = [[] for _ in target.items]
    for source in sources if k else ():
        retrieved = _retrieved(grid, source, source.pool[: grid.config.pool_limit], target, k)
        for demos, items in zip(cross, retrieved, strict=True):
            demos.append(Demonstrations(source, items))
    return cross


def _retrieved(grid: Grid, source: Task, pool: Sequence[Item], target: Target, k: int) -> list[tuple[Item, ...]]:
    config, own = grid.config, source is target.task
    name = config.in_task_retriever if own else config.retriever
    with_context = not own and name == "graph" and target.task.has_splits
    return retrieve(
        source,
        pool,
        target.task,
        target.items,
        k=k,
        encode=encoder(config.encoder, config.embeddings),
        name=name,
        embed_text=config.embed_text,
        too_long=window(config.encoder),
        seed=config.seed,
        unlabelled=target.task.part("train") if with_context else (),
    )


def _cell(
    grid: Grid,
    target: Target,
    condition: str,
    cross: list[list[Demonstrations]],
    in_task: Sequence[tuple[Item, ...]],
    count: Callable[[Sequence[str]], list[int]],
    limit: int | None,
) -> Cell:
    config = grid.config
    how: dict[str, Any] = {"order": config.order, "with_labels": config.label_line}
    fit_how = how | {"count": lambda text: count([text])[0], "limit": limit, "shorten": config.shorten}

    def fitted(items: Sequence[Item]) -> tuple[Prompt, ...]:
        prompts = []
        for item, demos, examples in zip(items, cross, in_task, strict=True):
            prompts.append(build(target.task, item, demos, examples, **how))
        lengths = count([prompt.text for prompt in prompts]) if limit is not None else []
        for i, tokens in enumerate(lengths):
            if limit is not None and tokens > limit:
                prompts[i] = fit(target.task, items[i], cross[i], in_task[i], **fit_how)
        return tuple(prompts)

    empty: tuple[Prompt, ...] = ()
    if config.calibration == "contextual" and target.task.labels is not None:
        empty = fitted([replace(item, fields=dict.fromkeys(item.fields, "N/A")) for item in target.items])
    return Cell(target.task.name, condition, fitted(target.items), empty)


def _target(task: Task, config: CrossTaskConfig) -> Target:
    test = task.test[: config.limit]
    if not test:
        raise HoldfastError(
            f"{task.where}: target '{task.name}' has no item to label",
            hint="with splits, items to label are those of split 'test'",
        )
    dev = task.dev[: config.dev_items]
    if config.dev_items and not dev:
        raise HoldfastError(
            f"{task.where}: --dev-items {config.dev_items}, but the target has no labelled item in split 'dev'"
        )
    in_task: tuple[Item, ...] = ()
    if config.in_task == "pool":
        in_task = task.pool if task.has_splits else ()
        if not in_task:
            raise HoldfastError(f"{task.where}: --in-task pool, but the target has no labelled item in split 'train'")
    elif config.in_task is not None:
        in_task = tuple(item for item in read_items(Path(config.in_task), task) if item.answer is not None)
        if not in_task:
            raise HoldfastError(f"{config.in_task}: no row has an answer")
    check_disjoint(task, in_task, (*test, *dev), "in-task examples")
    check_disjoint(task, dev, test, "dev items")
    return Target(task, (*test, *dev), len(test), in_task)


def _check_options(config: CrossTaskConfig) -> None:
    if config.with_in_task and config.in_task is None:
        raise HoldfastError(
            "--with-in-task needs --in-task", hint="--in-task pool takes examples of the target's own train split"
        )
    if config.endpoint:
        http.check_address(config.endpoint, "--endpoint")
        http.api_key()
    if config.endpoint and (config.decode != "generate" or config.states):
        raise HoldfastError(
            "an --endpoint can generate, but gives neither label log-probs nor hidden states", hint="--decode generate"
        )
