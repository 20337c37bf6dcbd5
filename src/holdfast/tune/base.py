"""The model that a training starts from: loaded, with its adapters made, continued or merged."""

from __future__ import annotations

from typing import Any

from holdfast import lm as models
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import HoldfastError


def load_base(config: TuneConfig | AlignConfig) -> Any:
    """The model to train, on the CPU: the Trainer places it."""
    return models.load(config.model, device="cpu", trust_remote_code=config.trust_remote_code).model


def adapted(model: Any, config: TuneConfig | AlignConfig) -> Any:
    """The model with the adapters that are to be trained: new ones, or those that it has. Without --lora-rank adapters
    are merged.

    Raises:
        HoldfastError: the model has adapters of another rank.
    """
    import transformers

    transformers.set_seed(config.seed)  # adapters are drawn at random
    has_adapters = hasattr(model, "merge_and_unload")
    if not config.lora_rank:
        return model.merge_and_unload().requires_grad_() if has_adapters else model
    if has_adapters:
        _continue_adapters(model, config)
    else:
        import peft

        shape = peft.LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or 2 * config.lora_rank,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = peft.get_peft_model(model, shape)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def _continue_adapters(model: Any, config: TuneConfig | AlignConfig) -> None:
    """Train the adapters that are there: new ones on top would be saved without those that they build on."""
    rank = next(iter(model.peft_config.values())).r
    if rank != config.lora_rank:
        raise HoldfastError(
            f"{config.model} has adapters of rank {rank}, --lora-rank is {config.lora_rank}",
            hint=f"--lora-rank {rank} continues them; --lora-rank 0 merges them and trains all weights",
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
