"""Options by the names that transformers, TRL, peft and lm-evaluation-harness have for them.

A name stands in ``ALIASES`` only where it means exactly one of our options. The command line, YAML files and Python
keywords all come through ``our_names``, so that a config, and with it ``config.json``, holds our name alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from holdfast.errors import HoldfastError, nearest

ALIASES: dict[str, str] = {
    "output_dir": "output",
    "model_name_or_path": "model",
    "pretrained_model_name_or_path": "model",
    "dataset_name": "data",
    "train_file": "data",
    "validation_file": "eval_data",
    "prompt_loss_weight": "prompt_weight",
    "completion_loss_weight": "response_weight",
    "max_seq_length": "max_length",
    "num_train_epochs": "epochs",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "lora_r": "lora_rank",
    "loss_type": "loss",
    "logging_steps": "log_steps",
    "save_total_limit": "keep_checkpoints",
    "num_fewshot": "shots",
    "apply_chat_template": "chat",
    "system_instruction": "system",
    "torch_dtype": "dtype",
    "max_gen_toks": "max_new_tokens",
}
"""The field's name -> ours. It holds for every command that has our option, except where ``EXCEPT`` says otherwise."""
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
            raise HoldfastError(f"{place}: unknown key '{key}'", hint=nearest(name, [*names, *aliases]))
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
