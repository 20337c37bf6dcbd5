"""The whole of ``holdfast crosstask label``: unlabelled inputs -> votes -> propagated labels -> labels.jsonl.

A row of labels.jsonl serves three readers: ``tune`` (prompt, response), ``crosstask run --in-task`` (id, fields,
answer), and a person. Answers that the pool already has are used only to say in the summary how good the pseudo-labels
are.
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
from holdfast.crosstask.blocks import COUNTS, Runner
from holdfast.crosstask.encoders import encoder, window
from holdfast.crosstask.grid import IN_TASK, Grid, Target, data_digest, load_grid
from holdfast.crosstask.library import load_library, read_items
from holdfast.crosstask.outcomes import Outcome, outcome_of, vote
from holdfast.crosstask.overlap import check_apart, check_disjoint
from holdfast.crosstask.pipeline import preview, start
from holdfast.crosstask.predict import Vote, same_answer
from holdfast.crosstask.prompts import build
from holdfast.crosstask.propagate import PROPAGATORS, Problem
from holdfast.crosstask.retrieve import embed_texts
from holdfast.crosstask.tasks import Item, Task
from holdfast.errors import HoldfastError
from holdfast.lm.engine import Cost
from holdfast.progress import Progress, begin, end
from holdfast.runs import RunDir, write_text
from holdfast.stats import percentage
from holdfast.tables.text import counted
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
        The summary: counts, label distribution, agreement with the pool's own answers where it has any, and the cost.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> from holdfast.crosstask import LabelConfig, label
    >>> summary = label(LabelConfig(model="pocket", target="pocket:tasks/sentiment", limit=6, pool_limit=20,
    ...     sources="pocket:tasks/opposite,pocket:tasks/plural", output="runs/labels", json=True))
    >>> summary["pool"], summary["labelled"] + summary["abstained"]
    (6, 6)
    """
    with runs.command(config, "crosstask label") as run:
        load = functools.cache(lambda: _load(config))
        run.check_data(lambda: load()[-1], always=False)
        if summary := run.finished():
            return summary
        task, pool, asked, grid, digest = load()
        runner = Runner(grid, lm)
        if config.dry_run:
            return preview(grid, runner)
        for source in grid.sources_of(task.name):
            runner.cells(source)
        run.open({"data_digest": digest, "sources": grid.sources_of(task.name), "pool": len(pool), "asked": len(asked)})
        runner.answers = blocks.answers_file(run.path)
        begin(start(grid, runner))
        kept, voters, cost = ask(grid, runner, run, config)
        labelled = kept + propagate(config, task, pool, kept)
        summary = run.finish(_write(run, config, task, pool, labelled, voters, cost, len(asked)))
        _tell_end(summary, run, config)
        return summary


def _tell_end(summary: dict[str, Any], run: RunDir, config: LabelConfig) -> None:
    checked = summary["agreement_with_given_answers"]
    right = [f"{rounded(s['value'], 1)} % of {counted(s['count'], 'answer')} ({m})" for m, s in checked.items()]
    sure = f"right where the pool has an answer: {', '.join(right)}" if right else "how many are right is not known"
    following: list[str] = []
    if summary["labelled"] and not config.endpoint:
        following = ["tune", "--model", config.model, "--data", summary["labels_path"], "--output", f"{run.path}-tuned"]
    count = counted(summary["pool"], "input")
    end(f"{summary['labelled']:,} of {count} have a label; {sure}", run.path, *following)


def _load(config: LabelConfig) -> tuple[Task, tuple[Item, ...], tuple[Item, ...], Grid, str]:
    """Return the task, the pool, the items that the model is asked about, their grid, and the digest of it all."""
    _note_unlabelled(config)
    task, pool = load_pool(config)
    asked = _asked(pool, config)
    grid = _grid(config, task, asked)
    whole = Grid(grid.config, grid.sources, {task.name: Target(task, (*asked, *pool), len(asked))})
    return task, pool, asked, grid, data_digest(whole)


