"""The whole of ``holdfast crosstask label``, top to bottom: unlabelled inputs -> votes -> kept labels -> propagated
labels -> labels.jsonl.

A row of labels.jsonl serves three readers: ``tune`` (prompt, response), ``crosstask run --in-task`` (id, fields,
answer), and a person. Answers that the pool may already have are not looked at, except to say in the summary how good
the pseudo-labels are.
"""

from __future__ import annotations

import functools
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import runs, tables
from holdfast.config import CrossTaskConfig, LabelConfig, PromptingConfig
from holdfast.crosstask import blocks
from holdfast.crosstask.blocks import Runner
from holdfast.crosstask.encoders import encoder, window
from holdfast.crosstask.grid import IN_TASK, Grid, Target, check_apart, check_disjoint, data_digest, load_grid
from holdfast.crosstask.library import load_library, read_items
from holdfast.crosstask.outcomes import Outcome, outcome, vote
from holdfast.crosstask.predict import same_answer
from holdfast.crosstask.prompts import build
from holdfast.crosstask.propagate import PROPAGATORS, Problem
from holdfast.crosstask.retrieve import embed_texts
from holdfast.crosstask.tasks import Item, Task
from holdfast.crosstask.vote import Vote
from holdfast.errors import HoldfastError
from holdfast.prefix import Cost
from holdfast.runs import RunDir, write_text
from holdfast.stats import percentage
from holdfast.tables.text import number as rounded

_NEARLY_ALL, _ENOUGH = 0.95, 20
"""One label for so many of at least so many inputs is suspicious."""
_LITTLE_MASS = 0.01
_LISTED = 20


@dataclass(frozen=True)
class Labelled:
    """An input and its pseudo-label: where it came from, how sure it is, and who voted for what.

    ``confidence``: the margin of the vote or of propagation; with one voter the label's probability among the labels,
    if it was scored; None where nothing says how sure the label is.
    """

    item: Item
    label: str
    confidence: float | None
    method: str
    votes: dict[str, int]


def label(config: LabelConfig, lm: Any = None) -> dict[str, Any]:
    """Pseudo-label a pool of inputs and write a run directory with labels.jsonl and abstained.jsonl.

    Args:
        config: see ``holdfast.config.LabelConfig``.
        lm: a loaded model to use instead of ``config.model``.

    Returns:
        The summary: counts, label distribution, agreement with the pool's own answers where it has any, what it cost.

    Raises:
        HoldfastError: bad input; nothing has been written then.
    """
    with runs.command(config, "crosstask label") as run:
        load = functools.cache(lambda: _load(config))
        run.check_data(lambda: load()[-1], always=False)
        if summary := run.finished():
            return summary
        task, pool, asked, grid, digest = load()
        runner = Runner(grid, lm)
        if config.dry_run:
            from holdfast.crosstask.preview import preview

            return preview(grid, runner)
        for source in grid.sources_of(task.name):
            runner.cells(source)
        run.open({"data_digest": digest, "sources": grid.sources_of(task.name), "pool": len(pool), "asked": len(asked)})
        runner.answers = blocks.answers_file(run.path)
        kept, voters, cost = ask(grid, runner, run, config)
        labelled = kept + propagate(config, task, pool, kept)
        return run.finish(_write(run, config, task, pool, labelled, voters, cost, len(asked)))


def _load(config: LabelConfig) -> tuple[Task, tuple[Item, ...], tuple[Item, ...], Grid, str]:
    """Task, pool, what the model is asked about, the grid of that, and the digest of it all."""
    _note_unlabelled(config)
    task, pool = load_pool(config)
    asked = _asked(pool, config)
    grid = _grid(config, task, asked)
    whole = Grid(grid.config, grid.sources, {task.name: Target(task, (*asked, *pool), len(asked))})
    return task, pool, asked, grid, data_digest(whole)


def load_pool(config: LabelConfig) -> tuple[Task, tuple[Item, ...]]:
    """The target and its unlabelled inputs, checked to be apart from its test items.

    Raises:
        HoldfastError: several targets, an empty pool, an input that is a test item too.
    """
    targets = list(load_library(config.target).values())
    if len(targets) != 1:
        raise HoldfastError(
            f"--target {config.target}: {len(targets)} tasks; pseudo-labels are made for one at a time",
            hint="name one task file",
        )
    task = targets[0]
    pool = read_items(Path(config.pool), task) if config.pool else task.part("train")
    pool = pool[: config.limit]
    if not pool:
        raise HoldfastError(
            f"{config.pool or task.where}: the pool is empty",
            hint="--pool names a JSONL of inputs; without it, split 'train' of the target is used",
        )
    if config.pool or task.has_splits:
        check_disjoint(task, pool, task.test, "inputs to label")
    return task, pool


