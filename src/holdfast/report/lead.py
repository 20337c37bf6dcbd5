"""A run -> the four facts that its section begins with: what was run, the main result with its uncertainty, whether
that is beyond noise, and what to do next. And the figures by which two runs of a kind are compared.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.report.reading import ReadRun
from holdfast.report.settings import Study, TunedSetting, open_studies
from holdfast.report.terms import in_words, with_unit
from holdfast.tables.crosstask import means
from holdfast.tables.record import Cell, Interval
from holdfast.tables.text import counted, number

Answers = tuple[str, str, str, str]
"""What was run; the main result; is it beyond noise; what to do next."""

QUESTIONS = ("What was run", "Main result", "Beyond noise?", "What to do next")

_NLLS = ("response_nll", "prompt_nll")
_FEW = 30
"""Below so many held-out examples a change is called too small a measurement to say."""


def four_facts(run: ReadRun) -> list[tuple[str, str]]:
    """Return the four questions with their answers. A run without a summary has no result yet, and says so."""
    if not run.summary:
        going_on = "Run the command below again: it goes on where it stopped." if run.config else "Run it to its end."
        unknown = "Nothing can be said before the run is complete."
        return list(zip(QUESTIONS, (_what(run), "None yet: the run is not complete.", unknown, going_on)))
    answer = _ANSWERS.get(run.command, _plain)
    return list(zip(QUESTIONS, answer(run), strict=True))


def figures_of(run: ReadRun) -> list[tuple[str, Cell]]:
    """Return the figures of a run that can be set beside those of another run of its kind, by name."""
    summary = run.summary
    match run.command:
        case "tune":
            places = itertools.product(_NLLS, _TIMES)
            return [(f"{in_words(key)} {when}", _of(summary, when, key)) for key, when in places]
        case "sensitivity run":
            posix = summary.get("posix") or {}
            return [(f"POSIX, {view}", Interval.of(posix[view], "mean")) for view in posix]
        case "crosstask run":
            grand = summary.get("grand") or {}
            names = {"zero_shot": "zero-shot", "cross_task": "cross-task", "vote": "vote"}
            return [(f"mean accuracy, {name}, %", grand.get(key)) for key, name in names.items() if key in grand]
        case "bench run":
            return _scores(summary.get("scores") or {})
        case "align":
            keys = ("preference_accuracy", "reward_accuracy", "reward_margin")
            return [(f"{in_words(key)} after", Interval.of(_of(summary, "after", key))) for key in keys]
        case "study run":
            return _study_figures(run)
    return []


_TIMES = ("before", "after")


def _scores(by_task: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    figures: list[tuple[str, Cell]] = []
    for task, metrics in by_task.items():
        figures += [(f"{task}, {metric}", Interval.of(score)) for metric, score in metrics.items() if "value" in score]
    return figures


def _study_figures(run: ReadRun) -> list[tuple[str, Cell]]:
    figures: list[tuple[str, Cell]] = []
    for name, study in open_studies(run):
        about = f" ({name})" if name else ""
        for key in ("chosen", "conventional"):
            setting = study.named(key)
            if setting is not None:
                figures.append((f"{key}, test {in_words(study.metric)}{about}", setting.test))
        figures.append((f"noise of one training (sd){about}", (study.selection.get("noise") or {}).get("sd")))
    return figures


def _what(run: ReadRun) -> str:
    config, summary = run.config, run.summary
    model, data = config.get("model") or summary.get("model"), config.get("data") or config.get("study")
    said = f"holdfast {run.command}"
    said += f" of {model}" if model else ""
    return f"{said} on {data}." if data else f"{said}."


def _of(summary: Mapping[str, Any], part: str, key: str) -> Any:
    return (summary.get(part) or {}).get(key)


def _tuned(run: ReadRun) -> Answers:
    summary, config = run.summary, run.config
    weights = summary.get("weights") or {}
    pair = ", prompt weight {user:g} and response weight {assistant:g}".format(**weights) if "user" in weights else ""
    what = (
        f"{config.get('model')} was tuned on {counted(summary.get('train_examples') or 0, 'example')} of "
        f"{config.get('data')} for {counted(summary.get('steps') or 0, 'step')}{pair}."
    )
    before, after = (_of(summary, when, "response_nll") for when in _TIMES)
    held_out = summary.get("eval_examples") or 0
    if before is None or after is None or not held_out:
        result = "No data was held out, so no result was measured."
        return what, result, "Unknown: nothing was measured.", "Hold data out: --eval-share 0.1, or --eval-data FILE."
    result = (
        f"Response NLL {number(before)} → {number(after)} nats per token "
        f"on {counted(held_out, 'held-out example')}, in one training."
    )
    noise = "Unknown: whether another seed would do the same, one training cannot tell"
    noise += f", and {counted(held_out, 'example')} are few." if held_out < _FEW else "."
    model = shlex.quote(str(summary.get("model_path") or f"{run.path}/model"))
    chat = " --chat" if "chat" in ((summary.get("data_report") or {}).get("templates") or {}) else ""
    return what, result, noise, (
        "To choose weights, run a study with three seeds or more (`holdfast study run FILE`). To see whether the model "
        f"has become steadier: `holdfast sensitivity run --model {model} --sets pocket:intents{chat} --output DIR`."
    )  # fmt: skip


def _studied(run: ReadRun) -> Answers:
    studies = [study for _, study in open_studies(run)]
    first = studies[0]
    trials = sum(len(study.trials) for study in studies)
    pairs = f", for {counted(len(studies), 'pair')} of model and data" if len(studies) > 1 else ""
    what = (
        f"{counted(len(first.settings), 'setting')} of weights, {first.seeds} each{pairs}: "
        f"{counted(trials, 'training')}, chosen by {with_unit(first.metric)}."
    )
    if len(studies) > 1:
        beyond = sum(study.selection.get("claim") in ("better", "worse") for study in studies)
        result = str(run.summary.get("finding") or "").replace("\n", " ")
        noise = f"In {beyond} of {len(studies)} the chosen setting differs from conventional tuning beyond noise."
        return what, result, noise, "Look at each pair of model and data below; a choice holds for its own pair only."
    return what, _study_result(first), *_study_verdict(first)


def _study_result(study: Study) -> str:
    chosen, conventional = study.named("chosen"), study.named("conventional")
    if chosen is None or chosen.test.value is None:
        return "No setting was chosen."
    said = f"Chosen on dev: {chosen.name}, with a test {in_words(study.metric)} of {_with_ends(chosen.test)}"
    if chosen is conventional:
        return f"{said}; that is conventional tuning itself."
    if conventional is None or conventional.test.value is None:
        return f"{said}."
    said += f"; conventional tuning has {_with_ends(conventional.test)}"
    difference = Interval.of(chosen.difference, "mean")
    return f"{said}, a difference of {_with_ends(difference)}." if difference.value is not None else f"{said}."


def _study_verdict(study: Study) -> tuple[str, str]:
    chosen, conventional = study.named("chosen"), study.named("conventional")
    if not seen_noise(study):
        return (
            "Unknown: no noise between seeds was seen, so nothing is claimed.",
            "Run it again with three seeds or more (`seeds: [0, 1, 2]` in the study file); keep conventional tuning.",
        )
    if chosen is not None and chosen is conventional:
        return (
            "No setting beats conventional tuning on dev beyond noise.",
            "Keep conventional tuning (prompt weight 0), or add seeds and dev data if a smaller gain would matter.",
        )
    claim = _claim(study, chosen)
    if claim is None:
        return (
            "No: the interval of the difference to conventional tuning holds 0, or there is none.",
            "Keep conventional tuning, or add seeds and test data if a gain of this size would matter.",
        )
    if claim == "better":
        return "Yes: the interval of the difference does not hold 0.", f"Use the chosen setting{_as_options(chosen)}."
    return "Yes, and to the worse: the choice on dev did not hold on test.", "Keep conventional tuning."


def _claim(study: Study, chosen: TunedSetting | None) -> str | None:
    """The study's own claim, or what the interval of the chosen setting says where a study states none."""
    claim = study.selection.get("claim")
    if claim in ("better", "worse"):
        return str(claim)
    difference = Interval.of(chosen.difference if chosen else None, "mean")
    if claim == "none" or difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return None
    return "better" if (difference.low > 0) == (study.better(study.metric) == "higher") else "worse"


