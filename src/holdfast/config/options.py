"""Options on the command line: their groups, their texts, and how arguments become a config.

arguments -> checked here, so that every error is in our words -> tyro, which reads the values -> config class. The
groups are a matter of ``--help`` only: a config is flat, and so are its YAML keys.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import difflib
import functools
import inspect
import io
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from holdfast.config.names import option_names, required_options, suggestion
from holdfast.errors import HoldfastError, nearest

GROUPS: dict[str, str] = {
    "weights": "prompt_weight response_weight preset weights spans turns normalizer adaptive adaptive_on by keep "
    "rest scope scored",
    "model": "model reference tokenizer dtype trust_remote_code template chat_template chat_template_kwargs "
    "stop chat system date",
    "data": "data prepared data_share data_draw columns roles joint layout eval_data eval_share "
    "max_length truncation skip_bad_rows sets prompts sources target mixed "
    "in_task in_task_k in_task_retriever with_in_task dev_items pool suite tasks data_dir run run_a run_b baseline "
    "directories study source where settings shots shots_data shots_layout",
    "optimisation": "recipe loss beta epochs max_steps learning_rate schedule warmup_ratio weight_decay max_grad_norm "
    "batch_size micro_batch_size batching lora_rank lora_alpha lora_dropout precision head gradient_checkpointing "
    "training",
    "prompts": "k retriever encoder embed_text embeddings pool_limit order label_line shorten variants per_kind "
    "paraphrases synonyms paraphrase_model min_meaning meaning_model",
    "answers": "decode score calibration rule max_new_tokens context answers equality same_meaning repeats temperature "
    "reasoning_effort",
    "measure": "states pairs mixture definition bootstrap permutations max_increase audit_share metric "
    "lower_is_better higher_is_better least_margin rounds lm_items propagate neighbours alpha calibrate",
    "server": "backend endpoint api price_in price_out budget max_requests concurrency timeout retries judge_url "
    "judge_model judge_python judge_concurrency judge_timeout judge_retries",
    "saving": "log_steps eval_steps save_steps keep_checkpoints save_best patience report_to cache format title",
    "run": "output limit seed overwrite dry_run row json exact token_budget strict cluster workers slots",
}
"""Group of ``--help`` -> its options, of all commands, in order. Every option of every command stands in one (a test
looks).
"""
_SWITCH = {"true": True, "false": False}
_KEY = "__key"
"""Between the name of a table and the number of its key, in the class for tyro."""


@functools.cache
def group_of(name: str) -> str:
    """Return the group in which an option is listed; an option that no group names stands with those of the run."""
    for group, names in GROUPS.items():
        if name in names.split():
            return group
    return "run"


@functools.cache
def help_texts(config_class: type) -> dict[str, str]:
    """Return the help text of every option: the string under it in the source of its class or of a parent. The field's
    names for it are not in it.
    """
    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for statement, text in itertools.pairwise(body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(text, ast.Expr):
                continue
            if isinstance(text.value, ast.Constant):
                texts[ast.unparse(statement.target)] = " ".join(str(text.value.value).split())
    return texts


@functools.cache
def kinds_of(config_class: type) -> dict[str, tuple[Any, ...]]:
    """Return the types that the value of every option may have; ``None`` is among them as ``type(None)``."""
    kinds: dict[str, tuple[Any, ...]] = {}
    for name, hint in typing.get_type_hints(config_class).items():
        if name in option_names(config_class):
            is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            kinds[name] = typing.get_args(hint) if is_union else (hint,)
    return kinds


def choices_of(kinds: Sequence[Any]) -> tuple[str, ...]:
    """Return the words among which an option of these types chooses; none where it takes other values."""
    return next((typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is Literal), ())


def takes_flag(kinds: Sequence[Any]) -> bool:
    """Return whether an option of these types can be a flag; a list of tables is for the config file."""
    return not any(typing.get_origin(kind) is list and typing.get_args(kind)[0] is not str for kind in kinds)


def flag_of(name: str, default: Any = None) -> str:
    """Return the flag of an option, which for a switch that is on says ``--no-``."""
    return f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def default_of(field: dataclasses.Field[Any], defaults: Mapping[str, Any]) -> Any:
    """Return the default of an option, from the config file if that has it; ``dataclasses.MISSING`` for none."""
    if field.name in defaults:
        return defaults[field.name]
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def read_arguments(config_class: type, arguments: Sequence[str], defaults: Mapping[str, Any], command: str) -> Any:
    """Return the config that the arguments of a command ask for, over ``defaults``, the values of its config file.

    A table that has values already, such as ``weights`` of a YAML file, has one option per key, ``--weights.user``.

    Raises:
        HoldfastError: an option is unknown (said first), lacks its value, has one of another type, or is missing.
    """
    import tyro

    flags = _flags(config_class, defaults)
    ours = _checked(config_class, flags, list(arguments), command)
    missing = required_options(config_class) - defaults.keys() - {flags[word].name for word in ours if word in flags}
    if missing:
        names = [flag_of(name) for name in option_names(config_class) if name in missing]
        text = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
        raise HoldfastError(f"{command}: {text} missing", hint=f"{command} --help shows examples")
    fields = [_for_tyro(flag) for flag in flags.values()]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            options: Any = tyro.cli(
                dataclasses.make_dataclass("Options", fields, kw_only=True),
                prog=command,
                args=ours,
                add_help=False,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        except SystemExit:  # something that is not looked for above: tyro's words without its box
            words = " ".join(re.sub(r"[\u2500-\u257f]+", " ", said.getvalue()).split())
            raise HoldfastError(f"{command}: {words}", hint=f"{command} --help lists the options") from None
    values = copy.deepcopy(dict(defaults))
    for flag in flags.values():
        value = getattr(options, flag.attribute)
        if flag.key is None:
            values[flag.name] = value
        else:
            values[flag.name][flag.key] = value
    return config_class(**values)


@dataclasses.dataclass(frozen=True)
class _Flag:
    """A flag as it is written: of which option, in a table of which key, what it takes, and its default."""

    name: str
    word: str
    attribute: str
    hint: Any
    kinds: tuple[Any, ...]
    default: Any
    key: Any = None

    @property
    def is_switch(self) -> bool:
        return self.kinds == (bool,)

    @property
    def takes_many(self) -> bool:
        return any(typing.get_origin(kind) in (list, dict) for kind in self.kinds)


def _flags(config_class: type, defaults: Mapping[str, Any]) -> dict[str, _Flag]:
    """Return the flags of a command by how they are written, with hyphens."""
    flags: list[_Flag] = []
    hints, kinds = typing.get_type_hints(config_class), kinds_of(config_class)
    for field in dataclasses.fields(config_class):
        name, default = field.name, default_of(field, defaults)
        if not takes_flag(kinds[name]) or name in getattr(config_class, "without_effect", ()):
            continue
        if not isinstance(default, dict) or not default:
            flags.append(_Flag(name, flag_of(name, default), name, hints[name], kinds[name], default))
            continue
        item = typing.get_args(hints[name])[1]
        for number, (key, value) in enumerate(default.items()):
            word = flag_of(f"{name}.{key}")
            flags.append(_Flag(name, word, f"{name}{_KEY}{number}", item, (item,), value, key))
    return {flag.word: flag for flag in flags}


def _for_tyro(flag: _Flag) -> Any:
    """Return the flag as a field of the class that tyro reads."""
    import tyro

    hint = flag.hint
    if flag.key is not None:
        hint = Annotated[hint, tyro.conf.arg(name=flag.word.removeprefix("--"))]
    if flag.default is dataclasses.MISSING:
        return flag.attribute, hint
    return flag.attribute, hint, dataclasses.field(default_factory=lambda: flag.default)


def _checked(config_class: type, flags: Mapping[str, _Flag], queue: list[str], command: str) -> list[str]:
    """Return the arguments with hyphens in their flags and without what says nothing (``--dry-run true``).

    Raises:
        HoldfastError: what does not fit, an unknown option first.
    """
    ours: list[str] = []
    unknown: list[HoldfastError] = []
    wrong: list[HoldfastError] = []
    while queue:
        argument = queue.pop(0)
        word, equals, text = argument.partition("=")
        word = word.replace("_", "-")
        flag = flags.get(word) or _switch(flags, word)
        if not _is_flag(argument):
            unknown.append(HoldfastError(f"{command}: unexpected argument '{argument}'", hint=_meant(argument, flags)))
            continue
        values = [text] if equals else _values(queue, flag)
        if flag is None:
            name = word.lstrip("-").replace("-", "_")
            hint = suggestion(config_class, name, " ".join(values) or None) or _meant(word, flags)
            unknown.append(HoldfastError(f"{command}: unknown option '{argument.partition('=')[0]}'", hint=hint))
            continue
        problem = _problem(flag, values)
        if problem:
            hint = problem[1] or f"{command} --help lists the options"
            wrong.append(HoldfastError(f"{command}: {word} {problem[0]}", hint=hint))
        elif flag.is_switch:
            wanted = _SWITCH[values[0].lower()] if values else True
            ours += [flag.word] if (wanted != word.startswith("--no-")) != flag.default else []
        else:
            ours += [word, *values]
    for error in (*unknown, *wrong):
        raise error
    return ours


def _switch(flags: Mapping[str, _Flag], word: str) -> _Flag | None:
    """Return the flag of a switch by its other form, ``--json`` where a config file has it on and ``--no-json`` is."""
    named = word.removeprefix("--no-") if word.startswith("--no-") else word.removeprefix("--")
    flag = flags.get(f"--{named}") or flags.get(f"--no-{named}")
    return flag if flag and flag.is_switch else None


def _is_flag(argument: str) -> bool:
    return re.match(r"--?[A-Za-z]", argument) is not None


def _values(queue: list[str], flag: _Flag | None) -> list[str]:
    """Take the values of a flag from what follows it: up to the next flag, and no more than it takes."""
    values: list[str] = []
    while queue and not _is_flag(queue[0]):
        if flag and flag.is_switch and queue[0].lower() not in _SWITCH:
            break
        values.append(queue.pop(0))
        if flag and not flag.takes_many:
            break
    return values


def _meant(word: str, flags: Mapping[str, _Flag]) -> str:
    near = difflib.get_close_matches(word.lstrip("-"), [flag.lstrip("-") for flag in flags], n=1, cutoff=0.7)
    return f"did you mean '--{near[0]}'?" if near else "--help-all lists all options"


def _problem(flag: _Flag, values: Sequence[str]) -> tuple[str, str | None] | None:
    """Return what is wrong with the values of a flag, and a hint or None; None where they fit."""
    if flag.is_switch:
        if not values or values[0].lower() in _SWITCH:
            return None
        return f"is '{values[0]}'; it is on where it stands, and takes true or false", None
    table = next((kind for kind in flag.kinds if typing.get_origin(kind) is dict), None)
    if table is not None:
        kinds: tuple[Any, ...] = (typing.get_args(table)[1],)
        if len(values) % 2:
            return f"takes pairs of a name and a value; it has {' '.join(values)}", f"{flag.word} NAME VALUE NAME VALUE"
        values = values[1::2]
    elif flag.takes_many:
        return None if values or typing.get_origin(flag.kinds[0]) is list else ("has no value", None)
    else:
        kinds = flag.kinds
        if not values:
            return "has no value", f"{flag.word}=VALUE also takes a value that begins with a hyphen"
    for value in values:
        wanted = _wanted(kinds, value)
        if wanted:
            return f"is '{value}'; it must be {wanted}", nearest(value, choices_of(kinds))
    return None


def _wanted(kinds: Sequence[Any], value: str) -> str | None:
    """Return what a value must be, or None if it is of one of these types."""
    choices = choices_of(kinds)
    if str in kinds or value in choices or (type(None) in kinds and value == "None"):
        return None
    if choices:
        return f"one of {', '.join(choices)}"
    number = float if float in kinds else int
    try:
        number(value)
    except ValueError:
        return "a number" if number is float else "a whole number"
    return None
