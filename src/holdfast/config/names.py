"""Options by the names that transformers, TRL, peft and lm-evaluation-harness have for them.

A name stands in ``ALIASES`` only where it means exactly one of our options. The command line, YAML files and Python
keywords all come through ``our_names``, so that a config, and with it ``config.json``, holds our name alone.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from holdfast.errors import HoldfastError, nearest

ALIASES: dict[str, str] = {
    "output_dir": "output",
    "output_path": "output",
    "model_name_or_path": "model",
    "pretrained_model_name_or_path": "model",
    "base_model_name_or_path": "model",
    "model_name": "model",
    "base_model": "model",
    "tokenizer_name": "tokenizer",
    "dataset_name": "data",
    "dataset": "data",
    "data_path": "data",
    "train_file": "data",
    "validation_file": "eval_data",
    "eval_dataset": "eval_data",
    "val_set_size": "eval_share",
    "prompt_loss_weight": "prompt_weight",
    "completion_loss_weight": "response_weight",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "sequence_len": "max_length",
    "cutoff_len": "max_length",
    "max_samples": "limit",
    "max_train_samples": "limit",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "lr_scheduler": "schedule",
    "gradient_clipping": "max_grad_norm",
    "lora_r": "lora_rank",
    "activation_checkpointing": "gradient_checkpointing",
    "chat_template_path": "chat_template",
    "loss_type": "loss",
    "logging_steps": "log_steps",
    "save_total_limit": "keep_checkpoints",
    "early_stopping_patience": "patience",
    "overwrite_output_dir": "overwrite",
    "num_fewshot": "shots",
    "apply_chat_template": "chat",
    "system_instruction": "system",
    "torch_dtype": "dtype",
    "max_gen_toks": "max_new_tokens",
    "base_url": "endpoint",
}
"""The field's name -> ours. It holds for every command that has our option, except where ``EXCEPT`` says otherwise."""
_ADAPTERS = "adapters stand on all linear layers but the head; --lora-rank 16 trains them"
_FULL = "weights are loaded whole, never quantised"
_LORA = f"{_FULL}; --lora-rank 16 saves most of the memory"
_UPLOAD = "upload the folder model/ of the run with `hf upload`"
_EVALUATED = "--eval-steps N evaluates every N steps; without it once per epoch"
_KEPT = "--save-best response_nll keeps the best weights on held-out data"
_ROLES = "nothing to name: the chat template says which tokens are prompt and which response"
_KEPT_ROWS = "leave it out: rows.jsonl in --output always holds every answer"
_SHARED: dict[str, str] = {
    "model_args": "--model NAME names the model; its other settings are options of their own",
    "pretrained": "--model NAME",
    "model_revision": "download that revision with `hf download`, and give its folder as --model",
    "per_device_train_batch_size": "--batch-size N",
    "per_device_eval_batch_size": "--batch-size N",
    "device": "the GPU is taken where there is one; CUDA_VISIBLE_DEVICES chooses",
    "device_map": "the GPU is taken where there is one; CUDA_VISIBLE_DEVICES chooses",
    "attn_implementation": "leave it out: the fastest attention that is proven to agree is taken",
    "load_in_4bit": _FULL,
    "load_in_8bit": _FULL,
    "bnb_4bit_quant_type": _FULL,
    "bnb_4bit_quant_storage": _FULL,
    "use_bnb_nested_quant": _FULL,
    "log_samples": _KEPT_ROWS,
    "write_out": "--dry-run shows the first item as the model will see it",
    "predict_only": "leave out the judge; answers are kept in rows.jsonl, and a later run grades them",
    "use_cache": "leave it out: the same command continues with what is there",
    "cache_requests": "leave it out: the same command continues with what is there",
    "fewshot_as_multiturn": "examples stand in the prompt itself",
    "gen_kwargs": "answers are greedy; --max-new-tokens limits them",
    "samples": "--limit N takes the first N rows",
    "include_path": "--data-dir FOLDER has local data (docs/bench.md)",
    "max_batch_size": "--batch-size N",
    "verbosity": "stdout is data and stderr is the log; 2>log.txt keeps it",
    "wandb_args": "holdfast report RUN makes the page",
    "confirm_run_unsafe_code": "no code of a benchmark is run; --trust-remote-code is for code of the model",
    "hf_hub_log_args": "upload the run directory with `hf upload`",
    "push_to_hub": _UPLOAD,
    "resume_from_checkpoint": "give the same command again: it continues from the last checkpoint",
    "temperature": "answers are greedy here",
    "top_p": "answers are greedy here",
    "do_sample": "answers are greedy here",
    "dataset_config": "download the configuration as files, and name those",
    "dataset_train_split": "name the split behind the data: --data NAME:SPLIT",
    "dataset_split": "name the split behind the data: --data NAME:SPLIT",
    "split": "name the split behind the data: --data NAME:SPLIT",
    "dataset_test_split": "--eval-data NAME:SPLIT",
    "validation_split_percentage": "--eval-share 0.05 holds out five per cent",
    "dataset_streaming": "data are read whole; --limit N takes the first N rows",
    "streaming": "data are read whole; --limit N takes the first N rows",
}
_OFF_BY_DEFAULT = {
    "packing", "sample_packing", "padding_free", "bf16", "fp16", "load_in_4bit", "load_in_8bit", "use_peft",
    "train_on_inputs", "train_on_prompt",
}  # fmt: skip
"""Switches of others whose false asks for what Holdfast does anyway."""
_ONLY = "true is the default (prompt weight 0, response weight 1); false is --prompt-weight 1"
_OF_TRAINING: dict[str, str] = {
    "load_in_4bit": _LORA,
    "load_in_8bit": _LORA,
    "loss_type": "--adaptive dft is the loss of that name; --head computes all losses in chunks",
    "auto_find_batch_size": "a smaller --micro-batch-size takes less memory and changes no result",
    "dataloader_drop_last": "choose a --batch-size that divides the data",
    "hub_model_id": _UPLOAD,
    "hub_token": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_always_push": _UPLOAD,
    "hub_revision": _UPLOAD,
    "bf16": "--precision bf16",
    "fp16": "--precision bf16; float16 is not offered, as it needs loss scaling",
    "tf32": "--training tf32 true",
    "dtype": "--precision bf16 or fp32; weights that are trained stay in float32",
    "torch_dtype": "--precision bf16 or fp32; weights that are trained stay in float32",
    "packing": "--batching packed",
    "packing_strategy": "--batching packed",
    "eval_packing": "--batching packed",
    "padding_free": "--batching padding-free",
    "sample_packing": "--batching packed",
    "group_by_length": "leave it out: every step sorts its examples by length",
    "warmup_steps": "--warmup-ratio SHARE, the part of all steps",
    "use_peft": "--lora-rank 16",
    "use_lora": "--lora-rank 16",
    "adapter": "--lora-rank 16",
    "r": "--lora-rank N",
    "rank": "--lora-rank N",
    "lora_target_modules": _ADAPTERS,
    "lora_target_parameters": _ADAPTERS,
    "target_modules": _ADAPTERS,
    "lora_target": _ADAPTERS,
    "modules_to_save": _ADAPTERS,
    "lora_modules_to_save": _ADAPTERS,
    "exclude_modules": _ADAPTERS,
    "layers_to_transform": _ADAPTERS,
    "lora_task_type": "leave it out: the task is always CAUSAL_LM",
    "task_type": "leave it out: the task is always CAUSAL_LM",
    "bias": "leave it out: adapters train no bias",
    "use_dora": "--lora-rank N trains plain LoRA, the only kind here",
    "use_rslora": "--lora-alpha A; rank-stabilised scaling is A = alpha x sqrt(rank)",
    "init_lora_weights": "leave it out: adapters begin as peft has it",
    "use_liger_kernel": "leave it out: --head has a fused loss",
    "eval_strategy": _EVALUATED,
    "evaluation_strategy": _EVALUATED,
    "save_strategy": "--save-steps N writes a checkpoint every N steps",
    "logging_strategy": "--log-steps N",
    "load_best_model_at_end": _KEPT,
    "metric_for_best_model": _KEPT,
    "greater_is_better": _KEPT,
    "do_train": "leave it out: holdfast tune trains",
    "do_eval": "--eval-data DATA or --eval-share SHARE",
    "completion_only_loss": _ONLY,
    "assistant_only_loss": _ONLY,
    "train_on_inputs": "--prompt-weight 1 trains on prompts like on responses; the default is 0",
    "train_on_prompt": "--prompt-weight 1 trains on prompts like on responses; the default is 0",
    "mask_prompt": _ONLY,
    "response_template": _ROLES,
    "instruction_template": _ROLES,
    "dataset_text_field": "--columns text=NAME",
    "dataset_num_proc": "leave it out: rows are tokenised once and quickly",
    "dataset_kwargs": "leave it out: columns decide how rows are read (--columns names them)",
    "shuffle_dataset": "leave it out: the order is drawn with --seed",
    "pad_token": "leave it out: padding is never trained on or attended to",
    "eos_token": "--stop TOKEN, the token that ends a response",
    "model_max_length": "--max-length N",
    "block_size": "--max-length N",
    "truncation_mode": "--truncation keep-start or keep-end",
    "max_prompt_length": "--max-length N holds for prompt and answer together",
    "max_completion_length": "--max-length N holds for prompt and answer together",
    "precompute_ref_log_probs": "leave it out: the reference is always scored once, before training",
    "ref_model": "leave it out: the model at --model is its own reference",
    "optimizer": "--training optim NAME, as transformers names it",
    "deepspeed_config": "--training deepspeed FILE.json",
    "random_seed": "--seed N",
}
"""The field's name -> what to type instead, where no option of ours means just that. For commands that train, and for
all.
"""
_TRAINER = (
    "adam_beta1 adam_beta2 adam_epsilon accelerator_config activation_checkpointing_kwargs activation_offloading "
    "data_seed dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers "
    "dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers "
    "ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout deepspeed disable_dropout disable_tqdm "
    "discopop_tau eval_accumulation_steps eval_delay f_alpha_divergence_coef f_divergence_type fsdp fsdp_config "
    "full_determinism gradient_checkpointing_kwargs label_smoothing ld_alpha log_level logging_first_step loss_weights "
    "lr_scheduler_kwargs neftune_noise_alpha optim optim_args optim_target_modules pad_to_multiple_of "
    "router_aux_loss_coef run_name skip_memory_metrics torch_compile torch_compile_backend torch_compile_mode "
    "torch_empty_cache_steps use_cpu use_weighting debug eval_use_gather_object include_num_input_tokens_seen "
    "log_level_replica log_on_each_node project save_on_each_node trackio_bucket_id trackio_space_id "
    "trackio_static_space_id train_sampling_strategy"
)
"""Arguments of a Trainer that --training passes on."""
_UNREAD = (
    "average_tokens_across_devices batch_eval_metrics bf16_full_eval do_predict enable_jit_checkpoint "
    "eval_do_concat_batches eval_on_start fp16_full_eval ignore_bias_buffers ignore_data_skip include_for_metrics "
    "label_names label_smoothing_factor length_column_name liger_kernel_config local_rank logging_nan_inf_filter "
    "model_init_kwargs parallelism_config prediction_loss_only remove_unused_columns "
    "restore_callback_states_from_checkpoint save_only_model"
)
"""Arguments of a Trainer that Holdfast decides itself."""
FORMER: dict[str, str] = {"preset": "recipe"}
"""Our own name of old -> our name now, for commands that have no other option of the old name."""
EXCEPT: dict[str, frozenset[str]] = {"ReportConfig": frozenset({"output_dir"})}
"""Config class -> names that mean something else there: the output of a report is a file."""

