"""What the verbs of the front door return: the summary of a run, as frozen dataclasses.

    summary.json -> from_summary(TuneResult, summary) -> result.after.response_nll, result.to_summary()

The attributes of a result are the keys of its summary, and so are those of its parts; a key that is no Python name has
``_`` for ``/``. What is an estimate with an interval is an ``Estimate``, whatever the summary calls its middle and its
count. A part that a run does not have is None. One function reads all of them, by the types that the fields declare.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.errors import HoldfastError
from holdfast.tables.record import Table, from_json

T = TypeVar("T", bound="Result")


def _from(*keys: str, **options: Any) -> Any:
    """A field that stands under another key of the summary, the first of these that is there."""
    return field(metadata={"keys": keys}, **options)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    ``mean`` is NaN where there is no number, ``low`` and ``high`` are None where there is no interval, and ``n``, the
    number of independent units (items, sets of prompts), is None where the summary does not say it.

    >>> from holdfast import Estimate
    >>> accuracy = Estimate(mean=0.8, low=0.49, high=0.943, n=10)
    >>> print(accuracy)
    0.8 [0.49, 0.943]
    """

    mean: float = _from("mean", "value", "difference")
    low: float | None = None
    high: float | None = None
    n: int | None = _from("n", "count", "sets", "items", default=None)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, kw_only=True)
class SpreadEstimate(Estimate):
    """An ``Estimate`` with the standard deviation between its units, and their median where it was taken."""

    sd: float | None = None
    median: float | None = None


@dataclass(frozen=True, kw_only=True)
class ChangeEstimate(Estimate):
    """An ``Estimate`` of a difference, with the p-value of "no difference": both sides ``a`` and ``b`` where two runs
    are compared, and ``t`` where Student's test was used.
    """

    p: float | None = None
    a: float | None = None
    b: float | None = None
    t: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all results share: the command, and the summary as the run wrote it."""

    summary: Mapping[str, object] = field(repr=False, compare=False)
    command: str

    def to_summary(self) -> dict[str, object]:
        """Return a copy of the summary: exactly what stands in the run's ``summary.json``, or what the command prints
        with ``--json`` where it writes no such file.
        """
        return copy.deepcopy(dict(self.summary))


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """How many rows were left out as unreadable, and the first of them by name."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """What became of the training data: counts of examples, of tokens, and of what was cut or dropped."""

    examples: int
    tokens: int
    targets_per_role: Mapping[str, int]
    truncated: int
    tokens_cut: int
    eos_cut: int
    dropped_too_long: int
    prompt_too_long: int
    special_tokens_inside_content: int
    longest: int
    templates: Mapping[str, int]
    columns_not_used: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenWeight:
    """One token of the first example, as the model saw it; ``weight`` is None for the first, which is no target."""

    text: str
    role: str
    weight: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model on held-out examples. NLLs are unweighted, in nats per token; None where there is no such token."""

    loss: float
    prompt_nll: float | None
    response_nll: float | None
    response_perplexity: float | None
    prompt_targets: int
    response_targets: int
    prompt_share: float | None


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """One of several sources of data: how many rows were read, how many of them an epoch has, and how many different
    ones all epochs have together (None: of a run of an older version).
    """

    source: str
    rows: int
    drawn: int
    distinct: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingResult(Result):
    """What a training leaves, whatever its loss."""

    model: str
    data: str
    data_digest: tuple[str | None, ...]
    data_sources: tuple[SourceRows, ...] | None = None
    max_length: int
    learning_rate: float
    micro_batch_size: int
    gradient_accumulation_steps: int
    steps: int
    templates: Mapping[str, int]
    train_examples: int
    eval_examples: int
    bad_rows: BadRows
    model_path: str
    seconds: float
    tables: tuple[Table, ...] | None = field(default=None, repr=False)
    best_step: int | None = None
    ended_at: int | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    date: str | None = None


