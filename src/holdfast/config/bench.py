"""Options of `bench run` and `bench compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from holdfast.config.base import Range, RunConfig
from holdfast.config.sensitivity import CompareConfig


@dataclass(kw_only=True)
class BenchConfig(RunConfig):
    """Measure a model on benchmarks: MMLU, BBH and IFEval by lm-evaluation-harness, AlpacaEval and MT-Bench with a
    judge of your choice."""

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
    """Hub name, local folder, Holdfast run directory, or `pocket`."""
    suite: str = ""
    """Comma separated: knowledge (MMLU, generated, 0 shots), knowledge-ranked (MMLU, log-likelihood, 5 shots),
    reasoning (BBH), instructions (IFEval), chat (AlpacaEval and MT-Bench; or alpaca_eval or mt_bench alone).
    docs/bench.md lists their fixed settings."""
    tasks: str = ""
    """Other tasks or groups of lm-evaluation-harness by name, comma separated."""
    data_dir: str | None = None
    """Folder of local data for what would otherwise come from the hub; docs/bench.md describes its form."""
    template: str = "auto"
    """How a prompt is put to the model: chat (the tokenizer's template), plain, alpaca, dialogue, or none (as the
    benchmark writes it). auto: what the run at --model was tuned with, else chat if the tokenizer has a template, else
    none."""
    batch_size: Annotated[int, Range(ge=1)] = 16
    """Prompts per forward pass. Changes speed and memory; answers are greedy."""
    max_new_tokens: Annotated[int | None, Range(ge=1)] = None
    """Longest answer in tokens, at most half of the model's context. Default: the benchmark's own, or 1024 for open
    questions."""
    judge_url: str | None = None
    """OpenAI-compatible address of the judge, such as https://api.openai.com/v1; its key is read from OPENAI_API_KEY.
    Without it there are answers but no scores."""
    judge_model: str | None = None
    """Name of the judge at that address."""
    judge_python: str | None = None
    """Python of another environment that has alpaca_eval, if this one does not."""
    judge_concurrency: Annotated[int, Range(ge=1)] = 4
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
