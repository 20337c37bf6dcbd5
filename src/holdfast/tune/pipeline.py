"""The whole of ``holdfast tune``, top to bottom: config -> data -> tokens -> training -> run directory.

Everything that can be wrong with the input is found by ``plan``, before a byte is written.
"""

from __future__ import annotations

import math
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast import lm as models
from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Role, Tokens
from holdfast.runs import RunDir, check_output, open_run
from holdfast.tune.data import load_examples
from holdfast.tune.roles import TokenReport, tokenize
from holdfast.tune.saving import explain_full_disk, save_model, whole_checkpoint
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


def train(config: TuneConfig) -> dict[str, Any]:
    """Tune a model with weighted losses and write a run directory.

    Args:
        config: see ``holdfast.config.TuneConfig``.

    Returns:
        The summary: weights, prompt share, evaluation before and after, counts, speed, the model's folder. A run that is already
        complete in ``config.output`` is returned, not repeated; an unfinished one is continued from its last whole checkpoint.

    Raises:
        HoldfastError: bad input; nothing has been written then.
    """
    done = check_output(config, "tune")
    if done.summary is not None and not config.dry_run:
        print(f"{config.output}: already complete; --overwrite trains anew", file=sys.stderr)
        return done.summary
    plan = make_plan(config)
    if config.dry_run:
        from holdfast.tune.preview import preview

        return preview(plan)
    model = _load_model(config)
    run = open_run(config, "tune", plan.resolved())
    with explain_full_disk(run.path):
        return _fit(plan, model, run)


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
    if not train_tokens:
        raise HoldfastError(
            f"{config.data}: no example is left ({report.dropped} longer than {max_length} tokens, {len(bad_rows or [])} bad)",
            hint="raise --max-length, use --truncation keep-start or keep-end" + ("" if not bad_rows else f"; first bad row: {bad_rows[0]}"),
        )
    held_out_tokens, _ = encode(held_out)
    micro_batch, accumulation = _split_batch(config)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(len(train_tokens) / config.batch_size * config.epochs)
    rate = config.learning_rate or default_learning_rate(model_config, lora=config.lora_rank > 0)
    return Plan(
        config, weights, tokenizer, train_tokens, held_out_tokens, report, bad_rows or [], max_length, rate, micro_batch, accumulation, steps
    )  # fmt: skip


def default_learning_rate(model_config: Any, *, lora: bool = False) -> float:
    """2e-5 at 1 B parameters and more (the paper's), 2e-4 with LoRA; below 1 B times sqrt(1 B / parameters), at most 1e-3."""
    import torch
    import transformers

    with torch.device("meta"):
        parameters = transformers.AutoModelForCausalLM.from_config(model_config).num_parameters()
    return float(min(1e-3, (2e-4 if lora else 2e-5) * max(1.0, (1e9 / parameters) ** 0.5)))


def _fit(plan: Plan, model: Any, run: RunDir) -> dict[str, Any]:
    from holdfast.tune.batches import TokenDataset, collate
    from holdfast.tune.trainer import Objective, WeightedTrainer

    config = plan.config
    trainer = WeightedTrainer(
        objective=Objective(plan.weights, config.normalizer, config.head),
        run=run,
        model=model,
        args=_arguments(plan, run),
        train_dataset=TokenDataset(plan.train),
        eval_dataset=TokenDataset(plan.held_out) if plan.held_out else None,
        data_collator=partial(collate, pad_id=models.pad_id(plan.tokenizer)),
        processing_class=plan.tokenizer,
    )
    if trainer.plain_reason not in (None, "asked for"):
        print(f"note: full logits are computed for this model: {trainer.plain_reason}", file=sys.stderr)
    checkpoint = whole_checkpoint(run.path / "checkpoints")
    run.keep_rows(int(checkpoint.name.split("-")[1]) if checkpoint else -1)
    if checkpoint:
        print(f"continuing from {checkpoint}", file=sys.stderr)
    first = _evaluate(trainer, plan) if checkpoint is None else _first_evaluation(run)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    last = _last_evaluation(trainer) or _evaluate(trainer, plan)
    summary = {
        "command": "tune",
        "model": config.model,
        "data": config.data,
        **plan.resolved(),
        "normalizer": config.normalizer,
        "before": first,
        "after": last,
        "train_examples": len(plan.train),
        "eval_examples": len(plan.held_out),
        "seconds": round(seconds, 2),
        "head": "plain" if trainer.plain_reason else "fused",
        "data_report": plan.report.as_dict(),
        "bad_rows": {"count": len(plan.bad_rows), "first": plan.bad_rows[:20]},
        "model_path": str(run.model),
    }
    save_model(trainer, run.model, summary)
    if trainer.is_world_process_zero():
        run.finish(summary)
    return summary


