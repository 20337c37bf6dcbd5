"""Options of `crosstask run`, `label` and `analyse`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from holdfast.config.base import Range, RunConfig


@dataclass(kw_only=True)
class PromptingConfig(RunConfig):
    """What `crosstask run` and `crosstask label` share: how prompts are made and how answers are read."""

    model: str
    """Hub name, local folder, Holdfast run directory, or `pocket`. With --endpoint: the name that the server knows."""
    sources: str
    """Library of labelled tasks: a folder of task files, some tasks (FOLDER/NAME, comma separated), or `pocket:tasks`.
    """
    target: str
    """Task to label: a task file, FOLDER/NAME, or `pocket:tasks/NAME`; a folder means all its tasks. A source that is
    itself the target is left out."""

    # demonstrations
    k: Annotated[int, Range(ge=0)] = 1
    """Examples of the source in each prompt."""
    retriever: str = "similar"
    """How these examples are chosen: similar, random, mmr, fixed, graph, or module:function."""
    encoder: str = "tfidf"
    """What similarity is measured with: tfidf, or a sentence-transformers model (the paper's:
    sentence-transformers/all-MiniLM-L6-v2)."""
    embed_text: Literal["render", "fields"] = "render"
    """What the encoder reads: render (the input as written, with field names and cue, as in the paper) or fields (their
    contents alone)."""
    embeddings: str | None = None
    """Folder that keeps sentence vectors between runs. Default: none are kept."""
    pool_limit: Annotated[int | None, Range(ge=1)] = 10_000
    """Use only the first N labelled items of each source."""
    order: Literal["similar-first", "similar-last"] = "similar-first"
    """Whether the most similar example (and the best of several sources) stands first, farthest from the target, as in
    the paper, or last."""
    label_line: bool = False
    """List the labels after the target's definition."""
    shorten: bool = True
    """Cut the last example of a prompt that is too long; with --no-shorten it is dropped. The target is never cut."""
    template: Literal["plain", "chat"] = "plain"
    """plain: the model continues the prompt, as in the paper. chat: the prompt is a user message in the tokenizer's
    chat template."""

    # prediction
    decode: Literal["likelihood", "generate"] = "likelihood"
    """likelihood: the most probable label. generate: greedy text, read by --rule, as always for a target with free
    answers."""
    score: Literal["sum", "mean"] = "sum"
    """Log-prob of a label of several tokens: their sum, or the mean per token."""
    calibration: Literal["none", "batch", "contextual"] = "none"
    """How label scores are corrected before the best is taken. Batch calibration is reported in any case, as it costs
    nothing."""
    rule: Literal["normalised", "paper"] = "normalised"
    """How generated text is read as a label; paper reproduces the released scoring."""
    max_new_tokens: Annotated[int, Range(ge=1)] = 15
    """Longest generated answer in tokens; it ends at the first newline."""

    # running
    endpoint: str | None = None
    """Generate on an OpenAI-compatible server at this address, such as http://localhost:8000/v1, instead of here. A
    chat endpoint's address ends in its method: .../v1/chat/completions, or .../v1/messages for Anthropic's form."""
    context: Annotated[int | None, Range(ge=1)] = None
    """Longest prompt and answer in tokens. Default: the model's context."""
    exact: bool = False
    """Score every prompt by itself, with no cache and no batch. Slow; the reference."""
    token_budget: Annotated[int | None, Range(ge=1)] = None
    """Tokens per forward pass. Changes speed and memory only. Default: 1024 on a CPU, 16384 on a GPU."""
    trust_remote_code: bool = False
    """Allow code that comes with the model to run."""


@dataclass(kw_only=True)
class CrossTaskConfig(PromptingConfig):
    """Label a task with labelled examples of other tasks only, and say which source helps which target, and by how
    much."""

    limit: int | None = None
    """Use only the first N test items of each target."""
    mixed: list[str] = field(default_factory=list)
    """Also build one prompt with the nearest example of each of these sources, the best source first."""
    in_task: str | None = None
    """Labelled examples of the target itself, for the in-task baseline: a JSONL file (such as pseudo-labels), or `pool`
    for its own train split."""
    in_task_k: Annotated[int, Range(ge=1)] = 1
    """Examples of the target in each prompt of that baseline."""
    in_task_retriever: str = "fixed"
    """How these examples are chosen; fixed (one draw for all inputs) is the paper's baseline."""
    with_in_task: bool = False
    """Also combine every source with the in-task examples."""
    dev_items: Annotated[int, Range(ge=0)] = 0
    """Labelled dev items per target to choose a source by. They are scored like test items."""
    states: bool = False
    """Also measure how similar hidden states are, for `holdfast crosstask analyse`."""
    cluster: Literal["none", "ray"] = "none"
    """Spread the sources over a Ray cluster (extra `ray`)."""
    workers: Annotated[int, Range(ge=1)] = 2
    """Ray actors, each of which loads the model once."""


@dataclass(kw_only=True)
class LabelConfig(PromptingConfig):
    """Pseudo-label the inputs of a task: every source votes, clear labels are kept, and the rest can be propagated."""

    pool: str | None = None
    """JSONL of unlabelled inputs. Default: the target's train split without its answers, or all its items."""
    limit: int | None = None
    """Use only the first N inputs of the pool."""
    least_margin: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Keep a label only if the vote is at least this clear, from 0 to 1: (votes of the first - votes of the second) /
    voters. With one voter: only if its probability among the labels is at least this."""
    rounds: Annotated[int, Range(ge=1)] = 1
    """Rounds of labelling. After the first, the inputs without a label are asked about again, with the nearest labelled
    example in every prompt."""
    lm_items: Annotated[int | None, Range(ge=1)] = None
    """Ask the model about only N inputs of the pool, drawn uniformly; --propagate labels the others. Default: all."""
    propagate: Literal["none", "knn", "spread", "graph"] = "none"
    """How labels reach inputs that the vote left without one: nearest neighbours (knn), label propagation (spread), or
    a graph network (graph)."""
    neighbours: Annotated[int, Range(ge=1)] = 20
    """Neighbours of an input in the similarity graph."""
    alpha: Annotated[float, Range(gt=0, lt=1)] = 0.95
    """Share of a label that passes on with each step of propagation, between 0 and 1."""


@dataclass(kw_only=True)
class AnalyseConfig(RunConfig):
    """Ask why some sources help: correlate their accuracy with the similarity of hidden states, layer by layer."""

    run: str
    """Run directory of `crosstask run --states`."""
    permutations: Annotated[int, Range(ge=1)] = 5000
    """Permutations behind each p-value."""
