"""Config -> checked data -> plan.

Everything that can be wrong with the input comes to light here, before a byte is written.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, filterfalse
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.config import AlignConfig, TuneConfig
from holdfast.data.chat_template import check_used, prepare, with_kwargs
from holdfast.data.columns import all_unused, tell
from holdfast.data.examples import load_examples
from holdfast.data.files import say
from holdfast.data.read import source_digest, with_held_out
from holdfast.data.shapes import shape_of
from holdfast.data.sources import draw, draw_epochs, name_of, shares_of, sizes_of, sources_of
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Example, Role, Tokens, named_roles
from holdfast.tables.text import counted
from holdfast.tune import adaptive
from holdfast.tune.arguments import Schedule, check_training, settled
from holdfast.tune.roles import TokenReport, count_targets, tokenize
from holdfast.tune.spans import span_rules
from holdfast.tune.weights import RoleWeights, prompt_share, role_weights, scale_twin, share_counts

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Tokenizer, size of the model and tokenised data.

    Trainings that differ only in weights or optimisation can share one.
    """

    tokenizer: Any
    parameters: int
    train: list[Tokens]
    held_out: list[Tokens]
    report: TokenReport
    bad_rows: list[str]
    max_length: int
    data_sources: list[dict[str, Any]] = field(default_factory=list, kw_only=True)
    draws_EN: Places | None = field(default=None, kw_only=True)
    date: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class TrainingPlan(Source, Schedule):
    """A checked config and its data: what will be trained on what, with every default resolved."""

    config: TuneConfig
    weights: RoleWeights

    @property
    def share(self) -> float:
        """Effective prompt share of the weighted target mass in the training data."""
        report = self.report
        counted, weighted = report.counted_targets, report.weighted_targets
        if self.draws_EN is not None:
            times = np.bincount(self.draws_EN.ravel(), minlength=len(self.train))
            _, counted, weighted = count_targets(self.train, times)
        return prompt_share(share_counts(self.config.normalizer, weighted, counted), self.weights)

    def resolved(self) -> dict[str, Any]:
        """The values that the config left open, for config.json."""
        return {
            "data_digest": data_digest(self.config),
            **({"data_sources": self.data_sources} if self.data_sources else {}),
            "weights": {role.label: self.weights[role] for role in named_roles(self.report.targets)},
            "prompt_share": self.share,
            "max_length": self.max_length,
            **super().resolved(),
            "templates": dict(self.report.templates),
        }


def make_plan(config: TuneConfig, source: Source | None = None) -> TrainingPlan:
    """Check the config; read and tokenise the data, unless there is a ``source`` to use. Loads no weights.

    Raises:
        HoldfastError: bad input, with file and row.
    """
    config = settled(config)
    weights = check_config(config)
    _warn_twin(config, weights)
    source = source or read_source(config)
    micro_batch, accumulation = split_batch(config)
    return TrainingPlan(
        **vars(source),
        config=config,
        weights=weights,
        learning_rate=config.learning_rate or default_learning_rate(source.parameters, lora=config.lora_rank > 0),
        micro_batch=micro_batch,
        accumulation=accumulation,
        steps=count_steps(config, len(source.train) if source.draws_EN is None else source.draws_EN.shape[1]),
    )


def check_config(config: TuneConfig) -> RoleWeights:
    """The weights of the roles, after everything was checked that needs no data.

    Raises:
        HoldfastError: a number out of its range, a bad weight, or a tracker that is not installed.
    """
    check_training(config)
    check_trackers(config)
    adaptive.parse(config.adaptive)
    span_rules(config.spans)
    if config.row is not None and not config.dry_run:
        raise HoldfastError("--row shows a row, without training", hint="give --dry-run, too")
    return role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)


def count_steps(config: TuneConfig | AlignConfig, examples: int) -> int:
    """Optimizer steps of a training on so many examples."""
    per_epoch = _steps_per_epoch(config, examples)
    return config.max_steps if config.max_steps > 0 else math.ceil(per_epoch * (config.epochs or 1))


