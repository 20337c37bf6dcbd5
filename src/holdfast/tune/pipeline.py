"""The whole of ``holdfast tune``, top to bottom: config -> plan -> training -> run directory.

The loop is that of transformers; it calls ``trainer._loss``, which calls the model with ``loss_rows``, and the model's
head (``head``) computes the weighted loss.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import accelerate

from holdfast import lm as models
from holdfast import runs
from holdfast.config import TuneConfig
from holdfast.data.sources import name_of
from holdfast.progress import end
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES
from holdfast.runs import Run, RunDir, read_json, read_rows
from holdfast.tables import with_tables
from holdfast.tune.adaptive import parse
from holdfast.tune.arguments import training_arguments
from holdfast.tune.batches import TokenDataset, collate
from holdfast.tune.continuing import RunMemory, how_it_ended, keep_tensorboard, saved_step
from holdfast.tune.cost import tell_start
from holdfast.tune.model import adapted, explain_full_disk, load_base, model_card, save_model, whole_checkpoint
from holdfast.tune.outcome import changed
from holdfast.tune.plan import TrainingPlan, data_digest, make_plan
from holdfast.tune.preview import example
from holdfast.tune.preview import start as start_lines
from holdfast.tune.roles import stop_ids
from holdfast.tune.trainer import Objective, WeightedTrainer, evaluation_of


@dataclass(frozen=True)
class Start:
    """What a caller that trains often has ready. ``model`` is untrained and is trained in place; ``before`` is its
    evaluation on the held-out data. ``callbacks`` are ``transformers.TrainerCallback`` objects; one that stops the
    training leaves the run unfinished."""

    plan: TrainingPlan
    model: Any
    before: dict[str, Any] | None = None
    callbacks: Sequence[Any] = ()


def train(config: TuneConfig, start: Start | None = None) -> dict[str, Any]:
    """Tune a model with weighted losses and write a run directory.

    Args:
        config: see ``holdfast.config.TuneConfig``.
        start: plan and model of this config, if they are there already.

    Returns:
        The summary: weights, prompt share, evaluation before and after, counts, speed, the model's folder. A run that
            is already
        complete in ``config.output`` is returned, not repeated; an unfinished one is continued from its last whole
        checkpoint.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> from holdfast.tune import TuneConfig, train
    >>> summary = train(TuneConfig(model="pocket", data="pocket:instructions", prompt_weight=0.2, response_weight=0.8,
    ...     output="runs/first", limit=40, max_steps=3, batch_size=8))
    >>> summary["steps"], summary["after"]["response_nll"] < summary["before"]["response_nll"]
    (3, True)
    """
    with runs.command(config, "tune") as run:
        run.check_data(lambda: data_digest(config))
        if summary := run.finished():
            return summary
        config = cast(TuneConfig, run.config)  # what it leaves open is as the run had it that is continued
        plan = start.plan if start else make_plan(config)
        if config.dry_run:
            from holdfast.tune.preview import preview

            return preview(plan)
        tell_start(start_lines(plan))
        start = start or Start(plan, load_base(config))
        model = adapted(start.model, plan.config)
        open_together(run, plan.resolved())
        with models.quiet(), explain_full_disk(run.path):
            trainer = _trainer(plan, model, run, start.callbacks)
            checkpoint = whole_checkpoint(run.path / "checkpoints")
            before = _evaluation_before(trainer, start, run, checkpoint)
            sums_before_NK = trainer.last_sums_NK
            started = time.perf_counter()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            seconds = round(time.perf_counter() - started, 2)
            if trainer.state.global_step < trainer.state.max_steps and not trainer.is_out_of_patience:
                return {"command": "tune", "stopped_at": trainer.state.global_step, "seconds": seconds}
            summary = _finish(trainer, plan, run, before, seconds)
        if trainer.is_world_process_zero():
            end(changed(summary, sums_before_NK, trainer.last_sums_NK, config.seed), run.path)
        return summary


def open_together(run: Run, resolved: dict[str, Any]) -> None:
    """Open a run and keep of its rows what its checkpoint covers.

    Under a launcher the main process does that while the others wait.
    """
    state = accelerate.PartialState()
    if state.is_main_process:
        run.open(resolved)
        checkpoint = whole_checkpoint(run.path / "checkpoints")
        run.keep_rows(*_covered(checkpoint) if checkpoint else (-1,))
    state.wait_for_everyone()


def _covered(checkpoint: Path) -> tuple[int, set[str] | None]:
    """Up to which step a checkpoint covers the rows, and which kinds of rows of that step: those written before it.

    A checkpoint of a version that had no ``RunMemory`` was written before the rows of its step, and they are not made
    again: all stay.
    """
    step, state = int(checkpoint.name.split("-")[1]), read_json(checkpoint / "trainer_state.json")
    if RunMemory.__name__ not in (state.get("stateful_callbacks") or {}):
        return step, None
    columns = set[str]().union(*(row for row in state.get("log_history", []) if row.get("step") == step))
    kinds = {"loss": "train", "eval_loss": "eval"}
    return step, {kind for column, kind in kinds.items() if column in columns}


def _trainer(plan: TrainingPlan, model: Any, run: RunDir, callbacks: Sequence[Any]) -> WeightedTrainer:
    trainer = WeightedTrainer(
        objective=_objective(plan),
        run=run,
        batching=plan.config.batching,
        model=model,
        args=training_arguments(plan, run.path / "checkpoints"),
        train_dataset=TokenDataset(plan.train, plan.draws_EN),
        eval_dataset=TokenDataset(plan.held_out) if plan.held_out else None,
        data_collator=partial(collate, pad_id=models.pad_id(plan.tokenizer)),
        processing_class=plan.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.patience = plan.config.patience
    keep_tensorboard(trainer, run)
    if trainer.plain_reason not in (None, "asked for"):
        print(f"note: full logits are computed for this model: {trainer.plain_reason}", file=sys.stderr)
    if trainer.padded_reason not in (None, "asked for"):
        print(f"note: batches are padded for this model: {trainer.padded_reason}", file=sys.stderr)
    return trainer


def _evaluation_before(
    trainer: WeightedTrainer, start: Start, run: RunDir, checkpoint: Path | None
) -> dict[str, Any] | None:
    """The evaluation before the first step: from the rows of a run that continues, from the caller, or made now."""
    if checkpoint is not None:
        print(f"continuing from {checkpoint}", file=sys.stderr)
        return _first_evaluation(run)
    if start.before is not None:
        run.append({"kind": "eval", "step": 0} | start.before)
        return start.before
    return _evaluate(trainer, start.plan)


def _finish(
    trainer: WeightedTrainer, plan: TrainingPlan, run: RunDir, before: dict[str, Any] | None, seconds: float
) -> dict[str, Any]:
    """Evaluate and save the model; returns the summary."""
    config = plan.config
    after = _evaluation_of_saved(trainer, plan)
    summary = with_tables({
        "command": "tune",
        "model": config.model,
        "data": name_of(config.data),
        **plan.resolved(),
        "normalizer": config.normalizer,
        "before": before,
        "after": after,
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        **how_it_ended(trainer),
        "seconds": seconds,
        "head": "plain" if trainer.plain_reason else "fused",
        "batching": trainer.batching,
        "data_report": plan.report.as_dict(),
        "example": example(plan),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
        "model_path": str(run.model),
    })  # fmt: skip
    ends = set[int]().union(*map(stop_ids, plan.train))
    save_model(trainer, run.model, model_card(summary), ends)
    if trainer.is_world_process_zero():
        run.finish(summary)
    return summary


def _objective(plan: TrainingPlan) -> Objective:
    config = plan.config
    roles = RESPONSE_ROLES if config.adaptive_on == "response" else (*PROMPT_ROLES, *RESPONSE_ROLES)
    return Objective(plan.weights, config.normalizer, config.head, parse(config.adaptive), roles)


def _evaluate(trainer: Any, plan: TrainingPlan) -> dict[str, Any] | None:
    return evaluation_of(trainer.evaluate()) if plan.held_out else None


def _evaluation_of_saved(trainer: Any, plan: TrainingPlan) -> dict[str, Any] | None:
    """Of the weights that the model has now, which are not those of the last step if the best ones were loaded."""
    if saved_step(trainer) == trainer.state.global_step:
        return _last_evaluation(trainer) or _evaluate(trainer, plan)
    # under a name of its own, so that it is no row of the last step
    return evaluation_of(trainer.evaluate(metric_key_prefix="saved"), "saved")


def _last_evaluation(trainer: Any) -> dict[str, Any] | None:
    """The evaluation at the final step, if the Trainer has just made one."""
    for logs in reversed(trainer.state.log_history):
        if "eval_loss" in logs and logs["step"] == trainer.state.global_step and trainer.state.global_step:
            return evaluation_of(logs)
    return None


def _first_evaluation(run: RunDir) -> dict[str, Any] | None:
    for row in read_rows(run.rows, cut_off=True):
        if row["kind"] == "eval" and row["step"] == 0:
            return {key: value for key, value in row.items() if key not in ("kind", "step")}
    return None
