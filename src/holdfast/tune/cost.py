"""Plan -> what a training needs: trained parameters, device, precision, memory. No weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.progress import begin
from holdfast.stats import FEW, smallest_shown
from holdfast.tables.text import counted
from holdfast.tune.arguments import Schedule, uses_bf16

if TYPE_CHECKING:
    from holdfast.config import AlignConfig, TuneConfig

_BYTES = 4
"""Of a parameter, its gradient, and each of AdamW's two moments: all are float32."""
_KEPT_PER_LAYER = 17
"""Numbers that a layer keeps for the backward pass, in hidden sizes per token: 34 bytes in 16 bits (Korthikanti et al.
2022), without the attention scores, which the kernels in use do not keep."""


def parameter_counts(config: TuneConfig | AlignConfig) -> tuple[int, int]:
    """Return the number of parameters, adapters included, and of those that are trained, in memory of no size."""
    import torch
    import transformers

    from holdfast import lm as models
    from holdfast.tune.model import adapted

    model_config = models.load_config(config.model, trust_remote_code=config.trust_remote_code)
    if not config.lora_rank:
        count = models.count_parameters(model_config)
        return count, count
    with torch.device("meta"):
        model = adapted(transformers.AutoModelForCausalLM.from_config(model_config), config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return int(model.num_parameters()), trained


def needs(plan: Schedule, longest: int, sequences: int = 1) -> list[str]:
    """Return lines on the model, the device, and the memory that a training takes.

    Args:
        longest: tokens of the longest row.
        sequences: how many sequences of that length a row has: a preference pair has two.
    """
    from holdfast import lm as models

    config = plan.config
    counted_before = 0 if config.lora_rank else int(getattr(plan, "parameters", 0))  # in the plan of `tune`
    total, trained = (counted_before, counted_before) if counted_before else parameter_counts(config)
    model_config = models.load_config(config.model, trust_remote_code=config.trust_remote_code).get_text_config()
    bf16 = uses_bf16(config)
    layers = 1 if config.gradient_checkpointing else int(getattr(model_config, "num_hidden_layers", 1))
    per_token = _KEPT_PER_LAYER * layers * int(getattr(model_config, "hidden_size", 0)) * (2 if bf16 else 4)
    parts = {
        "parameters": _BYTES * total,
        "gradients": _BYTES * trained,
        "optimizer": 2 * _BYTES * trained,
        "activations": per_token * longest * sequences * plan.micro_batch,
    }
    adapters = f", {trained:,} of them trained (LoRA rank {config.lora_rank})" if config.lora_rank else ""
    return [
        f"model {config.model}: {total:,} parameters{adapters}; {_device()}, {'bfloat16' if bf16 else 'float32'}",
        f"memory: about {size(sum(parts.values()))}: "
        + ", ".join(f"{name} {size(count)}" for name, count in parts.items()),
    ]


def size(count: float) -> str:
    """Return bytes for people: ``5.6 MB``."""
    for unit, bytes_of_unit in (("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_of_unit:
            return f"{count / bytes_of_unit:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def too_few(held_out: Sequence[Any], what: str = "example") -> list[str]:
    """Return what can be shown on the held-out rows at all, where they are few."""
    count = len(held_out)
    if count >= FEW:
        return []
    if not count:
        return [f"note: no {what} is held out, so what the training does will not be known"]
    if count < 2:
        return [f"note: {counted(count, what)} held out: what the training does cannot be told from chance"]
    return [
        f"note: {counted(count, what)} held out are few: to stand out from chance, a change must be "
        f"{smallest_shown(count):.2g} times as large as its spread between {what}s ({FEW} {what}s: "
        f"{smallest_shown(FEW):.2g} times); --eval-data or --eval-share holds out more"
    ]


def tell_start(lines: Sequence[str]) -> None:
    """Say on stderr what a training is about to do, once for all processes of a launcher."""
    if int(os.environ.get("RANK", 0)) == 0:
        begin([*lines])


def _device() -> str:
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if kind is None:
        return "CPU"
    name = f" ({torch.cuda.get_device_name()})" if kind.type == "cuda" else ""
    world = int(os.environ.get("WORLD_SIZE", 1))
    return f"{f'{world} x ' if world > 1 else ''}{kind.type}{name}"
