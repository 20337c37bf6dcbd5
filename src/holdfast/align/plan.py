"""Config -> checked pairs -> plan.

Everything that can be wrong with the input comes to light here, before a byte is written.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from functools import partial
from typing import Any

from holdfast import lm as models
from holdfast.align.tokens import PairReport, PairTokens, tokenize_pairs
from holdfast.config import AlignConfig
from holdfast.data.chat_template import check_used, prepare, tuned_template, with_kwargs
from holdfast.data.columns import all_unused
from holdfast.data.pairs import load_pairs
from holdfast.data.shapes import shape_of
from holdfast.data.sources import name_of
from holdfast.errors import HoldfastError, nearest
from holdfast.tune.arguments import Schedule, check_training, settled
from holdfast.tune.plan import (
    check_ids,
    check_length,
    check_trackers,
    count_steps,
    data_digest,
    default_learning_rate,
    drawn_rows,
    split_batch,
    tell_plain,
    train_and_held_out,
)


@dataclasses.dataclass(frozen=True)
class PreferencePlan(Schedule):
    """A checked config: what will be trained on which pairs, with every default resolved."""

    config: AlignConfig
    losses: list[str]
    tokenizer: Any
    train: list[PairTokens]
    held_out: list[PairTokens]
    report: PairReport
    bad_rows: list[str]
    max_length: int
    data_sources: list[dict[str, Any]]

    def resolved(self) -> dict[str, Any]:
        """The values that the config left open, for config.json."""
        return {
            "data_digest": data_digest(self.config),
            **({"data_sources": self.data_sources} if self.data_sources else {}),
            "losses": self.losses,
            "beta": self.config.beta,
            "epochs": self.config.epochs,
            "max_length": self.max_length,
            **super().resolved(),
            "templates": dict(self.report.templates),
        }


def make_plan(config: AlignConfig) -> PreferencePlan:
    """Check the config, read and tokenise the pairs. Loads the tokenizer but no weights.

    Raises:
        HoldfastError: bad input, with file and row; TRL is missing; a loss that TRL does not know.
    """
    config = settled(config)
    config = dataclasses.replace(config, epochs=config.epochs or 1.0)
    check_training(config)
    check_trackers(config)
    losses = _losses(config)
    tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    kwargs = prepare(tokenizer, config.chat_template, config.chat_template_kwargs, config.stop)
    date = models.print_date(tokenizer, config.date)
    model_config = models.load_config(config.model, trust_remote_code=config.trust_remote_code)
    parameters = models.count_parameters(model_config)
    max_length = check_length(config, model_config, tokenizer)
    bad_rows: list[str] | None = [] if config.skip_bad_rows else None
    template = config.template if config.template != "auto" else tuned_template(config.model) or "auto"
    encode = partial(
        tokenize_pairs, tokenizer=tokenizer, template=template, max_length=max_length,
        truncation=config.truncation, bad_rows=bad_rows,
    )  # fmt: skip
    read = partial(load_pairs, bad_rows=bad_rows, shape=shape_of(config))
    pairs, held_out, rows = train_and_held_out(config, read, bad_rows)
    pairs, held_out = with_kwargs(pairs, kwargs), with_kwargs(held_out, kwargs)
    train, report = encode(pairs)
    check_used(config.chat_template, report.templates)
    tell_plain(config.model, template, tokenizer, report.templates)
    report.columns_not_used = all_unused([*pairs, *held_out])
    _check_left(name_of(config.data), train, report, bad_rows or [], max_length)
    held_out_tokens, held_out_report = encode(held_out)
    if held_out:
        held_out_name = config.eval_data or name_of(config.data)
        _check_left(held_out_name, held_out_tokens, held_out_report, bad_rows or [], max_length)
    sides = itertools.chain.from_iterable(
        (pair.prompt, pair.chosen, pair.rejected) for pair in (*train, *held_out_tokens)
    )
    check_ids(config.model, tokenizer, model_config, sides)
    micro_batch, accumulation = split_batch(config)
    draws_EN, data_sources = drawn_rows(config, [pair.source for pair in train], rows)
    return PreferencePlan(
        date=date,
        config=config,
        losses=losses,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out_tokens,
        report=report,
        bad_rows=bad_rows or [],
        max_length=max_length,
        data_sources=data_sources,
        draws_EN=draws_EN,
        learning_rate=config.learning_rate or default_learning_rate(parameters, lora=config.lora_rank > 0) / 40,
        micro_batch=micro_batch,
        accumulation=accumulation,
        steps=count_steps(config, len(train) if draws_EN is None else draws_EN.shape[1]),
    )


def trl_losses() -> list[str]:
    """The names of DPOTrainer's losses, as the installed TRL lists them in its help.

    Raises:
        HoldfastError: TRL is not installed.
    """
    try:
        from trl import DPOConfig
    except ImportError as error:
        raise HoldfastError(
            f"preference tuning needs the package trl ({error})", hint='pip install "holdfast[align]"'
        ) from error
    text = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    return re.findall(r"`'(\w+)'`", text)


def _losses(config: AlignConfig) -> list[str]:
    losses = trl_losses()
    names = [name.strip() for name in config.loss.split(",")]
    for name in names:
        if name not in losses:
            raise HoldfastError(f"--loss {name}: TRL's losses are {', '.join(losses)}", hint=nearest(name, losses))
    return names


def _check_left(source: str, pairs: list[PairTokens], report: PairReport, bad_rows: list[str], max_length: int) -> None:
    """Say what truncation left out; refuse if that is everything."""
    if not pairs:
        lost = [f"{report.dropped} longer than {max_length} tokens"] if report.dropped else []
        lost += (
            [f"{len(report.left_out)} with nothing left to compare in {max_length} tokens"] if report.left_out else []
        )
        lost += [f"{len(bad_rows)} bad"] if bad_rows else []
        first = [*report.left_out, *bad_rows, f"{report.longest} tokens"][0]
        raise HoldfastError(
            f"{source}: no pair is left: {', '.join(lost) or 'none was there'}; the first: {first}",
            hint="a larger --max-length, a model with a longer context, or shorter prompts",
        )
    if report.left_out:
        print(
            f"warning: {source}: {len(report.left_out)} pairs left out, as nothing to compare is left in {max_length} "
            f"tokens; first: {report.left_out[0]}",
            file=sys.stderr,
        )
