"""Config and plan -> ``transformers.TrainingArguments``, or a class derived from it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from holdfast.config import AlignConfig, TuneConfig, with_recipe
from holdfast.data.read import from_yaml
from holdfast.errors import HoldfastError

_OPTIONS = {
    "output_dir": "output",
    "seed": "seed",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size",
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warmup_ratio",
    "warmup_ratio": "warmup_ratio",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "bf16": "precision",
    "gradient_checkpointing": "gradient_checkpointing",
    "activation_checkpointing": "gradient_checkpointing",  # its name from transformers 5.23 on
    "logging_steps": "log_steps",
    "eval_strategy": "eval_steps",
    "eval_steps": "eval_steps",
    "save_strategy": "save_steps",
    "save_steps": "save_steps",
    "save_total_limit": "keep_checkpoints",
    "report_to": "report_to",
    "beta": "beta",
    "loss_type": "loss",
    "max_length": "max_length",
    "trust_remote_code": "trust_remote_code",
}
"""Argument of a Trainer -> the option of ours that sets it."""
_LOWER_IS_BETTER = {
    TuneConfig: {"loss": True, "prompt_nll": True, "response_nll": True, "response_perplexity": True},
    AlignConfig: {
        "loss": True, "rewards/chosen": False, "rewards/rejected": True, "rewards/margins": False,
        "rewards/accuracies": False, "logps/chosen": False, "logps/rejected": True,
    },
}  # fmt: skip
"""Metrics of an evaluation, and whether less of one is better; the Trainer would look for the highest NLL."""
_FIXED = {"remove_unused_columns", "average_tokens_across_devices", "logging_nan_inf_filter"}

_OWN_LOSS = "the loss is computed here, and no labels are made that this could act on"
_OWN_EVALUATION = "an evaluation adds up sums per example here"
_FULL_EVAL = "the first evaluation would cast the model itself, which would then be trained in half precision"
_SCRIPTS = "it is meant for scripts of one's own; the Trainer never reads it"
_HUB = "it would upload the Trainer's checkpoints and its own card, and a token would be written to config.json"
_RESUME = "a run that is continued would no longer end as one that was not interrupted"
_LENGTHS = "examples have no column of lengths here; every step sorts its own by length already"
_REFERENCE = "'training' names a setting of the reference model, which is always the start point"
_NO_EFFECT: dict[str, tuple[str, str]] = {
    # read by nothing that runs here
    "label_smoothing_factor": (_OWN_LOSS, "leave it out; preference losses have `label_smoothing` (holdfast align)"),
    "label_names": (_OWN_LOSS, "leave it out"),
    "prediction_loss_only": (_OWN_EVALUATION, "leave it out"),
    "include_for_metrics": (_OWN_EVALUATION, "leave it out"),
    "include_inputs_for_metrics": (_OWN_EVALUATION, "leave it out"),
    "use_cache": ("no forward pass of a training keeps a cache", "leave it out"),
    "length_column_name": (_LENGTHS, "leave it out"),
    "group_by_length": (_LENGTHS, "leave it out"),
    "past_index": ("no model here returns a past", "leave it out"),
    "do_train": (_SCRIPTS, "leave it out"),
    "do_eval": (_SCRIPTS, "--eval-data or --eval-share"),
    "do_predict": (_SCRIPTS, "leave it out"),
    "local_rank": (_SCRIPTS, "the launcher says which process is which"),
    "overwrite_output_dir": (_SCRIPTS, "--overwrite"),
    "resume_from_checkpoint": (_SCRIPTS, "give the same command again: it continues from the last whole checkpoint"),
    # read, and what they do would be undone, wrong or an exception
    "eval_on_start": ("the held-out data are always evaluated before the first step", "leave it out"),
    "eval_do_concat_batches": (_OWN_EVALUATION, "leave it out"),
    "batch_eval_metrics": (_OWN_EVALUATION, "leave it out; it needs no memory for logits"),
    "bf16_full_eval": (_FULL_EVAL, "--precision bf16"),
    "fp16_full_eval": (_FULL_EVAL, "--precision bf16"),
    "dataloader_drop_last": ("held-out examples would be left out, too", "choose a --batch-size that divides the data"),
    "auto_find_batch_size": ("a step would have fewer examples than --batch-size says", "a smaller --micro-batch-size"),
    "save_only_model": (_RESUME, "leave it out; --keep-checkpoints says how many are kept"),
    "ignore_data_skip": (_RESUME, "leave it out"),
    "restore_callback_states_from_checkpoint": ("what a continued run needs is restored already", "leave it out"),
    "enable_jit_checkpoint": ("a run that a signal stops early would count as complete", "--save-steps"),
    "parallelism_config": (
        "it is an object of Python, which no text can stand for",
        "`accelerate config` and `accelerate launch`",
    ),
    "push_to_hub": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_token": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_private_repo": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_model_id": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_strategy": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_always_push": (_HUB, "upload the folder model/ of the run with `hf upload`"),
    "hub_revision": (_HUB, "upload the folder model/ of the run with `hf upload`"),
}
"""Argument of a Trainer that is refused unless it is off -> why it has no effect here or a bad one, and what to do
instead. Of transformers 5.23; what is not in this table, ``_OPTIONS`` or ``_FIXED`` works (tests/tune/test_arguments.py
lists it)."""
_NO_EFFECT_OF: dict[type, dict[str, tuple[str, str]]] = {
    TuneConfig: {
        "use_liger_kernel": (
            "it would replace the forward that the head is fused into",
            "leave it out: --head has a fused loss",
        ),
        "liger_kernel_config": (
            "it would replace the forward that the head is fused into",
            "leave it out: --head has a fused loss",
        ),
    },
    AlignConfig: {
        "dataset_num_proc": ("the pairs are tokenised here", "leave it out"),
        "truncation_mode": ("the pairs are cut here", "--truncation"),
        "model_init_kwargs": ("the model is loaded here", "leave it out"),
        "padding_free": ("TRL 1.16 falls back to padding", "leave it out"),
        "precompute_ref_log_probs": (
            _REFERENCE,
            "leave it out; its log-probs are always computed once, before the first step",
        ),
        "sync_ref_model": (_REFERENCE, "leave it out"),
        "ref_model_mixup_alpha": (_REFERENCE, "leave it out"),
        "ref_model_sync_steps": (_REFERENCE, "leave it out"),
    },
}
"""The same for one command alone."""
_OFF: dict[str, tuple[Any, ...]] = {"eval_do_concat_batches": (True,)}
"""Values with which an argument of the tables above asks for nothing, where these are not those of ``_NOTHING``."""
_NOTHING = (None, False, 0, "")
_NEEDS = {
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing",
    "run_name": "report_to",
    "project": "report_to",
    "trackio_space_id": "report_to",
    "trackio_bucket_id": "report_to",
    "trackio_static_space_id": "report_to",
    "include_num_input_tokens_seen": "report_to",
    "skip_memory_metrics": "report_to",
}
"""Arguments that act only together with an option of ours."""
_SAMPLING = ("random", "sequential")


_SHORT = {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
"""Short names of --save-best."""
_OPTIMIZER_PACKAGES = {
    "galore": "galore_torch", "apollo": "apollo_torch", "lomo": "lomo_optim", "grokadamw": "grokadamw",
    "schedule_free": "schedulefree", "torch_4bit": "torchao", "torch_8bit": "torchao", "8bit": "bitsandbytes",
    "paged": "bitsandbytes", "bnb": "bitsandbytes", "ademamix": "bitsandbytes", "lion": "bitsandbytes",
}  # fmt: skip
"""Part of an optimizer's name -> the package that has it; the first that fits."""
Config = TypeVar("Config", TuneConfig, AlignConfig)


