"""Blocks -> the summary and the rows of a run. No model is needed: both can be written again from the block files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from holdfast.crosstask.blocks import COUNTS, Block, CellResult
from holdfast.crosstask.encoders import encoder
from holdfast.crosstask.grid import IN_TASK, MIXED, ZERO, Grid
from holdfast.crosstask.outcomes import Outcome, choices, definition_similarity, outcome_of, row, vote
from holdfast.lm.engine import Cost
from holdfast.stats import mean_of_ratios, paired_t, ratio_of_means

Outcomes = dict[str, dict[str, Outcome]]
"""By target, then by condition."""


def all_outcomes(grid: Grid, blocks: Sequence[Block]) -> Outcomes:
    """Return the predictions of every cell, and the vote of the sources of each target (under the name ``vote``)."""
    outcomes: Outcomes = {name: {} for name in grid.targets}
    for result in results_of(blocks):
        outcomes[result.target][result.condition] = outcome_of(result, grid.targets[result.target], grid.config)
    for name, by_condition in outcomes.items():
        voters = [by_condition[source] for source in grid.sources_of(name)]
        by_condition["vote"] = vote(voters, grid.targets[name], grid.config)[0]
    return outcomes


def results_of(blocks: Sequence[Block]) -> Iterator[CellResult]:
    """Yield the results of all blocks."""
    for block in blocks:
        yield from block.results


def summarise(grid: Grid, blocks: Sequence[Block], outcomes: Outcomes) -> dict[str, Any]:
    """Return the summary of a run, of its ``all_outcomes``: see ``docs/crosstask.md`` for every key."""
    encode = encoder(grid.config.encoder, grid.config.embeddings)
    definitions = definition_similarity(grid.sources, grid.targets, encode)
    results = {(result.target, result.condition): result for result in results_of(blocks)}
    targets, collisions = {}, dict[str, str]()
    for name, target in grid.targets.items():
        conditions = []
        for condition, outcome in outcomes[name].items():
            baseline = None if condition == ZERO else outcomes[name][ZERO]
            conditions.append(row(outcome, target, baseline) | _demonstrations(results.get((name, condition))))
        sources = {source: outcomes[name][source] for source in grid.sources_of(name)}
        targets[name] = {
            "items": target.test,
            "dev_items": len(target.items) - target.test,
            "free_answers": target.task.labels is None,
            "conditions": conditions,
            "choice": choices(sources, target, definitions[name]),
        }
    for block in blocks:
        collisions |= block.collisions
    return {
        "command": "crosstask run",
        "model": grid.config.model,
        "decode": grid.config.decode,
        "calibration": grid.config.calibration,
        "k": grid.config.k,
        "targets": targets,
        "sources": {source: _pooled(grid, outcomes, source) for source in grid.sources},
        "grand": _grand(grid, outcomes),
        "labels_with_colliding_first_tokens": collisions,
        "cost": _cost(blocks),
    }


def rows(grid: Grid, blocks: Sequence[Block], outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield one row per item and condition: prediction, gold answer, log-prob of each label, demonstrations."""
    for result in results_of(blocks):
        target, outcome = grid.targets[result.target], outcomes[result.target][result.condition]
        for i, item in enumerate(target.items):
            line = {
                "target": result.target,
                "condition": result.condition,
                "item": item.id,
                "split": "test" if i < target.test else "dev",
                "gold": item.answer,
                "prediction": outcome.predictions[i],
                "valid": bool(outcome.valid[i]),
                "correct": None if outcome.correct is None else bool(outcome.correct[i]),
                "demos": result.demos[i],
            }
            if result.scores is not None:
                labels = target.task.labels or ()
                line["logp"] = dict(zip(labels, np.round(result.scores.sums[i], 6).tolist()))
                line["mass"] = round(float(result.scores.mass[i]), 6)
                line["entropy"] = round(float(result.scores.entropy[i]), 6)
            if result.texts is not None:
                line["text"] = result.texts[i]
            yield line


def _demonstrations(result: CellResult | None) -> dict[str, Any]:
    """Return how often demonstrations had to go, and how many distinct ones there are; nothing for a vote."""
    if result is None:
        return {}
    return {
        "demonstrations_dropped": sum(result.dropped),
        "demonstrations_shortened": sum(1 for cut in result.shortened if cut),
        "distinct_demonstrations": len(set(map(tuple, itertools.chain.from_iterable(result.demos)))),
    }


def _pooled(grid: Grid, outcomes: Outcomes, source: str) -> dict[str, Any]:
    """Return the mean accuracy of a source over the targets that it serves, and the paper's test over pooled items."""
    after, before = [], []
    for name, target in grid.targets.items():
        outcome, base = outcomes[name].get(source), outcomes[name][ZERO]
        if name != source and outcome is not None and outcome.correct is not None and base.correct is not None:
            after.append(outcome.correct[: target.test])
            before.append(base.correct[: target.test])
    if not after:
        return {}
    return {
        "mean_accuracy": float(np.mean([100 * float(correct.mean()) for correct in after])),
        "against_zero_shot": paired_t(np.concatenate(after), np.concatenate(before)),
    }


def _grand(grid: Grid, outcomes: Outcomes) -> dict[str, Any]:
    """Return means over the grid. The relative gain is given both ways, because the two can differ many times over."""
    by_name: dict[str, list[float]] = {key: [] for key in ("zero_shot", "cross_task", "vote", "in_task", "mixed")}
    for name, target in grid.targets.items():
        accuracy = {}
        for condition, outcome in outcomes[name].items():
            if outcome.correct is not None:
                accuracy[condition] = 100 * float(outcome.correct[: target.test].mean())
        for key, condition in (("zero_shot", ZERO), ("vote", "vote"), ("in_task", IN_TASK), ("mixed", MIXED)):
            by_name[key] += [accuracy[condition]] if condition in accuracy else []
        if accuracy:
            by_name["cross_task"].append(float(np.mean([accuracy[source] for source in grid.sources_of(name)])))
    zero, cross = by_name["zero_shot"], by_name["cross_task"]
    if not zero:
        return {}
    means = {key: float(np.mean(values)) for key, values in by_name.items() if values}
    means["points"] = means["cross_task"] - means["zero_shot"]
    if all(zero):
        means["ratio_of_means_percent"] = ratio_of_means(cross, zero)
        means["mean_of_ratios_percent"] = mean_of_ratios(cross, zero)
    return means


def _cost(blocks: Sequence[Block]) -> dict[str, Any]:
    total = sum((block.cost for block in blocks), Cost())
    share = round(100 * total.tokens / total.plain_tokens, 2) if total.plain_tokens else None
    return total.part(*COUNTS) | {"share_of_plain_percent": share}
