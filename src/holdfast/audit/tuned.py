"""What `tune` would train on -> rows to audit. No weights of a model are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.audit.record import AuditContext, AuditRow, Case, Kind, Material
from holdfast.config import AuditConfig, with_recipe
from holdfast.data.columns import NOT_USED
from holdfast.data.conversation import stop_texts
from holdfast.data.files import say
from holdfast.lm import load_config
from holdfast.records import Role, Tokens
from holdfast.tables.text import counted
from holdfast.tune.plan import Source, read_source
from holdfast.tune.roles import stop_ids
from holdfast.tune.weights import RoleWeights, role_weights

_ROLES = tuple(Role)


def tuned(config: AuditConfig) -> Material:
    """Return the rows that `tune` with the same options would train on, with the weights that it would give them.

    Rows that `tune` refuses are cases, unless ``skip_bad_rows`` says that they are meant to be left out.

    Raises:
        HoldfastError: what has no rows: a file that cannot be read, no example that is left, a bad option.
    """
    config = with_recipe(config)
    weights = role_weights(config.prompt_weight, config.response_weight, config.preset, config.weights)
    to_read = dataclasses.replace(config, skip_bad_rows=True)
    if config.eval_data is not None:  # nothing of --data is held out then, and what is held out is not looked at
        to_read = dataclasses.replace(to_read, eval_data=None, eval_share=0.0)
    source = read_source(to_read, refuse_ids=False)
    context = context_of(config, source.tokenizer, weights)
    context = dataclasses.replace(context, stop_ids=context.stop_ids | _taught_stops(source))
    refused = () if config.skip_bad_rows else tuple(map(_refused, source.bad_rows))
    resolved = {
        "weights": {role.label: weights[role] for role in Role if role},
        "templates": dict(source.report.templates),
        "max_length": source.max_length,
        "stops": sorted(map(str, source.tokenizer.convert_ids_to_tokens(sorted(context.stop_ids)))),
        "date": source.date,
        "columns_not_used": source.report.columns_not_used,
        **({"data_sources": source.data_sources} if source.data_sources else {}),
    }
    rows = tuple(rows_of(source.report.places, source.train, weights))
    return Material(rows, context, tuple(_not_seen(config, source)), refused, resolved)


def context_of(config: AuditConfig, tokenizer: Any, weights: Mapping[Role, float] | None) -> AuditContext:
    """Return what rows are judged by: the model's own ids, and the weights that are asked for."""
    model_config = load_config(config.model, trust_remote_code=config.trust_remote_code)
    stops = [*tokenizer.convert_tokens_to_ids(list(stop_texts(tokenizer))), tokenizer.eos_token_id]
    return AuditContext(
        tokenizer=tokenizer,
        model=config.model,
        stop_ids=frozenset(stop for stop in stops if stop is not None),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        embedding_rows=getattr(model_config.get_text_config(), "vocab_size", None),
        role_weights=weights,
        date=config.date,
        normalizer=config.normalizer,
    )


def rows_of(places: Sequence[str], examples: Sequence[Tokens], weights: RoleWeights) -> Iterator[AuditRow]:
    """Yield tokenised examples as rows; the weight of a token is that of its role times the factors of the row."""
    table = np.asarray([weights[role] for role in Role], dtype=np.float64)
    same: dict[float, float] = {}  # one object per weight, not one per token
    for place, tokens in zip(places, examples, strict=True):
        per_token = table[tokens.roles] * (1.0 if tokens.scale is None else tokens.scale)
        values = tuple(same.setdefault(weight, weight) for weight in per_token.tolist())
        roles = tuple(_ROLES[role] for role in tokens.roles.tolist())
        yield AuditRow(place, tuple(tokens.ids.tolist()), values, roles)


def tell_without_effect(config: AuditConfig) -> None:
    """Say which options are stated that change nothing in an audit."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    idle = [name for name in sorted(config.without_effect) if getattr(config, name) not in (defaults[name], {})]
    if idle:
        say(f"options of the training play no part in an audit: {', '.join(idle)}")


def _taught_stops(source: Source) -> frozenset[int]:
    """The special tokens that end responses of the rows: `tune` saves the model so that it stops on them, too."""
    ends = set[int]().union(*map(stop_ids, source.train))
    return frozenset(ends & {*source.tokenizer.all_special_ids, *source.tokenizer.get_added_vocab().values()})


def _refused(message: str) -> Case:
    """A row that `tune` refuses, as a case: its place is the message, which names file and row."""
    kind = Kind.KEYS_NOT_USED if NOT_USED in message else Kind.ROWS_REFUSED
    return Case(kind, AuditRow(message, (), ()), 0, 0)


def _not_seen(config: AuditConfig, source: Source) -> Iterator[str]:
    """What the audit did not look at, and why."""
    report, limit = source.report, f"{source.max_length:,} tokens"
    if config.eval_data is not None:
        yield f"held out, and not looked at: {config.eval_data}"
    if source.held_out:
        yield f"held out, and not looked at: {counted(len(source.held_out), 'row')}"
    if report.truncated:
        yield f"cut to {limit}: {counted(report.truncated, 'row')}, by {counted(report.tokens_cut, 'token')} in all"
    if report.dropped:
        yield f"left out, as longer than {limit}: {counted(report.dropped, 'row')}"
    if report.prompt_too_long:
        yield f"left out, as the prompt fills the {limit}: {counted(len(report.prompt_too_long), 'row')}"
    if config.skip_bad_rows and source.bad_rows:
        count = counted(len(source.bad_rows), "bad row")
        yield f"left out by --skip-bad-rows: {count}; the first: {source.bad_rows[0]}"
    if config.adaptive != "none":
        yield f"shares are without the factor of --adaptive {config.adaptive}, which looks at what the model says"