_PER_DEVICE = ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size")
_TRANSFORMERS_PER_DEVICE = 8
"""What transformers takes for a per_device_train_batch_size that is not named."""

Config = TypeVar("Config")


def from_keywords(config_class: type[Config], config: Config | None = None, /, **keywords: Any) -> Config:
    """Return a config of ``config_class`` from keywords in our names or in the field's (``lr``, ``lora_r``, ...).

    Values are checked as those of a YAML file are, and a path object counts as text, because options hold text. With a
    ``config`` the keywords are laid over it.

    Raises:
        HoldfastError: a keyword is unknown, has the wrong type or is out of range; an option has two values under two
            names; or a required option is missing.
    """
    from holdfast.config.base import check_value

    place = f"{config_class.__name__} from keywords"
    values: dict[str, Any] = {}
    for name, value in our_names(config_class, keywords, place).items():
        values[name] = check_value(config_class, name, _plain(value), place)
    if config is not None:
        return dataclasses.replace(config, **values)  # type: ignore[type-var]
    missing = sorted(required_options(config_class) - values.keys())
    if missing:
        raise HoldfastError(f"{place}: {', '.join(missing)} must be stated")
    return config_class(**values)


def _plain(value: Any) -> Any:
    """Return paths as text, also in a list."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def our_names(config_class: type, options: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the options under our names, in their order. ``place`` begins every error message.

    Raises:
        HoldfastError: a name is unknown, is one that we refuse, or names an option that has another value already.
    """
    names = option_names(config_class)
    refuse_per_device(names, {key.replace("-", "_"): value for key, value in options.items()}, place)
    aliases = aliases_of(config_class)
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        name = aliases.get(name, name)
        if name not in names:
            hint = suggestion(config_class, name, value) or nearest(name, [*names, *aliases])
            raise HoldfastError(f"{place}: unknown key '{key}'", hint=hint)
        if name in values and values[name] != value:
            raise HoldfastError(
                f"{place}: '{spelled[name]}' is {values[name]!r} and '{key}' is {value!r}, which are one option",
                hint=f"keep one of them; our name is '{name}'",
            )
        values[name] = value
        spelled[name] = key
    return values