@dataclass(frozen=True, kw_only=True)
class TuneResult(TrainingResult):
    """What ``train`` returns: weights, evaluation before and after (None without held-out data), counts, and the folder
    of the tuned model.
    """

    weights: Mapping[str, float]
    prompt_share: float
    normalizer: str
    before: Evaluation | None
    after: Evaluation | None
    head: str
    batching: str
    data_report: TokenCounts
    example: tuple[TokenWeight, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """What became of the preference pairs."""

    pairs: int
    tokens: int
    truncated: int
    dropped_too_long: int
    nothing_left_to_compare: int
    longest: int
    templates: Mapping[str, int]
    columns_not_used: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PreferenceEvaluation:
    """A model on held-out pairs: how often the chosen answer is the more likely one, rewards, mean log-probs."""

    pairs: int
    preference_accuracy: Estimate
    preference_accuracy_per_token: Estimate
    reward_accuracy: Estimate | None
    reward_margin: Estimate | None
    logps_chosen: float = _from("logps/chosen")
    logps_rejected: float = _from("logps/rejected")


@dataclass(frozen=True, kw_only=True)
class AlignResult(TrainingResult):
    """What ``align_preferences`` returns: preference accuracy before and after, the gain paired by item, and the
    trainings behind the model, the base model first.
    """

    losses: tuple[str, ...]
    beta: float
    epochs: float
    before: PreferenceEvaluation | None
    after: PreferenceEvaluation | None
    data_report: PairCounts
    lineage: tuple[Mapping[str, object], ...]
    gain: ChangeEstimate | None = None


@dataclass(frozen=True, kw_only=True)
class PerCase:
    """Accuracy per item over its wordings, averaged over items."""

    worst: float
    best: float
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class WordingAccuracy:
    """What targets allow to say of one kind of variant: accuracy of every wording, and how far it moves."""

    items: int
    accuracy: Mapping[str, float | None]
    prompt_sensi_score: float
    spread: float
    max_p: float
    avg_p: float
    sat: float
    cps: float
    per_case: PerCase
    performance_drop: Mapping[str, float | None] | None = None
    class_sensitivity: float | None = None
    class_consistency: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerChanges:
    """How often the answers of a chat endpoint change over the wordings of a prompt (``differ``), how often over
    repeats of one wording (``noise``), and the difference (``effect``); the last two need repeats. ``changed`` of
    ``prompts`` change their answer. ``first_token``: how far the log-prob of the first token of an answer moves, in
    nats, where the endpoint says; of ``first_token_at_least``, a share of the pairs, it is a lower bound.
    """

    differ: SpreadEstimate
    noise: SpreadEstimate | None
    effect: SpreadEstimate | None
    changed: int
    prompts: int
    first_token: SpreadEstimate | None = None
    first_token_at_least: float | None = None


@dataclass(frozen=True, kw_only=True)
class ReadAnswers:
    """How responses were read as answers (``--answers``), and how many could not be, the first of them in text."""

    rule: str
    responses: int
    unread: int
    unread_share: float
    unread_first: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ChangedSets:
    """How many sets of prompts change their answer with the wording."""

    sets: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class ChangedAnswers(ChangedSets):
    """The same by kind of variant, too."""

    kinds: Mapping[str, ChangedSets]


@dataclass(frozen=True, kw_only=True)
class WorstPrompt:
    """Of the sets that change their answer the one that moves most, with two of its variants and their answers."""

    set_id: str
    psi: float | None
    variants: tuple[str, ...]
    answers: tuple[str, ...]
    differ: float | None = None


@dataclass(frozen=True, kw_only=True)
class WordingScale:
    """What psi is to be held against, nats per token: copies of a prompt, this run's sets, and unrelated prompts; and
    the shares of pairs of sets with the same answer, and with the same right answer. Of a chat endpoint the shares of
    pairs of answers that differ; ``copies``, repeats of one wording, is None where each was asked once.
    """

    copies: float | None
    yours: float | None
    unrelated: float | None
    unrelated_pairs: int
    same_answer: float | None = None
    same_right_answer: float | None = None


@dataclass(frozen=True, kw_only=True)
class SensitivityResult(Result):
    """What ``measure_sensitivity`` returns: POSIX by kind of variant (``posix["all"]`` is over all of them), its
    companions, accuracy over wordings where there are targets, and what it cost. Of a chat endpoint ``posix`` is empty,
    ``psi_reason`` says why, and ``answer_changes`` is there.
    """

    model: str
    backend: str
    definition: str
    max_new_tokens: int
    chat: bool
    shots: int
    sets: int
    prompts: int
    posix: Mapping[str, SpreadEstimate]
    indices: Mapping[str, Mapping[str, SpreadEstimate]]
    targets: Mapping[str, WordingAccuracy]
    skipped: BadRows
    variants: Mapping[str, Mapping[str, int]]
    resolved: Mapping[str, str | None]
    cost: Mapping[str, int]
    audit: Mapping[str, float]
    seconds: float
    way: str
    answer_changes: Mapping[str, AnswerChanges] | None = None
    psi: float | None = None
    psi_reason: str | None = None
    repeats: int | None = None
    equality: str | None = None
    request: Mapping[str, object] | None = None
    answered: Mapping[str, int] | None = None
    price: float | None = None
    answers: ReadAnswers | None = None
    changed: ChangedAnswers | None = None
    worst: WorstPrompt | None = None
    scale: WordingScale | None = None
    in_words: tuple[str, ...] | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """One condition (zero-shot, a source, the vote) on the test items of a target; shares in percent."""

    condition: str
    accuracy: Estimate | None
    validity: Estimate
    labels: Mapping[str, int]
    mass: float | None = None
    confidence: float | None = None
    accuracy_batch_calibrated: Estimate | None = None
    against_zero_shot: ChangeEstimate | None = None
    demonstrations_dropped: int | None = None
    demonstrations_shortened: int | None = None
    distinct_demonstrations: int | None = None


@dataclass(frozen=True, kw_only=True)
class SourceChoice:
    """The source that one way of choosing takes, and the test accuracy that comes with it, in percent."""

    source: str
    accuracy: Estimate | None
    uses_test_labels: bool
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TargetResult:
    """A labelled task: every condition, and how a source would have been chosen."""

    items: int
    dev_items: int
    free_answers: bool
    conditions: tuple[ConditionResult, ...]
    choice: Mapping[str, SourceChoice]


@dataclass(frozen=True, kw_only=True)
class SourceResult:
    """A source over all targets that it serves; empty where no target has answers."""

    mean_accuracy: float | None = None
    against_zero_shot: ChangeEstimate | None = None


@dataclass(frozen=True, kw_only=True)
class GrandMeans:
    """Mean accuracies over targets, in percent, and the relative gains; all None where no target has answers."""

    zero_shot: float | None = None
    cross_task: float | None = None
    vote: float | None = None
    in_task: float | None = None
    mixed: float | None = None
    points: float | None = None
    ratio_of_means_percent: float | None = None
    mean_of_ratios_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class CrossTaskResult(Result):
    """What ``cross_task`` returns: per target every condition and the choice of a source, per source the pooled test,
    means over targets, and what it cost.
    """

    model: str
    decode: str
    calibration: str
    k: int
    targets: Mapping[str, TargetResult]
    sources: Mapping[str, SourceResult]
    grand: GrandMeans
    labels_with_colliding_first_tokens: Mapping[str, str]
    cost: Mapping[str, float | None]
    seconds: float
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class LabelResult(Result):
    """What ``pseudo_label`` returns: how many inputs got a label and by which way, how good the labels are where the
    pool has answers (in percent), warnings, and the file of labels, which ``train`` takes as data.
    """

    target: str
    pool: int
    asked_of_the_model: int
    labelled: int
    abstained: int
    by_method: Mapping[str, int]
    labels: Mapping[str, int]
    agreement_with_given_answers: Mapping[str, Estimate]
    cost: Mapping[str, int]
    labels_path: str
    validity: Estimate | None = None
    mass: float | None = None
    warnings: tuple[str, ...] | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One setting of a study, with its scores over seeds; ``difference`` is that to conventional tuning on test."""

    setting: Mapping[str, object]
    setting_name: str
    ratio: float | None
    prompt_share: float | None
    members: tuple[tuple[float, ...], ...]
    conventional: bool
    seeds: int
    dev: SpreadEstimate | None
    test: SpreadEstimate | None
    difference: ChangeEstimate | None


@dataclass(frozen=True, kw_only=True)
class RunNoise:
    """Standard deviation between runs of one setting, pooled; ``sd`` is None where nothing was run twice."""

    sd: float | None
    df: int


@dataclass(frozen=True, kw_only=True)
class NaiveChoice:
    """What picking the best setting on the test split would have reported, and how much of that is luck."""

    setting_name: str
    test: float
    gain: float | None
    luck: float | None
    warning: str


@dataclass(frozen=True, kw_only=True)
class StoppedSetting:
    """A setting that a search stopped early, and how far it was behind conventional tuning then."""

    setting_name: str
    step: int | None
    steps: int | None
    metric: str | None
    score: float | None
    behind: float | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The choice among settings, made on dev and reported on test. ``chosen`` is None where nothing could be chosen;
    ``finding`` says why, or what may be claimed.
    """

    settings: tuple[SettingResult, ...]
    chosen: str | None
    finding: str
    best_on_dev: str | None = None
    one_standard_error: float | None = None
    conventional: str | None = None
    noise: RunNoise | None = None
    naive: NaiveChoice | None = None
    claim: str | None = None
    left_out: tuple[str, ...] | None = None
    stopped: tuple[StoppedSetting, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """One base model and data set of a study: the scores of the untuned model by split, and the selection."""

    base: Mapping[str, Mapping[str, float | None]] | None
    selection: Selection


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How the trials of a plan have ended."""

    planned: int
    done: int
    stopped: int
    failed: int
    not_started: int | None = None
    merged_from: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """Seconds of this call, of training and of measuring; tokens; bytes on disk."""

    seconds: float
    slots: int
    train: float
    measure: float
    outside_share: float | None
    tokens: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class StudyResult(Result):
    """What ``run_study`` returns: ``base`` and ``selection`` of the first group of base model and data set, all groups
    by name, the sentence of what may be claimed, and what it cost.
    """

    name: str
    metric: str
    higher_is_better: bool
    base: Mapping[str, Mapping[str, float | None]] | None
    selection: Selection
    groups: Mapping[str, GroupResult]
    finding: str
    trials: TrialCounts
    cost: StudyCost
    diverged: tuple[str, ...] | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class BestSetting(Selection, Result):
    """What ``best_setting`` returns of a study: the selection, and ``tune``, the keywords for ``train`` that repeat the
    chosen setting.
    """

    source: str
    metric: str
    higher_is_better: bool
    tune: Mapping[str, object]
    then: Mapping[str, object] | None = None
    trials: TrialCounts | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class TableSetting:
    """One setting of a table of results: conventional tuning, the best cell, and the noise between equal trainings."""

    setting: str
    base: float | None
    conventional: float
    conventional_name: str
    identical_mean: float
    best: float
    best_name: str
    best_cell: tuple[float, ...]
    rerun: bool
    gain: float
    noise_sd: float | None
    noise_df: int
    p: float | None
    shifted: bool | None = None


@dataclass(frozen=True, kw_only=True)
class FixedCell:
    """The pair of weights with the best mean gain over all settings, in hindsight, and the gains of all pairs (in
    percent).
    """

    name: str
    cell: tuple[float, ...]
    gain: float
    gains: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class IdenticalRuns:
    """How many runs of each setting are all conventional tuning, and what the best of them gains by luck alone."""

    runs: int
    gain: float


@dataclass(frozen=True, kw_only=True)
class LeftOutGain:
    """The gain of a fixed cell on parts of the settings that it was not chosen on, in percent."""

    left_out: str
    gain: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class RatioGain(ChangeEstimate):
    """Mean gain of one ratio of weights over conventional tuning, in percent, with simultaneous intervals."""

    name: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class TableFindings(Result):
    """What ``best_setting`` returns of a table of results made elsewhere: figures, and ``finding``, the sentence of
    what the table supports.
    """

    source: str
    metric: str
    higher_is_better: bool
    setting_columns: tuple[str, ...]
    cells: int
    classes: int
    settings: tuple[TableSetting, ...]
    fixed: FixedCell
    identical: IdenticalRuns
    left_out: tuple[LeftOutGain, ...]
    ratios: tuple[RatioGain, ...]
    finding: str
    columns: Mapping[str, object] | None = None
    about: str | None = None
    without_score: tuple[Mapping[str, object], ...] | None = None
    without_reference: tuple[str, ...] | None = None
    alike: bool | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class BenchmarkScore(Estimate):
    """A score of a benchmark or task: an ``Estimate`` with its metric and what was pinned (for a benchmark), and how
    the number is made of its items.
    """

    metric: str | None = None
    choice: str | None = None
    values: int | None = None
    aggregation: str | None = None
    weights: Mapping[str, float] | None = None
    higher_is_better: bool | None = None
    share: bool | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkAverages:
    """The mean of the benchmarks that have a score, in percent, of which it is made, and what had to be left out."""

    mean: float | None
    of: tuple[str, ...]
    left_out: tuple[str, ...] | None = None
    paper_average: float | None = None


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """What ``run_bench`` returns: the score that counts of every benchmark, every score by task and metric, averages,
    and what was pinned.
    """

    model: str
    benchmarks: Mapping[str, BenchmarkScore]
    averages: BenchmarkAverages
    items: int
    scores: Mapping[str, Mapping[str, BenchmarkScore]]
    resolved: Mapping[str, str | None]
    notes: tuple[str, ...]
    seconds: float
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class BenchmarkChange(ChangeEstimate):
    """A benchmark in run B less that in run A, paired by item; ``no_test`` says why there is no p-value."""

    metric: str
    left_out: int
    higher_is_better: bool | None = None
    no_test: str | None = None


@dataclass(frozen=True, kw_only=True)
class MovedSet:
    """A set of prompts whose psi moved between the runs."""

    set_id: str
    kind: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """What ``compare_runs`` returns: run B less run A, paired over the same units. Of sensitivity runs ``by_kind``,
    ``notes``, ``moved_most`` and ``measure`` (psi, differ or effect) are there, of bench runs ``benchmarks``;
    ``changes`` is the one of them that is.
    """

    run_a: str
    run_b: str
    by_kind: Mapping[str, ChangeEstimate] | None = None
    notes: tuple[str, ...] | None = None
    moved_most: tuple[MovedSet, ...] | None = None
    measure: str | None = None
    benchmarks: Mapping[str, BenchmarkChange] | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)

    @property
    def changes(self) -> Mapping[str, ChangeEstimate]:
        """The differences by kind of variant, or by benchmark."""
        return self.by_kind or self.benchmarks or {}


@dataclass(frozen=True, kw_only=True)
class RoleShare:
    """A role in audited rows: its targets, those that are paid, the sum of their weights, and the share of that in the
    sum over all roles, the weighted targets. Tokens of rows without roles have the role ``unknown``.
    """

    role: str
    is_given: bool
    tokens: int
    paid: int
    mass: float
    share: float


@dataclass(frozen=True, kw_only=True)
class ExampleToken:
    """A token around the first case of a finding; ``is_wrong`` says whether it belongs to the case."""

    text: str
    role: str | None
    weight: float
    is_wrong: bool


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """What is wrong in audited rows: ``count`` rows and ``tokens`` tokens of them, the first rows, the first case with
    what stands around it, and what to do.
    """

    kind: str
    sentence: str
    count: int
    tokens: int
    rows: tuple[str, ...]
    example: tuple[ExampleToken, ...]
    cure: str


@dataclass(frozen=True, kw_only=True)
class AuditResult(Result):
    """What ``audit_data`` returns: what is paid for, by role, and the findings. ``exit_code`` is 1 where there is one.
    ``not_seen`` says what was not looked at; ``weights``, ``templates``, ``max_length``, ``stops``, ``date`` and
    ``columns_not_used`` are those of the run that was audited.
    """

    exit_code: int
    model: str
    data: str | None
    prepared: str | None
    rows: int
    tokens: int
    roles: tuple[RoleShare, ...]
    findings: tuple[AuditFinding, ...]
    not_seen: tuple[str, ...]
    weights: Mapping[str, float] | None = None
    templates: Mapping[str, int] | None = None
    max_length: int | None = None
    stops: tuple[str, ...] | None = None
    date: str | None = None
    columns_not_used: tuple[str, ...] | None = None
    data_sources: tuple[SourceRows, ...] | None = None
    tables: tuple[Table, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A run directory on the page."""

    directory: str
    command: str
    complete: bool
    rows: int


@dataclass(frozen=True, kw_only=True)
class ReportResult(Result):
    """What ``write_report`` returns: the runs on the page, how many figures and tables it has, the files written, and
    ``path``, the one to open.
    """

    runs: tuple[ReportedRun, ...]
    figures: int
    tables: int
    files: tuple[str, ...]
    path: str
    bytes: int
    seconds: float


def from_summary(kind: type[T], summary: Mapping[str, object], unread: list[str] | None = None) -> T:
    """Return a summary as a result of this kind.

    Args:
        kind: the class of the result.
        summary: what a command returns, or a ``summary.json`` that was read.
        unread: collects the places of keys for which no class has a field, such as ``after.loss``. A newer version may
            write them; they are in ``to_summary()`` all the same.

    Raises:
        HoldfastError: a part is missing that every run of this kind has.
    """
    return typing.cast(T, _record(kind, {"summary": summary, **summary}, "", [] if unread is None else unread))


def _value(kind: Any, value: Any, place: str, unread: list[str]) -> Any:
    """A part of a summary as the type that its field declares. JSON has no NaN: a float that is null is one."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, place, unread)
    if kind is float:
        return math.nan if value is None else float(value)
    if kind is Table:
        return from_json(value)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place, unread)
    if origin is Mapping:
        return {key: _value(arguments[1], item, f"{place}.{key}", unread) for key, item in value.items()}
    if origin is tuple:
        return tuple(_value(arguments[0], item, f"{place}[]", unread) for item in value)
    return value


def _record(kind: Any, value: Mapping[str, Any], place: str, unread: list[str]) -> Any:
    read: dict[str, Any] = {}
    taken: set[str] = set()
    for each, hint in _fields(kind):
        keys = each.metadata.get("keys", (each.name,))
        key = next((key for key in keys if key in value), None)
        if key is not None:
            taken.add(key)
            read[each.name] = _value(hint, value[key], f"{place}.{key}".lstrip("."), unread)
        elif each.default is dataclasses.MISSING:
            raise HoldfastError(f"{place or 'the summary'} has no '{keys[0]}', as a {kind.__name__} has")
    unread += [f"{place}.{key}".lstrip(".") for key in value if key not in taken]
    return kind(**read)


@functools.cache
def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a class, each with the type that it declares."""
    hints = typing.get_type_hints(kind)
    return [(each, hints[each.name]) for each in dataclasses.fields(kind)]
