"""Options of `align`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from holdfast.config.base import Range
from holdfast.config.training import TrainingConfig


@dataclass(kw_only=True)
class AlignConfig(TrainingConfig):
    """Train on preferences (DPO and its kin) from where a tuned model, or any other, stands."""

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
    """Pairs in any file that `tune` reads, or `pocket:preferences`: prompt, chosen, rejected as text or as messages; or
    chosen and rejected as whole conversations or texts that differ in the last answer."""
    template: str = "auto"
    """chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: what the run at --model was tuned with,
    else as `tune`.
    """
    truncation: Literal["keep-start", "drop"] = "keep-start"
    """What to do with a longer pair: cut the ends of its answers, or drop it. Counted in the summary."""

    # objective
    loss: str = "sigmoid"
    """Loss of TRL's DPOTrainer by name: sigmoid (DPO), ipo, hinge, robust, apo_zero, ...; several, comma separated, are
    added up.
    """
    beta: Annotated[float, Range(gt=0)] = 0.1
    """How strongly the model is held to the reference."""
    recipe: Literal["paper"] | None = None
    """paper (arXiv 2507.07817): learning rate 5e-7, batch 32, 2 epochs, warm-up 0.1, no weight decay; it does not state
    beta.
    """

    # training
    epochs: Annotated[float | None, Range(gt=0)] = None
    """Passes over the data. Default: 1, with --recipe paper 2."""
    learning_rate: float | None = None
    """Peak learning rate. Default: a fortieth of that of `tune`, which is 5e-7 at 1 B parameters and more."""
    schedule: str = "linear"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Clip the gradient norm at this value; 0: no clipping."""
    lora_rank: int = 0
    """Train LoRA adapters of this rank, or continue those of the run at --model. 0: all weights; adapters are merged
    first.
    """
    lora_dropout: float = 0.0
    """Dropout inside the adapters. Without it, dropout is off in the whole model."""
