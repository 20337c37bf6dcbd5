"""Config -> checked data -> plan. Everything that can be wrong with the input is found here, before a byte is written."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from holdfast import lm as models
from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Role, Tokens
from holdfast.tune.data import load_examples
from holdfast.tune.roles import TokenReport, tokenize
from holdfast.tune.weights import RoleWeights, prompt_share, role_weights, scale_twin


@dataclass(frozen=True)
class Plan:
    """A checked config: what will be trained on what, with every default resolved."""

    config: TuneConfig
    weights: RoleWeights
    tokenizer: Any
    train: list[Tokens]
    held_out: list[Tokens]
    report: TokenReport
    bad_rows: list[str]
    max_length: int
    learning_rate: float
    micro_batch: int
    accumulation: int
    steps: int

    @property
    def share(self) -> float:
        """Effective prompt share of the weighted target mass in the training data."""
        return prompt_share(self.report.weighted_targets, self.weights)

    def resolved(self) -> dict[str, Any]:
        """The values that the config left open, for config.json."""
        return {
            "weights": {role.label: weight for role, weight in self.weights.items() if role},
            "prompt_share": self.share,
            "max_length": self.max_length,
            "learning_rate": self.learning_rate,
            "micro_batch_size": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
            "steps": self.steps,
            "templates": dict(self.report.templates),
        }


def make_plan(config: TuneConfig) -> Plan:
    """Check the config, read and tokenise the data. Loads the tokenizer but no weights.

    Raises:
        HoldfastError: bad input, with file and row.
    """
    weights = role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)
    needs_response = any(weights[role] for role in RESPONSE_ROLES)
    _check_numbers(config)
    _warn_twin(config, weights)
    tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    model_config = models.load_config(config.model, trust_remote_code=config.trust_remote_code)
    if needs_response and tokenizer.eos_token_id is None:
        raise HoldfastError(
            f"{config.model}: the tokenizer has no EOS token, so the model could not learn to stop",
            hint="set eos_token in its tokenizer_config.json",
        )
    context = models.context_length(model_config, tokenizer)
    if config.max_length is not None and not 2 <= config.max_length <= context:
        raise HoldfastError(f"--max-length {config.max_length}: the model takes 2 to {context} tokens")
    max_length = config.max_length or min(context, 4096)
    bad_rows: list[str] | None = [] if config.skip_bad_rows else None
    read = partial(load_examples, needs_response=needs_response, bad_rows=bad_rows)
    encode = partial(
        tokenize, tokenizer=tokenizer, weights=weights, max_length=max_length,
        template=config.template, truncation=config.truncation, bad_rows=bad_rows,
    )  # fmt: skip
    examples = read(config.data, layout=config.layout, limit=config.limit)
    if config.eval_data is not None:
        held_out = read(config.eval_data)
    else:
        examples, held_out = _split(examples, config.eval_share, config.seed)
    train_tokens, report = encode(examples)
    _check_left(config, train_tokens, report, bad_rows or [], max_length)
    held_out_tokens, _ = encode(held_out)
    micro_batch, accumulation = _split_batch(config)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(len(train_tokens) / config.batch_size * config.epochs)
    rate = config.learning_rate or default_learning_rate(model_config, lora=config.lora_rank > 0)
    return Plan(
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        train=train_tokens,
        held_out=held_out_tokens,
        report=report,
        bad_rows=bad_rows or [],
        max_length=max_length,
        learning_rate=rate,
        micro_batch=micro_batch,
        accumulation=accumulation,
        steps=steps,
    )
