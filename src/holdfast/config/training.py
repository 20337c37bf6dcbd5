"""What every training takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from holdfast.config.base import LeftOpen, Range, RunConfig
from holdfast.errors import HoldfastError


@dataclass(kw_only=True)
class RowsConfig(RunConfig):
    """What every command takes that reads rows to train on."""

    if TYPE_CHECKING:  # each command says what its --data is
        data: str | list[str]
    columns: str | None = None
    """Which column is which, as ours=theirs: prompt=question,response=answer. Default: decided by the column names."""
    roles: str | None = None
    """Who is who in conversations with other role names, as theirs=ours: Anna=user,Ben=assistant."""
    joint: Literal["auto", "none", "space", "newline"] = "auto"
    """What separates a prompt from its response in plain text. auto: one space, or nothing where either side has white
    space there or is written without spaces (Chinese, Japanese, Thai, ...)."""

    def __post_init__(self) -> None:
        """Beside the ranges: --data names at least one source, and a list of one is that source."""
        super().__post_init__()
        if self.data == []:
            raise HoldfastError("--data names no source", hint="--data a.jsonl b.parquet")
        if isinstance(self.data, list) and len(self.data) == 1:
            self.data = self.data[0]


@dataclass(kw_only=True)
class TrainingConfig(RowsConfig):
    """What `tune` and `align` share: model, data, optimisation and saving. A default or a sentence that differs for one
    of them stands in that command's class.
    """

    model: str
    """Hub name, local folder, Holdfast run directory, or `pocket` (the embedded model)."""
    data: str | list[str]
    """JSONL, JSON, CSV, Parquet or text file (also .gz, .zst), folder, glob, saved dataset, hub name (NAME:SPLIT), or
    `pocket:instructions`; one or several. The columns decide how it is read."""

    # data
    eval_data: str | None = None
    """Held-out data, in any form that --data takes. Default: the validation or test split of --data, else a seeded part
    of its rows."""
    eval_share: Annotated[float, Range(ge=0, lt=1)] = 0.05
    """Share of --data held out when there is no --eval-data, from 0 (none) to below 1."""
    data_share: str | None = None
    """Shares of several --data in an epoch, such as 2,1. Every epoch draws anew, no row twice: a source that is too
    small for its share is used whole, and of the others each row has its turn before one comes again. Default: all
    rows."""
    data_draw: Literal["epoch", "once"] = "epoch"
    """When --data-share draws: anew for every epoch, or once, so that all epochs have the same rows."""
    template: str = "auto"
    """How conversations become text: chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: chat for
    chat data if the tokenizer has a template."""
    chat_template: str | None = None
    """File with a chat template (Jinja) to use instead of the tokenizer's own, for example because that one prints no
    tools. It is saved with the model."""
    chat_template_kwargs: dict[str, str] = field(default_factory=dict)
    """Settings for the chat template, such as enable_thinking false. A row's own chat_template_kwargs override them."""
    stop: str | None = None
    """Token that ends a response. Default: the one in the model's generation config, else the tokenizer's EOS."""
    date: str | None = None
    """Day (YYYY-MM-DD) for chat templates that print the date. Default: the day on which the run began."""
    max_length: int | None = None
    """Longest example in tokens, prompt and response together. Default: the model's context, at most 4096."""
    skip_bad_rows: bool = False
    """Skip bad rows, and count and list them, instead of stopping at the first one."""

    # training
    max_steps: Annotated[int, Range(gt=0, or_else=-1, meaning="as many as the epochs give")] = -1
    """Stop after N optimizer steps; -1: when the epochs are done."""
    learning_rate: Annotated[float | None, Range(gt=0)] = None
    """Peak learning rate. Default: 2e-5 at 1 B parameters and more, 2e-4 with LoRA; below 1 B it grows with
    1/sqrt(parameters) up to 1e-3."""
    schedule: str = "cosine"
    """Learning-rate schedule after the warm-up, by its name in transformers."""
    warmup_ratio: Annotated[float | None, Range(ge=0, lt=1)] = None
    """Share of the steps spent warming up. Default: 0.01, but at least ten steps, or a fifth of a run shorter than
    fifty."""
    weight_decay: Annotated[float | None, Range(ge=0)] = None
    """Decoupled weight decay of AdamW. Default: 0.1, or 0 with LoRA."""
    max_grad_norm: Annotated[float | None, Range(ge=0)] = None
    """Clip the gradient norm at this value; 0: no clipping. Default: 1. With clipping, equal ratios of weights are not
    equal trainings, so a study that varies weights sets 0."""
    batch_size: Annotated[int, Range(gt=0)] = LeftOpen(32)
    """Examples (for `align`, pairs) per optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Range(gt=0)] = 8
    """Largest number of examples (for `align`, pairs) per forward pass on one device. Changes speed and memory, never
    the result."""
    lora_rank: Annotated[int, Range(ge=0)] = 0
    """Train LoRA adapters of this rank on all linear layers but the head; 0: train all weights."""
    lora_alpha: Annotated[float | None, Range(ge=0)] = None
    """LoRA scaling. Default: twice the rank."""
    lora_dropout: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Dropout inside the adapters, from 0 to below 1."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute precision; master weights are always fp32. auto: bf16 on GPUs that are fast at it, else fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    training: dict[str, str] = field(default_factory=dict)
    """Any other argument of transformers.TrainingArguments (for `align`, of trl.DPOConfig), by name."""

    # logging and saving
    log_steps: Annotated[int, Range(gt=0)] = 10
    """Write a row every N optimizer steps."""
    eval_steps: Annotated[int | None, Range(gt=0)] = None
    """Evaluate every N steps. Default: once per epoch and at the end."""
    save_steps: Annotated[int | None, Range(gt=0)] = None
    """Write a checkpoint every N steps. Default: none; the final model is always saved."""
    keep_checkpoints: Annotated[int, Range(gt=0)] = 1
    """Number of checkpoints to keep."""
    save_best: str | None = None
    """Keep the weights that are best on held-out data by this metric, such as response_nll (for `align`,
    preference_accuracy). Default: those of the last step."""
    patience: Annotated[int | None, Range(gt=0)] = None
    """Stop after N evaluations in a row without a new best. Needs --save-best."""
    report_to: str = "none"
    """Also log to wandb, tensorboard, trackio, ... (comma separated)."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""
