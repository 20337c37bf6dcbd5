"""``--help``: the page of a command, from its config class.

config class, texts and ranges -> groups of options in two columns. ``--help`` shows what most users need and names the
rest; ``--help-all`` shows all.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.examples import EXAMPLES
from holdfast.config.names import FORMER, aliases_of, required_options
from holdfast.config.options import GROUPS, choices_of, default_of, flag_of, help_texts, kinds_of, takes_flag
from holdfast.errors import redacted_values

COMMON: dict[str, str] = {
    "tune": "prompt_weight response_weight preset model template data eval_data columns max_length epochs "
    "learning_rate batch_size lora_rank output limit seed overwrite dry_run json",
    "audit": "prompt_weight response_weight preset model template data prepared columns max_length output limit seed "
    "overwrite json",
    "weigh": "by keep rest scope model reference template data columns batch_size output limit overwrite dry_run json",
    "align": "model data eval_data columns max_length loss beta epochs learning_rate batch_size lora_rank recipe "
    "output limit seed overwrite dry_run json",
    "sensitivity run": "model chat system prompts sets shots variants per_kind max_new_tokens answers pairs recipe "
    "backend endpoint output limit seed overwrite dry_run json",
    "sensitivity variants": "prompts variants per_kind recipe paraphrases paraphrase_model synonyms output limit seed "
    "overwrite dry_run json",
    "crosstask run": "model sources target mixed in_task dev_items k retriever encoder template decode endpoint output "
    "limit seed overwrite dry_run json",
    "crosstask label": "model sources target pool k retriever template least_margin rounds lm_items propagate endpoint "
    "output limit seed overwrite dry_run json",
    "crosstask analyse": "run permutations output seed overwrite json",
    "study best": "source metric where settings lower_is_better higher_is_better output json",
    "sensitivity compare": "run_a run_b bootstrap output seed json",
    "sensitivity check": "run baseline max_increase bootstrap output seed json",
    "bench compare": "run_a run_b bootstrap output seed json",
    "bench run": "model template suite tasks data_dir batch_size max_new_tokens judge_url judge_model output limit "
    "seed overwrite dry_run json",
}
"""Command -> the options on its short page; all of them where it is not named."""
_PLACEHOLDERS = {
    "model": "MODEL", "reference": "MODEL", "data": "DATA", "eval_data": "DATA", "output": "FOLDER", "study": "SPEC",
    "directories": "RUN...", "run": "RUN", "run_a": "A", "run_b": "B", "baseline": "RUN", "source": "STUDY",
    "sources": "TASKS", "target": "TASK", "prompts": "FILE", "sets": "FILE", "shots_data": "FILE", "pool": "FILE",
    "paraphrases": "FILE", "synonyms": "FILE", "chat_template": "FILE", "data_dir": "FOLDER", "endpoint": "URL",
    "judge_url": "URL", "cache": "FOLDER", "embeddings": "FOLDER", "date": "YYYY-MM-DD", "paraphrase_model": "MODEL",
    "meaning_model": "MODEL", "judge_model": "NAME", "tokenizer": "NAME", "in_task": "FILE",
}  # fmt: skip
"""Option -> the word for its value, where its type says too little."""
_ABOUT = {"study plan": "Say what a study would train, measure and cost, without running it."}
"""Command -> what it does, where it shares its options, and so its config class, with another."""
_COLUMN = 27
"""Width of the left column, with the space after it."""


def overview(commands: Mapping[str, type], group: str = "") -> str:
    """Return the commands, or those of a group such as ``"bench "``, each with what it does."""
    import holdfast

    width = _width()
    lines = ["usage: holdfast COMMAND [options]     (holdfast COMMAND --help lists them)", ""]
    lines += [textwrap.fill((holdfast.__doc__ or "").strip(), width), ""]
    column = max(map(len, commands)) + 4
    for name, config_class in commands.items():
        if name.startswith(group):
            lines += _entry(name, _about(name, config_class), width, column)
    if not group:
        lines += [
            "",
            "  holdfast help COMMAND             the same as holdfast COMMAND --help",
            "  holdfast completion SHELL         completion for bash, zsh or fish",
            "  holdfast --version                the version (also -V)",
        ]
    return "\n".join(lines)


def help_page(
    command: str, config_class: type, defaults: Mapping[str, Any], *, whole: bool, width: int | None = None
) -> str:
    """Return the help of a command.

    Args:
        defaults: values of a config file, which are shown instead of the defaults; keys in them are taken out.
        whole: whether all options are shown with their texts.
        width: columns; by default those of the terminal, at most 100, and 80 where there is none.
    """
    width = width or _width()
    lines = [_usage(command, config_class, width), "", textwrap.fill(_about(command, config_class), width), ""]
    hidden = getattr(config_class, "without_effect", ())
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.name not in hidden}
    common = set(COMMON.get(command, " ".join(fields)).split())
    for group, names in _groups(config_class).items():
        listed = [name for name in names if name in fields and (whole or name in common)]
        if listed:
            lines.append(group.capitalize())
        for name in listed:
            lines += _option(config_class, fields[name], redacted_values(dict(defaults)), width, whole=whole)
        if group == "run":
            lines += _entry("--config FILE.yaml", "Options by name, from a file; flags win over it.", width)
        lines += [""] if listed else []
    rest = [_written(config_class, field, {}) for name, field in fields.items() if not whole and name not in common]
    if rest:
        more = f"More options ({len(rest)}; holdfast {command} --help-all explains them): {', '.join(rest)}"
        lines += [_filled(more, width), ""]
    lines.append("Examples")
    for what, arguments in EXAMPLES[command]:
        lines += [f"  # {what}", *_command_line(f"holdfast {command} {arguments}".rstrip(), width)]
    if "training" in fields and not whole:
        lines += [
            "",
            _filled("Names of transformers, TRL and peft are understood (--lr, --num_train_epochs, ...).", width),
        ]
    return "\n".join(lines)


def _width() -> int:
    return min(max(shutil.get_terminal_size((80, 24)).columns, 60), 100)


def _about(command: str, config_class: type) -> str:
    return _ABOUT.get(command) or " ".join((config_class.__doc__ or "").split())


def placeholder(name: str, kinds: Sequence[Any]) -> str:
    """Return the word for the value of an option, after its flag; empty for a switch."""
    if tuple(kinds) == (bool,):
        return ""
    choices = choices_of(kinds)
    if choices:
        return "|".join(choices)
    if any(typing.get_origin(kind) is dict for kind in kinds):
        return "NAME VALUE ..."
    many = " ..." if any(typing.get_origin(kind) is list for kind in kinds) else ""
    numbers = {int: "N", float: "NUMBER"}
    word = _PLACEHOLDERS.get(name) or next((numbers[kind] for kind in kinds if kind in numbers), "TEXT")
    return word + many


def _usage(command: str, config_class: type, width: int) -> str:
    """Return the line of usage: arguments without a flag, what is needed, and that there is more."""
    positional = getattr(config_class, "positional", ())
    words = [_PLACEHOLDERS[name] for name in positional]
    needed = required_options(config_class) - set(positional)
    for name, kinds in kinds_of(config_class).items():
        if name in needed and name != "output":
            words.append(f"{flag_of(name)} {placeholder(name, kinds)}")
    words += ["--output FOLDER"] if "output" in needed else []
    return _filled(f"usage: holdfast {command} {' '.join([*words, '[options]'])}", width)


def _groups(config_class: type) -> dict[str, list[str]]:
    """Return the groups of the options of a command that has any, arguments without a flag first, each in the order of
    ``GROUPS``.
    """
    names = {field.name for field in dataclasses.fields(config_class)}
    positional = list(getattr(config_class, "positional", ()))
    groups = {"arguments": positional} if positional else {}
    for group, listed in GROUPS.items():
        groups[group] = [name for name in listed.split() if name in names and name not in positional]
    return {group: listed for group, listed in groups.items() if listed}


def _option(
    config_class: type, field: dataclasses.Field[Any], defaults: Mapping[str, Any], width: int, *, whole: bool
) -> list[str]:
    kinds, default = kinds_of(config_class)[field.name], default_of(field, defaults)
    flag = _written(config_class, field, defaults)
    word = "FILE" if default == "report.html" else placeholder(field.name, kinds)
    left = f"{flag} {word}".rstrip() if takes_flag(kinds) else f"{field.name} (config file)"
    if field.name in getattr(config_class, "positional", ()):
        left = f"{_PLACEHOLDERS[field.name]} ({flag})"
    text = help_texts(config_class).get(field.name, "")
    told = _default(field.name, default, text, defaults)
    aliases = {alias: name for alias, name in aliases_of(config_class).items() if whole or alias in FORMER}
    others = [flag_of(alias) for alias, name in aliases.items() if name == field.name]
    if others:
        told = f"{told} Also {', '.join(others)}.".strip()
    return _entry(left, f"{text} {told}".strip(), width)


def _written(config_class: type, field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> str:
    """Return the flag of an option, behind its short form if it has one; of a list of tables its name."""
    if not takes_flag(kinds_of(config_class)[field.name]):
        return field.name
    flag = flag_of(field.name, default_of(field, defaults))
    letters = [letter for letter, long in getattr(config_class, "short", {}).items() if long == flag]
    return ", ".join([*letters, flag])


def _default(name: str, default: Any, text: str, defaults: Mapping[str, Any]) -> str:
    """Return the sentence about the default, unless the text of the option has it or there is nothing to say."""
    if name in defaults:
        return f"In the config file: {default}."
    if default is dataclasses.MISSING:
        return "Required."
    if isinstance(default, bool) or default in (None, "") or default in ([], {}) or "Default" in text:
        return ""
    return f"Default: {f'{default:g}' if isinstance(default, float) else default}."


def _entry(left: str, text: str, width: int, column: int = _COLUMN) -> list[str]:
    """Return an option in two columns; a left side that is too long stands above its text."""
    lines = textwrap.wrap(text, width - column, break_long_words=False, break_on_hyphens=False)
    heads = _cut_at_bars(left, width)
    pad = " " * column
    if len(heads) == 1 and len(heads[0]) + 1 < column and lines:
        heads = [f"{heads[0]:<{column}}{lines.pop(0)}"]
    return [*heads, *(pad + line for line in lines)]


def _cut_at_bars(left: str, width: int) -> list[str]:
    """Return a left side in lines, cut between its choices where it is too wide."""
    heads = ["  "]
    for part in re.split(r"(?<=\|)", left):
        if len(heads[-1] + part) > width:
            heads.append(" " * 6)
        heads[-1] += part
    return heads


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def _command_line(text: str, width: int) -> list[str]:
    """Return a command in lines that a shell takes as one; a flag stays beside its value."""
    joined = re.sub(r"(--[a-z-]+) (?!-)", "\\1\0", text)
    lines = textwrap.wrap(joined, width - 6, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    return ["  " + " \\\n  ".join(lines).replace("\0", " ")]