def _steps_per_epoch(config: TuneConfig | AlignConfig, examples: int) -> int:
    _, accumulation = split_batch(config)
    return math.ceil(math.ceil(examples * accumulation / config.batch_size) / accumulation)


def read_source(config: TuneConfig, *, refuse_ids: bool = True) -> Source:
    """Read and tokenise the data. Loads the tokenizer but no weights. Without ``refuse_ids`` ids may be beyond the
    embedding.

    Raises:
        HoldfastError: bad input, with file and row.
    """
    weights = role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)
    bad_rows: list[str] | None = [] if config.skip_bad_rows else None
    read = partial(
        load_examples,
        layout=config.layout,
        needs_response=any(weights[role] for role in RESPONSE_ROLES),
        bad_rows=bad_rows,
        shape=shape_of(config),
    )
    data = train_and_held_out(config, read, bad_rows)
    source = encode_source(config, data.train, data.held_out, bad_rows, refuse_ids=refuse_ids)
    draws_EN, counts = drawn_rows(config, [tokens.source for tokens in source.train], data.rows)
    return replace(source, draws_EN=draws_EN, data_sources=counts)


class RowsRead(NamedTuple):
    """What was read to train on and to evaluate on, and how many rows each source has."""

    train: list[Any]
    held_out: list[Any]
    rows: list[int]


def train_and_held_out(
    config: TuneConfig | AlignConfig, read: Callable[..., list[Any]], bad_rows: list[str] | None
) -> RowsRead:
    """Return what ``read`` reads of --data, and of --eval-data, of the held-out split of --data or the share that is
    split off; say what is not used. With --data-share these are the rows that all epochs need, and no more.
    """
    sources = sources_of(config.data)
    shares = shares_of(config.data_share, sources)
    finds_split = config.eval_data is None and config.eval_share > 0
    pairs = [with_held_out(source) if finds_split else (source, None) for source in sources]
    parts = [_numbered(read(source, limit=config.limit), number) for number, (source, _) in enumerate(pairs)]
    splits = [split for _, split in pairs if split]
    train = [*chain.from_iterable(draw(parts, shares, config.seed))]
    if config.eval_data is not None:
        held_out = read(config.eval_data)
    elif splits:
        held_out = [*chain.from_iterable(read(part, limit=config.limit) for part in splits)]
    else:
        train, held_out = split(train, config.eval_share, config.seed)
    if shares is not None and config.data_draw == "epoch":
        out = set(map(id, held_out))
        left = [list(filterfalse(lambda item: id(item) in out, part)) for part in parts]
        epochs = _epochs_begun(config, sum(sizes_of([*map(len, left)], shares)))
        train = [*chain.from_iterable(draw(left, shares, config.seed, epochs))]
    tell_rows(name_of(config.data), [*train, *held_out], bad_rows)
    return RowsRead(train, held_out, [*map(len, parts)])


def _numbered(items: Iterable[Any], source: int) -> list[Any]:
    return [replace(item, source=source) for item in items]


def drawn_rows(
    config: TuneConfig | AlignConfig, source_of_N: list[int], rows: list[int]
) -> tuple[Places | None, list[dict[str, Any]]]:
    """Return which of the N examples to train on each epoch has (None: all), and for the summary the counts of each of
    several sources: rows read, rows per epoch, and different rows in all epochs that are begun.

    Args:
        source_of_N: the number of the source of each example, in order.
        rows: how many rows each source has.
    """
    sources = sources_of(config.data)
    if len(sources) == 1:
        return None, []
    shares, draws_EN = shares_of(config.data_share, sources), None
    by_source = np.asarray(source_of_N, np.int64)
    sizes = per_epoch = distinct = np.bincount(by_source, minlength=len(sources)).tolist()
    if shares is not None and config.data_draw == "epoch":
        epochs = _epochs_begun(config, sum(sizes_of(sizes, shares)))
        draws_EN = np.asarray(draw_epochs(sizes, shares, config.seed, epochs), np.int64)
        per_epoch, distinct = (
            np.bincount(by_source[places], minlength=len(sources)).tolist()
            for places in (draws_EN[0], np.unique(draws_EN))
        )
    columns = zip(sources, rows, per_epoch, distinct, strict=True)
    return draws_EN, [dict(zip(("source", "rows", "drawn", "distinct"), row, strict=True)) for row in columns]


