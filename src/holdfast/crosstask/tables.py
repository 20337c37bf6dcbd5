"""Blocks -> the summary and the rows of a run. No model: everything here can be made again from the block files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from holdfast.crosstask.blocks import COUNTS, Block, Result
from holdfast.crosstask.choose import choices, definition_similarity
from holdfast.crosstask.encoders import encoder
from holdfast.crosstask.grid import IN_TASK, MIXED, ZERO, Grid
from holdfast.crosstask.outcomes import Outcome, outcome, row, vote
from holdfast.lm.engine import Cost
from holdfast.stats import mean_of_ratios, paired_t, ratio_of_means

Outcomes = dict[str, dict[str, Outcome]]
"""By target, then by condition."""


def all_outcomes(grid: Grid, blocks: Sequence[Block]) -> Outcomes:
    """Predictions of every cell, and the vote of the sources of each target (under the name ``vote``)."""
    found: Outcomes = {name: {} for name in grid.targets}
    for block in blocks:
        for result in block.results:
            found[result.target][result.condition] = outcome(result, grid.targets[result.target], grid.config)
    for name, by_condition in found.items():
        voters = [by_condition[source] for source in grid.sources_of(name)]
        by_condition["vote"] = vote(voters, grid.targets[name], grid.config)[0]
    return found


def summarise(grid: Grid, blocks: Sequence[Block], outcomes: Outcomes) -> dict[str, Any]:
    """The summary of a run, of its ``all_outcomes``: see ``docs/crosstask.md`` for every key."""
    encode = encoder(grid.config.encoder, grid.config.embeddings)
    definitions = definition_similarity(grid.sources, grid.targets, encode)
    results = [result for block in blocks for result in block.results]
    targets = {}
    for name, target in grid.targets.items():
        by_condition = outcomes[name]
        sources = {source: by_condition[source] for source in grid.sources_of(name)}
        targets[name] = {
            "items": target.test,
            "dev_items": len(target.items) - target.test,
            "free_answers": target.task.labels is None,
            "conditions": [
                row(o, target, None if condition == ZERO else by_condition[ZERO]) | _shown(results, name, condition)
                for condition, o in by_condition.items()
            ],
            "choice": choices(sources, target, definitions[name]),
        }
    return {
        "command": "crosstask run",
        "model": grid.config.model,
        "decode": grid.config.decode,
        "calibration": grid.config.calibration,
        "k": grid.config.k,
        "targets": targets,
        "sources": {source: _pooled(grid, outcomes, source) for source in grid.sources},
        "grand": _grand(grid, outcomes),
        "labels_with_colliding_first_tokens": {k: v for block in blocks for k, v in block.collisions.items()},
        "cost": _cost(blocks),
    }


def rows(grid: Grid, blocks: Sequence[Block], outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """One row per item and condition: prediction, gold answer, log-prob of each label, demonstrations."""
    for block in blocks:
        for result in block.results:
            target, made = grid.targets[result.target], outcomes[result.target][result.condition]
            for i, item in enumerate(target.items):
                line = {
                    "target": result.target, "condition": result.condition, "item": item.id, "split": "test" if i < target.test else "dev",
                    "gold": item.answer, "prediction": made.predictions[i], "valid": bool(made.valid[i]),
                    "correct": None if made.correct is None else bool(made.correct[i]), "demos": result.demos[i],
                }  # fmt: skip
                if result.scores is not None:
                    labels = target.task.labels or ()
                    line["logp"] = dict(zip(labels, np.round(result.scores.sums[i], 6).tolist()))
                    line |= {
                        "mass": round(float(result.scores.mass[i]), 6),
                        "entropy": round(float(result.scores.entropy[i]), 6),
                    }
                if result.texts is not None:
                    line["text"] = result.texts[i]
                yield line


def _shown(results: Sequence[Result], target: str, condition: str) -> dict[str, Any]:
    """How often demonstrations had to go, and which were shown how often (distinct ones in all)."""
    for result in results:
        if (result.target, result.condition) == (target, condition):
            demos = [tuple(demo) for shown in result.demos for demo in shown]
            return {
                "demonstrations_dropped": sum(result.dropped),
                "demonstrations_shortened": sum(1 for cut in result.shortened if cut),
                "distinct_demonstrations": len(set(demos)),
            }
    return {}


def _pooled(grid: Grid, found: Outcomes, source: str) -> dict[str, Any]:
    """One source over all targets that it serves: mean accuracy, and the paired test over the pooled items (the paper's
    test).
    """
    after, before, accuracy = [], [], []
    for name, target in grid.targets.items():
        made, base = found[name].get(source), found[name][ZERO]
        if name != source and made is not None and made.correct is not None and base.correct is not None:
            after.append(made.correct[: target.test])
            before.append(base.correct[: target.test])
            accuracy.append(100 * float(after[-1].mean()))
    if not after:
        return {}
    return {
        "mean_accuracy": float(np.mean(accuracy)),
        "against_zero_shot": paired_t(np.concatenate(after), np.concatenate(before)),
    }


def _grand(grid: Grid, found: Outcomes) -> dict[str, Any]:
    """Means over the grid. The relative gain is shown both ways, because the two can differ many times over."""
    zero, cross, voted, in_task, mixed = [], [], [], [], []
    for name, target in grid.targets.items():
        accuracy = {
            c: 100 * float(o.correct[: target.test].mean()) for c, o in found[name].items() if o.correct is not None
        }
        if not accuracy:
            continue
        zero.append(accuracy[ZERO])
        cross.append(float(np.mean([accuracy[s] for s in grid.sources_of(name)])))
        voted.append(accuracy["vote"])
        in_task += [accuracy[IN_TASK]] if IN_TASK in accuracy else []
        mixed += [accuracy[MIXED]] if MIXED in accuracy else []
    if not zero:
        return {}
    made = {"zero_shot": float(np.mean(zero)), "cross_task": float(np.mean(cross)), "vote": float(np.mean(voted))}
    made |= {name: float(np.mean(values)) for name, values in (("in_task", in_task), ("mixed", mixed)) if values}
    made["points"] = made["cross_task"] - made["zero_shot"]
    if all(zero):
        made |= {
            "ratio_of_means_percent": ratio_of_means(cross, zero),
            "mean_of_ratios_percent": mean_of_ratios(cross, zero),
        }
    return made


def _cost(blocks: Sequence[Block]) -> dict[str, Any]:
    total = sum((block.cost for block in blocks), Cost())
    share = round(100 * total.tokens / total.plain_tokens, 2) if total.plain_tokens else None
    return total.part(*COUNTS) | {"share_of_plain_percent": share}