def ask(grid: Grid, runner: Runner, run: RunDir, config: LabelConfig) -> tuple[list[Labelled], list[Outcome], Cost]:
    """Rounds of votes. The first asks with source examples alone; later ones add the nearest input already kept, about
    the rest only.

    Returns:
        The labels kept, what each voter said in each round, and the cost.
    """
    ((name, target),) = grid.targets.items()
    kept: list[Labelled] = []
    voters: list[Outcome] = []
    cost = Cost()
    for number in range(1, config.rounds + 1):
        known = {found.item.id for found in kept}
        open_items = tuple(item for item in target.items if item.id not in known)
        if not open_items or (number > 1 and not kept):
            break
        examples = tuple(replace(found.item, answer=found.label) for found in kept) if number > 1 else ()
        asked = replace(target, items=open_items, test=len(open_items), in_task=examples)
        step = Grid(replace(grid.config, with_in_task=bool(examples)), grid.sources, {name: asked})
        votes, outcomes, spent = _vote(step, replace_grid(runner, step), run, number, asked)
        new = [v for v in votes if v.confidence is None or v.confidence >= config.least_margin]
        print(f"round {number}: asked about {len(open_items)}, kept {len(new)}", file=sys.stderr)
        kept, voters, cost = kept + new, voters + outcomes, cost + spent
    if any(found.confidence is None for found in kept):
        print(
            "note: one voter and no log-probs, so a label has no confidence and --least-margin keeps all of them",
            file=sys.stderr,
        )
    return kept, voters, cost


def propagate(config: LabelConfig, task: Task, pool: Sequence[Item], kept: Sequence[Labelled]) -> list[Labelled]:
    """Labels for the inputs of the pool that have none yet, over the similarity graph."""
    if config.propagate == "none" or not kept:
        return []
    labels = task.labels or tuple(dict.fromkeys(found.label for found in kept))
    place = {item.id: i for i, item in enumerate(pool)}
    given, trust = np.full(len(pool), -1), np.ones(len(pool))
    for found in kept:
        given[place[found.item.id]] = labels.index(found.label)
        trust[place[found.item.id]] = 1.0 if found.confidence is None else max(found.confidence, 1e-3)
    encode = encoder(config.encoder, config.embeddings)
    texts = embed_texts(task, pool, config.embed_text, window(config.encoder))
    vectors, _ = encode(texts, [])
    problem = Problem(vectors, given, trust, labels, texts, encode, config.neighbours, config.alpha, config.seed)
    shares = PROPAGATORS[config.propagate](problem)
    made = []
    for i in np.flatnonzero(given < 0).tolist():
        best, second = np.sort(shares[i])[::-1][:2]
        if best > 0 and best - second >= config.least_margin:
            made.append(Labelled(pool[i], labels[int(shares[i].argmax())], float(best - second), config.propagate, {}))
    return made


def replace_grid(runner: Runner, grid: Grid) -> Runner:
    """A runner with the same model over another grid."""
    other = Runner(grid, runner.lm if not runner.config.endpoint else None)
    other.answers = runner.answers
    return other


def _vote(
    grid: Grid, runner: Runner, run: RunDir, number: int, target: Target
) -> tuple[list[Labelled], list[Outcome], Cost]:
    outcomes, cost = [], Cost()
    for place, source in enumerate(grid.sources_of(target.task.name)):
        file = run.path / "blocks" / f"{number}-{place:03d}.npz"
        if not file.is_file():
            cells = [c for c in runner.cells(source) if not target.in_task or c.condition.endswith(f"+{IN_TASK}")]
            blocks.write(file, blocks.pack(runner.run_cells(cells)))
        block = blocks.read(file)
        outcomes.append(outcome(block.results[0], target, grid.config))
        cost += block.cost
    _, votes = vote(outcomes, target, grid.config)
    method = "vote" if number == 1 else f"vote, round {number}"
    sure = _confidence(outcomes, votes)
    found = zip(target.items, votes, sure, strict=True)
    return [Labelled(item, v.label, c, method, v.counts) for item, v, c in found if v.label is not None], outcomes, cost


def _confidence(outcomes: Sequence[Outcome], votes: Sequence[Vote]) -> Sequence[float | None]:
    """The margin of each vote. One voter always agrees with itself, so there it is the probability of its label, if
    that was scored.
    """
    if len(outcomes) > 1:
        return [v.margin for v in votes]
    scored = outcomes[0].confidence
    return [None] * len(votes) if scored is None else scored.tolist()


