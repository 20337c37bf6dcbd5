"""TRL's SFTTrainer with our loss, on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from holdfast.integrations.trl import WITSFTTrainer
from materials import make_model, make_tokenizer


def arguments(folder: Path, **changes: Any) -> SFTConfig:
    given = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 4,
        "logging_steps": 1, "max_length": 128, "learning_rate": 5e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0,
        "weight_decay": 0.1, "max_grad_norm": 1e30, "seed": 0,
    }  # fmt: skip
    return SFTConfig(**given | changes)


def trainer(
    folder: Path, rows: Any, *, model: Any = None, config: dict[str, Any] | None = None, **options: Any
) -> WITSFTTrainer:
    return WITSFTTrainer(
        make_model() if model is None else model,
        arguments(folder, **(config or {})),
        train_dataset=rows,
        processing_class=make_tokenizer(),
        **options,
    )
