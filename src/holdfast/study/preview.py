"""``holdfast study plan``: what will be trained, which settings are one training, and what the study costs."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

from holdfast.config import StudyConfig
from holdfast.runs import read_rows
from holdfast.stats import FEW, smallest_shown
from holdfast.study.execute import LocalPool, default_slots
from holdfast.study.jobs import job_of
from holdfast.study.measures import direction
from holdfast.study.planning import Group, StudyPlan, asked_for, disk_bytes
from holdfast.study.search import expected_tokens
from holdfast.study.spec import ENOUGH_SEEDS, Data, Spec
from holdfast.tables.text import counted, duration
from holdfast.tune.cost import size

_SHOWN = 40


def preview(plan: StudyPlan, config: StudyConfig, output: Path, scratch: Path) -> dict[str, Any]:
    """Print the plan on stdout (unless the summary is wanted as JSON) and return its figures.

    Args:
        output: the study directory, where some trials may be done already.
        scratch: folder for the calibration.
    """
    speed = None
    if config.calibrate:
        steps = counted(config.calibrate, "step")
        print(f"calibrating: training {steps} of the setting with the largest prompt share", file=sys.stderr)
        speed = calibrate(plan, config.calibrate, [output / "data", scratch], scratch)
    figures = _figures(plan, config.slots or default_slots(), output, speed)
    if not config.json:
        print("\n".join(lines(plan, figures)))
    return figures


def announce(spec: Spec) -> list[str]:
    """Return what a study asks for, and whether its seeds are few. Known from its file, before any data is read."""
    cells, distinct = asked_for(spec)
    groups = len(spec.models) * len(spec.data)
    times = len(spec.seeds) * (1 + spec.twins) * groups
    where = f"{', '.join(spec.models)} on {', '.join(data.train for data in spec.data)}"
    merged = f", {distinct * times:,} of them distinct if the data has every role" if distinct < cells else ""
    per = f" for each of {counted(groups, 'pair')} of model and data" if groups > 1 else ""
    return [
        f"study {spec.name}: {where}",
        f"{counted(cells, 'setting')} with {counted(len(spec.seeds), 'seed')}{per}: "
        f"{counted(cells * times, 'training')} asked for{merged}",
        *_few_seeds(len(spec.seeds), distinct),
    ]


def _few_seeds(seeds: int, settings: int) -> list[str]:
    """Return what may be claimed of so few seeds, as docs/selection.md says why."""
    if seeds >= ENOUGH_SEEDS or settings < 2:
        return []
    if seeds == 1:
        return ["note: 1 seed does not show how much luck a training has, so no setting can be shown to be better"]
    return [
        f"note: {seeds} seeds are enough to choose by, and hardly to claim anything; {ENOUGH_SEEDS} are the default"
    ]


def few_held_out(plan: StudyPlan) -> list[str]:
    """Return what can be shown at all where dev or test is small."""
    notes = []
    for group in plan.groups:
        name = f"{group.name}: " if len(plan.groups) > 1 else ""
        counts = {split: group.first.examples[split] for split in ("dev", "test")}
        least = min(counts.values())
        if least < FEW:
            held_out = " and ".join(f"{split} {count:,}" for split, count in counts.items())
            notes.append(
                f"note: {name}few examples are held out ({held_out}): a difference between settings is told from "
                f"chance only where its mean over {counted(least, 'example')} is at least {smallest_shown(least):.2g} "
                "times its spread over examples"
            )
    return notes


def start(plan: StudyPlan, slots: int, output: Path) -> list[str]:
    """Return what is said before a study is run: the end of the plan."""
    models = {group.model: group.first.parameters for group in plan.groups}
    return [
        *(f"model {name}: {counted(parameters, 'parameter')}" for name, parameters in models.items()),
        *_totals(plan, _figures(plan, slots, output, None)),
    ]


def _figures(plan: StudyPlan, slots: int, output: Path, speed: float | None) -> dict[str, Any]:
    halving = plan.spec.search.kind == "halving"
    tokens = expected_tokens(plan) if halving else sum(t.tokens for t in plan.trials)
    return {
        "command": "study plan",
        **plan.resolved(),
        "distinct": len(plan.trials),
        "done": sum((output / "trials" / t.id / "row.json").is_file() for t in plan.trials),
        "tokens": tokens,
        "tokens_per_second": speed,
        "training_seconds": None if not speed else round(tokens / speed / slots, 1),
        "slots": slots,
        "disk_bytes": disk_bytes(plan, slots),
    }


def lines(plan: StudyPlan, figures: dict[str, Any]) -> list[str]:
    """Return the plan as text."""
    spec = plan.spec
    texts = [f"study {spec.name}: {_trainings(figures)}"]
    for group in plan.groups:
        data = next(d for d in spec.data if d.name == group.first.data)
        texts += ["", *_group(group, data, len(spec.seeds))]
    texts += ["", *_totals(plan, figures)]
    if figures["tokens_per_second"]:
        texts.append(
            f"training takes about {duration(figures['training_seconds'])} on {counted(figures['slots'], 'slot')} "
            f"({figures['tokens_per_second']:,.0f} tokens/s each, from a short calibration); measuring comes on top"
        )
    else:
        texts.append("how long it takes: --calibrate 4 trains 4 steps and says")
    return texts


def _trainings(figures: dict[str, Any]) -> str:
    return (
        f"{counted(figures['requested'], 'training')} asked for, {figures['distinct']:,} distinct; "
        f"{figures['done']:,} done already"
    )


def _totals(plan: StudyPlan, figures: dict[str, Any]) -> list[str]:
    spec = plan.spec
    return [
        *_clipping(plan),
        f"search {spec.search.kind}; seeds {', '.join(map(str, spec.seeds))}; {counted(spec.twins, 'twin')}",
        f"chosen on dev by {spec.metric} ({direction(spec.higher_is_better)})",
        f"measured: {', '.join(['response_nll', 'prompt_nll', *(m.name for m in spec.measures)])}",
        f"about {counted(figures['tokens'], 'training token')}"
        + (" (expected of a halving search)" if spec.search.kind == "halving" else "")
        + f", {size(figures['disk_bytes'])} on disk at the peak",
    ]


def _clipping(plan: StudyPlan) -> list[str]:
    """Return why the study does not clip, where its file leaves that open."""
    if plan.spec.defaults.get("max_grad_norm") != 0:
        return []
    return [
        "gradients are not clipped (max_grad_norm 0), so that weights of one ratio are one training; "
        "`study best` says so in what it prints"
    ]


def _group(group: Group, data: Data, seeds: int) -> list[str]:
    first = group.first
    held_out = [
        f"{split} {getattr(data, split) or 'cut off it'} ({first.examples[split]:,})" for split in ("dev", "test")
    ]
    texts = [
        f"{group.model} on {data.train} ({counted(first.examples['train'], 'example')}), {', '.join(held_out)}",
        f"{counted(group.cells, 'setting')}, "
        f"{counted(len({(t.setting_name, t.twin) for t in group.trials}), 'distinct training')} for each of "
        f"{counted(seeds, 'seed')}",
        f"  {'setting':<24}  {'prompt share':>12}  stands also for",
    ]
    first_seed = [t for t in group.trials if t.seed == group.trials[0].seed]
    for trial in first_seed[:_SHOWN]:
        own = trial.setting["prompt_weight"], trial.setting["response_weight"]
        others = [f"({pair[0]:g}, {pair[1]:g})" for pair in trial.members if pair != own]
        name = trial.setting_name + (f" twin {trial.twin}" if trial.twin else "")
        texts.append(f"  {name:<24}  {trial.prompt_share:>12.4f}  {' '.join(others)}".rstrip())
    if len(first_seed) > _SHOWN:
        texts.append(f"  and {len(first_seed) - _SHOWN} more")
    if first.seen:
        texts.append(f"warning: also in the training data: {counted(first.seen, 'example')} of dev or test")
    for why, names in group.kept_apart:
        texts.append(f"kept apart, because {why}: {', '.join(names)}")
    return texts


def calibrate(plan: StudyPlan, steps: int, folders: list[Path], scratch: Path) -> float | None:
    """Return the training tokens per second of one slot, from a few steps of the setting with the largest prompt
    share; None if they failed."""
    group = plan.groups[0]
    trial = max(group.trials, key=lambda t: t.prompt_share)
    short = dataclasses.replace(
        trial, id="calibration", steps=steps, tune=trial.tune | {"max_steps": steps, "log_steps": 1}
    )
    job = dataclasses.replace(job_of(plan, group, short), measures=(), then={})
    (scratch / "data").mkdir(exist_ok=True)
    for folder in folders:
        file = folder / f"{job.facts.key}.npz"
        if file.is_file() and not (scratch / "data" / file.name).exists():
            (scratch / "data" / file.name).symlink_to(file.resolve())
    pool = LocalPool(scratch, 1)
    try:
        _, row = next(iter(pool.results([job], lambda _: None)))
    finally:
        pool.close()
    if row["status"] == "failed":
        return None
    rows = read_rows(scratch / "trials" / "calibration" / "rows.jsonl")
    speeds = [r["tokens_per_second"] for r in rows if r["kind"] == "train"]
    return statistics.median(speeds[1:] or speeds) if speeds else None
