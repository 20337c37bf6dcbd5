"""Sources x targets -> conditions, items and prompts: everything about a run that needs no model.

    zero-shot          D_t, input
    in-task            D_t, labelled examples of the target, input
    SOURCE             D_s, k examples of it, D_t, input
    SOURCE+in-task     both
    mixed              D_s, one example, for each of several sources; D_t, input

A block is what is scored in one go: the baselines, one source with all targets (so that its prefixes are shared over
the grid), the mix.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast import http
from holdfast.config import CrossTaskConfig
from holdfast.crosstask.encoders import encoder, window
from holdfast.crosstask.library import load_library, read_items
from holdfast.crosstask.overlap import Inputs, same_inputs
from holdfast.crosstask.prompts import Prompt, Shown, build, fit
from holdfast.crosstask.retrieve import retrieve
from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError

ZERO, IN_TASK, MIXED = "zero-shot", "in-task", "mixed"


@dataclass(frozen=True)
class Target:
    """A task to label: the first ``test`` of its ``items`` are test items, the others dev items; ``in_task`` are
    labelled examples.
    """

    task: Task
    items: tuple[Item, ...]
    test: int
    in_task: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One condition on one target, a prompt per item. ``empty`` are the prompts with a content-free input, for
    contextual calibration.
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
    """SHA-256 of every task and item that is read: what is asked, in which order, and what counts as right."""
    tasks = [*grid.sources.values(), *(target.task for target in grid.targets.values())]
    items = [(*task.items,) for task in tasks] + [(*target.items, *target.in_task) for target in grid.targets.values()]
    about = [
        [task.name, task.definition, task.definition_prefix, task.template, task.answer_prefix, task.labels]
        for task in tasks
    ]
    content = [about, [[[item.id, item.fields, item.answer, item.split] for item in some] for some in items]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_grid(config: CrossTaskConfig, given: dict[str, Target] | None = None) -> Grid:
    """Read the tasks and check them against one another.

    Args:
        given: targets to use instead of those that the config names.

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
    targets = given or {name: _target(task, config) for name, task in load_library(config.target).items()}
    check_apart(library, {name: (target.task, target.items) for name, target in targets.items()}, tested=given is None)
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
    """All cells of a block with their prompts.

    Args:
        count: numbers of tokens of texts.
        limit: longest prompt in tokens; None where it is not known.

    Raises:
        HoldfastError: a prompt does not fit even with no demonstration.
    """
    cells = []
    for name, target in grid.targets.items():
        if block == ZERO:
            cells.append(_cell(grid, target, ZERO, [[] for _ in target.items], [()] * len(target.items), count, limit))
            if target.in_task:
                cells.append(
                    _cell(grid, target, IN_TASK, [[] for _ in target.items], _in_task(grid, target), count, limit)
                )
        elif block == MIXED:
            sources = [grid.sources[s] for s in grid.config.mixed if s != name]
            found = [_found(grid, source, target, 1) for source in sources]
            cross = [
                [Shown(source, items[i]) for source, items in zip(sources, found)] for i in range(len(target.items))
            ]
            cells.append(_cell(grid, target, MIXED, cross, [()] * len(target.items), count, limit))
        elif block != name:
            source = grid.sources[block]
            shown = [[Shown(source, items)] if items else [] for items in _found(grid, source, target, grid.config.k)]
            cells.append(_cell(grid, target, block, shown, [()] * len(target.items), count, limit))
            if target.in_task and grid.config.with_in_task:
                cells.append(_cell(grid, target, f"{block}+{IN_TASK}", shown, _in_task(grid, target), count, limit))
    return cells


def _found(grid: Grid, source: Task, target: Target, k: int) -> list[tuple[Item, ...]]:
    config = grid.config
    if k == 0:
        return [()] * len(target.items)
    return retrieve(
        source, source.pool[: config.pool_limit], target.task, target.items, k=k, encode=encoder(config.encoder, config.embeddings),
        name=config.retriever, embed_text=config.embed_text, too_long=window(config.encoder), seed=config.seed,
        unlabelled=target.task.part("train") if config.retriever == "graph" and target.task.has_splits else (),
    )  # fmt: skip