def _arguments(plan: Plan, run: RunDir) -> Any:
    import torch
    import transformers
    import yaml

    config = plan.config
    bf16_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    extra = {key: yaml.safe_load(value) if isinstance(value, str) else value for key, value in config.training.items()}
    given = {
        "output_dir": str(run.path / "checkpoints"),
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": max(plan.micro_batch, 8),
        "gradient_accumulation_steps": plan.accumulation,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_ratio,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm or 1e30,  # 0 would also leave the norm unmeasured
        "bf16": config.precision == "bf16" or (config.precision == "auto" and bf16_gpu),
        "gradient_checkpointing": config.gradient_checkpointing,
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no" if not plan.held_out else "steps" if config.eval_steps else "epoch",
        "eval_steps": config.eval_steps,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 500,
        "save_total_limit": config.keep_checkpoints,
        "report_to": [] if config.report_to == "none" else config.report_to.split(","),
        "seed": config.seed,
        "remove_unused_columns": False,
        "average_tokens_across_devices": False,  # the divisor spans the ranks already
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": not sys.stderr.isatty(),
    }
    try:
        return transformers.TrainingArguments(**{**given, **extra})
    except (TypeError, ValueError) as error:
        raise HoldfastError(f"training arguments: {error}", hint="keys under 'training' are those of transformers.TrainingArguments") from error


def _load_model(config: TuneConfig) -> Any:
    import transformers

    transformers.set_seed(config.seed)  # adapters are drawn at random
    model = models.load(config.model, trust_remote_code=config.trust_remote_code).model
    if config.lora_rank:
        import peft

        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()  # new adapters on top of a tuned model start from the tuned weights
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha or 2 * config.lora_rank,
                lora_dropout=config.lora_dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
        if config.gradient_checkpointing:
            model.enable_input_require_grads()
    return model


def _split(examples: list[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """A seeded split; order is kept within each part. At least one example on each side if the share is not 0."""
    if share == 0 or len(examples) < 2:
        return examples, []
    size = min(max(1, round(share * len(examples))), len(examples) - 1)
    out = set(random.Random(seed).sample(range(len(examples)), size))
    return [e for i, e in enumerate(examples) if i not in out], [e for i, e in enumerate(examples) if i in out]


def _split_batch(config: TuneConfig) -> tuple[int, int]:
    """Largest micro-batch within the limit that divides the examples per device, and the accumulation steps."""
    import os

    world = int(os.environ.get("WORLD_SIZE", 1))
    if config.batch_size % world:
        raise HoldfastError(f"--batch-size {config.batch_size} does not divide over {world} devices")
    per_device = config.batch_size // world
    micro = max(d for d in range(1, min(config.micro_batch_size, per_device) + 1) if per_device % d == 0)
    return micro, per_device // micro


def _check_numbers(config: TuneConfig) -> None:
    positive = {"--epochs": config.epochs, "--batch-size": config.batch_size, "--micro-batch-size": config.micro_batch_size}
    positive |= {"--log-steps": config.log_steps, "--keep-checkpoints": config.keep_checkpoints}
    positive |= {"--learning-rate": config.learning_rate, "--eval-steps": config.eval_steps, "--save-steps": config.save_steps}
    positive |= {"--limit": config.limit}
    for name, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise HoldfastError(f"{name} is {value}; it must be greater than 0")
    for name, value in {"--eval-share": config.eval_share, "--warmup-ratio": config.warmup_ratio, "--lora-dropout": config.lora_dropout}.items():
        if not 0 <= value < 1:
            raise HoldfastError(f"{name} is {value}; it must be at least 0 and less than 1")
    for name, value in {"--max-grad-norm": config.max_grad_norm, "--weight-decay": config.weight_decay, "--lora-rank": config.lora_rank}.items():
        if not 0 <= value < math.inf:
            raise HoldfastError(f"{name} is {value}; it must be 0 or more")


def _warn_twin(config: TuneConfig, weights: RoleWeights) -> None:
    pair = (weights[Role.USER], weights[Role.ASSISTANT])
    twin = scale_twin(*pair) if not config.weights and any(pair) else None
    if twin and not config.max_grad_norm:
        print(
            f"warning: weights {pair} are a scaled copy of '{twin}': under AdamW without clipping only the ratio matters, "
            "so both train the same model",
            file=sys.stderr,
        )


def _evaluate(trainer: Any, plan: Plan) -> dict[str, Any] | None:
    return _named(trainer.evaluate()) if plan.held_out else None


def _named(metrics: dict[str, Any]) -> dict[str, Any]:
    names = ("loss", "prompt_nll", "response_nll", "response_perplexity", "prompt_targets", "response_targets", "prompt_share")
    return {name: metrics.get(f"eval_{name}") for name in names}


def _last_evaluation(trainer: Any) -> dict[str, Any] | None:
    """The evaluation at the final step, if the Trainer has just made one."""
    for logs in reversed(trainer.state.log_history):
        if "eval_loss" in logs and logs["step"] == trainer.state.global_step and trainer.state.global_step:
            return _named(logs)
    return None


def _first_evaluation(run: RunDir) -> dict[str, Any] | None:
    import json

    for line in run.rows.read_text(encoding="utf-8").splitlines() if run.rows.exists() else []:
        row = json.loads(line)
        if row["kind"] == "eval" and row["step"] == 0:
            return {key: value for key, value in row.items() if key not in ("kind", "step")}
    return None
