"""A Trainer that, killed at any moment and given the same command, ends as if it had been left alone.

transformers continues from a checkpoint, but not exactly. What is missing is added here, by public methods and one
callback:

    a step too many     a run whose last checkpoint is its last step takes no batch more
    rows                what has been summed since the last row is part of the checkpoint, and enters the next row
    order               rows of a step are written before its checkpoint: whatever a checkpoint has passed is on file
    random numbers      an evaluation leaves them as they were, as a run that continues does not repeat it
    the best model      it is among the checkpoints, wherever the run directory has been moved to
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback
from transformers.trainer_utils import has_length

from holdfast.errors import DivergedError, HoldfastError
from holdfast.progress import Progress
from holdfast.runs import RunDir
from holdfast.tune.batches import TokenDataset


class ContinuingTrainer(Trainer):
    """A Trainer whose checkpoints hold all that rows and weights depend on."""

    run: RunDir | None = None
    """Where the rows go; None: nowhere."""
    train_columns: tuple[str, ...] = ()
    eval_columns: tuple[str, ...] = ()
    when_diverged = "lower --learning-rate"
    patience: int | None = None
    """Evaluations in a row that may be no better than the best one, before the training ends; None: any number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.since_last_row: dict[str, Any] = {}
        self._loss_sum = torch.zeros((), device=self.args.device)
        self._logged_step = 0
        self.add_callback(RunMemory(self))
        for bar in (PrinterCallback, ProgressCallback):
            self.remove_callback(bar)  # both print to stdout, where only data go
        self.steps = StepsDone()
        self.add_callback(self.steps)

    def memory(self) -> dict[str, Any]:
        """What has been summed since the last row, over all ranks, for JSON. Every rank must ask."""
        loss = self.accelerator.reduce(self._loss_sum.clone(), "mean").item()
        return {"loss_sum": loss, "logged_step": self._logged_step}

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on summing from ``memory``; empty: from nothing."""
        self._loss_sum.fill_(memory.get("loss_sum", 0.0))
        self._logged_step = memory.get("logged_step", self.state.global_step)

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimizer step; none after the last step, where a run may have been continued."""
        if 0 < self.state.max_steps <= self.state.global_step or self.is_out_of_patience:
            self.control.should_training_stop = True
            return [], None
        batches: tuple[list[Any], Tensor | int | None] = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches

    @property
    def is_out_of_patience(self) -> bool:
        """Whether ``patience`` has been used up. All that this depends on is part of every checkpoint."""
        return self.patience is not None and self.evaluations_since_best >= self.patience

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations there have been after the best one."""
        best = self.state.best_global_step
        steps = {logs["step"] for logs in self.state.log_history if "eval_loss" in logs}
        return sum(step > best for step in steps) if best else 0

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """See ``transformers.Trainer``; the loss is summed up for the next row."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._loss_sum += loss
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """See ``transformers.Trainer``; the random numbers are left as they were."""
        state = torch.get_rng_state()
        try:
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
            return metrics
        finally:
            torch.set_rng_state(state)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """See ``transformers.Trainer``; all ranks come here when a checkpoint is written."""
        if _internal_call:
            self.since_last_row = self.memory()
        super().save_model(output_dir, _internal_call)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """See ``transformers.Trainer``; the loss is the mean since the last row, whichever process wrote that."""
        steps = self.state.global_step - self._logged_step
        if "loss" in logs and steps:
            logs["loss"] = self.accelerator.reduce(self._loss_sum.clone(), "mean").item() / steps
            self._loss_sum.zero_()
            self._logged_step = self.state.global_step
        super().log(logs, start_time)

    def write_row(self, logs: dict[str, Any], router_loss: str = "router_loss") -> None:
        """Write a log event into the run directory and to stderr, unless it is the Trainer's closing statistics.

        Args:
            router_loss: the name that the router loss has in the logs.

        Raises:
            HoldfastError: the loss is no number any more, or has never been one.
        """
        step = self.state.global_step
        if "loss" in logs:
            row = {"kind": "train", "step": step} | {name: logs.get(name) for name in self.train_columns}
            row |= {"router_loss": logs[router_loss]} if router_loss in logs else {}
            head = f"step {step}/{self.state.max_steps}"
        elif "eval_loss" in logs:
            row = {"kind": "eval", "step": step} | {name: logs.get(f"eval_{name}") for name in self.eval_columns}
            head = f"eval at {step}"
        else:
            return
        if self.is_world_process_zero():
            if self.run is not None:
                self.run.append(row)
            self.steps.progress.say(f"{head}  {self.line(row)}")
        if row["loss"] is not None and not math.isfinite(row["loss"]):
            message = f"the loss is {row['loss']} at step {step}"
            if row["kind"] == "eval" and step == 0:
                raise HoldfastError(message, hint="the model that was given is broken")
            raise DivergedError(message, hint=self.when_diverged)

    def line(self, row: dict[str, Any]) -> str:
        """What is said of a row on stderr."""
        return f"loss {row['loss']}"


