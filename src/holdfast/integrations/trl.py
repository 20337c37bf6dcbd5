"""TRL's ``SFTTrainer`` with weights on prompt and response tokens (WIT, arXiv 2507.07817).

    from holdfast.integrations.trl import WITSFTTrainer
    trainer = WITSFTTrainer(
        model, args=SFTConfig(...), train_dataset=rows, prompt_loss_weight=0.2, completion_loss_weight=0.8
    )
    trainer.train()

Rows are those that TRL takes (prompt and completion as text or as messages; messages; Alpaca columns), or ``Tokens``.
Holdfast labels the roles, and the loss, its divisor, the batches and the evaluation are those of ``holdfast tune``.
Everything else is TRL's: SFTConfig, model loading, PEFT, quantisation, callbacks. The names of the two weights are
those proposed to TRL in its issue 6746.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from holdfast import lm
from holdfast.data.columns import all_unused, tell
from holdfast.data.examples import examples_of
from holdfast.data.shapes import Shape
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Tokens
from holdfast.tune.batches import StepBatch, collate
from holdfast.tune.roles import tokenize
from holdfast.tune.spans import SpanRule, span_rules
from holdfast.tune.trainer import Objective, WeightedTrainer
from holdfast.tune.weights import RoleWeights, role_weights

try:
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise HoldfastError("TRL is not installed", hint='pip install "holdfast[trl]"') from error
if tuple(map(int, version("trl").split(".")[:2])) < (1, 15):
    raise HoldfastError(f"TRL {version('trl')} is too old; at least 1.15 is needed", hint='pip install "holdfast[trl]"')

_OURS = {  # options of SFTConfig that have no effect here -> what to use instead
    "packing": "batching='packed'",
    "eval_packing": "batching='packed'",
    "padding_free": "batching='padding-free'",
    "completion_only_loss": "prompt_loss_weight and completion_loss_weight",
    "assistant_only_loss": "prompt_loss_weight=0",
    "chat_template_path": "processing_class.chat_template",
    "eos_token": "processing_class.eos_token",
    "pad_token": "processing_class.pad_token",
    "truncation_mode": "truncation='keep-end' or 'drop'",
    "pad_to_multiple_of": "batching='packed'",
    "packing_strategy": "batching='packed'",
    "shuffle_dataset": "train_dataset.shuffle()",
    "dataset_num_proc": "rows that are tokenised already (Tokens)",
    "dataset_text_field": "a column named text",
    "label_smoothing_factor": "no smoothing",
    "label_names": "nothing",
    "prediction_loss_only": "nothing",
    "include_for_metrics": "nothing",
    "batch_eval_metrics": "nothing",
    "eval_do_concat_batches": "nothing",
}


class WITSFTTrainer(WeightedTrainer, SFTTrainer):
    """``SFTTrainer`` that minimises a weighted loss.

    Args:
        model: as for SFTTrainer: a model, a PEFT model or a name.
        args: SFTConfig; its ``max_length`` is kept to.
        train_dataset, eval_dataset: a datasets.Dataset or a list of rows, or a list of ``Tokens``.
        processing_class: the tokenizer; by default that of the model's name.
        prompt_loss_weight: of prompt tokens: user, system, tool and template text.
        completion_loss_weight: of response tokens: all that the model writes, its end-of-turn token included.
        role_loss_weights: weights of single roles, over the two above; keys as ``weights`` of ``holdfast tune``.
        normalizer, batching, head, template, truncation, spans, turns: as for ``holdfast tune``.
        kwargs: anything else that SFTTrainer takes: peft_config, quantization_config, callbacks, optimizers, ...

    Raises:
        HoldfastError: bad rows (named), bad weights, or an option of SFTConfig that would have no effect here.

    >>> import holdfast
    >>> from trl import SFTConfig
    >>> model = holdfast.load_model("pocket")
    >>> rows = [{"prompt": f"Count to {n}.", "completion": " ".join(map(str, range(1, n + 1)))} for n in range(2, 6)]
    >>> trainer = holdfast.WITSFTTrainer(model.network, SFTConfig("runs/trl", max_steps=1, report_to=[], use_cpu=True),
    ...     train_dataset=rows, processing_class=model.tokenizer, prompt_loss_weight=0.2, completion_loss_weight=0.8)
    >>> trainer.train().global_step
    1
    """

    def __init__(
        self,
        model: Any,
        args: Any = None,
        *,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        prompt_loss_weight: float = 0.0,
        completion_loss_weight: float = 1.0,
        role_loss_weights: Mapping[str, float] | None = None,
        normalizer: str = "nonzero",
        batching: str = "auto",
        head: str = "auto",
        template: str = "auto",
        truncation: str = "keep-start",
        spans: Sequence[Mapping[str, Any]] = (),
        turns: str = "all",
        **kwargs: Any,
    ) -> None:
        args = _arguments(args)
        weights = role_weights(prompt_loss_weight, completion_loss_weight, weights=role_loss_weights)
        tokenizer = _tokenizer_of(model) if processing_class is None else processing_class
        lm.tell_stops(tokenizer, getattr(model, "generation_config", None))
        read = partial(
            _token_rows,
            tokenizer=tokenizer,
            weights=weights,
            template=template,
            truncation=truncation,
            longest=args.max_length,
            spans=span_rules(spans),
            turns=turns,
        )
        super().__init__(
            objective=Objective(weights, normalizer, head),
            batching=batching,
            model=model,
            args=args,
            train_dataset=read(train_dataset, "train_dataset"),
            eval_dataset=None if eval_dataset is None else read(eval_dataset, "eval_dataset"),
            processing_class=tokenizer,
            data_collator=partial(_collate, pad_id=lm.pad_id(tokenizer)),
            **kwargs,
        )


def _tokenizer_of(model: Any) -> Any:
    name = model if isinstance(model, str) else model.config._name_or_path
    if not name:
        raise HoldfastError("the model has no name to load a tokenizer by", hint="give processing_class")
    return lm.load_tokenizer(name)


def _arguments(args: Any) -> Any:
    """Return a copy of the SFTConfig that leaves data and columns to Holdfast."""
    args = SFTConfig("trl-sft") if args is None else copy.copy(args)
    if not isinstance(args, SFTConfig):
        raise HoldfastError(f"args is a {type(args).__name__}", hint="give a trl.SFTConfig")
    usual = SFTConfig("trl-sft", bf16=False, report_to=[])
    for name, instead in _OURS.items():
        value, default = getattr(args, name, None), getattr(usual, name, None)
        if value != default and (value or default):
            raise HoldfastError(
                f"SFTConfig({name}={getattr(args, name)}) has no effect here", hint=f"use {instead} instead"
            )
    if args.loss_type != "nll":
        raise HoldfastError(f"SFTConfig(loss_type='{args.loss_type}') has no effect here", hint="leave it at 'nll'")
    args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
    args.remove_unused_columns = False
    args.average_tokens_across_devices = False  # the divisor spans the ranks already
    return args


def _token_rows(
    rows: Any,
    name: str,
    *,
    tokenizer: Any,
    weights: RoleWeights,
    template: str,
    truncation: str,
    longest: int | None,
    spans: Sequence[SpanRule] = (),
    turns: str = "all",
) -> Any:
    """Return a datasets.Dataset of input_ids, roles and weight factors, as SFTTrainer takes nothing else."""
    import datasets

    if isinstance(rows, datasets.IterableDataset):
        raise HoldfastError(
            f"{name} is a streaming data set, which WITSFTTrainer does not take", hint="load it without streaming=True"
        )
    items = list(rows)
    if not all(isinstance(row, Tokens) for row in items):
        for i, row in enumerate(items, 1):
            if not isinstance(row, Mapping):
                raise HoldfastError(f"{name}, row {i}: a {type(row).__name__}, not an object with columns")
        numbered = [(dict(row), f"{name}, row {i}") for i, row in enumerate(items, 1)]
        examples = examples_of(
            numbered, name, needs_response=any(weights[r] for r in RESPONSE_ROLES), shape=Shape(joint="")
        )
        tell(name, all_unused(examples))
        items, report = tokenize(
            examples,
            tokenizer,
            weights,
            template=template,
            max_length=longest or 2**31,
            truncation=truncation,
            turns=turns,
            spans=spans,
        )
        if not items:
            raise HoldfastError(
                f"{name}: no example is left: the longest has {report.longest} tokens, max_length is {longest}"
            )
    columns = {"input_ids": [t.ids for t in items], "roles": [t.roles for t in items]}
    if any(t.scale is not None for t in items):
        columns["scale"] = [np.ones(len(t), np.float32) if t.scale is None else t.scale for t in items]
    return datasets.Dataset.from_dict(columns)


def _collate(rows: Sequence[Mapping[str, Any]], *, pad_id: int) -> StepBatch:
    tokens = [
        Tokens(
            np.asarray(row["input_ids"], np.int32),
            np.asarray(row["roles"], np.int8),
            np.asarray(row["scale"], np.float32) if "scale" in row else None,
        )
        for row in rows
    ]
    return collate(tokens, pad_id=pad_id)