def our_flags(config_class: type, arguments: list[str], place: str) -> list[str]:
    """Return the arguments of a command line with the field's flags (``--lr``, ``--lora-r``, ``--lora_r``) as ours.

    Raises:
        HoldfastError: a flag is one that we refuse, or one option has two values under two names.
    """
    aliases = aliases_of(config_class)
    flags: list[str] = []
    values: dict[str, str] = {}
    for number, argument in enumerate(arguments):
        flag, equals, text = argument.partition("=")
        name = flag[2:].replace("-", "_")
        if not flag.startswith("--") or name not in {*aliases, *aliases.values(), *_PER_DEVICE}:
            flags.append(argument)
            continue
        after = "".join(arguments[number + 1 : number + 2])
        values[name] = text if equals else after * (not after.startswith("--"))  # a switch has no value
        flags.append(f"--{aliases[name].replace('_', '-')}{equals}{text}" if name in aliases else argument)
    refuse_per_device(option_names(config_class), values, place)
    our_names(config_class, {name: _as_number(text) for name, text in values.items() if name not in _PER_DEVICE}, place)
    return flags


def suggestion(config_class: type, name: str, value: Any = None) -> str | None:
    """Return what to type for an option of transformers, TRL, peft, axolotl or lm-evaluation-harness that is none of
    ours; None where the name is none of theirs, or means nothing to the command.
    """
    names = option_names(config_class)
    if "training" in names and name in _TRAINER.split():
        return f"--training {name} {'VALUE' if value in (None, '') else value} passes it on to the trainer"
    if "training" in names and name in _UNREAD.split():
        return "leave it out: Holdfast sees to it itself"
    text = (_OF_TRAINING.get(name) if "training" in names else None) or _SHARED.get(name)
    if name in _OFF_BY_DEFAULT and str(value).lower() in ("false", "no", "0"):
        return "leave it out: that is what happens without it"
    return text if text and all(option in names for option in _options_in(text)) else None


