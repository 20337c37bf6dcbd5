"""Options of `audit`: those of `tune`, so that the file of a run can be audited as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from holdfast.config.tune import TuneConfig
from holdfast.errors import HoldfastError


@dataclass(kw_only=True)
class AuditConfig(TuneConfig):
    """Say what a training pays for, by role, and what is wrong with that: the loss passport. Loads no weights."""

    without_effect: ClassVar[tuple[str, ...]] = (
        "row", "epochs", "batching", "head", "max_steps", "learning_rate", "schedule", "warmup_ratio", "weight_decay",
        "max_grad_norm", "batch_size", "micro_batch_size", "lora_rank", "lora_alpha", "lora_dropout", "precision",
        "gradient_checkpointing", "training", "log_steps", "eval_steps", "save_steps", "keep_checkpoints", "save_best",
        "patience", "report_to",
    )  # fmt: skip
    """Options of `tune` that a --config file may state, as the files of runs do, and that change nothing here: whoever
    states one is told. They are no flags."""
    not_from_file: ClassVar[tuple[str, ...]] = ("output",)
    """Options that a file states of its own run, and not of the audit: they count on the command line alone."""
    data: str | list[str] = ""
    """The data that is to be trained on, in any form that `tune` takes."""
    prepared: str | None = None
    """Audit what another trainer has prepared instead: a saved dataset or Parquet files with input_ids and labels or
    masks. With --data beside it the rows are matched, and every finding can be had."""
    eval_share: float = 0.0
    """Share of --data that the run holds out, which is not audited. 0: all rows are."""
    skip_bad_rows: bool = False
    """Bad rows are left out on purpose: they are counted and are no finding."""
    output: str = ""
    """Run directory to write: config.json, rows.jsonl with every place, summary.json. Default: only print. A --config
    file's output is that of its own run and plays no part."""
    dry_run: bool = False
    """Write nothing, whatever --output says."""

    def __post_init__(self) -> None:
        """Beside the ranges: there is something to audit."""
        super().__post_init__()
        if not self.data and self.prepared is None:
            raise HoldfastError("nothing to audit", hint="--data rows.jsonl, or --prepared FOLDER, or both")