def _as_options(setting: TunedSetting | None) -> str:
    """The weights of a setting as options of ``tune``, where it has both."""
    weights = [(setting.values if setting else {}).get(f"{part}_weight") for part in ("prompt", "response")]
    if None in weights:
        return ""
    return ": `holdfast tune --prompt-weight {} --response-weight {}`, with the other options of the study".format(
        *weights
    )


def seen_noise(study: Study) -> float | None:
    """Return the standard deviation between trainings that differ in their seed alone; None where a study has seen
    none.
    """
    value = (study.selection.get("noise") or {}).get("sd")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None


def _measured(run: ReadRun) -> Answers:
    summary = run.summary
    posix = summary.get("posix") or {}
    what = (
        f"{run.config.get('model')} answered {counted(summary.get('prompts') or 0, 'prompt')} in "
        f"{counted(summary.get('sets') or 0, 'set')} of wordings."
    )
    view = "all" if "all" in posix else next(iter(posix), None)
    if view is None or posix[view].get("mean") is None:
        return what, "No POSIX was measured.", "Unknown.", "See below what is missing."
    estimate, sets = Interval.of(posix[view], "mean"), posix[view].get("sets") or 0
    result = f"POSIX {_with_ends(estimate)} nats per token over {'all' if view == 'all' else view} variants."
    noise = f"The interval comes from {counted(sets, 'set')}; it says how far POSIX would move with other sets."
    if sets < _FEW:
        noise += " So few sets say little about other prompts."
    path = shlex.quote(str(run.path))
    return what, result, noise, (
        "Read below which kind of change moves answers most. To see whether another model is steadier, measure it on "
        f"the same sets and compare: `holdfast sensitivity compare {path} OTHER --output DIR`."
    )  # fmt: skip