def settled(config: Config) -> Config:
    """Return the config with its recipe applied, and with the defaults that depend on other options. Nothing that a
    training depends on is open then but the learning rate and the warm-up, which the plan works out."""
    config = with_recipe(config)
    decay, clip = config.weight_decay, config.max_grad_norm
    return dataclasses.replace(
        config,
        recipe=None,
        weight_decay=(0.0 if config.lora_rank else 0.1) if decay is None else decay,
        max_grad_norm=1.0 if clip is None else clip,
    )


def check_training(config: TuneConfig | AlignConfig) -> None:
    """Refuse what is given under ``training`` and has an option of its own.

    The plan would say one thing, and the Trainer do another.

    Raises:
        HoldfastError: names the option.
    """
    options = {field.name for field in fields(config)}
    for key in config.training:
        option = _OPTIONS.get(key)
        if option in options:
            raise HoldfastError(
                f"training: '{key}' has an option of its own", hint=f"use --{str(option).replace('_', '-')}"
            )
        if key in _FIXED:
            raise HoldfastError(f"training: '{key}' cannot be changed", hint="the weighted loss depends on it")
        _check_effect(config, key, _scalar(config.training[key]))
    _check_packages(config)
    _check_best_model(config)


def _check_packages(config: TuneConfig | AlignConfig) -> None:
    """The packages that an argument of the Trainer needs are installed.

    Raises:
        HoldfastError: names the package and the argument.
    """
    optimizer = str(config.training.get("optim", ""))
    needed = {
        "deepspeed": "deepspeed" if _scalar(config.training.get("deepspeed")) else None,
        "optim": next((package for sign, package in _OPTIMIZER_PACKAGES.items() if sign in optimizer), None),
    }
    for key, package in needed.items():
        if package is not None and importlib.util.find_spec(package) is None:
            raise HoldfastError(
                f"training: '{key}: {config.training[key]}' needs the package {package}, which is not installed",
                hint=f"pip install {package}",
            )


