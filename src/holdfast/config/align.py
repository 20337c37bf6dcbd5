"""Options of `align`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from holdfast.config.base import Range
from holdfast.config.training import TrainingConfig


@dataclass(kw_only=True)
class AlignConfig(TrainingConfig):
    """Train on preferences (DPO and its kin), starting from a tuned or any other model."""

    recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "learning_rate": 5e-7,
            "batch_size": 32,
            "epochs": 2.0,
            "warmup_ratio": 0.1,
            "weight_decay": 0.0,
        }
    }
    model: str
    """Where to start: a Holdfast run directory, hub name, local folder, or `pocket`. It is the reference as well."""
    data: str | list[str]
    """Pairs in any file that `tune` reads, or `pocket:preferences`: prompt, chosen and rejected as text or messages; or
    chosen and rejected as whole conversations or texts that differ in the last answer."""
    template: str = "auto"
    """How conversations become text: chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: what the
    run at --model was tuned with, else as `tune`."""
    truncation: Literal["keep-start", "drop"] = "keep-start"
    """What to do with a pair that is too long: cut the ends of its answers, or drop it. The summary counts the cuts."""

    # objective
    loss: str = "sigmoid"
    """Loss of TRL's DPOTrainer by name: sigmoid (DPO), ipo, hinge, robust, apo_zero, ...; several, comma separated, are
    added up."""
    beta: Annotated[float, Range(gt=0)] = 0.1
    """How strongly the model is held to the reference, above 0."""
    recipe: Literal["paper"] | None = None
    """paper (arXiv 2507.07817): learning rate 5e-7, batch 32, 2 epochs, warm-up 0.1, no weight decay; options that you
    give win. The paper does not state beta."""

    # training
    epochs: Annotated[float | None, Range(gt=0)] = None
    """Passes over the data. Default: 1, or 2 with --recipe paper."""
    learning_rate: float | None = None
    """Peak learning rate. Default: a fortieth of that of `tune`, which is 5e-7 at 1 B parameters and more."""
    schedule: str = "linear"
    warmup_ratio: float = 0.1
    """Share of the steps spent warming up, from 0 to below 1."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Clip the gradient norm at this value; 0: no clipping."""
    lora_rank: int = 0
    """Train LoRA adapters of this rank, or continue those of the run at --model; 0: train all weights, after merging
    its adapters."""
    lora_dropout: float = 0.0
    """Dropout inside the adapters. At 0, dropout is off in the whole model."""