def _epochs_begun(config: TuneConfig | AlignConfig, examples: int) -> int:
    """How many epochs a training begins that has so many examples in each."""
    return max(1, math.ceil(count_steps(config, examples) / max(1, _steps_per_epoch(config, examples))))


def encode_source(
    config: TuneConfig,
    examples: list[Example],
    held_out: list[Example],
    bad_rows: list[str] | None,
    *,
    refuse_ids: bool = True,
) -> Source:
    """The second half of ``read_source``: tokenise what has been read."""
    from holdfast import lm as models

    weights = role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)
    tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    model_config = models.load_config(config.model, trust_remote_code=config.trust_remote_code)
    kwargs = prepare(tokenizer, config.chat_template, config.chat_template_kwargs, config.stop)
    date = models.print_date(tokenizer, config.date)
    examples, held_out = with_kwargs(examples, kwargs), with_kwargs(held_out, kwargs)
    if any(weights[role] for role in RESPONSE_ROLES) and tokenizer.eos_token_id is None and config.stop is None:
        raise HoldfastError(
            f"{config.model}: the tokenizer has no EOS token, so the model could not learn to stop",
            hint="set eos_token in its tokenizer_config.json, or name the token that ends a response with --stop",
        )
    parameters = models.count_parameters(model_config)
    max_length = check_length(config, model_config, tokenizer)
    encode = partial(
        tokenize, tokenizer=tokenizer, weights=weights, max_length=max_length,
        template=config.template, truncation=config.truncation, bad_rows=bad_rows,
        turns=config.turns, spans=span_rules(config.spans),
    )  # fmt: skip
    train_tokens, report = encode(examples)
    check_used(config.chat_template, report.templates)
    report.columns_not_used = all_unused([*examples, *held_out])
    tell_plain(config.model, config.template, tokenizer, report.templates)
    _check_left(config, train_tokens, report, bad_rows or [], max_length)
    held_out_tokens, _ = encode(held_out)
    if refuse_ids:
        check_ids(config.model, tokenizer, model_config, (tokens.ids for tokens in (*train_tokens, *held_out_tokens)))
    return Source(tokenizer, parameters, train_tokens, held_out_tokens, report, bad_rows or [], max_length, date=date)


def tell_rows(source: str, items: list[Any], bad_rows: list[str] | None) -> None:
    """Say on stderr what of the rows is not used: columns, and bad rows."""
    tell(source, all_unused(items))
    if bad_rows:
        print(f"warning: {counted(len(bad_rows), 'bad row')} left out; the first: {bad_rows[0]}", file=sys.stderr)


def tell_plain(model: str, template: str, tokenizer: Any, templates: Mapping[str, int]) -> None:
    """Say which rows are trained as plain text though the tokenizer has a chat template, and how to use that."""
    plain = {name: count for name, count in templates.items() if name != "chat"}
    if template == "auto" and tokenizer.chat_template and plain and not model.startswith("pocket"):
        counts = ", ".join(f"{count:,} by the template '{name}'" for name, count in plain.items())
        say(
            f"rows without turns are trained as plain text ({counts}), without the chat template of {model}; "
            "--template chat makes each a question and an answer of a chat"
        )


def data_digest(config: TuneConfig | AlignConfig) -> list[str | None]:
    """Of --data and --eval-data."""
    return [source_digest(config.data), source_digest(config.eval_data)]


def default_learning_rate(parameters: int, *, lora: bool = False) -> float:
    """Return 2e-5 (the paper's), or 2e-4 with LoRA, for models of 1 B parameters and more.

    Smaller models get sqrt(1 B / parameters) times that, at most 1e-3.
    """
    return float(min(1e-3, (2e-4 if lora else 2e-5) * max(1.0, (1e9 / parameters) ** 0.5)))