def _compared(run: ReadRun) -> Answers:
    summary = run.summary
    kinds = summary.get("by_kind") or {}
    what = f"{summary.get('run_b')} (B) against {summary.get('run_a')} (A), paired over the same sets."
    view = "all" if "all" in kinds else next(iter(kinds), None)
    if view is None:
        return what, "No kind of variant was compared.", "Unknown.", "Compare two runs over the same sets."
    change = Interval.of(kinds[view], "difference")
    where = "all" if view == "all" else view
    result = f"POSIX changes by {_with_ends(change)} nats per token over {where} variants; below 0, B is steadier."
    moved = [kind for kind, row in kinds.items() if _is_apart(Interval.of(row, "difference"))]
    noise = f"Yes for {', '.join(moved)}; no for the rest." if moved else "No: every interval holds 0."
    if "failed" in summary:
        failed = summary["failed"]
        todo = f"Do not ship B before {', '.join(map(str, failed))} is mended." if failed else "B may be used."
    else:
        todo = "Choose the steadier model where a kind is beyond noise; elsewhere add sets to tell them apart."
    return what, result, noise, todo


def _transferred(run: ReadRun) -> Answers:
    summary = run.summary
    targets, sources = summary.get("targets") or {}, summary.get("sources") or {}
    what = (
        f"{run.config.get('model')} solved {counted(len(targets), 'target')} with examples of "
        f"{counted(len(sources), 'source')}, {counted(summary.get('k') or 0, 'example')} per prompt."
    )
    result = means(summary) or "The targets have no known answers, so no accuracy was measured."
    apart = [
        name
        for name, row in sources.items()
        if isinstance(row, dict) and _is_apart(Interval.of(row.get("against_zero_shot"), "difference"))
    ]
    noise = f"Against zero-shot: yes for {', '.join(apart)}." if apart else "No source differs from zero-shot."
    path = shlex.quote(str(run.path))
    return what, result, noise, (
        "Look at validity beside accuracy, and choose a source by what needs no test labels (last table). Why one "
        f"source helps: `holdfast crosstask analyse --run {path} --output DIR`, after a run with --states."
    )  # fmt: skip


def _labelled(run: ReadRun) -> Answers:
    summary = run.summary
    agreement = (summary.get("agreement_with_given_answers") or {}).values()
    right = [f"{_with_ends(Interval.of(one), 1)} % agree with the known answers" for one in agreement if one]
    return (
        f"{counted(summary.get('pool') or 0, 'input')} of {summary.get('target')} were labelled by examples of others.",
        f"{summary.get('labelled')} got a label, {summary.get('abstained')} none"
        + (f"; {right[0]}." if right else "; how good they are is unknown, as no answers are known."),
        "The interval says how far it may be off." if right else "Unknown without known answers.",
        "Check some labels by hand, then tune on them: `holdfast tune --data "
        f"{shlex.quote(str(summary.get('labels_path')))} --model MODEL --output DIR`.",
    )


def _aligned(run: ReadRun) -> Answers:
    summary = run.summary
    what = (
        f"{run.config.get('model')} was tuned on {counted(summary.get('train_examples') or 0, 'pair')} of responses, "
        "one preferred to the other."
    )
    before, after = (Interval.of(_of(summary, when, "preference_accuracy")) for when in _TIMES)
    gain = Interval.of(summary.get("gain"))
    if after.value is None:
        return what, "No pairs were held out, so nothing was measured.", "Unknown.", "Hold data out: --eval-share 0.1."
    result = f"The preferred response is the likelier one in {_with_ends(after)} of pairs, before {_with_ends(before)}."
    noise = "Unknown." if gain.low is None else "Yes." if _is_apart(gain) else "No: the interval of the gain holds 0."
    return what, result, noise, (
        "See whether the model has become steadier: `holdfast sensitivity run --model "
        f"{shlex.quote(str(summary.get('model_path')))} --sets SETS --output DIR`."
    )  # fmt: skip


