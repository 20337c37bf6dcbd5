"""The whole of ``holdfast tune``, top to bottom: config -> plan -> training -> run directory."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import accelerate

from holdfast import lm as models
from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import RunDir, check_output, open_run, read_json
from holdfast.tune.batches import TokenDataset, collate
from holdfast.tune.plan import Plan, data_digest, make_plan
from holdfast.tune.saving import explain_full_disk, save_model, whole_checkpoint
from holdfast.tune.trainer import Objective, WeightedTrainer, evaluation_of


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
    _check_data_unchanged(config, done)
    if done.summary is not None and not config.dry_run:
        print(f"{config.output}: already complete; --overwrite trains anew", file=sys.stderr)
        return done.summary
    plan = make_plan(config)
    if config.dry_run:
        from holdfast.tune.preview import preview

        return preview(plan)
    model = _load_model(config)
    run = _open_run(plan)
    with models.quiet(), explain_full_disk(run.path):
        return _fit(plan, model, run)


def _check_data_unchanged(config: TuneConfig, run: RunDir) -> None:
    """A run is continued, or returned as complete, only on the data that it began with."""
    if config.overwrite or not (run.path / "config.json").is_file():
        return
    if read_json(run.path / "config.json")["resolved"].get("data_digest") != data_digest(config):
        raise HoldfastError(
            f"{config.output}: the data has changed since this run began", hint="choose another --output, or --overwrite to train anew"
        )


def _open_run(plan: Plan) -> RunDir:
    """The run directory; under a launcher the main process makes it, and keeps of its rows what a checkpoint covers."""
    state = accelerate.PartialState()
    if state.is_main_process:
        run = open_run(plan.config, "tune", plan.resolved())
        checkpoint = whole_checkpoint(run.path / "checkpoints")
        run.keep_rows(int(checkpoint.name.split("-")[1]) if checkpoint else -1)
    state.wait_for_everyone()
    return RunDir(Path(plan.config.output))


def _fit(plan: Plan, model: Any, run: RunDir) -> dict[str, Any]:
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

    config = plan.config
    bf16_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    extra = {key: _scalar(value) for key, value in config.training.items()}
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
        "use_cpu": not torch.accelerator.is_available(),  # said aloud, or bf16 on a CPU is refused
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
    if config.gradient_checkpointing:
        given["gradient_checkpointing"] = True
    try:
        arguments = transformers.TrainingArguments(**{**given, **extra})
    except (TypeError, ValueError) as error:
        raise HoldfastError(
            f"training arguments: {error}", hint="keys under 'training' are those of transformers.TrainingArguments"
        ) from error
    if arguments.n_gpu > 1:
        print(f"note: one of {arguments.n_gpu} GPUs is used; `accelerate launch -m holdfast.cli tune ...` uses all", file=sys.stderr)
        arguments._n_gpu = 1  # the Trainer would split batches by nn.DataParallel, which nothing here is made for
    return arguments


def _scalar(text: str) -> Any:
    """Text as YAML would read it, with 1e-8 as the number that it is."""
    import yaml

    with contextlib.suppress(ValueError):
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    return yaml.safe_load(text)


def _load_model(config: TuneConfig) -> Any:
    import transformers

    transformers.set_seed(config.seed)  # adapters are drawn at random
    model = models.load(config.model, device="cpu", trust_remote_code=config.trust_remote_code).model  # the Trainer places it
    adapted = hasattr(model, "merge_and_unload")
    if not config.lora_rank:
        return model.merge_and_unload().requires_grad_() if adapted else model
    if adapted:
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


def _continue_adapters(model: Any, config: TuneConfig) -> None:
    """Train the adapters that are there: new ones on top would be saved without those that they build on."""
    rank = next(iter(model.peft_config.values())).r
    if rank != config.lora_rank:
        raise HoldfastError(
            f"{config.model} has adapters of rank {rank}, --lora-rank is {config.lora_rank}",
            hint=f"--lora-rank {rank} continues them; --lora-rank 0 merges them and trains all weights",
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _evaluate(trainer: Any, plan: Plan) -> dict[str, Any] | None:
    return evaluation_of(trainer.evaluate()) if plan.held_out else None


def _last_evaluation(trainer: Any) -> dict[str, Any] | None:
    """The evaluation at the final step, if the Trainer has just made one."""
    for logs in reversed(trainer.state.log_history):
        if "eval_loss" in logs and logs["step"] == trainer.state.global_step and trainer.state.global_step:
            return evaluation_of(logs)
    return None


def _first_evaluation(run: RunDir) -> dict[str, Any] | None:
    for line in run.rows.read_text(encoding="utf-8").splitlines() if run.rows.exists() else []:
        row = json.loads(line)
        if row["kind"] == "eval" and row["step"] == 0:
            return {key: value for key, value in row.items() if key not in ("kind", "step")}
    return None