def _check_effect(config: TuneConfig | AlignConfig, key: str, value: Any) -> None:
    """An argument does here what its name says.

    Raises:
        HoldfastError: the Trainer would accept it, and it would have no effect or a bad one.
    """
    why = (_NO_EFFECT | _NO_EFFECT_OF[type(config)]).get(key)
    if why is not None and value not in _OFF.get(key, _NOTHING):
        raise HoldfastError(f"training: '{key}' cannot be used: {why[0]}", hint=why[1])
    needed = _NEEDS.get(key)
    if needed is not None and getattr(config, needed) in (False, "none"):
        flag = "--" + needed.replace("_", "-")
        raise HoldfastError(f"training: '{key}' has no effect without {flag}", hint=f"add {flag}, or leave it out")
    if key == "train_sampling_strategy" and value not in _SAMPLING:
        raise HoldfastError(f"training: '{key}' cannot be '{value}': {_LENGTHS}", hint=f"one of {', '.join(_SAMPLING)}")


def _check_best_model(config: TuneConfig | AlignConfig) -> None:
    """What ``load_best_model_at_end`` needs is there, and the metric is one that an evaluation has.

    Raises:
        HoldfastError: names what is missing.
    """
    metrics = _LOWER_IS_BETTER[type(config)]
    if config.save_best is not None:
        _check_save_best(config)
    elif config.patience is not None:
        raise HoldfastError("--patience needs --save-best", hint=f"--save-best {next(iter(metrics))}")
    metric = str(config.training.get("metric_for_best_model", "loss")).removeprefix("eval_")
    if metric not in metrics:
        raise HoldfastError(
            f"training: metric_for_best_model: '{metric}' is no metric of an evaluation",
            hint=f"one of {', '.join(metrics)}",
        )
    if not _scalar(config.training.get("load_best_model_at_end", False)):
        return
    what = "training: load_best_model_at_end needs"
    if config.eval_data is None and not config.eval_share:
        raise HoldfastError(f"{what} held-out data to know the best model by", hint="give --eval-data or --eval-share")
    for option in ("save_steps", "eval_steps"):
        if not getattr(config, option):
            flag = "--" + option.replace("_", "-")
            raise HoldfastError(
                f"{what} {flag}", hint="--save-steps 100 --eval-steps 100 evaluates and saves every 100 steps"
            )
    if int(config.save_steps or 0) % int(config.eval_steps or 1):
        raise HoldfastError(
            f"{what} --save-steps to be a multiple of --eval-steps; they are {config.save_steps} and "
            f"{config.eval_steps}",
            hint=f"--save-steps {config.eval_steps}",
        )


def _check_save_best(config: TuneConfig | AlignConfig) -> None:
    metrics = _LOWER_IS_BETTER[type(config)]
    if best_metric(config) not in metrics:
        names = [name for name, long in _SHORT.items() if long in metrics]
        raise HoldfastError(
            f"--save-best {config.save_best}: no metric of an evaluation",
            hint=f"one of {', '.join([*metrics, *names])}",
        )
    for key in ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"):
        if key in config.training:
            raise HoldfastError(f"training: '{key}' says what --save-best says", hint="leave it out")
    if config.eval_data is None and not config.eval_share:
        raise HoldfastError("--save-best needs held-out data", hint="give --eval-data or --eval-share")
    if config.save_steps and not config.eval_steps:
        raise HoldfastError(
            "--save-best with --save-steps needs --eval-steps",
            hint=f"--eval-steps {config.save_steps}, or no --save-steps",
        )
    if config.save_steps and config.save_steps % int(config.eval_steps or 1):
        raise HoldfastError(
            f"--save-best needs --save-steps to be a multiple of --eval-steps; they are {config.save_steps} and "
            f"{config.eval_steps}",
            hint=f"--save-steps {config.eval_steps}",
        )


def best_metric(config: TuneConfig | AlignConfig) -> str | None:
    """Return the metric of --save-best under the name that an evaluation has for it."""
    return None if config.save_best is None else _SHORT.get(config.save_best, config.save_best)


