"""Every knob on one page: one config class per command. The command line, the YAML keys and the docs are made from
these classes.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from holdfast.config.names import from_keywords as from_keywords
from holdfast.errors import HoldfastError

Preset = Literal["conventional", "continual", "prompt-only", "instruction-modelling"]
Normalizer = Literal["nonzero", "weight-sum", "response-count", "example"]
Truncation = Literal["keep-start", "keep-end", "drop"]


@dataclass(kw_only=True)
class RunConfig:
    """What every command takes."""

    least: ClassVar[dict[str, float]] = {"seed": 0, "limit": 1}
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

    def __post_init__(self) -> None:
        """Numbers are finite and not below what ``least`` of the class or of one that it derives from says; so is the
        seed in range.
        """
        least: dict[str, float] = {}
        for base in reversed(type(self).__mro__):
            least |= vars(base).get("least", {})
        for name, value in vars(self).items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, float) and not math.isfinite(value):
                raise HoldfastError(f"{flag} is {value}; it must be a finite number")
            if isinstance(value, int | float) and value < least.get(name, -math.inf):
                raise HoldfastError(f"{flag} is {value}; it must be at least {least[name]}")
        if self.seed is not None and isinstance(self.seed, int) and self.seed >= 2**32:
            raise HoldfastError(f"--seed is {self.seed}; it must be less than {2**32}")


@dataclass(kw_only=True)
class TuneConfig(RunConfig):
    """Fine-tune a causal language model with weights of their own for prompt and response tokens (WIT)."""

    model: str
    """Hub name, local folder, a Holdfast run directory, or `pocket` (the embedded model)."""
    data: str
    """JSONL, JSON, CSV or Parquet file, saved dataset folder, hub name, or `pocket:instructions`. Columns decide how it
    is read.
    """
    layout: Literal["auto", "chat", "alpaca", "pair", "text", "prompt"] = "auto"
    """Which columns to read: chat (messages), alpaca (instruction, input, output), pair (prompt, response or
    completion), text, prompt.
    """

    # weights
    prompt_weight: float | None = None
    """Weight of prompt tokens: user, system, tool and template text. Default 0."""
    response_weight: float | None = None
    """Weight of response tokens: the assistant's text and its end-of-turn token. Default 1."""
    preset: Preset | None = None
    """Named weights: conventional (0,1), continual (1,1), prompt-only (1,0), instruction-modelling (1,1 with template
    text 0).
    """
    weights: dict[str, float] = field(default_factory=dict)
    """Weight per role, over the pair above: system, user, tool, template, assistant, eos. Best given in the config
    file.
    """
    normalizer: Normalizer = "nonzero"
    """What the weighted sum is divided by: nonzero (tokens of non-zero weight, the paper), weight-sum, response-count,
    or example (mean over examples of the mean over the example's tokens of non-zero weight)."""

    # data
    eval_data: str | None = None
    """Held-out data, in any form that --data takes. Default: a seeded split of --data."""
    eval_share: float = 0.05
    """Share of --data held out when there is no --eval-data; 0 for none."""
    template: str = "auto"
    """chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: chat for chat data if the tokenizer has a
    template.
    """
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
    """Peak learning rate. Default: 2e-5 at 1 B parameters and more, 2e-4 with LoRA; below 1 B it grows with
    1/sqrt(parameters) up to 1e-3."""
    schedule: str = "cosine"
    """Learning-rate schedule after the warm-up, by its transformers name."""
    warmup_ratio: float = 0.01
    """Share of the steps spent warming up; less than one step is none."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = 0.0
    """Clip the gradient norm at this value. 0: no clipping, as in the paper; with clipping, equal ratios are not equal
    trainings.
    """
    batch_size: int = 32
    """Examples per optimizer step, over all devices and micro-batches."""
    micro_batch_size: int = 8
    """Largest number of examples per forward pass on one device (without padding: the average number). Changes speed
    and memory, never the result."""
    batching: Literal["auto", "padded", "packed", "padding-free"] = "auto"
    """How examples share a forward pass: padded (one per row), packed (several per row, best fit), padding-free (all in
    one row), auto (the least work for which it is proven, on this model, that examples do not see each other). Changes
    speed and memory, never the result."""
    lora_rank: int = 0
    """Train LoRA adapters of this rank on all linear layers but the head. 0: full fine-tuning."""
    lora_alpha: float | None = None
    """LoRA scaling. Default: twice the rank."""
    lora_dropout: float = 0.0
    """Dropout inside the adapters."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute precision; master weights are always fp32. auto: bf16 on GPUs that are fast at it, else fp32."""
    head: Literal["auto", "torch", "triton", "plain"] = "auto"
    """How the loss is computed: torch or triton (fused, chunked, zero-weight rows skipped; in plain torch or by a GPU
    kernel), plain (full logits), auto (fused where proven equal, by the kernel on a GPU)."""
    adaptive: str = "none"
    """Factor that looks at the token, joined by +: dft (p), power:Q (p^Q), eaft[:ALPHA] (entropy), above:P, below:P
    (thresholds of p).
    """
    adaptive_on: Literal["response", "all"] = "response"
    """Tokens that --adaptive applies to."""
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
class WeighConfig(RunConfig):
    """Score a data set with one or two models and write it again with per-token weights, for `tune` on any
    tokenizer.
    """

    least: ClassVar[dict[str, float]] = {"batch_size": 1}
    data: str
    """Training data, in any form that `tune` takes."""
    model: str
    """Model that scores: a name as for `tune`. With --reference, the one that is to be tuned (or a like one)."""
    reference: str | None = None
    """Model that has learned from good data, with the same tokenizer, such as a `tune` run of --model on a clean
    part.
    """
    by: Literal["excess", "surprise", "confidence"] | None = None
    """What is kept: tokens of high excess (NLL of --model less NLL of --reference; the default with a reference), of
    high NLL (surprise; the default without), or of low NLL (confidence)."""
    keep: float = 0.6
    """Share of the response tokens that keep weight 1."""
    rest: float = 0.0
    """Weight of the others."""
    scope: Literal["global", "sample"] = "global"
    """Whether the share is one of all tokens, or of each row."""
    layout: Literal["auto", "chat", "alpaca", "pair", "text"] = "auto"
    """Which columns to read, as for `tune`."""
    template: str = "auto"
    """How rows are rendered for the models, as for `tune`."""
    batch_size: int = 8
    """Rows per forward pass. Changes speed only."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class AlignConfig(RunConfig):
    """Train on preferences (DPO and its kin) from where a tuned model, or any other, stands."""

    model: str
    """Where to start: a Holdfast run directory, hub name, local folder, or `pocket`. It is the reference as well."""
    data: str
    """Pairs in any file that `tune` reads, or `pocket:preferences`: prompt, chosen, rejected as text or as messages; or
    chosen and rejected as whole conversations that differ in the last answer."""
    eval_data: str | None = None
    """Held-out pairs. Default: a seeded split of --data."""
    eval_share: float = 0.05
    """Share of --data held out when there is no --eval-data; 0 for none."""
    template: str = "auto"
    """chat (the tokenizer's chat template), plain, alpaca or dialogue. auto: what the run at --model was tuned with,
    else as `tune`.
    """
    max_length: int | None = None
    """Longest prompt and answer together in tokens. Default: the model's context, at most 4096."""
    truncation: Literal["keep-start", "drop"] = "keep-start"
    """What to do with a longer pair: cut the ends of its answers, or drop it. Counted in the summary."""
    skip_bad_rows: bool = False
    """Count and list bad rows instead of stopping at the first one."""

    # objective
    loss: str = "sigmoid"
    """Loss of TRL's DPOTrainer by name: sigmoid (DPO), ipo, hinge, robust, apo_zero, ...; several, comma separated, are
    added up.
    """
    beta: float = 0.1
    """How strongly the model is held to the reference."""
    preset: Literal["paper"] | None = None
    """paper (arXiv 2507.07817): learning rate 5e-7, batch 32, 2 epochs, warm-up 0.1, no weight decay; it does not state
    beta.
    """

    # training
    epochs: float | None = None
    """Passes over the data. Default: 1, with --preset paper 2."""
    max_steps: int = -1
    """Stop after this many optimizer steps; -1: as many as the epochs give."""
    learning_rate: float | None = None
    """Peak learning rate. Default: a fortieth of that of `tune`, which is 5e-7 at 1 B parameters and more."""
    schedule: str = "linear"
    """Learning-rate schedule after the warm-up, by its transformers name."""
    warmup_ratio: float = 0.1
    """Share of the steps spent warming up; less than one step is none."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Clip the gradient norm at this value; 0: no clipping."""
    batch_size: int = 32
    """Pairs per optimizer step, over all devices and micro-batches."""
    micro_batch_size: int = 8
    """Largest number of pairs per forward pass on one device. Changes speed and memory only."""
    lora_rank: int = 0
    """Train LoRA adapters of this rank, or continue those of the run at --model. 0: all weights; adapters are merged
    first.
    """
    lora_alpha: float | None = None
    """LoRA scaling. Default: twice the rank."""
    lora_dropout: float = 0.0
    """Dropout inside the adapters. Without it, dropout is off in the whole model."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute precision; master weights are always fp32. auto: bf16 on GPUs that are fast at it, else fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    training: dict[str, str] = field(default_factory=dict)
    """Anything else of trl.DPOConfig, by name. Best given in the config file."""

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
class PromptingConfig(RunConfig):
    """What `crosstask run` and `crosstask label` share: how prompts are made and how answers are read."""

    least: ClassVar[dict[str, float]] = {"k": 0, "max_new_tokens": 1, "pool_limit": 1, "context": 1, "token_budget": 1}
    model: str
    """Hub name, local folder, a Holdfast run directory, or `pocket`. With --endpoint: the name that the server
    knows.
    """
    sources: str
    """Library of labelled tasks: a folder of task files, some of them (comma separated), or `pocket:tasks`."""
    target: str
    """Task to label, by the same kinds of name. A source that is itself the target is left out."""

    # demonstrations
    k: int = 1
    """Examples of the source in each prompt."""
    retriever: str = "similar"
    """How they are found: similar, random, mmr, fixed, graph, or module:function."""
    encoder: str = "tfidf"
    """What similarity is measured with: tfidf, or a sentence-transformers model (the paper's:
    sentence-transformers/all-MiniLM-L6-v2).
    """
    embed_text: Literal["render", "fields"] = "render"
    """What the encoder reads: the input as written, with field names and cue (the paper's), or the fields alone."""
    embeddings: str | None = None
    """Folder that keeps sentence vectors between runs. Default: none are kept."""
    pool_limit: int | None = 10_000
    """Use only the first N labelled items of each source."""
    order: Literal["similar-first", "similar-last"] = "similar-first"
    """Whether the most similar example (and the best of several sources) stands first, farthest from the target, as in
    the paper.
    """
    label_line: bool = False
    """Spell out the label space after the target's definition."""
    shorten: bool = True
    """Cut the last demonstration of a prompt that is too long; otherwise it is dropped. The target is never cut."""
    template: Literal["plain", "chat"] = "plain"
    """plain: the model continues the prompt, as in the paper. chat: the prompt is a user message in the tokenizer's
    chat template.
    """

    # prediction
    decode: Literal["likelihood", "generate"] = "likelihood"
    """likelihood: the most probable label. generate: greedy text, parsed by --rule; what a target with free answers
    always gets.
    """
    score: Literal["sum", "mean"] = "sum"
    """Log-prob of a label of several tokens: their sum, or the mean per token."""
    calibration: Literal["none", "batch", "contextual"] = "none"
    """Which label scores make the predictions. Batch calibration is reported in any case: it costs nothing."""
    rule: Literal["normalised", "paper"] = "normalised"
    """How generated text is parsed; paper reproduces the released scoring."""
    max_new_tokens: int = 15
    """Longest generated answer; it ends at the first newline."""

    # running
    endpoint: str | None = None
    """Generate on an OpenAI-compatible server at this address (such as http://localhost:8000/v1) instead of here."""
    context: int | None = None
    """Longest prompt and answer in tokens. Default: the model's context."""
    exact: bool = False
    """Score every prompt plainly, one at a time, with no reuse."""
    token_budget: int | None = None
    """Tokens per forward pass. Changes speed and memory only. Default: 1024 on a CPU, 16384 on a GPU."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class CrossTaskConfig(PromptingConfig):
    """Label a task with labelled examples of other tasks only: which source helps which target, and by how much."""

    least: ClassVar[dict[str, float]] = {"in_task_k": 1, "dev_items": 0, "workers": 1}
    limit: int | None = None
    """Use only the first N test items of each target."""
    mixed: list[str] = field(default_factory=list)
    """Also one prompt with the nearest example of each of these sources, the best source first."""
    in_task: str | None = None
    """Labelled examples of the target: a JSONL (such as pseudo-labels), or `pool` for its own train split. Gives the
    in-task baseline.
    """
    in_task_k: int = 1
    """Examples of the target in each prompt."""
    in_task_retriever: str = "fixed"
    """How they are found; fixed (one draw for all inputs) is the paper's baseline."""
    with_in_task: bool = False
    """Also every source together with the in-task examples."""
    dev_items: int = 0
    """Labelled dev items per target to choose a source by. They are scored like test items."""
    states: bool = False
    """Also sum up similarities of hidden states, for `holdfast crosstask analyse`."""
    cluster: Literal["none", "ray"] = "none"
    """Spread the sources over a Ray cluster."""
    workers: int = 2
    """Ray actors, each with the model loaded once."""


@dataclass(kw_only=True)
class LabelConfig(PromptingConfig):
    """Pseudo-label the unlabelled inputs of a task: every source votes, confident labels are kept, the rest can be
    propagated.
    """

    least: ClassVar[dict[str, float]] = {"rounds": 1, "neighbours": 1, "lm_items": 1}
    pool: str | None = None
    """JSONL of unlabelled inputs. Default: the target's train split (its answers are not looked at), or all its
    items.
    """
    limit: int | None = None
    """Use only the first N inputs of the pool."""
    least_margin: float = 0.0
    """Keep a label only if the vote is at least this clear: (votes of the first - votes of the second) / voters. With
    one voter: only if the label is at least this probable among the labels."""
    rounds: int = 1
    """After the first round, ask again about what was not kept, with the nearest kept example in every prompt."""
    lm_items: int | None = None
    """Ask the model about only N inputs of the pool, drawn uniformly; --propagate labels the others. Default: all."""
    propagate: Literal["none", "knn", "spread", "graph"] = "none"
    """How labels reach inputs that the vote did not label: nearest neighbours, label propagation, or a graph network
    over candidates.
    """
    neighbours: int = 20
    """Neighbours of an input in the similarity graph."""
    alpha: float = 0.95
    """Share of a label that passes on with each step of propagation."""


@dataclass(kw_only=True)
class AnalyseConfig(RunConfig):
    """Ask why some sources help: rank correlation of their accuracy with the similarity of hidden states, layer by
    layer.
    """

    least: ClassVar[dict[str, float]] = {"permutations": 1}
    run: str
    """Run directory of `crosstask run --states`."""
    permutations: int = 5000
    """Permutations behind each p-value."""


@dataclass(kw_only=True)
class VariantConfig(RunConfig):
    """What makes variants of prompts."""

    prompts: str | None = None
    """JSONL with things to ask: rows of prompt; of question (with choices and answer); or of instruction (and
    input).
    """
    variants: str = ""
    """Kinds of change to make, comma separated: spelling, templates, grammar, casing, punctuation, contractions,
    options, synonyms, paraphrases, or module:function."""
    per_kind: int = 20
    """Variants per kind and prompt."""
    preset: Literal["paper"] | None = None
    """paper: spelling, templates and (with a source) paraphrases, 20 each; pairs within a kind; a mixture of equal
    shares.
    """
    paraphrases: str | None = None
    """JSONL of paraphrases: rows of id (or the prompt itself) and a list of paraphrases."""
    synonyms: str | None = None
    """JSON file, word -> list of synonyms, for the kind synonyms. Default: a table of ours for the language of
    pocket.
    """
    paraphrase_model: str | None = None
    """Have paraphrases written by this model: a name as in --model, or an OpenAI-compatible address
    (http://host/v1#model).
    """
    min_meaning: float = 0.8
    """Smallest cosine of meaning between a paraphrase and its original, where --meaning-model is given."""
    meaning_model: str | None = None
    """sentence-transformers model that checks paraphrases (extra `encoder`). Default: no check."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class VariantsConfig(VariantConfig):
    """Write a file of prompt variants that a person can read and edit: OUTPUT/sets.jsonl."""

    least: ClassVar[dict[str, float]] = {"per_kind": 1}


@dataclass(kw_only=True)
class SensitivityConfig(VariantConfig):
    """Measure how far a model's answers move when only the wording of a prompt changes (POSIX)."""

    least: ClassVar[dict[str, float]] = {"max_new_tokens": 1, "bootstrap": 1, "token_budget": 1, "workers": 1}
    model: str
    """Hub name, local folder, a Holdfast run directory, or `pocket`. For a server: the name that it serves the model
    under.
    """
    sets: str | None = None
    """JSONL of prompt sets (set_id, variant_id, kind, prompt, target), or `pocket:intents`.
    With --variants, more are made of each original."""

    # what the model sees
    chat: bool = False
    """Put every prompt into the tokenizer's chat template, as a user message."""
    system: str | None = None
    """System message, with --chat."""
    shots: int = 0
    """Answered examples in front of every prompt."""
    shots_data: str | None = None
    """Where they come from: any file that --prompts takes, with answers."""
    shots_layout: Literal["same", "fixed"] = "same"
    """same: the examples follow the layout of each variant. fixed: they keep their own."""
    max_new_tokens: int = 30
    """Longest response. Numbers for different lengths are not on one scale."""

    # what is measured
    pairs: Literal["all", "kinds"] = "all"
    """all: every response after every prompt of its set. kinds: only within the original and the variants of one
    kind.
    """
    mixture: int = 0
    """Also measure a mixture of so many variants of each kind, without the original, drawn with the seed."""
    definition: Literal["paper", "package-0.0.1"] = "paper"
    """package-0.0.1 reproduces the released package, which transposes the difference and divides by a constant. For
    comparison only.
    """
    answers: str = "auto"
    """How a response is read as an answer: auto, first-line, option."""
    bootstrap: int = 2000
    """Draws of the bootstrap over sets."""

    # how it runs
    exact: bool = False
    """Score one pair at a time, with no cache and no batch. Slow; the reference."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights. Log-probs are always taken in float32."""
    audit_share: float = 0.001
    """Share of the cells to score again plainly (at least 4, at most 64); the largest difference is reported. 0:
    none.
    """
    token_budget: int | None = None
    """Tokens per forward pass. Changes speed and memory only. Default: 1024 on a CPU, 16384 on a GPU."""
    cache: str | None = None
    """Folder of scores that runs may share. Default: OUTPUT/cache."""
    strict: bool = False
    """Stop at a set with fewer than two distinct prompts instead of skipping it."""
    backend: Literal["hf", "openai", "sglang"] = "hf"
    """hf: in this process. openai: a completions server that returns log-probs of the prompt. sglang: its native
    server.
    """
    endpoint: str | None = None
    """Address of the server, such as http://localhost:8000/v1 (openai) or http://localhost:30000 (sglang)."""
    tokenizer: str | None = None
    """Tokenizer of the served model: hub name or folder. Default: --model."""
    context: int | None = None
    """Context of the served model. Default: what the tokenizer says."""
    concurrency: int = 8
    """Requests at a time."""
    timeout: float = 120.0
    """Seconds until a request counts as lost."""
    retries: int = 4
    """How often a failed request is sent again."""
    cluster: Literal["none", "ray"] = "none"
    """Spread the sets over a Ray cluster (extra `ray`)."""
    workers: int = 2
    """Ray actors, each with the model loaded once."""


@dataclass(kw_only=True)
class CompareConfig(RunConfig):
    """Compare two sensitivity runs over the same sets: interval and p-value of the difference, by kind, sets that moved
    most.
    """

    least: ClassVar[dict[str, float]] = {"bootstrap": 1}
    positional: ClassVar[tuple[str, ...]] = ("run_a", "run_b")
    run_a: str
    """The run to compare with."""
    run_b: str
    """The run that may be better (steadier) or not."""
    output: str = ""
    """Folder for comparison.json. Default: only print."""
    bootstrap: int = 2000
    """Draws of the bootstrap and of the permutation test."""


@dataclass(kw_only=True)
class CheckConfig(RunConfig):
    """Fail where sensitivity got worse: exit code 0 fine, 1 worse beyond tolerance and noise, 2 bad input, 3 not
    comparable.
    """

    least: ClassVar[dict[str, float]] = {"max_increase": 0, "bootstrap": 1}
    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
    """The run to check."""
    baseline: str
    """The run that it must not be worse than."""
    max_increase: float = 0.02
    """Tolerated increase of POSIX, nats per token."""
    output: str = ""
    """Folder for check.json, junit.xml and summary.md. Default: only print."""
    bootstrap: int = 2000
    """Draws of the bootstrap."""


@dataclass(kw_only=True)
class BenchConfig(RunConfig):
    """Measure a model on benchmarks: MMLU, BBH, IFEval by lm-evaluation-harness; AlpacaEval and MT-Bench with a judge
    of yours.
    """

    least: ClassVar[dict[str, float]] = {"batch_size": 1, "max_new_tokens": 1, "judge_concurrency": 1}
    continued_with: ClassVar[frozenset[str]] = frozenset(
        {
            "batch_size",
            "judge_url",
            "judge_model",
            "judge_python",
            "judge_concurrency",
            "judge_timeout",
            "judge_retries",
        }
    )
    """What may differ when a run is continued: answers are kept, another judge grades them anew."""
    model: str
    """Hub name, local folder, a Holdfast run directory, or `pocket`."""
    suite: str = ""
    """Comma separated: knowledge (MMLU, generated, 0 shots), knowledge-ranked (MMLU, log-likelihood, 5 shots),
    reasoning (BBH), instructions (IFEval), chat (AlpacaEval and MT-Bench; alpaca_eval or mt_bench alone). Settings are
    pinned: docs/bench.md."""
    tasks: str = ""
    """Tasks or groups of lm-evaluation-harness by name, comma separated, beside the suites."""
    data_dir: str | None = None
    """Folder of local data, for what would otherwise come from the hub; docs/bench.md says in which form."""
    template: str = "auto"
    """How a prompt is put to the model: chat (the tokenizer's template), plain, alpaca, dialogue, or none (as the
    benchmark writes it).
    auto: what the run at --model was tuned with, else chat if the tokenizer has a template, else none."""
    batch_size: int = 16
    """Prompts per forward pass. Changes speed and memory; answers are greedy."""
    max_new_tokens: int | None = None
    """Longest answer in tokens. Default: the benchmark's own (1024 for open questions); never more than half of the
    model's context.
    """
    judge_url: str | None = None
    """OpenAI-compatible address of the judge, such as https://api.openai.com/v1; its key in OPENAI_API_KEY. Without:
    answers, no scores.
    """
    judge_model: str | None = None
    """Name of the judge at that address."""
    judge_python: str | None = None
    """Python of another environment that has alpaca_eval, if this one has not."""
    judge_concurrency: int = 4
    """Requests to the judge at a time."""
    judge_timeout: float = 120.0
    """Seconds until a request to the judge counts as lost."""
    judge_retries: int = 5
    """How often a request that was lost, or refused for the moment (429, 5xx), is sent again."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class BenchCompareConfig(CompareConfig):
    """Compare two bench runs item by item: difference (B - A) with interval and p-value for every benchmark."""


@dataclass(kw_only=True)
class ReportConfig(RunConfig):
    """Make one offline HTML page of run directories of any kind: study, sensitivity, cross-task, tune, align, bench."""

    least: ClassVar[dict[str, float]] = {"limit": 0}
    positional: ClassVar[tuple[str, ...]] = ("directories",)
    short: ClassVar[dict[str, str]] = {"-o": "--output"}
    directories: list[str] = field(default_factory=list)
    """Run directories, in the order in which they are to appear."""
    output: str = "report.html"
    """The page. Other formats stand beside it: report.md, report-NN-NAME.csv and report-NN-NAME.png. A report that is
    there is replaced.
    """
    format: str = "html"
    """What to write, comma separated: html, md (tables for papers and model cards), png (every figure; extra `png`),
    csv (every table).
    """
    title: str | None = None
    """Title of the page. Default: the names of the runs."""
    limit: int | None = None
    """Show so many prompt sets of a sensitivity run in full, those that move most first. Default: 12."""
    overwrite: bool = False
    """Also replace a file at --output that is no report."""
    dry_run: bool = False
    """List what would be on the page; write nothing."""


@dataclass(kw_only=True)
class StudyConfig(RunConfig):
    """Find the weights that suit a model and its data: plan, train, measure, and choose on one split, report on
    another.
    """

    least: ClassVar[dict[str, float]] = {"slots": 1, "calibrate": 0}
    positional: ClassVar[tuple[str, ...]] = ("study",)
    study: str
    """Study file (YAML, see docs/study.md), or `pocket` for the one that is built in."""
    output: str = ""
    """Study directory. A study that is there is continued: only what is missing is trained. Default: studies/NAME."""
    limit: int | None = None
    """Use only the first N training examples, over what the file says."""
    seed: int = 0
    """Added to the seeds of the file."""
    cluster: Literal["local", "ray"] = "local"
    """Where trials run: on this machine, or on the Ray cluster at RAY_ADDRESS, whose nodes must all see --output (extra
    `ray`).
    """
    slots: int | None = None
    """Trials at a time, each in a process of its own. Default: one per GPU, or one per core; on Ray two."""
    calibrate: int = 4
    """Steps of a short real training from which the plan estimates hours. 0: no estimate. `study run` trains without
    it.
    """


@dataclass(kw_only=True)
class BestConfig(RunConfig):
    """Print the chosen weights of a study as a TuneConfig to reuse, or say what a CSV table of results from elsewhere
    supports.
    """

    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    """A study directory, or a CSV file with the columns prompt_weight, response_weight, what tells settings apart, and
    scores.
    """
    metric: str = ""
    """Which score. Default: the one the study was made for, or the only one of the table."""
    where: str = ""
    """Use only these lines of a table: column=value, comma separated. Of a study with several models or data sets:
    group=NAME.
    """
    settings: str = ""
    """Columns of a table that say which setting a run belongs to though they hold numbers, comma separated, or none;
    every other column of numbers is a score then. Text, and known hyperparameters such as rank or learning_rate, need
    not be named."""
    lower_is_better: bool = False
    """Smaller scores are better. Known without being told of a study's own metrics and of names with a word such as
    nll, loss, error, wer, perplexity or posix."""
    higher_is_better: bool = False
    """Larger scores are better, whatever the name says."""
    output: str = ""
    """Folder for best.json, and best.yaml from a study. Default: only print."""


@dataclass(kw_only=True)
class DemoConfig(RunConfig):
    """Run the study that ships with the package, three weightings of the embedded model, and make its report. No
    network, minutes.
    """

    output: str = "holdfast-demo"
    """Study directory; the report is written into it."""
    limit: int | None = None
    """Training examples per run. Default: what the study says, 4000."""


def check_value(config_class: type, name: str, value: Any, place: str) -> Any:
    """A YAML value as the type of a config class's field, checked; YAML reads 2e-5 as text and 1 as an integer.

    Raises:
        HoldfastError: ``place`` and the field are named.
    """
    import typing

    from typeguard import TypeCheckError, check_type

    wanted = typing.get_type_hints(config_class)[name]
    if wanted == dict[str, str] and isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    attempts = [value]
    if isinstance(value, str | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            attempts.append(float(value))
    for attempt in attempts:
        try:
            return check_type(attempt, wanted)
        except TypeCheckError:
            continue
    raise HoldfastError(f"{place}: '{name}' is {value!r}, which is not of type {getattr(wanted, '__name__', wanted)}")
