"""A model -> the values of every metric on dev and test, and per item where there are items.

    response_nll = sum of the NLLs of response targets / their number           (nats per token, unweighted)

Per-item values are scaled so that their mean is the value of the split, which paired intervals need.
Axes: B batch, T tokens, N items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.config import CrossTaskConfig, SensitivityConfig, TuneConfig
from holdfast.data.chat_template import generation_prompt, prepare, template_name, values_of, with_kwargs
from holdfast.data.examples import load_examples
from holdfast.data.shapes import shape_of
from holdfast.errors import HoldfastError
from holdfast.lm import print_date
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Example, Tokens
from holdfast.runs import read_rows, write_text
from holdfast.study.measures import ANSWER_METRICS, Measure, function_of, sets_file, split_sets
from holdfast.study.sources import SourceFacts, load_tokens
from holdfast.tables.text import counted
from holdfast.tune.roles import joined_turns

Items = npt.NDArray[np.float64]


@dataclass
class Measured:
    """Values by metric, and values per item [N] of those metrics that have items."""

    values: dict[str, float | None]
    items: dict[str, Items]

    def add(self, name: str, items: Sequence[float] | Items) -> None:
        """A metric that is the mean of its items."""
        self.items[name] = np.asarray(items, np.float64)
        self.values[name] = float(self.items[name].mean())


class Evaluator:
    """Everything that measuring on one data set needs, read once: tokens, prompts, targets.

    Args:
        folder: where ``sources`` and ``split_sets`` have put their files.
        items: measure answers on the first so many examples of each split.
    """

    def __init__(
        self,
        facts: SourceFacts,
        config: TuneConfig,
        measures: Sequence[Measure],
        folder: Path,
        items: int | None = None,
    ) -> None:
        self.facts, self.config, self.measures, self.folder, self.items = facts, config, measures, folder, items
        self.tokens = {split: load_tokens(folder / f"{facts.key}.npz", split) for split in ("dev", "test")}
        self._examples: dict[str, list[Example]] = {}
        self._benchmarks: dict[tuple[str, str], Sequence[dict[str, Any]]] = {}

    def nll(self, lm: Any, split: str) -> Measured:
        """Prompt and response NLL."""
        measured = Measured({"response_nll": None, "prompt_nll": None}, {})
        tokens = self.tokens[split]
        sums = nll_sums(lm, tokens)
        for name, total_N, count_N in (
            ("response_nll", sums[:, 2], sums[:, 3]),
            ("prompt_nll", sums[:, 0], sums[:, 1]),
        ):
            if count_N.sum():
                measured.add(name, total_N * len(total_N) / count_N.sum())
        return measured

    def measure(
        self, lm: Any, name: str, where: Path, split: str, measures: Sequence[Measure] | None = None
    ) -> Measured:
        """All metrics on one split.

        Args:
            lm: the model, loaded.
            name: by what commands that load it themselves can load it.
            where: folder for what such commands write.
            measures: other than those of the study.
        """
        measured = self.nll(lm, split)
        wanted = self.measures if measures is None else measures
        self._answers(lm, split, [m for m in wanted if m.needs_answers], where, measured)
        for m in wanted:
            if m.name == "posix":
                options = {"date": self.config.date, "chat_template_kwargs": self.config.chat_template_kwargs}
                _posix(m, name, where / f"posix-{split}", sets_file(m, self.folder, split), measured, options)
            elif m.name == "crosstask_accuracy":
                _cross_task(m, lm, name, where / f"crosstask-{split}", split, measured)
            elif m.name.startswith("lm_eval:"):
                half = self._benchmark(m, name)[0 if split == "dev" else 1]
                if half["items"] is None:  # no mean over items, but what the task makes of this half
                    measured.values[m.name] = half["value"]
                else:
                    measured.add(m.name, half["items"])
            elif m.is_own:
                _own(m, lm, self.facts.files[split], measured)
        return measured

    def _answers(self, lm: Any, split: str, measures: Sequence[Measure], where: Path, measured: Measured) -> None:
        """Answers are generated once per length limit and read by every metric."""
        for longest in dict.fromkeys(m.options.get("max_new_tokens", 32) for m in measures):
            examples = self._of(split)
            prompts = prompts_of(examples, self.config, lm.tokenizer)
            targets = [e.messages[-1].content for e in examples]
            answers = lm.generate(prompts, max_new_tokens=longest)
            lines = [
                json.dumps({"target": t, "answer": a}, ensure_ascii=False) + "\n"
                for t, a in zip(targets, answers, strict=True)
            ]
            write_text(where / f"answers-{split}-{longest}.jsonl", "".join(lines))
            for m in measures:
                if m.options.get("max_new_tokens", 32) == longest:
                    score, _ = ANSWER_METRICS[m.name]
                    measured.add(m.name, [score(a, t) for a, t in zip(answers, targets, strict=True)])

    def _benchmark(self, measure: Measure, model: str) -> Sequence[dict[str, Any]]:
        """Value and items of both splits of a task of lm-evaluation-harness, run once: even items are dev, odd ones
        test.
        """
        if (model, measure.name) not in self._benchmarks:
            from holdfast.bench import harness_scores

            task = measure.name.removeprefix("lm_eval:")
            self._benchmarks = {
                (model, measure.name): harness_scores(model, [task], **measure.options)[task]["halves"]
            } | {key: halves for key, halves in self._benchmarks.items() if key[0] == model}
        return self._benchmarks[model, measure.name]

    def _of(self, split: str) -> list[Example]:
        if split not in self._examples:
            bad: list[str] | None = [] if self.config.skip_bad_rows else None
            self._examples[split] = load_examples(
                self.facts.files[split],
                layout=self.config.layout,
                limit=self.items,
                bad_rows=bad,
                shape=shape_of(self.config),
            )
        return self._examples[split]


def check_measures(measures: Sequence[Measure], folder: Path) -> None:
    """Try what measuring could fail at once models are trained, and put the prompt sets of POSIX into the folder.

    Raises:
        HoldfastError: a task or file that is not there, or items that are on dev and on test.
    """
    for m in measures:
        if m.name == "posix":
            split_sets(m, folder)
        elif m.name == "crosstask_accuracy":
            _check_cross_task(m)
        elif m.name.startswith("lm_eval:"):
            from holdfast.bench import check_tasks

            task, options = (
                m.name.removeprefix("lm_eval:"),
                {name: m.options.get(name) for name in ("data_dir", "limit")},
            )
            check_tasks([task], **options, halves=True, higher_is_better=m.higher_is_better)


def nll_sums(lm: Any, tokens: Sequence[Tokens]) -> npt.NDArray[np.float64]:
    """Per example [N, 4]: sum of prompt NLLs, prompt targets, sum of response NLLs, response targets. Plain logits,
    float32.
    """
    from holdfast.lm.batched import sequence_nlls

    sums = np.zeros((len(tokens), 4))
    for row, (example, nll) in enumerate(
        zip(tokens, sequence_nlls(lm.model, [t.ids.tolist() for t in tokens], lm.pad_id))
    ):
        for column, roles in ((0, PROMPT_ROLES), (2, RESPONSE_ROLES)):
            mask = np.isin(example.roles, roles)
            mask[0] = False  # the first token is no target
            sums[row, column], sums[row, column + 1] = nll[mask].sum(), mask.sum()
    return sums


def prompts_of(examples: Sequence[Example], config: TuneConfig, tokenizer: Any) -> list[str]:
    """Return the text after which a model is to answer each example, rendered as the training renders it: with the
    chat template, the values for it and the day that the config names. A row's own values go over those.
    """
    kwargs = prepare(tokenizer, config.chat_template, config.chat_template_kwargs, config.stop)
    if config.date is not None:
        print_date(tokenizer, config.date)
    return [_prompt(example, config.template, tokenizer) for example in with_kwargs(examples, kwargs)]


def _prompt(example: Example, template: str, tokenizer: Any) -> str:
    name = template_name(template, example.layout, tokenizer)
    messages = joined_turns(example, name)[:-1]
    return generation_prompt(messages, name, tokenizer, example.tools, example.template_kwargs)


def _posix(
    measure: Measure, model: str, output: Path, sets: Path, measured: Measured, trained: Mapping[str, Any]
) -> None:
    """POSIX over all pairs of a set, or with ``pairs: kinds`` the mean over the kinds of change; several kinds each as
    ``posix KIND``. In a chat, ``trained`` says what the template was given in training, if the measure names no others.
    """
    from holdfast.sensitivity import measure as run

    options = {key: value for key, value in measure.options.items() if key not in ("sets", "dev", "test")}
    kwargs = trained["chat_template_kwargs"]
    if kwargs and options.get("chat"):
        options = {"chat_template_kwargs": json.dumps(values_of(kwargs))} | options
    options = {"date": trained["date"]} | options
    by_kind = run(
        SensitivityConfig(**options, model=model, sets=str(sets), output=str(output), overwrite=True, json=True)
    )["posix"]
    kinds = {kind: float(value["mean"]) for kind, value in by_kind.items() if kind != "all"}
    measured.values |= {f"posix {kind}": value for kind, value in kinds.items()} if len(kinds) > 1 else {}
    if "all" in by_kind:
        rows = read_rows(output / "rows.jsonl")
        measured.add("posix", [row["indices"]["all"]["psi"] for row in rows])
    else:
        measured.values["posix"] = float(np.mean(list(kinds.values())))


def _cross_task(measure: Measure, lm: Any, model: str, output: Path, split: str, measured: Measured) -> None:
    """Accuracy on the split's target tasks with an example of another task, mean over sources and targets."""
    from holdfast.crosstask import transfer

    measured.values["crosstask_accuracy"] = (
        transfer(_cross_task_config(measure, model, output, split), lm)["grand"]["cross_task"] / 100
    )


