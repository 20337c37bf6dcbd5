"""TRL's ``DPOTrainer`` on pairs that are tokenised already, with one row per log step in the run directory. Needs
TRL.
"""

from __future__ import annotations

import sys
from typing import Any

from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOTrainer

from holdfast.runs import RunDir
from holdfast.tune.continuing import ContinuingTrainer
from holdfast.tune.trainer import Bar, check_loss

_METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
_TRAIN_COLUMNS = (*_METRICS, "grad_norm", "learning_rate", "num_tokens", "epoch")


class PreferenceTrainer(ContinuingTrainer, DPOTrainer):  # type: ignore[misc]
    """A DPOTrainer over rows of ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""

    def __init__(self, *, run: RunDir, **kwargs: Any) -> None:
        self.run = run
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)  # it prints to stdout
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(Bar)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Nothing: the ids come from the templates of ``tune``."""
        return dataset

    def memory(self) -> dict[str, Any]:
        """See ``ContinuingTrainer``."""
        metrics = {name: list(values) for name, values in self._metrics["train"].items()}
        return super().memory() | {"metrics": metrics, "num_tokens": self._total_train_tokens}

    def remember(self, memory: dict[str, Any]) -> None:
        """See ``ContinuingTrainer``."""
        super().remember(memory)
        self._metrics["train"].clear()
        self._metrics["train"].update({name: list(values) for name, values in memory.get("metrics", {}).items()})
        self._total_train_tokens = memory.get("num_tokens", 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a row."""
        super().log(logs, start_time)  # TRL puts its metrics into ``logs``
        row = _row(logs, self.state.global_step)
        if row is None:
            return
        if self.is_world_process_zero():
            self.run.append(row)
            _say(row, self.state.max_steps)
        check_loss(row, "lower --learning-rate or raise --beta")


def _row(logs: dict[str, float], step: int) -> dict[str, Any] | None:
    """The row of a log event, or None for the Trainer's closing statistics."""
    if "loss" in logs:
        routed = {"router_loss": logs["aux_loss"]} if "aux_loss" in logs else {}  # TRL's name for it
        return {"kind": "train", "step": step} | {name: logs.get(name) for name in _TRAIN_COLUMNS} | routed
    if "eval_loss" in logs:
        return {"kind": "eval", "step": step} | {name: logs.get(f"eval_{name}") for name in _METRICS}
    return None


def _say(row: dict[str, Any], steps: int) -> None:
    head = f"step {row['step']}/{steps}" if row["kind"] == "train" else f"eval at {row['step']}"
    print(
        f"{head}  loss {row['loss']:.4f}  margin {row['rewards/margins']:.4f}  reward accuracy "
        f"{row['rewards/accuracies']:.3f}",
        file=sys.stderr,
    )
