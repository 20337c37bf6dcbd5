"""Options of `sensitivity run`, `variants`, `compare` and `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from holdfast.config.base import Range, RunConfig


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
    per_kind: Annotated[int, Range(ge=1)] = 20
    """Variants per kind and prompt."""
    recipe: Literal["paper"] | None = None
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


@dataclass(kw_only=True)
class SensitivityConfig(VariantConfig):
    """Measure how far a model's answers move when only the wording of a prompt changes (POSIX)."""

    continued_with: ClassVar[frozenset[str]] = frozenset(
        {"price_in", "price_out", "budget", "max_requests", "concurrency", "timeout", "retries"}
    )
    """What may differ when a run is continued: no answer depends on it."""
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
    date: str | None = None
    """The day (YYYY-MM-DD) that chat templates print which print one. Default: the day on which the run began."""
    shots: int = 0
    """Answered examples in front of every prompt."""
    shots_data: str | None = None
    """Where they come from: any file that --prompts takes, with answers."""
    shots_layout: Literal["same", "fixed"] = "same"
    """same: the examples follow the layout of each variant. fixed: they keep their own."""
    max_new_tokens: Annotated[int, Range(ge=1)] = 30
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
    """How a response is read as an answer: option (of the item, by letter or text), yes-no, number, first-line,
    json:FIELD, regex:PATTERN, or module:function (response, variant). auto: option where the rows list options, else
    first-line. The share that could not be read is said.
    """
    bootstrap: Annotated[int, Range(ge=1)] = 2000
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
    token_budget: Annotated[int | None, Range(ge=1)] = None
    """Tokens per forward pass. Changes speed and memory only. Default: 1024 on a CPU, 16384 on a GPU."""
    cache: str | None = None
    """Folder of scores that runs may share. Default: OUTPUT/cache."""
    strict: bool = False
    """Stop at a set with fewer than two distinct prompts instead of skipping it."""
    backend: Literal["hf", "openai", "sglang", "chat"] = "hf"
    """hf: in this process. openai: a completions server that returns log-probs of the prompt. sglang: its native
    server. chat: any chat endpoint; answers are compared, and psi, which needs log-probs, is not available.
    """
    endpoint: str | None = None
    """Address of the server, such as http://localhost:8000/v1 (openai, chat) or http://localhost:30000 (sglang)."""
    api: Literal["auto", "openai", "anthropic"] = "auto"
    """Form of a chat endpoint. auto: Anthropic's messages where the address says so, else OpenAI's chat completions."""
    repeats: Annotated[int, Range(ge=1)] = 1
    """How often a chat endpoint is asked the same wording. With 2 or more, how often two repeats differ (noise) is
    taken from how often two wordings differ.
    """
    temperature: Annotated[float | None, Range(ge=0)] = None
    """Temperature of a chat endpoint. Default: 0, or unset for a model that refuses it."""
    equality: Literal["exact", "answer", "meaning", "judge"] = "answer"
    """When two answers of a chat endpoint are equal. exact: letter by letter. answer: as read by --answers. meaning:
    their cosine by --meaning-model is --same-meaning or more. judge: the model at --judge-url says so.
    """
    same_meaning: Annotated[float, Range(gt=0, le=1)] = 0.9
    """Smallest cosine of two answers that mean the same, with --equality meaning."""
    judge_url: str | None = None
    """Chat endpoint of the judge, with --equality judge."""
    judge_model: str | None = None
    """Name of the judge at that address."""
    reasoning_effort: str | None = None
    """How long a reasoning model may think: low, medium, high, ... as the server names it; with Anthropic's form a
    number of tokens, which count among --max-new-tokens. Default: as the server has it.
    """
    chat_template_kwargs: str | None = None
    """JSON object that goes to the chat template, such as '{"enable_thinking": false}': of a local model, or in the
    request to a chat endpoint.
    """
    price_in: Annotated[float | None, Range(ge=0)] = None
    """Price of a million tokens that are sent, in any currency; those of a judge, too."""
    price_out: Annotated[float | None, Range(ge=0)] = None
    """Price of a million tokens of answers."""
    budget: Annotated[float | None, Range(gt=0)] = None
    """Stop before this call of the command spends more (needs the prices). Answers are kept, and the same command goes
    on from there.
    """
    max_requests: Annotated[int | None, Range(ge=1)] = None
    """Stop after so many answers of this call of the command; the same command goes on from there."""
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
    workers: Annotated[int, Range(ge=1)] = 2
    """Ray actors, each with the model loaded once."""


@dataclass(kw_only=True)
class CompareConfig(RunConfig):
    """Compare two sensitivity runs over the same sets: interval and p-value of the difference, by kind, sets that moved
    most.
    """

    positional: ClassVar[tuple[str, ...]] = ("run_a", "run_b")
    run_a: str
    """The run to compare with."""
    run_b: str
    """The run that may be better (steadier) or not."""
    output: str = ""
    """Folder for comparison.json. Default: only print."""
    bootstrap: Annotated[int, Range(ge=1)] = 2000
    """Draws of the bootstrap and of the permutation test."""


@dataclass(kw_only=True)
class CheckConfig(RunConfig):
    """Fail where sensitivity got worse: exit code 0 fine, 1 worse beyond tolerance and noise, 2 bad input, 3 not
    comparable.
    """

    positional: ClassVar[tuple[str, ...]] = ("run",)
    run: str
    """The run to check."""
    baseline: str
    """The run that it must not be worse than."""
    max_increase: Annotated[float, Range(ge=0)] = 0.02
    """Tolerated increase: of POSIX, nats per token; of runs compared by answers, a share of the pairs of wordings, so
    that 0.02 is two of a hundred pairs.
    """
    output: str = ""
    """Folder for check.json, junit.xml and summary.md. Default: only print."""
    bootstrap: Annotated[int, Range(ge=1)] = 2000
    """Draws of the bootstrap."""