@dataclass(frozen=True)
class Schedule:
    """What a plan says about the training: how fast, in which batches, for how many optimizer steps."""

    config: TuneConfig | AlignConfig
    held_out: Sequence[Any]
    learning_rate: float
    micro_batch: int
    accumulation: int
    steps: int
    train: Sequence[Any] = dataclasses.field(default_factory=list, kw_only=True)
    draws_EN: Any = dataclasses.field(default=None, kw_only=True)
    """Which examples each epoch has, int64 [epochs, examples]; None: all in each."""
    date: str | None = dataclasses.field(default=None, kw_only=True)
    """The day that the chat template prints; None: it prints none."""

    def resolved(self) -> dict[str, Any]:
        """The values that the config left open, for config.json."""
        return {
            "learning_rate": self.learning_rate,
            "micro_batch_size": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.config.weight_decay,
            "max_grad_norm": self.config.max_grad_norm,
            **({"date": self.date} if self.date else {}),
        }

    @property
    def passes(self) -> float:
        """How often an example is trained on, on average."""
        if self.config.max_steps > 0:
            return self.steps * self.config.batch_size / max(len(self.train), self.config.batch_size)
        share = 1.0 if self.draws_EN is None else self.draws_EN.shape[1] / len(self.train)
        return share * (self.config.epochs or 1)

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up. By default a hundredth of all, at least ten, but no more than a fifth of a short run:
        Adam's second moments are estimates of few steps there, and a full rate would follow their noise. A share that
        was given is kept to; less than one step is none, as a warm-up of one step has a rate of 0 in its only step.
        """
        ratio = self.config.warmup_ratio
        share = 0.01 if ratio is None else ratio
        steps = math.ceil(share * self.steps) if share * self.steps >= 1 else 0
        return steps if ratio is not None else max(steps, min(10, self.steps // 5))


def uses_bf16(config: TuneConfig | AlignConfig) -> bool:
    """Return whether a training computes in bfloat16."""
    import torch

    bf16_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bf16" or (config.precision == "auto" and bf16_gpu)


def training_arguments(plan: Schedule, folder: Path, kind: Any = None, **more: Any) -> Any:
    """The arguments of a Trainer whose checkpoints go to ``folder``.

    Args:
        kind: a class derived from ``transformers.TrainingArguments``, if not that itself.
        more: arguments of that class. What the user gave under ``training`` is added (see ``check_training``).

    Raises:
        HoldfastError: an argument that the class does not know or refuses.
    """
    import torch
    import transformers

    config = plan.config
    kind = kind or transformers.TrainingArguments
    extra = {key: _scalar(value) for key, value in config.training.items()}
    ours = {
        "output_dir": str(folder),
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": max(plan.micro_batch, 8),
        "gradient_accumulation_steps": plan.accumulation,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": plan.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm or 1e30,  # 0 would also leave the norm unmeasured
        "bf16": uses_bf16(config),
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
        "disable_tqdm": True,  # ``holdfast.progress`` says how far it is
    }
    if config.gradient_checkpointing:
        ours["gradient_checkpointing"] = True
    if config.save_best is not None:
        metric = best_metric(config)
        ours |= {"load_best_model_at_end": True, "metric_for_best_model": metric}
        ours["greater_is_better"] = not _LOWER_IS_BETTER[type(config)][str(metric)]
        ours["save_strategy"] = "steps" if config.save_steps else "best"
    if extra.get("load_best_model_at_end") or config.save_best is not None:
        ours["save_total_limit"] = max(config.keep_checkpoints, 2)  # the best, and the last to continue from
    if "metric_for_best_model" in extra:
        ours["greater_is_better"] = not _LOWER_IS_BETTER[type(config)][
            str(extra["metric_for_best_model"]).removeprefix("eval_")
        ]
    try:
        arguments = kind(**{**ours, **more, **extra})
    except (TypeError, ValueError) as error:
        parent = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        raise HoldfastError(
            f"training arguments: {error}", hint=f"keys under 'training' are those of {parent}"
        ) from error
    if arguments.n_gpu > 1:
        print(
            f"note: one of {arguments.n_gpu} GPUs is used; `accelerate launch -m holdfast.cli ...` uses all",
            file=sys.stderr,
        )
        arguments._n_gpu = 1  # the Trainer would split batches by nn.DataParallel, which nothing here is made for
    return arguments


def _scalar(text: Any) -> Any:
    """Text as YAML would read it, with 1e-8 as the number that it is; what is no text as it is."""
    if not isinstance(text, str):
        return text
    with contextlib.suppress(ValueError):
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    return from_yaml(text, repr(text))
