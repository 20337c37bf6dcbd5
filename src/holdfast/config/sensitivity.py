"""Options of `sensitivity run`, `variants`, `compare` and `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from holdfast.config.base import Range, RunConfig


@dataclass(kw_only=True)
class VariantConfig(RunConfig):
    """What makes variants of prompts."""

    prompts: str | None = None
    """JSONL of things to ask: rows with prompt; with question (and choices, answer); or with instruction (and input).
    """
    variants: str = ""
    """Kinds of change to make, comma separated: spelling, templates, grammar, casing, punctuation, contractions,
    options, synonyms, paraphrases, or module:function."""
    per_kind: Annotated[int, Range(ge=1)] = 20
    """Variants per kind and prompt."""
    recipe: Literal["paper"] | None = None
    """paper (POSIX): spelling, templates and (with a source) paraphrases, 20 each; pairs within a kind; and a mixture
    of equal shares."""
    paraphrases: str | None = None
    """JSONL of paraphrases: rows with id (or the prompt itself) and a list of paraphrases."""
    synonyms: str | None = None
    """JSON file, word -> list of synonyms, for the kind synonyms. Default: a small table for the language of pocket."""
    paraphrase_model: str | None = None
    """Let this model write paraphrases: a name as in --model, or an OpenAI-compatible address (http://host/v1#model).
    """
    min_meaning: float = 0.8
    """Smallest cosine of meaning between a paraphrase and its original, where --meaning-model is set."""
    meaning_model: str | None = None
    """sentence-transformers model that checks paraphrases (extra `encoder`). Default: no check."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class VariantsConfig(VariantConfig):
    """Write a file of prompt variants that a person can read and edit: OUTPUT/sets.jsonl."""


@dataclass(kw_only=True)
class SensitivityConfig(VariantConfig):
    """Measure how far a model's answers move when only the wording of a prompt changes (POSIX)."""

    continued_with: ClassVar[frozenset[str]] = frozenset(
        {"price_in", "price_out", "budget", "max_requests", "concurrency", "timeout", "retries"}
    )
    """What may differ when a run is continued: no answer depends on it."""
    model: str
    """Hub name, local folder, Holdfast run directory, or `pocket`. With a server: the name under which it serves the
    model."""
    sets: str | None = None
    """JSONL of prompt sets (set_id, variant_id, kind, prompt, target), or `pocket:intents`. With --variants, more
    variants are made of each original."""

    # what the model sees
    chat: bool = False
    """Put every prompt into the tokenizer's chat template, as a user message."""
    system: str | None = None
    """System message, with --chat."""
    date: str | None = None
    """Day (YYYY-MM-DD) for chat templates that print the date. Default: the day on which the run began."""
    shots: int = 0
    """Answered examples in front of every prompt."""
    shots_data: str | None = None
    """Where these examples come from: any file that --prompts takes, with answers."""
    shots_layout: Literal["same", "fixed"] = "same"
    """same: the examples follow the layout of each variant. fixed: they keep their own."""
    max_new_tokens: Annotated[int, Range(ge=1)] = 30
    """Longest response in tokens. Numbers for different lengths cannot be compared."""

    # what is measured
    pairs: Literal["all", "kinds"] = "all"
    """all: every response is scored after every prompt of its set. kinds: only among the original and the variants of
    one kind."""
    mixture: int = 0
    """Also measure a mixture of N variants of each kind, without the original; 0: none."""
    definition: Literal["paper", "package-0.0.1"] = "paper"
    """paper, or package-0.0.1, which reproduces the released package: it transposes the difference and divides by a
    constant. For comparison only."""
    answers: str = "auto"
    """How a response is read as an answer: option (of the item, by letter or text), yes-no, number, first-line,
    json:FIELD, regex:PATTERN, or module:function. auto: option where the rows list options, else first-line."""
    bootstrap: Annotated[int, Range(ge=1)] = 2000
    """Draws of the bootstrap over sets."""

    # how it runs
    exact: bool = False
    """Score one pair at a time, with no cache and no batch. Slow; the reference."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights. Log-probs are always computed in float32."""
    audit_share: float = 0.001
    """Share of the scores to compute again plainly (at least 4, at most 64); the largest difference is reported. 0:
    none."""
    token_budget: Annotated[int | None, Range(ge=1)] = None
    """Tokens per forward pass. Changes speed and memory only. Default: 1024 on a CPU, 16384 on a GPU."""
    cache: str | None = None
    """Folder of scores that runs may share. Default: OUTPUT/cache."""
    strict: bool = False
    """Stop at a set with fewer than two distinct prompts instead of skipping it."""
    backend: Literal["hf", "openai", "sglang", "chat"] = "hf"
    """hf: in this process. openai: a completions server that returns log-probs of the prompt. sglang: its native
    server. chat: any chat endpoint; answers are compared, and psi, which needs log-probs, is not available."""
    endpoint: str | None = None
    """Address of the server, such as http://localhost:8000/v1 (openai, chat) or http://localhost:30000 (sglang)."""
    api: Literal["auto", "openai", "anthropic"] = "auto"
    """Form of a chat endpoint. auto: Anthropic's messages where the address says so, else OpenAI's chat completions."""
    repeats: Annotated[int, Range(ge=1)] = 1
    """How often a chat endpoint is asked the same wording. With 2 or more, the rate at which repeats differ (noise) is
    subtracted from the rate at which wordings differ."""
    temperature: Annotated[float | None, Range(ge=0)] = None
    """Temperature of a chat endpoint. Default: 0, or unset for a model that refuses it."""
    equality: Literal["exact", "answer", "meaning", "judge"] = "answer"
    """When two answers of a chat endpoint are equal. exact: letter by letter. answer: as read by --answers. meaning:
    their cosine by --meaning-model is at least --same-meaning. judge: the model at --judge-url says so."""
    same_meaning: Annotated[float, Range(gt=0, le=1)] = 0.9
    """Smallest cosine of two answers that mean the same, with --equality meaning."""
    judge_url: str | None = None
    """Chat endpoint of the judge, with --equality judge."""
    judge_model: str | None = None
    """Name of the judge at that address."""
    reasoning_effort: str | None = None
    """How long a reasoning model may think: low, medium, high, ... as the server names it; for Anthropic a number of
    tokens, which count among --max-new-tokens. Default: the server's own."""
    chat_template_kwargs: str | None = None
    """JSON object with settings for the chat template, such as '{"enable_thinking": false}', of a local model or in the
    request to a chat endpoint."""
    price_in: Annotated[float | None, Range(ge=0)] = None
    """Price of a million tokens sent, in any currency; also for a judge."""
    price_out: Annotated[float | None, Range(ge=0)] = None
    """Price of a million tokens of answers, in the same currency."""
    budget: Annotated[float | None, Range(gt=0)] = None
    """Stop before this command spends more, in the currency of the prices, which it needs. Answers are kept, and the
    same command continues."""
    max_requests: Annotated[int | None, Range(ge=1)] = None
    """Stop after N answers; the same command continues from there."""
    tokenizer: str | None = None
    """Tokenizer of the served model: hub name or folder. Default: --model."""
    context: int | None = None
    """Context of the served model in tokens. Default: what the tokenizer says."""
    concurrency: int = 8
    """Requests at a time."""
    timeout: float = 120.0
    """Seconds until a request counts as lost."""
    retries: int = 4
    """How often a failed request is sent again."""
    cluster: Literal["none", "ray"] = "none"
    """Spread the sets over a Ray cluster (extra `ray`)."""
    workers: Annotated[int, Range(ge=1)] = 2
    """Ray actors, each of which loads the model once."""


@dataclass(kw_only=True)
class CompareConfig(RunConfig):
    """Compare two sensitivity runs over the same sets: the difference with its interval and p-value, by kind, and the
    sets that moved most."""

    positional: ClassVar[tuple[str, ...]] = ("run_a", "run_b")
    run_a: str
    """Run to compare with."""
    run_b: str
    """Run that may be better."""
    output: str = ""
    """Folder for comparison.json. Default: only print."""
    bootstrap: Annotated[int, Range(ge=1)] = 2000
    """Draws of the bootstrap and of the permutation test."""


@dataclass(kw_only=True)
class CheckConfig(RunConfig):
    """Fail where sensitivity got worse. Exit code 0: fine; 1: worse beyond tolerance and noise; 2: bad input; 3: not
    comparable."""

    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
    """Run to check."""
    baseline: str
    """Run that it must not be worse than."""
    max_increase: Annotated[float, Range(ge=0)] = 0.02
    """Tolerated increase: of POSIX in nats per token; for runs compared by answers, of the share of pairs of wordings
    whose answers differ (0.02: two of a hundred pairs).
    """
    output: str = ""
    """Folder for check.json, junit.xml and summary.md. Default: only print."""
    bootstrap: Annotated[int, Range(ge=1)] = 2000
    """Draws of the bootstrap."""