def _write(
    run: RunDir, config: LabelConfig, task: Task, pool: Sequence[Item], labelled: Sequence[Labelled], voters: Sequence[Outcome], cost: Cost,
    asked: int,
) -> dict[str, Any]:  # fmt: skip
    order = {item.id: i for i, item in enumerate(pool)}
    ranked = sorted(labelled, key=lambda found: order[found.item.id])
    write_text(
        run.path / "labels.jsonl", "".join(json.dumps(_row(task, found), ensure_ascii=False) + "\n" for found in ranked)
    )
    has = {found.item.id for found in labelled}
    left = [item for item in pool if item.id not in has]
    write_text(
        run.path / "abstained.jsonl",
        "".join(json.dumps({"id": i.id, "fields": i.fields}, ensure_ascii=False) + "\n" for i in left),
    )
    summary: dict[str, Any] = {
        "command": "crosstask label", "target": task.name, "pool": len(pool), "asked_of_the_model": asked, "labelled": len(labelled),
        "abstained": len(left), "by_method": dict(Counter(f.method for f in labelled)), "labels": dict(Counter(f.label for f in labelled)),
        **_quality(voters), "agreement_with_given_answers": _agreement(labelled, config.rule), "cost": vars(cost),
        "labels_path": str(run.path / "labels.jsonl"),
    }  # fmt: skip
    summary = tables.with_tables(summary | {"warnings": _warnings(summary)})
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if not config.json:
        print("\n".join(_lines(summary)))
    return summary


def _quality(voters: Sequence[Outcome]) -> dict[str, Any]:
    """Over all answers of all voters: the share that are a label at all, and the mean probability of the label space,
    if it was scored.
    """
    valid = np.concatenate([outcome.valid for outcome in voters])
    scored = [outcome.mass for outcome in voters if outcome.mass is not None]
    mass = float(np.concatenate(scored).mean()) if scored else None
    return {"validity": percentage(int(valid.sum()), len(valid)), "mass": mass}


def _warnings(summary: dict[str, Any]) -> list[str]:
    """Why the labels may be worth little."""
    made = []
    label, most = max(summary["labels"].items(), key=lambda pair: pair[1], default=("", 0))
    if summary["labelled"] >= _ENOUGH and most >= _NEARLY_ALL * summary["labelled"]:
        made.append(
            f"{most} of the {summary['labelled']} labels are '{label}': the model may say so whatever the input is"
        )
    if summary["mass"] is not None and summary["mass"] < _LITTLE_MASS:
        made.append(
            f"the labels have a mean probability mass of {summary['mass']:.2g}: the model would say something else, "
            "and what it "
            "ranks first among the labels may mean little"
        )
    return made


def _lines(summary: dict[str, Any]) -> list[str]:
    """The summary as text."""
    named, labelled, left = summary["target"], summary["labelled"], summary["abstained"]
    lines = [f"{named}: {labelled} of {summary['pool']} inputs labelled, {left} left without a label"]
    counts = sorted(summary["labels"].items(), key=lambda pair: -pair[1])
    more = f", and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    if counts:
        lines.append("  labels: " + ", ".join(f"{label} {count}" for label, count in counts[:_LISTED]) + more)
    mass = "" if summary["mass"] is None else f"; mean mass of the labels {summary['mass']:.2g}"
    lines.append(f"  {rounded(summary['validity']['value'], 1)} % of the answers are valid{mass}")
    return [*lines, "", tables.lines(summary), "", summary["labels_path"]]


def _row(task: Task, found: Labelled) -> dict[str, Any]:
    prompt = build(task, found.item).text
    response = (
        (task.answer_prefix + found.label).lstrip()
        if task.answer_prefix.isspace()
        else task.answer_prefix + found.label
    )
    return {
        "id": found.item.id, "prompt": prompt, "response": response, "fields": found.item.fields, "answer": found.label,
        "confidence": None if found.confidence is None else round(found.confidence, 4), "method": found.method, "votes": found.votes,
    }  # fmt: skip


def _agreement(labelled: Sequence[Labelled], rule: str) -> dict[str, Any]:
    made = {}
    for method in dict.fromkeys(found.method for found in labelled):
        known = [found for found in labelled if found.method == method and found.item.answer is not None]
        if known:
            made[method] = percentage(sum(same_answer(f.label, f.item.answer or "", rule) for f in known), len(known))
    return made


def _asked(pool: tuple[Item, ...], config: LabelConfig) -> tuple[Item, ...]:
    """The inputs that the model is asked about, drawn uniformly: a balanced draw would need the answers."""
    if config.lm_items is None or config.lm_items >= len(pool):
        return pool
    drawn = set(random.Random(config.seed).sample(range(len(pool)), config.lm_items))
    return tuple(item for i, item in enumerate(pool) if i in drawn)


def _grid(config: LabelConfig, task: Task, asked: tuple[Item, ...]) -> Grid:
    shared = {f.name: getattr(config, f.name) for f in fields(PromptingConfig) if f.name != "limit"}
    grid = load_grid(
        CrossTaskConfig(**shared, in_task_retriever="similar"), {task.name: Target(task, asked, len(asked))}
    )
    check_apart(grid.sources, {task.name: (task, task.test)})  # by which what is trained on these labels will be judged
    return grid


def _note_unlabelled(config: LabelConfig) -> None:
    if config.lm_items is not None and config.propagate == "none":
        print(
            "note: --lm-items without --propagate: inputs that the model is not asked about get no label",
            file=sys.stderr,
        )