def _options_in(text: str) -> list[str]:
    """Return the options that a hint names."""
    return [word.replace("-", "_") for word in re.findall(r"--([a-z][a-z-]+)", text)]


def _as_number(text: str) -> str | float:
    """Return a text as the number that it spells, so that 1e-4 and 0.0001 are one value."""
    try:
        return float(text)
    except ValueError:
        return text


def option_names(config_class: type) -> list[str]:
    """Return our names of the options of a config class, in order."""
    return [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]


def required_options(config_class: type) -> set[str]:
    """Return the names of the options that have no default."""
    nothing = dataclasses.MISSING
    fields = dataclasses.fields(config_class)  # type: ignore[arg-type]
    return {field.name for field in fields if field.default is nothing and field.default_factory is nothing}


def aliases_of(config_class: type) -> dict[str, str]:
    """Return the field's names -> ours for the options that a config class has."""
    names = option_names(config_class)
    excepted = EXCEPT.get(config_class.__name__, frozenset())
    return {
        alias: name
        for alias, name in (ALIASES | FORMER).items()
        if name in names and alias not in names and alias not in excepted
    }


def refuse_per_device(names: Iterable[str], options: Mapping[str, Any], place: str) -> None:
    """Refuse batch sizes per device where ours is the whole batch, and say which of ours gives the same batch."""
    per_device = [name for name in _PER_DEVICE if name in options]
    if not per_device or "micro_batch_size" not in names:
        return
    raise HoldfastError(
        f"{place}: '{per_device[0]}' is not an option here: batch_size is the number of examples of an optimizer "
        "step over all devices and passes, and micro_batch_size the most that one pass on one device takes",
        hint=_same_batch(options),
    )


def _same_batch(options: Mapping[str, Any]) -> str:
    """Return the hint with the arithmetic: which of our options give the batch that was asked for."""
    if not {"per_device_train_batch_size", "gradient_accumulation_steps"} & options.keys():
        size = options["per_device_eval_batch_size"]
        return f"passes of an evaluation take it under training: --training per_device_eval_batch_size {size}"
    world = int(os.environ.get("WORLD_SIZE", 1))
    size = options.get("per_device_train_batch_size", _TRANSFORMERS_PER_DEVICE)
    steps = options.get("gradient_accumulation_steps", 1)
    try:
        batch = int(size) * int(steps) * world
    except (TypeError, ValueError):
        return "batch_size = per_device_train_batch_size x gradient_accumulation_steps x number of devices"
    default = "" if "per_device_train_batch_size" in options else " (the default of transformers)"
    return (
        f"{size} per device{default} x {steps} accumulation x {world} device{'' if world == 1 else 's'} = {batch}: "
        f"use --batch-size {batch} --micro-batch-size {size}"
    )
