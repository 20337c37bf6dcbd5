"""The verbs of ``import holdfast``: keywords or a config in, a frozen result out. Each is a command.

    train(model="pocket", data="rows.jsonl", prompt_weight=0.1, output="runs/a")
    train(TuneConfig(...))
    train(config, seed=1)          keywords override the config

Bad input is a ``HoldfastError``. What a command prints on stdout goes to stderr here, the log, as stdout is the
caller's. A run that is complete in ``output`` is returned, not repeated; an unfinished one is continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from holdfast.config import (
    AlignConfig,
    AuditConfig,
    BenchCompareConfig,
    BenchConfig,
    BestConfig,
    CompareConfig,
    CrossTaskConfig,
    LabelConfig,
    ReportConfig,
    RunConfig,
    SensitivityConfig,
    StudyConfig,
    TuneConfig,
)
from holdfast.config.names import from_keywords
from holdfast.errors import HoldfastError, from_json
from holdfast.results import (
    AlignResult,
    AuditResult,
    BenchResult,
    BestSetting,
    Comparison,
    CrossTaskResult,
    Estimate,
    LabelResult,
    ReportResult,
    Result,
    SensitivityResult,
    StudyResult,
    TableFindings,
    TuneResult,
    from_summary,
)
from holdfast.runs import read_json, to_json
from holdfast.tables.text import counted

__all__ = [
    "Estimate",
    "Model",
    "align_preferences",
    "audit_data",
    "best_setting",
    "compare_runs",
    "cross_task",
    "load_model",
    "measure_sensitivity",
    "pseudo_label",
    "run_bench",
    "run_study",
    "train",
    "write_report",
]

C = TypeVar("C", bound=RunConfig)
R = TypeVar("R", bound=Result)


def train(config: TuneConfig | None = None, **keywords: object) -> TuneResult:
    """Fine-tune a causal language model with separate loss weights for prompt and response tokens (WIT).

    Args:
        config: see ``holdfast.config.TuneConfig``.
        keywords: its fields by name, which override those of ``config``; ``model``, ``data`` and ``output`` are needed.

    Returns:
        The evaluation before and after, the weights, counts, and ``model_path``, the folder of the tuned model.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> import holdfast
    >>> rows = "pocket:instructions"
    >>> result = holdfast.train(model="pocket", data=rows, prompt_weight=0.2, response_weight=0.8, output="runs/first",
    ...     limit=40, max_steps=3, batch_size=8)
    >>> result.steps, result.weights["user"], result.weights["assistant"]
    (3, 0.2, 0.8)
    >>> result.after.response_nll < result.before.response_nll
    True
    """
    config = _config(TuneConfig, config, keywords)
    from holdfast.tune.pipeline import train as run

    return _called(TuneResult, run, config)


def audit_data(config: AuditConfig | TuneConfig | None = None, **keywords: object) -> AuditResult:
    """Say what a training pays for, by role, and what is wrong with that. Loads no weights.

    Args:
        config: see ``holdfast.config.AuditConfig``; or the config of a training, whose ``output`` plays no part.
        keywords: its fields by name; ``model`` and one of ``data`` and ``prepared`` are needed.

    Returns:
        Per role the targets, those that are paid and their share of the weighted targets, and the findings, each with
        its count, first rows, an example and a cure.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> import holdfast
    >>> result = holdfast.audit_data(model="pocket", data="pocket:instructions", limit=40, weights={"eos": 0.0})
    >>> [(finding.kind, finding.rows[0]) for finding in result.findings]
    [('stop-never-paid', 'pocket:instructions, row 1')]
    """
    if type(config) is TuneConfig:
        config = AuditConfig(**vars(config) | {"output": ""})
    config = _config(AuditConfig, config, keywords)
    from holdfast.audit.pipeline import audit as run

    return _called(AuditResult, run, config)


def align_preferences(config: AlignConfig | None = None, **keywords: object) -> AlignResult:
    """Train a model on preferences (DPO and its kin, by TRL's trainer), from where a tuned model or any other stands.

    Args:
        config: see ``holdfast.config.AlignConfig``.
        keywords: its fields by name; ``model``, ``data`` and ``output`` are needed.

    Returns:
        Preference accuracy before and after on held-out pairs, and the gain, paired by item.

    Raises:
        HoldfastError: bad input, with file and row, or TRL is missing (extra ``align``).

    >>> import holdfast
    >>> result = holdfast.align_preferences(model="runs/first", data="pocket:preferences", output="runs/aligned",
    ...     limit=16, eval_share=0.5, max_steps=1, batch_size=4)
    >>> result.after.pairs, [step["command"] for step in result.lineage]
    (8, ['base', 'tune', 'align'])
    """
    config = _config(AlignConfig, config, keywords)
    from holdfast.align.pipeline import align as run

    return _called(AlignResult, run, config)


def measure_sensitivity(config: SensitivityConfig | None = None, **keywords: object) -> SensitivityResult:
    """Measure how far a model's answers move when only the wording of a prompt changes (POSIX).

    Args:
        config: see ``holdfast.config.SensitivityConfig``.
        keywords: its fields by name; ``model``, ``output`` and one of ``sets`` and ``prompts`` are needed.

    Returns:
        POSIX by kind of variant in nats per token, each an ``Estimate`` over sets; ``posix["all"]`` is over all kinds.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> import holdfast
    >>> result = holdfast.measure_sensitivity(model="pocket", sets="pocket:intents", chat=True, output="runs/posix",
    ...     limit=4, max_new_tokens=4)
    >>> posix = result.posix["all"]
    >>> posix.n, posix.low <= posix.mean <= posix.high
    (4, True)
    """
    config = _config(SensitivityConfig, config, keywords)
    from holdfast.sensitivity.pipeline import measure as run

    return _called(SensitivityResult, run, config)


def cross_task(config: CrossTaskConfig | None = None, **keywords: object) -> CrossTaskResult:
    """Label target tasks from labelled examples of other tasks, and say how well that works.

    Args:
        config: see ``holdfast.config.CrossTaskConfig``.
        keywords: its fields by name; ``model``, ``sources``, ``target`` and ``output`` are needed.

    Returns:
        Per target every condition with accuracy and validity in percent, and how a source would have been chosen.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> import holdfast
    >>> result = holdfast.cross_task(model="pocket", sources="pocket:tasks/opposite,pocket:tasks/plural",
    ...     target="pocket:tasks/sentiment", limit=6, pool_limit=20, output="runs/cross-task")
    >>> [row.condition for row in result.targets["sentiment"].conditions]
    ['zero-shot', 'opposite', 'plural', 'vote']
    >>> result.targets["sentiment"].conditions[0].accuracy.n
    6
    """
    config = _config(CrossTaskConfig, config, keywords)
    from holdfast.crosstask.pipeline import transfer as run

    return _called(CrossTaskResult, run, config)


def pseudo_label(config: LabelConfig | None = None, **keywords: object) -> LabelResult:
    """Label the unlabelled inputs of a task by a vote of source tasks.

    Args:
        config: see ``holdfast.config.LabelConfig``.
        keywords: its fields by name; ``model``, ``sources``, ``target`` and ``output`` are needed.

    Returns:
        Counts, the distribution of the labels, their quality where the pool has answers, and ``labels_path``, a file
        that ``train`` takes as data.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> import holdfast
    >>> result = holdfast.pseudo_label(model="pocket", sources="pocket:tasks/opposite,pocket:tasks/plural",
    ...     target="pocket:tasks/sentiment", limit=6, pool_limit=20, output="runs/labels")
    >>> result.labelled + result.abstained == result.pool == 6
    True
    """
    config = _config(LabelConfig, config, keywords)
    from holdfast.crosstask.labelling import label as run

    return _called(LabelResult, run, config)


def run_study(config: StudyConfig | None = None, **keywords: object) -> StudyResult:
    """Find the weights that suit a model and its data: train, measure, choose on one split, report on another.

    Args:
        config: see ``holdfast.config.StudyConfig``.
        keywords: its fields by name; ``study`` is needed, the file that says what to vary.

    Returns:
        The selection with intervals, and ``finding``, a sentence that claims no more than the noise allows.

    Raises:
        HoldfastError: bad input (nothing has been trained then), or no trial that worked.

    >>> import holdfast
    >>> result = holdfast.run_study(study="study.yaml", output="studies/mine", slots=1)
    >>> result.trials.done, result.selection.chosen in ("(0, 1)", "(0.2, 0.8)")
    (2, True)
    """
    config = _config(StudyConfig, config, keywords)
    from holdfast.study.pipeline import run

    return _called(StudyResult, run, config)


def best_setting(config: BestConfig | None = None, **keywords: object) -> BestSetting | TableFindings:
    """Say which setting of a study to use, or what a table of results made elsewhere supports.

    Args:
        config: see ``holdfast.config.BestConfig``.
        keywords: its fields by name; ``source`` is needed, a study directory or a CSV file.

    Returns:
        ``BestSetting`` of a study, whose ``tune`` are keywords for ``train``; ``TableFindings`` of a table.

    Raises:
        HoldfastError: neither a study nor a table there, or nothing that can be compared.

    >>> import holdfast
    >>> scores = ["prompt_weight,response_weight,accuracy", "0,1,0.50", "0,0.5,0.52", "0.2,0.8,0.53", "1,1,0.51"]
    >>> _ = open("results.csv", "w").write("\\n".join(scores))
    >>> table = holdfast.best_setting(source="results.csv", metric="accuracy")
    >>> table.settings[0].best_name, table.identical.runs
    ('(0.2, 0.8)', 2)
    """
    config = _config(BestConfig, config, keywords)
    from holdfast.study.choosing import best as run

    if Path(config.source).is_dir():
        return _called(BestSetting, run, config)
    return _called(TableFindings, run, config)


def run_bench(config: BenchConfig | None = None, **keywords: object) -> BenchResult:
    """Measure a model on benchmarks by lm-evaluation-harness, and on open questions by a judge of yours.

    Args:
        config: see ``holdfast.config.BenchConfig``.
        keywords: its fields by name; ``model``, ``output`` and one of ``suite`` and ``tasks`` are needed.

    Returns:
        The score that counts of every benchmark with its interval, all other scores, averages, and what was pinned.

    Raises:
        HoldfastError: bad input, or the extra ``bench`` is missing.

    >>> import holdfast
    >>> result = holdfast.run_bench(model="pocket", tasks="my_sums", data_dir="tasks", template="none",
    ...     output="runs/bench")
    >>> result.benchmarks["my_sums"].metric, result.benchmarks["my_sums"].n
    ('acc,none', 6)
    """
    config = _config(BenchConfig, config, keywords)
    from holdfast.bench.pipeline import run

    return _called(BenchResult, run, config)


def write_report(config: ReportConfig | None = None, **keywords: object) -> ReportResult:
    """Put run directories of any kind on one offline HTML page; also Markdown, CSV and pictures.

    Args:
        config: see ``holdfast.config.ReportConfig``.
        keywords: its fields by name; ``directories`` is needed, the runs in the order of the page.

    Returns:
        The runs, what is on the page, the files, and ``path``, the one to open.

    Raises:
        HoldfastError: no run there, or a file in the way that no report has written.

    >>> import holdfast
    >>> result = holdfast.write_report(directories=["runs/first"], output="report.html")
    >>> [run.command for run in result.runs], result.path.endswith("report.html")
    (['tune'], True)
    """
    config = _config(ReportConfig, config, keywords)
    from holdfast.report.pipeline import make as run

    return _called(ReportResult, run, config)


def compare_runs(config: CompareConfig | None = None, **keywords: object) -> Comparison:
    """Compare run B with run A over the same units: two runs of ``measure_sensitivity`` or two of ``run_bench``.

    Args:
        config: see ``holdfast.config.CompareConfig``.
        keywords: its fields by name; ``run_a`` and ``run_b`` are needed.

    Returns:
        ``changes``: by kind of variant, or by benchmark, the difference B - A with interval and p-value.

    Raises:
        NotComparableError: the runs measured different things; the message says which.
        HoldfastError: no finished runs of one kind there.

    >>> import holdfast
    >>> _ = holdfast.measure_sensitivity(model="runs/first", sets="pocket:intents", chat=True,
    ...     output="runs/posix-tuned", limit=4, max_new_tokens=4)
    >>> result = holdfast.compare_runs(run_a="runs/posix", run_b="runs/posix-tuned", bootstrap=100)
    >>> change = result.changes["all"]
    >>> abs(change.b - change.a - change.mean) < 1e-9, change.n
    (True, 4)
    """
    config = _config(CompareConfig, config, keywords)
    if _command(config.run_a) == "bench run":
        from holdfast.bench.comparison import compare as compare_bench

        return _called(Comparison, compare_bench, BenchCompareConfig(**vars(config)))
    from holdfast.sensitivity.comparison import compare

    return _called(Comparison, compare, config)


@dataclass(frozen=True)
class Model:
    """A loaded model: greedy answers to prompts, and log-probs of answers that are given; made by ``load_model``.

    ``template`` is what prompts are put into: ``chat``, ``plain``, ``alpaca``, ``dialogue``, or ``none``, as they are.
    """

    name: str
    template: str
    network: Any = dataclasses.field(repr=False)
    """The ``torch.nn.Module``, as transformers loads it."""
    tokenizer: Any = dataclasses.field(repr=False)

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        """Return the greedy answer to each prompt, of at most so many tokens, without the token that ends it.

        >>> import holdfast
        >>> holdfast.load_model("pocket").generate(["Count to 3."], max_new_tokens=4)[0] != ""
        True
        """
        from holdfast.lm import LM

        if not prompts:
            return []
        written = [self._written(prompt) for prompt in prompts]
        return LM(self.network, self.tokenizer, self.name).generate(written, max_new_tokens=max_new_tokens)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Return the log-prob of each answer behind its prompt, in nats, summed over the answer's tokens. The end of
        the answer is not scored.

        Raises:
            HoldfastError: other numbers of prompts and of answers, or an answer that adds no token.

        >>> import holdfast
        >>> one, other = holdfast.load_model("pocket").score(["Count to 3."] * 2, ["1 2 3", "zebra"])
        >>> one > other
        True
        """
        from holdfast.lm import pad_id
        from holdfast.lm.batched import sequence_nlls

        if len(prompts) != len(answers):
            raise HoldfastError(
                f"{counted(len(prompts), 'prompt')} and {counted(len(answers), 'answer')}; each answer "
                "stands behind a prompt"
            )
        written = [self._written(prompt) for prompt in prompts]
        before = self._ids(written)
        whole = self._ids([prompt + answer for prompt, answer in zip(written, answers, strict=True)])
        # a tokenizer may join the end of the prompt with the answer: what both share is the prompt
        shared = [_shared(left, right) for left, right in zip(before, whole, strict=True)]
        for answer, start, ids in zip(answers, shared, whole, strict=True):
            if start in (0, len(ids)):
                raise HoldfastError(f"the answer {answer!r} adds no token to its prompt, or its prompt is empty")
        nlls = sequence_nlls(self.network, whole, pad_id(self.tokenizer))
        return [-float(nll[start:].sum()) for nll, start in zip(nlls, shared, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []

    def _written(self, prompt: str) -> str:
        from holdfast.data.chat_template import generation_prompt
        from holdfast.records import Message, Role

        if self.template == "none":
            return prompt
        return generation_prompt([Message(Role.USER, prompt)], self.template, self.tokenizer)


def load_model(
    name: str | os.PathLike[str], *, template: str = "auto", device: str | None = None, trust_remote_code: bool = False
) -> Model:
    """Load a causal language model, to ask it and to score answers.

    Args:
        name: a hub name, a local folder, a run directory of ``train`` or ``align_preferences``, or ``pocket``.
        template: what prompts are put into. ``auto``: what the run was tuned with, else the tokenizer's chat template,
            else none.
        device: where to put the model. Default: the first GPU if there is one, else the CPU.
        trust_remote_code: allow code that comes with the model to run.

    Returns:
        A ``Model`` with ``generate`` and ``score``.

    Raises:
        HoldfastError: no model there, or an unknown template.

    >>> import holdfast
    >>> model = holdfast.load_model("pocket")
    >>> answers = model.generate(["What is the opposite of hot?"], max_new_tokens=8)
    >>> len(answers), model.template
    (1, 'chat')
    """
    from holdfast import lm
    from holdfast.data.chat_template import template_for

    tokenizer = lm.load_tokenizer(os.fspath(name), trust_remote_code=trust_remote_code)
    template = template_for(os.fspath(name), template, tokenizer)
    loaded = lm.load(os.fspath(name), tokenizer, device=device, trust_remote_code=trust_remote_code)
    return Model(loaded.name, template, loaded.model, tokenizer)


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))


def _config(kind: type[C], config: C | None, keywords: Mapping[str, object]) -> C:
    """Return the config of a verb: keywords, over ``config`` where there is one.

    Raises:
        HoldfastError: an unknown keyword, a value of another type, or one that is needed and missing.
    """
    if config is not None and not isinstance(config, kind):
        raise HoldfastError(f"the config is a {type(config).__name__}, not a {kind.__name__}", hint="give keywords")
    return from_keywords(kind, config, **keywords)


def _called(kind: type[R], command: Callable[[Any], Any], config: RunConfig) -> R:
    """Run a command and return its summary, as its file has it, as a result of this kind."""
    if config.dry_run:
        raise HoldfastError(
            "dry_run shows what a run would do and gives no result", hint="use the command with --dry-run to see it"
        )
    with contextlib.redirect_stdout(sys.stderr):
        summary = command(config)
    return from_summary(kind, from_json(to_json(summary)))


def _command(run: str) -> str | None:
    """The command that made a run directory; None where there is none."""
    file = Path(run) / "config.json"
    content = read_json(file) if file.is_file() else None
    return content.get("command") if isinstance(content, dict) else None