def _in_task(grid: Grid, target: Target) -> list[tuple[Item, ...]]:
    config = grid.config
    return retrieve(
        target.task, target.in_task, target.task, target.items, k=config.in_task_k, encode=encoder(config.encoder, config.embeddings),
        name=config.in_task_retriever, embed_text=config.embed_text, too_long=window(config.encoder), seed=config.seed,
    )  # fmt: skip


def _cell(
    grid: Grid, target: Target, condition: str, cross: list[list[Shown]], in_task: Sequence[tuple[Item, ...]],
    count: Callable[[Sequence[str]], list[int]], limit: int | None,
) -> Cell:  # fmt: skip
    config = grid.config

    def fitted(items: Sequence[Item]) -> tuple[Prompt, ...]:
        prompts = [
            build(target.task, item, shown, inside, order=config.order, with_labels=config.label_line)
            for item, shown, inside in zip(items, cross, in_task, strict=True)
        ]
        if limit is not None:
            for i, tokens in enumerate(count([prompt.text for prompt in prompts])):
                if tokens > limit:
                    prompts[i] = fit(
                        target.task, items[i], cross[i], in_task[i], count=lambda text: count([text])[0], limit=limit,
                        order=config.order, with_labels=config.label_line, shorten=config.shorten,
                    )  # fmt: skip
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
        from pathlib import Path

        in_task = tuple(item for item in read_items(Path(config.in_task), task) if item.answer is not None)
        if not in_task:
            raise HoldfastError(f"{config.in_task}: no row has an answer")
    check_disjoint(task, in_task, (*test, *dev), "in-task examples")
    check_disjoint(task, dev, test, "dev items")
    return Target(task, (*test, *dev), len(test), in_task)


def check_disjoint(task: Task, pool: Sequence[Item], test: Sequence[Item], what: str) -> None:
    """Pool and test must not share an input: neither what is written nor, normalised, what is in its fields.

    Raises:
        HoldfastError: names both rows.
    """
    seen = {key: item for item in reversed(test) for key in (task.content(item), same_inputs(task, item))}
    pairs = ((item, seen.get(task.content(item), seen.get(same_inputs(task, item)))) for item in pool)
    both = [(item, twin) for item, twin in pairs if twin is not None]
    if both:
        raise HoldfastError(
            f"{both[0][0].where}: {len(both)} of the {len(pool)} {what} of '{task.name}' are test items too "
            f"(this one is {both[0][1].where})",
            hint="keep them apart: give rows a 'split', or take the shared rows out of one of the files",
        )


def check_apart(
    sources: Mapping[str, Task], targets: Mapping[str, tuple[Task, Sequence[Item]]], *, tested: bool = True
) -> None:
    """No source may be a target under another name, nor hold items of one in its pool, under whatever template (see
    ``overlap``).

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
            f"({len(both)} of {len(asked.items)} test items are in it)",
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
        ours, theirs = leaked[0]
        how = "" if source.content(ours) == task.content(theirs) else ", under another template or in another spelling"
        raise HoldfastError(
            f"{ours.where}: the pool of source '{source.name}' holds {len(leaked)} "
            f"{'test items' if tested else 'inputs to label'} of "
            f"'{task.name}' (this one is {theirs.where}){how}", hint="take them out of the pool",
        )  # fmt: skip
    short = "inputs are" if not tested else "single words are"
    for pairs, what in (
        (harmless, f"{short} in the pool of source"),
        (pool.shared_texts(asked), "inputs share a text with the source"),
    ):
        if pairs:
            print(
                f"note: {task.name}: {len(pairs)} {what} '{source.name}' too (the first: {pairs[0][1].where} and "
                f"{pairs[0][0].where}); "
                "not taken for a leak",
                file=sys.stderr,
            )
            break


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
