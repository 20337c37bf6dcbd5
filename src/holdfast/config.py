"""Every knob on one page: one config class per command. The command line, the YAML keys and the docs are made from these classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Preset = Literal["conventional", "continual", "prompt-only", "instruction-modelling"]
Normalizer = Literal["nonzero", "weight-sum", "response-count", "example"]
Truncation = Literal["keep-start", "keep-end", "drop"]


@dataclass(kw_only=True)
class RunConfig:
    """What every command takes."""

    output: str
    """Run directory to write: config.json, rows.jsonl, summary.json and what the command makes."""
    limit: int | None = None
    """Use only the first N rows of the data."""
    seed: int = 0
    """Seed of everything that is drawn: same config, same machine, same numbers."""
    overwrite: bool = False
    """Delete what is in --output and start anew."""
    dry_run: bool = False
    """Show the first item as the model will see it and what the run will cost; write nothing, load no weights."""
    json: bool = False
    """Print the summary as JSON on stdout."""


@dataclass(kw_only=True)
class TuneConfig(RunConfig):
    """Fine-tune a causal language model with weights of their own for prompt and response tokens (WIT)."""

    model: str
    """Hub name, local folder, a Holdfast run directory, or `pocket` (the embedded model)."""
    data: str
    """JSONL, JSON, CSV or Parquet file, saved dataset folder, hub name, or `pocket:instructions`. Columns decide how it is read."""
    layout: Literal["auto", "chat", "alpaca", "pair", "text", "prompt"] = "auto"
    """Which columns to read: chat (messages), alpaca (instruction, input, output), pair (prompt, response or completion), text, prompt."""

    # weights
    prompt_weight: float | None = None
    """Weight of prompt tokens: user, system, tool and template text. Default 0."""
    response_weight: float | None = None
    """Weight of response tokens: the assistant's text and its end-of-turn token. Default 1."""
    preset: Preset | None = None
    """Named weights: conventional (0,1), continual (1,1), prompt-only (1,0), instruction-modelling (1,1 with template text 0)."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight per role, over the pair above: system, user, tool, template, assistant, eos. Best given in the config file."""
    normalizer: Normalizer = "nonzero"
    """What the weighted sum is divided by: nonzero (tokens of non-zero weight, the paper), weight-sum, response-count, or
    example (mean over examples of the mean over the example's tokens of non-zero weight)."""

    # data
    eval_data: str | None = None
    """Held-out data, in any form that --data takes. Default: a seeded split of --data."""
    eval_share: float = 0.05
    """Share of --data held out when there is no --eval-data; 0 for none."""
    template: str = "auto"
    """chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: chat for chat data if the tokenizer has a template."""
    max_length: int | None = None
    """Longest example in tokens. Default: the model's context, at most 4096."""
    truncation: Truncation = "keep-start"
    """What to do with a longer example: keep its start, keep its end, or drop it. Cuts are counted in the summary."""
    skip_bad_rows: bool = False
    """Count and list bad rows instead of stopping at the first one."""

    # training
    epochs: float = 1.0
    """Passes over the data."""
    max_steps: int = -1
    """Stop after this many optimizer steps; -1: as many as the epochs give."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 2e-5 at 1 B parameters and more, 2e-4 with LoRA; below 1 B it grows with 1/sqrt(parameters)
    up to 1e-3."""
    schedule: str = "cosine"
    """Learning-rate schedule after the warm-up, by its transformers name."""
    warmup_ratio: float = 0.01
    """Share of the steps spent warming up."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = 0.0
    """Clip the gradient norm at this value. 0: no clipping, as in the paper; with clipping, equal ratios are not equal trainings."""
    batch_size: int = 32
    """Examples per optimizer step, over all devices and micro-batches."""
    micro_batch_size: int = 8
    """Largest number of examples per forward pass on one device. Changes speed and memory, never the result."""
    lora_rank: int = 0
    """Train LoRA adapters of this rank on all linear layers but the head. 0: full fine-tuning."""
    lora_alpha: float | None = None
    """LoRA scaling. Default: twice the rank."""
    lora_dropout: float = 0.0
    """Dropout inside the adapters."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute precision; master weights are always fp32. auto: bf16 on GPUs that are fast at it, else fp32."""
    head: Literal["auto", "torch", "plain"] = "auto"
    """How the loss is computed: torch (fused, chunked, zero-weight rows skipped), plain (full logits), auto (fused where proven equal)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    training: dict[str, str] = field(default_factory=dict)
    """Anything else of transformers.TrainingArguments, by name. Best given in the config file."""

    # logging and saving
    log_steps: int = 10
    """Write a row every N optimizer steps."""
    eval_steps: int | None = None
    """Evaluate every N steps. Default: once per epoch and at the end."""
    save_steps: int | None = None
    """Write a checkpoint every N steps. Default: none; the final model is always saved."""
    keep_checkpoints: int = 1
    """How many checkpoints to keep."""
    report_to: str = "none"
    """Also log to wandb, tensorboard, trackio, ... (comma separated)."""

    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class DemoConfig(RunConfig):
    """Tune the embedded model at three weightings, two seeds each, and compare them. No network, a few minutes on two cores."""

    output: str = "holdfast-demo"
    """Directory for the runs and the table."""
    seeds: int = 2
    """Runs per weighting."""
    limit: int | None = 4000
    """Training examples per run."""
    eval_items: int = 300
    """Test items per run, half of them with held-out wordings."""