class StepsDone(TrainerCallback):
    """Says on stderr how many steps are done, and how much of an evaluation."""

    def __init__(self) -> None:
        self.progress = Progress("step")
        self._evaluation: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count, from the step of the checkpoint on."""
        self.progress = Progress("step", state.max_steps, doing="training")
        self.progress.skip(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step."""
        if state.is_world_process_zero:
            self.progress.add()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a batch of an evaluation."""
        batches = kwargs.get("eval_dataloader")
        if state.is_world_process_zero and batches is not None and has_length(batches):
            self._evaluation = self._evaluation or Progress("part", len(batches), doing="evaluating")
            self._evaluation.add()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the count of an evaluation."""
        if self._evaluation is not None:
            self._evaluation.close()
        self._evaluation = None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the count of steps."""
        self.progress.close()


class RunMemory(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Carries a trainer's memory through its checkpoints.

    It also puts what is due at the end of an epoch before the checkpoint.
    """

    def __init__(self, trainer: ContinuingTrainer) -> None:
        self.trainer = trainer

    def state(self) -> dict[str, Any]:
        """See ``transformers.trainer_callback.ExportableState``."""
        return {"args": {}, "attributes": self.trainer.since_last_row}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember what the checkpoint says; one of an earlier version says nothing."""
        saved = state.stateful_callbacks.setdefault(type(self).__name__, {"args": {}, "attributes": {}})
        self.trainer.remember(saved["attributes"] if state.global_step else {})
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Rows that are drawn for each epoch are those of the one that begins, or is gone on with."""
        if isinstance(self.trainer.train_dataset, TokenDataset):
            self.trainer.train_dataset.begin_epoch(int((state.epoch or 0) + 1e-9))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The Trainer does after a checkpoint what is due at the end of an epoch: a kill in between would lose it."""
        if float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps:
            control.should_log |= args.logging_strategy == "epoch"
            control.should_evaluate |= args.eval_strategy == "epoch" and args.eval_delay <= (state.epoch or 0)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Not again what ``on_step_end`` has had done."""
        control.should_evaluate &= not has_evaluation(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save what is the best so far, so that it can be loaded at the end."""
        name = str(args.metric_for_best_model or "loss").removeprefix("eval_")
        if not args.load_best_model_at_end or f"eval_{name}" not in kwargs["metrics"]:
            return
        value = kwargs["metrics"][f"eval_{name}"]
        if value is None or math.isnan(value):
            raise HoldfastError(
                f"training: metric_for_best_model '{name}' is undefined on the held-out data",
                hint="choose another metric, such as 'loss'",
            )
        best = state.best_metric
        better = best is None or (value > best if args.greater_is_better else value < best)
        control.should_save |= better and state.global_step > 0
        control.should_training_stop |= not better and state.global_step > 0 and self.trainer.is_out_of_patience


def has_evaluation(state: TrainerState) -> bool:
    """Whether the held-out data were evaluated at the step where training stands."""
    return any("eval_loss" in logs and logs["step"] == state.global_step for logs in state.log_history)


def saved_step(trainer: Trainer) -> int:
    """The step whose weights the trained model has: the last one, or with ``load_best_model_at_end`` the best one."""
    state = trainer.state
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        return int(Path(state.best_model_checkpoint).name.split("-")[1])
    return int(state.global_step)


def keep_tensorboard(trainer: Trainer, run: RunDir) -> None:
    """Have the files of tensorboard written into the run directory, unless the environment names another place; beside
    the checkpoints they would go with these."""
    logger = trainer.pop_callback(TensorBoardCallback)
    if logger is not None:
        logger.logging_dir = logger.logging_dir or str(run.path / "tensorboard")
        trainer.add_callback(logger)


def how_it_ended(trainer: ContinuingTrainer) -> dict[str, int]:
    """For the summary: the step whose weights are kept where that is the best one, and the step at which patience ended
    the training."""
    ended = {"best_step": saved_step(trainer)} if trainer.args.load_best_model_at_end else {}
    if trainer.is_out_of_patience and trainer.state.global_step < trainer.state.max_steps:
        ended["ended_at"] = int(trainer.state.global_step)
    return ended