def load_pool(config: LabelConfig) -> tuple[Task, tuple[Item, ...]]:
    """Return the target and its unlabelled inputs, after a check that none of them is a test item.

    Raises:
        HoldfastError: several targets, an empty pool, an input that is a test item too.
    """
    targets = list(load_library(config.target).values())
    if len(targets) != 1:
        raise HoldfastError(
            f"--target {config.target}: {counted(len(targets), 'task')}; pseudo-labels are made for one at a time",
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
    """Hold rounds of votes. The first has source examples alone; later ones add the nearest input already labelled.

    Returns:
        The labels kept, the outcome of each voter in each round, and the cost.
    """
    ((name, target),) = grid.targets.items()
    kept: list[Labelled] = []
    voters: list[Outcome] = []
    cost = Cost()
    for number in range(1, config.rounds + 1):
        examples = tuple(replace(labelled.item, answer=labelled.label) for labelled in kept)
        done = {item.id for item in examples}
        open_items = tuple(item for item in target.items if item.id not in done)
        if not open_items or (number > 1 and not kept):
            break
        asked = replace(target, items=open_items, test=len(open_items), in_task=examples)
        step = Grid(replace(grid.config, with_in_task=bool(examples)), grid.sources, {name: asked})
        round_runner = Runner(step, None if runner.config.endpoint else runner.lm)
        round_runner.answers = runner.answers
        votes, outcomes, spent = _vote(step, round_runner, run, number, asked)
        new = [v for v in votes if v.confidence is None or v.confidence >= config.least_margin]
        print(f"round {number}: asked about {len(open_items)}, kept {len(new)}", file=sys.stderr)
        kept, voters, cost = kept + new, voters + outcomes, cost + spent
    if any(labelled.confidence is None for labelled in kept):
        print(
            "note: one voter and no log-probs, so a label has no confidence and --least-margin keeps all of them",
            file=sys.stderr,
        )
    return kept, voters, cost


def propagate(config: LabelConfig, task: Task, pool: Sequence[Item], kept: Sequence[Labelled]) -> list[Labelled]:
    """Return labels for the inputs of the pool that have none yet, over the similarity graph."""
    if config.propagate == "none" or not kept:
        return []
    labels = task.labels or tuple(dict.fromkeys(labelled.label for labelled in kept))
    places = {item.id: i for i, item in enumerate(pool)}
    seeds, trust = np.full(len(pool), -1), np.ones(len(pool))
    for labelled in kept:
        seeds[places[labelled.item.id]] = labels.index(labelled.label)
        trust[places[labelled.item.id]] = 1.0 if labelled.confidence is None else max(labelled.confidence, 1e-3)
    encode = encoder(config.encoder, config.embeddings)
    texts = embed_texts(task, pool, config.embed_text, window(config.encoder))
    vectors, _ = encode(texts, [])
    problem = Problem(vectors, seeds, trust, labels, texts, encode, config.neighbours, config.alpha, config.seed)
    shares = PROPAGATORS[config.propagate](problem)
    propagated = []
    for i in problem.unlabelled.tolist():
        best, second = np.sort(shares[i])[::-1][:2]
        if best > 0 and best - second >= config.least_margin:
            label = labels[int(shares[i].argmax())]
            propagated.append(Labelled(pool[i], label, float(best - second), config.propagate, {}))
    return propagated


def _vote(
    grid: Grid, runner: Runner, run: RunDir, number: int, target: Target
) -> tuple[list[Labelled], list[Outcome], Cost]:
    outcomes, cost = [], Cost()
    progress = Progress("source", len(grid.sources_of(target.task.name)), doing=f"round {number}")
    for place, source in enumerate(grid.sources_of(target.task.name)):
        file = run.path / "blocks" / f"{number}-{place:03d}.npz"
        if not file.is_file():
            cells = [c for c in runner.cells(source) if not target.in_task or c.condition.endswith(f"+{IN_TASK}")]
            blocks.write(file, blocks.pack(runner.run_cells(cells)))
        block = blocks.read(file)
        outcomes.append(outcome_of(block.results[0], target, grid.config))
        cost += block.cost
        progress.add()
    progress.close()
    _, votes = vote(outcomes, target, grid.config)
    method = "vote" if number == 1 else f"vote, round {number}"
    labelled = []
    for item, v, confidence in zip(target.items, votes, _confidence(outcomes, votes), strict=True):
        if v.label is not None:
            labelled.append(Labelled(item, v.label, confidence, method, v.counts))
    return labelled, outcomes, cost


def _confidence(outcomes: Sequence[Outcome], votes: Sequence[Vote]) -> Sequence[float | None]:
    """Return the margin of each vote; with one voter, whose margin is always 1, its label's probability, if scored."""
    if len(outcomes) > 1:
        return [v.margin for v in votes]
    scored = outcomes[0].confidence
    return [None] * len(votes) if scored is None else scored.tolist()


def _write(
    run: RunDir,
    config: LabelConfig,
    task: Task,
    pool: Sequence[Item],
    labelled: Sequence[Labelled],
    voters: Sequence[Outcome],
    cost: Cost,
    asked: int,
) -> dict[str, Any]:
    by_id = {one.item.id: one for one in labelled}
    left = [{"id": item.id, "fields": item.fields} for item in pool if item.id not in by_id]
    _write_rows(run.path / "labels.jsonl", [_row(task, by_id[item.id]) for item in pool if item.id in by_id])
    _write_rows(run.path / "abstained.jsonl", left)
    summary: dict[str, Any] = {
        "command": "crosstask label",
        "target": task.name,
        "pool": len(pool),
        "asked_of_the_model": asked,
        "labelled": len(labelled),
        "abstained": len(left),
        "by_method": dict(Counter(one.method for one in labelled)),
        "labels": dict(Counter(one.label for one in labelled)),
        **_quality(voters),
        "agreement_with_given_answers": _agreement(labelled, config.rule),
        "cost": cost.part(*COUNTS),
        "labels_path": str(run.path / "labels.jsonl"),
    }
    summary = tables.with_tables(summary | {"warnings": _warnings(summary)})
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if not config.json:
        print("\n".join(_lines(summary)))
    return summary


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _quality(voters: Sequence[Outcome]) -> dict[str, Any]:
    """Return the share of all answers that are labels, and the mean probability of the label space, if scored."""
    valid = np.concatenate([outcome.valid for outcome in voters])
    scored = [outcome.mass for outcome in voters if outcome.mass is not None]
    mass = float(np.concatenate(scored).mean()) if scored else None
    return {"validity": percentage(int(valid.sum()), len(valid)), "mass": mass}


def _warnings(summary: dict[str, Any]) -> list[str]:
    """Return the reasons why the labels may be worth little."""
    reasons = []
    label, most = max(summary["labels"].items(), key=lambda pair: pair[1], default=("", 0))
    if summary["labelled"] >= _ENOUGH and most >= _NEARLY_ALL * summary["labelled"]:
        reasons.append(
            f"{most} of the {summary['labelled']} labels are '{label}': the model may say so whatever the input is"
        )
    if summary["mass"] is not None and summary["mass"] < _LITTLE_MASS:
        reasons.append(
            f"the labels have a mean probability mass of {summary['mass']:.2g}: the model would say something else, "
            "and what it ranks first among the labels may mean little"
        )
    return reasons


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as text."""
    labelled, left, pool = summary["labelled"], summary["abstained"], counted(summary["pool"], "input")
    lines = [f"{summary['target']}: {labelled} of {pool} labelled, {left} left without a label"]
    counts = sorted(summary["labels"].items(), key=lambda pair: -pair[1])
    more = f", and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    if counts:
        lines.append("  labels: " + ", ".join(f"{label} {count}" for label, count in counts[:_LISTED]) + more)
    mass = "" if summary["mass"] is None else f"; mean mass of the labels {summary['mass']:.2g}"
    lines.append(f"  {rounded(summary['validity']['value'], 1)} % of the answers are valid{mass}")
    return [*lines, "", tables.lines(summary), "", summary["labels_path"]]


def _row(task: Task, labelled: Labelled) -> dict[str, Any]:
    response = task.answer_prefix + labelled.label
    return {
        "id": labelled.item.id,
        "prompt": build(task, labelled.item).text,
        "response": response.lstrip() if task.answer_prefix.isspace() else response,
        "fields": labelled.item.fields,
        "answer": labelled.label,
        "confidence": None if labelled.confidence is None else round(labelled.confidence, 4),
        "method": labelled.method,
        "votes": labelled.votes,
    }


def _agreement(labelled: Sequence[Labelled], rule: str) -> dict[str, Any]:
    right: dict[str, list[bool]] = {}
    for one in labelled:
        if one.item.answer is not None:
            right.setdefault(one.method, []).append(same_answer(one.label, one.item.answer, rule))
    return {method: percentage(sum(hits), len(hits)) for method, hits in right.items()}


def _asked(pool: tuple[Item, ...], config: LabelConfig) -> tuple[Item, ...]:
    """Return the inputs that the model is asked about. The draw is uniform: a balanced one would need answers."""
    if config.lm_items is None or config.lm_items >= len(pool):
        return pool
    drawn = set(random.Random(config.seed).sample(range(len(pool)), config.lm_items))
    return tuple(item for i, item in enumerate(pool) if i in drawn)


def _grid(config: LabelConfig, task: Task, asked: tuple[Item, ...]) -> Grid:
    shared = {f.name: getattr(config, f.name) for f in fields(PromptingConfig) if f.name != "limit"}
    targets = {task.name: Target(task, asked, len(asked))}
    grid = load_grid(CrossTaskConfig(**shared, in_task_retriever="similar"), targets)
    # A model that is trained on these labels will be judged by the test items, so no source may hold them.
    check_apart(grid.sources, {task.name: (task, task.test)})
    return grid


def _note_unlabelled(config: LabelConfig) -> None:
    if config.lm_items is not None and config.propagate == "none":
        print(
            "note: --lm-items without --propagate: inputs that the model is not asked about get no label",
            file=sys.stderr,
        )
