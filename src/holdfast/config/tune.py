"""Options of `tune` and `weigh`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from holdfast.config.base import Range
from holdfast.config.training import RowsConfig, TrainingConfig

Preset = Literal["conventional", "continual", "prompt-only", "instruction-modelling"]
Normalizer = Literal["nonzero", "weight-sum", "response-count", "example", "role-mean"]
Truncation = Literal["keep-start", "keep-end", "drop"]


@dataclass(kw_only=True)
class TuneConfig(TrainingConfig):
    """Fine-tune a causal language model with separate loss weights for prompt and response tokens (WIT)."""

    recipes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "learning_rate": 2e-5,
            "schedule": "cosine",
            "warmup_ratio": 0.01,
            "batch_size": 64,
            "weight_decay": 0.1,
            "max_grad_norm": 0.0,
            "normalizer": "nonzero",
        }
    }
    layout: Literal["auto", "chat", "alpaca", "pair", "text", "prompt"] = "auto"
    """Which columns to read: chat (messages), alpaca (instruction, input, output), pair (prompt, and response or
    completion), text, or prompt."""

    # weights
    prompt_weight: float | None = None
    """Loss weight of prompt tokens: user, system, tool and template text. Default: 0."""
    response_weight: float | None = None
    """Loss weight of response tokens, which are all that the model writes: text, thoughts, calls, the markup around
    them, and the end-of-turn token. Default: 1."""
    preset: Preset | None = None
    """Named weights (prompt, response): conventional (0, 1), continual (1, 1), prompt-only (1, 0),
    instruction-modelling (1, 1 with template text 0)."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight per role, overriding the two above. Read by the model: system, user, tool (results), template. Written by
    it: assistant, think, tool_call, format (its markup), empty_think, eos."""
    spans: list[dict[str, Any]] = field(default_factory=list)
    """Factors for parts of the messages: a list of {match: REGEX, weight: W, role: ROLE}. Without a role it applies to
    all messages; of several that match a character the first counts."""
    turns: Literal["all", "last"] = "all"
    """Which responses are trained on: all, or the last of each row. A message's own train: false or weight also counts.
    """
    normalizer: Normalizer = "nonzero"
    """What the weighted sum is divided by: nonzero (tokens of non-zero weight, the paper), weight-sum, response-count,
    example (mean within each example, then over examples), or role-mean (mean within each role, then summed)."""
    truncation: Truncation = "keep-start"
    """What to do with an example that is too long: keep its start, keep its end, or drop it. The summary counts the
    cuts."""

    row: Annotated[int | None, Range(ge=1)] = None
    """With --dry-run: show this row of --data instead of the first example."""

    # training
    recipe: Literal["paper"] | None = None
    """paper (arXiv 2507.07817): learning rate 2e-5, cosine, warm-up 0.01, batch 64, weight decay 0.1, no clipping,
    normalizer nonzero, for every option that is not given. The paper trains 5 epochs on LIMA, 2 on Alpaca-Cleaned and 1
    on Tülu, so give --epochs."""
    epochs: Annotated[float, Range(gt=0)] = 1.0
    """Passes over the data."""
    batching: Literal["auto", "padded", "packed", "padding-free"] = "auto"
    """How examples share a forward pass: padded (one per row), packed (several per row, best fit), or padding-free (all
    in one row). auto: the cheapest that is proven, on this model, to keep examples apart. Changes speed and memory,
    never the result."""
    head: Literal["auto", "torch", "triton", "plain"] = "auto"
    """How the loss is computed: torch or triton (fused and chunked, skipping tokens of weight zero), or plain (full
    logits). auto: fused where proven equal, by triton on a GPU."""
    adaptive: str = "none"
    """Factor that depends on the token's probability p, or several joined by +: dft (p), power:Q (p^Q), eaft[:ALPHA]
    (entropy), above:P, below:P (thresholds of p)."""
    adaptive_on: Literal["response", "all"] = "response"
    """Tokens that --adaptive applies to."""


@dataclass(kw_only=True)
class WeighConfig(RowsConfig):
    """Score a data set with one or two models and write it with per-token weights, for `tune` and any tokenizer."""

    data: str | list[str]
    """Training data, in any form that `tune` takes; of several, each is written to a file of its own."""
    model: str
    """Model that scores the tokens, named as for `tune`. With --reference, the one that is to be tuned, or one like it.
    """
    reference: str | None = None
    """Model that has learned from good data, with the same tokenizer, such as a `tune` run of --model on a clean part.
    """
    by: Literal["excess", "surprise", "confidence"] | None = None
    """Which tokens are kept: those of high excess (NLL of --model minus NLL of --reference), of high NLL (surprise), or
    of low NLL (confidence). Default: excess with a reference, surprise without."""
    keep: Annotated[float, Range(gt=0, le=1)] = 0.6
    """Share of the response tokens that keep weight 1, above 0 and at most 1."""
    rest: float = 0.0
    """Weight of the other response tokens."""
    scope: Literal["global", "sample"] = "global"
    """Whether the share is taken over all tokens (global) or within each row (sample)."""
    scored: Literal["all", "text"] = "all"
    """Which parts of responses are scored: all texts that the model writes (contents, thoughts, calls), or contents
    alone."""
    layout: Literal["auto", "chat", "alpaca", "pair", "text"] = "auto"
    """Which columns to read, as for `tune`."""
    template: str = "auto"
    """How rows are rendered for the models, as for `tune`."""
    chat_template: str | None = None
    """File with a chat template to use instead of the tokenizer's own, as for `tune`."""
    chat_template_kwargs: dict[str, str] = field(default_factory=dict)
    """Settings for the chat template, as for `tune`."""
    batch_size: Annotated[int, Range(ge=1)] = 8
    """Rows per forward pass. Changes speed only."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""
