"""How options look on the command line: the text of their help, their groups, and the classes that tyro reads.

config class -> one class per group -> tyro -> values -> config class. The groups are a matter of ``--help`` only: a
config is flat, and so are its YAML keys.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from typing import Annotated, Any

from holdfast.config.names import aliases_of, option_names

GROUPS: dict[str, str] = {
    "model": "model reference tokenizer dtype trust_remote_code template chat_template chat_template_kwargs "
    "stop chat system date",
    "data": "data prepared data_share columns roles joint layout eval_data eval_share "
    "max_length truncation skip_bad_rows sets prompts sources target mixed "
    "in_task in_task_k in_task_retriever with_in_task dev_items pool suite tasks data_dir run run_a run_b baseline "
    "directories study source where settings shots shots_data shots_layout",
    "weights": "prompt_weight response_weight preset weights spans turns normalizer adaptive adaptive_on by keep "
    "rest scope",
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
"""Group of ``--help`` -> its options, of all commands. Every option of every command stands in one (a test looks)."""


@functools.cache
def group_of(name: str) -> str:
    """Return the group in which an option is listed; an option that no group names stands with those of the run."""
    for group, names in GROUPS.items():
        if name in names.split():
            return group
    return "run"


@functools.cache
def help_texts(config_class: type) -> dict[str, str]:
    """Return the help text of every option: the string under it in the source of its class or of a parent."""
    texts: dict[str, str] = {}
    for base in reversed(config_class.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for statement, text in itertools.pairwise(body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(text, ast.Expr):
                continue
            if isinstance(text.value, ast.Constant):
                texts[ast.unparse(statement.target)] = " ".join(str(text.value.value).split())
    for alias, name in aliases_of(config_class).items():
        spelled = f"--{alias.replace('_', '-')}"
        start = texts.get(name, "")
        texts[name] = f"{start[:-1]}, {spelled}." if " Also --" in start else f"{start} Also {spelled}."
    return texts


def grouped(config_class: type, defaults: dict[str, Any]) -> type:
    """Return a class for tyro that has one class of options per group; ``defaults`` go over those of the config class.

    A table that has values already, such as ``weights`` of a YAML file, becomes one option per key, ``--weights.user``.
    """
    groups: dict[str, list[Any]] = {group: [] for group in GROUPS}
    for field in dataclasses.fields(config_class):
        groups[group_of(field.name)] += _options(config_class, field, defaults)
    classes = [
        (group, dataclasses.make_dataclass(group, options, kw_only=True))
        for group, options in groups.items()
        if options
    ]
    return dataclasses.make_dataclass("Options", classes, kw_only=True)


def ungrouped(config_class: type, options: Any) -> dict[str, Any]:
    """Return the values of the groups that tyro has filled, under the names of the config class's options."""
    values: dict[str, Any] = {}
    for group in vars(options).values():
        for name, value in vars(group).items():
            option, _, number = name.partition(_KEY)
            if number:
                hint = next(field for field in dataclasses.fields(group) if field.name == name)
                values.setdefault(option, {})[hint.metadata["key"]] = value
            else:
                values[option] = value
    return {name: values[name] for name in option_names(config_class)}


_KEY = "__key"
"""Between the name of a table and the number of its key, in a class for tyro."""


def _options(config_class: type, field: dataclasses.Field[Any], defaults: dict[str, Any]) -> list[Any]:
    """Return the option as fields of a class for tyro: one, or one per key of a table that has values already."""
    import tyro

    kind = typing.get_type_hints(config_class)[field.name]
    text = help_texts(config_class).get(field.name, "")
    value = defaults.get(field.name)
    hidden = tyro.conf.Suppress if field.name in getattr(config_class, "without_effect", ()) else None
    if not isinstance(value, dict) or not value:
        return [(field.name, Annotated[kind, tyro.conf.arg(help=text), hidden], _default(field, defaults))]
    item: Any = typing.get_args(kind)[1]
    options: list[Any] = []
    for number, (key, entry) in enumerate(value.items()):
        spelled = f"{field.name}.{key}".replace("_", "-")
        option = Annotated[item, tyro.conf.arg(name=spelled, help=text)]
        options.append((f"{field.name}{_KEY}{number}", option, dataclasses.field(default=entry, metadata={"key": key})))
    return options


def _default(field: dataclasses.Field[Any], defaults: dict[str, Any]) -> Any:
    """Return the default of an option as a dataclass field, from the config file if that has it."""
    if field.name in defaults:
        value = defaults[field.name]
        return dataclasses.field(default_factory=lambda: value)
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)