def _benchmarked(run: ReadRun) -> Answers:
    scores = _scores(run.summary.get("scores") or {})
    what = f"{run.config.get('model')} on {counted(len(run.summary.get('scores') or {}), 'benchmark')}."
    named = [f"{name} {_with_ends(score)}" for name, score in scores[:3] if isinstance(score, Interval)]
    rest = f", and {len(scores) - 3} more below" if len(scores) > 3 else ""
    result = f"{'; '.join(named)}{rest}." if named else "No scores were measured."
    return (
        what,
        result,
        "One run alone is compared with nothing; the intervals come from the number of items.",
        (
            f"Compare it with another model, item by item: `holdfast bench compare {shlex.quote(str(run.path))} OTHER "
            "--output DIR`."
        ),
    )


def _audited(run: ReadRun) -> Answers:
    summary, findings = run.summary, run.summary.get("findings") or []
    what = (
        f"{summary.get('prepared') or summary.get('data')} was audited for {summary.get('model')}: what a training "
        f"pays for, in {counted(summary.get('rows') or 0, 'row')}."
    )
    certain = "A count of all rows audited, so no interval applies. How large the losses are was not measured."
    if not findings:
        return what, "No findings: the loss is paid where the model has to write.", certain, "Train on it."
    named = ", ".join(f"{finding['kind']} ({counted(finding['count'], 'row')})" for finding in findings)
    cures = "; ".join(dict.fromkeys(finding["cure"] for finding in findings[:3]))
    return what, f"{counted(len(findings), 'finding')}: {named}.", certain, f"Before the training: {cures}."


def _concluded(run: ReadRun) -> Answers:
    summary = run.summary
    noise = "The sentence above says what is beyond noise."
    if summary.get("claim") == "none":
        noise = "No: nothing is claimed."
    elif summary.get("claim") in ("better", "worse"):
        noise = f"Yes: the chosen setting is {summary['claim']} than conventional tuning."
    chosen = summary.get("chosen")
    todo = f"Tune with the chosen setting, {chosen}." if chosen else "Keep conventional tuning where nothing is shown."
    return (
        f"What {summary.get('source')} shows, by {in_words(str(summary.get('metric')))}.",
        str(summary.get("finding")).split("\n", 1)[0],
        noise,
        todo,
    )


def _analysed(run: ReadRun) -> Answers:
    targets = run.summary.get("targets") or {}
    best: list[tuple[float, str, float | None]] = []
    for name, target in targets.items():
        best += [
            (abs(row["rho"]), name, row["q"]) for row in _layers(target) if isinstance(row.get("rho"), int | float)
        ]
    what = f"Whether similarity explains which source helps, for {counted(len(targets), 'target')} of {_ran(run)}."
    if not best:
        return what, "No correlation could be computed.", "Unknown.", "Run crosstask with more sources."
    size, name, _ = max(best, key=lambda one: one[0])
    result = f"The largest rank correlation is {number(size, 2)} in size ({name}); no interval."
    significant = sum(isinstance(q, int | float) and q < 0.05 for _, _, q in best)
    noise = f"{significant} of {len(best)} layers are beyond chance (q below 0.05); the best of many always looks good."
    return what, result, noise, "Trust a correlation only where q is small; more sources make it surer."


def _layers(target: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for layers in ((target or {}).get("layers") or {}).values():
        rows += layers
    return rows


def _ran(run: ReadRun) -> str:
    return str(run.summary.get("run") or run.config.get("run"))


def _plain(run: ReadRun) -> Answers:
    unknown = "This page knows no uncertainty for a run of this command."
    return _what(run), str(run.summary.get("finding") or "The figures are below."), unknown, "Read its summary below."


def _with_ends(estimate: Interval, digits: int = 3) -> str:
    """The value with its 95 % interval, or with the remark that there is none."""
    if estimate.low is None or estimate.high is None:
        return f"{number(estimate.value, digits)} (no interval)"
    value, low, high = (number(one, digits) for one in (estimate.value, estimate.low, estimate.high))
    return f"{value} (95 % interval {low} to {high})"


def _is_apart(change: Interval) -> bool:
    return change.low is not None and change.high is not None and not change.low <= 0 <= change.high


_ANSWERS: dict[str, Callable[[ReadRun], Answers]] = {
    "tune": _tuned,
    "align": _aligned,
    "study run": _studied,
    "study best": _concluded,
    "sensitivity run": _measured,
    "sensitivity compare": _compared,
    "sensitivity check": _compared,
    "crosstask run": _transferred,
    "crosstask label": _labelled,
    "crosstask analyse": _analysed,
    "audit": _audited,
    "bench run": _benchmarked,
}
