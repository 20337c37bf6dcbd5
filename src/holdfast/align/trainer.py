"""TRL's ``DPOTrainer`` on pairs that are tokenised already, with one row per log step in the run directory.

This module imports TRL: import it late.
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer

from holdfast.runs import RunDir
from holdfast.tune.continuing import ContinuingTrainer

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

    train_columns = _TRAIN_COLUMNS
    eval_columns = _METRICS
    when_diverged = "lower --learning-rate or raise --beta"

    def __init__(self, *, run: RunDir, **kwargs: Any) -> None:
        self.run = run
        super().__init__(**kwargs)

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
        self.write_row(logs, router_loss="aux_loss")

    def line(self, row: dict[str, Any]) -> str:
        """See ``ContinuingTrainer``."""
        margin, accuracy = row["rewards/margins"], row["rewards/accuracies"]
        return f"loss {row['loss']:.4f}  margin {margin:.4f}  reward accuracy {accuracy:.3f}"