def check_length(config: TuneConfig | AlignConfig, model_config: Any, tokenizer: Any) -> int:
    """Longest example in tokens.

    Raises:
        HoldfastError: --max-length is more than the model takes.
    """
    from holdfast.lm import context_length

    context = context_length(model_config, tokenizer)
    if config.max_length is not None and not 2 <= config.max_length <= context:
        raise HoldfastError(f"--max-length {config.max_length}: the model takes 2 to {context} tokens")
    return config.max_length or min(context, 4096)


def check_ids(model: str, tokenizer: Any, model_config: Any, sequences: Iterable[Any]) -> None:
    """Every id of the data, and the one that pads, has a row in the model's embedding.

    Raises:
        HoldfastError: names the token.
    """
    from holdfast.lm import pad_id

    rows = getattr(model_config.get_text_config(), "vocab_size", None)
    largest = max([pad_id(tokenizer), *(int(max(ids)) for ids in sequences if len(ids))])
    if rows is not None and largest >= rows:
        raise HoldfastError(
            f"{model}: the tokenizer gives id {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}), and the "
            "model's "
            f"embedding has {rows} rows",
            hint="use the model's own tokenizer, or save the model after model.resize_token_embeddings(len(tokenizer))",
        )


def split(examples: list[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """A seeded split; order is kept within each part. At least one example on each side if the share is not 0."""
    if share == 0 or len(examples) < 2:
        return examples, []
    size = min(max(1, round(share * len(examples))), len(examples) - 1)
    out = set(random.Random(seed).sample(range(len(examples)), size))
    return [e for i, e in enumerate(examples) if i not in out], [e for i, e in enumerate(examples) if i in out]


def split_batch(config: TuneConfig | AlignConfig) -> tuple[int, int]:
    """Largest micro-batch within the limit that divides the examples per device, and the accumulation steps."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if config.batch_size % world:
        raise HoldfastError(f"--batch-size {config.batch_size} does not divide over {world} devices")
    per_device = config.batch_size // world
    micro = max(d for d in range(1, min(config.micro_batch_size, per_device) + 1) if per_device % d == 0)
    return micro, per_device // micro


def _check_left(
    config: TuneConfig, tokens: list[Tokens], report: TokenReport, bad_rows: list[str], max_length: int
) -> None:
    """Say what truncation left out; refuse if that is everything."""
    unusable = report.prompt_too_long
    if not tokens:
        lost = [f"{report.dropped} longer than {max_length} tokens"] if report.dropped else []
        lost += [f"{len(unusable)} whose prompt fills the {max_length} tokens of context"] if unusable else []
        lost += [f"{len(bad_rows)} bad"] if bad_rows else []
        raise HoldfastError(
            f"{name_of(config.data)}: no example is left: {', '.join(lost)}; the first: "
            f"{[*unusable, *bad_rows, f'{report.longest} tokens'][0]}",
            hint="use --truncation keep-end, which cuts prompts at their start, or a larger --max-length",
        )
    if unusable:
        print(
            f"warning: {len(unusable)} examples left out, as their prompt fills the {max_length} tokens of context; "
            f"first: {unusable[0]}\n"
            "  hint: --truncation keep-end cuts prompts at their start instead",
            file=sys.stderr,
        )


def check_trackers(config: TuneConfig | AlignConfig) -> None:
    """Every package of --report-to is installed, or it is a ``HoldfastError``."""
    for name in () if config.report_to == "none" else config.report_to.split(","):
        if importlib.util.find_spec(name) is None:
            raise HoldfastError(f"--report-to {name}: the package is not installed", hint=f"pip install {name}")


def _warn_twin(config: TuneConfig, weights: RoleWeights) -> None:
    pair = (weights[Role.USER], weights[Role.ASSISTANT])
    twin = scale_twin(*pair) if not config.weights and any(pair) else None
    if twin and not config.max_grad_norm:
        print(
            f"warning: weights {pair} are a scaled copy of '{twin}': under AdamW without clipping only the ratio "
            "matters, so both train the same model",
            file=sys.stderr,
        )