def _cross_task_config(measure: Measure, model: str, output: Path, split: str) -> CrossTaskConfig:
    options = {key: value for key, value in measure.options.items() if key not in ("dev", "test", "sources")}
    listed = {name: ",".join(value) if isinstance(value, list) else value for name, value in measure.options.items()}
    return CrossTaskConfig(
        **options,
        model=model,
        sources=listed["sources"],
        target=listed[split],
        output=str(output),
        overwrite=True,
        json=True,
    )


def _check_cross_task(measure: Measure) -> None:
    from holdfast.crosstask.grid import load_grid
    from holdfast.crosstask.overlap import Inputs

    dev, test = (
        load_grid(_cross_task_config(measure, "", Path(), split)).targets.values() for split in ("dev", "test")
    )
    seen, asked = ([Inputs(target.task, target.items) for target in part] for part in (dev, test))
    shared = [pair for theirs in asked for ours in seen for pair in ours.shared(theirs)[0]]
    if shared:
        raise HoldfastError(
            f"measure: crosstask_accuracy: dev and test share {counted(len(shared), 'item')}; the first: "
            f"{shared[0][1].where} is "
            f"{shared[0][0].where}",
            hint="name other target tasks for one of them",
        )


def _own(measure: Measure, lm: Any, source: str, measured: Measured) -> None:
    try:
        returned = function_of(measure.name)(lm, source)
    except Exception as error:  # whatever a user's function raises
        raise HoldfastError(f"measure {measure.name} failed: {type(error).__name__}: {error}") from error
    many = np.iterable(returned)
    try:
        if isinstance(returned, str | bytes | dict):
            raise TypeError
        values = [float(value) for value in (returned if many else [returned])]
    except (TypeError, ValueError):
        values = []
    if not values:
        raise HoldfastError(
            f"measure {measure.name} returned {repr(returned)[:60]}; it must return a number, or a number per item"
        )
    if many:
        measured.add(measure.name, values)
    else:
        measured.values[measure.name] = values[0]
