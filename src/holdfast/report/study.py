"""A ``study run`` -> its finding first; then what the finding rests on, down to every single trial. What ``study best``
has written -> its finding and its tables.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from holdfast.report.choice_figures import differences, share_figure, trade_off
from holdfast.report.parts import FactList, Figure, Note, Part, Tabs
from holdfast.report.plane import planes
from holdfast.report.progress import cost, cost_of_trials, learning
from holdfast.report.reading import ReadRun
from holdfast.report.settings import Study, open_studies
from holdfast.report.terms import in_words
from holdfast.tables.record import Table
from holdfast.tables.study import every_trial, settings
from holdfast.tables.text import number


def studied(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of a study, finished or not."""
    studies = open_studies(run)
    if len(studies) == 1:
        return [*_finding(studies[0][1]), *_parts(studies[0][1]), *cost(run), *_trials(run)]
    options = [(name, [*_finding(study), *_titled(_parts(study), name)]) for name, study in studies]
    findings = [Note(line, "finding") for line in str(run.summary.get("finding") or "").splitlines()]
    return [*findings, Tabs("Model and data", options), *cost(run), *_trials(run)]


def concluded(run: ReadRun, limit: int) -> list[Part]:
    """Return the parts of what `study best` has chosen from a study, or concluded from a table of results."""
    summary = run.summary
    facts = FactList.of(
        ("read from", summary.get("source")),
        ("metric", in_words(str(summary.get("metric")))),
        ("read as", summary.get("about")),
        ("chosen (by dev)", summary.get("chosen")),
        ("conventional", summary.get("conventional")),
    )
    return [Note(str(summary["finding"]), "finding"), facts, *run.tables.values()]


def _titled(parts: Sequence[Part], name: str) -> list[Part]:
    """The parts with the model and the data in their titles, so that files and pictures say whose they are."""
    return [_with_name(part, name) for part in parts]


def _with_name(part: Part, name: str) -> Part:
    if isinstance(part, Tabs):
        return Tabs(part.title, [(option, _titled(inner, name)) for option, inner in part.options])
    return dataclasses.replace(part, title=f"{part.title}: {name}") if isinstance(part, Figure | Table) else part


def _parts(study: Study) -> list[Part]:
    """Return the parts of a study of one model and one data set."""
    if not study.settings:
        return [_facts(study)]
    parts: list[Part] = [_facts(study), *_planes(study), share_figure(study), *differences(study), _settings(study)]
    return [*parts, *trade_off(study), *learning(study), *cost_of_trials(study)]


def _finding(study: Study) -> list[Part]:
    notes: list[Part] = []
    finding = study.run.summary.get("finding") or study.selection.get("finding")
    if finding:
        notes.append(Note(str(finding), "finding"))
    elif study.settings:
        text = "Nothing has been selected yet: the study is not complete, and means of single settings prove nothing."
        notes.append(Note(text, "warning"))
    naive = study.selection.get("naive") or {}
    best, score = naive.get("setting_name"), number(naive.get("test"))
    if len(study.settings) < 2:
        return notes  # the best of one setting says nothing
    if best is not None and best == study.selection.get("conventional"):
        notes.append(Note(f"The best on the test split is the conventional setting itself, {best} ({score})."))
    elif naive.get("warning"):
        gain = f", {number(naive['gain'])} ahead of conventional" if isinstance(naive.get("gain"), float | int) else ""
        text = f"The best on the test split is {best} ({score}{gain}): {naive['warning']}"
        notes.append(Note(f"{text.rstrip('.')}.", "warning"))
    return notes


def _facts(study: Study) -> FactList:
    summary, selection = study.run.summary, study.selection
    counts = summary.get("trials") or {}
    noise, naive = (selection.get(key) or {} for key in ("noise", "naive"))
    planned = study.run.resolved.get("trials")
    done, stopped, failed = _ended(study)
    planned = counts.get("planned", len(planned) if isinstance(planned, list) else None)
    rest = max(0, planned - done - stopped - failed) if planned else 0
    chosen, conventional = study.named("chosen"), study.named("conventional")
    return FactList.of(
        ("metric", f"{in_words(study.metric)} ({study.better(study.metric)} is better)" if study.metric else None),
        ("chosen (by dev)", selection.get("chosen")),
        (f"chosen, test {study.metric}", chosen.test if chosen else None),
        ("conventional", selection.get("conventional")),
        (f"conventional, test {study.metric}", conventional.test if conventional else None),
        ("best on dev", selection.get("best_on_dev")),
        ("one standard error", selection.get("one_standard_error") or None),  # 0: no noise was seen
        ("noise of one training (sd)", noise.get("sd")),
        ("degrees of freedom of the noise", noise.get("df")),
        ("naive best of all on test", naive.get("setting_name")),
        ("untuned model", (study.base.get("test") or {}).get(study.metric)),
        ("distinct trainings", len(study.settings)),
        ("trials planned", planned),
        ("trials done", done),
        ("trials failed", failed),
        ("trials stopped early", stopped or None),
        ("trials not started" if summary else "trials not started or still at work", rest or None),
        ("runs asked for", counts.get("merged_from")),
    )


def _ended(study: Study) -> tuple[int, int, int]:
    """Return how many trials are done, stopped early and failed, from the summary, or from the rows while there is
    none.
    """
    counts = study.run.summary.get("trials") or {}
    status = list({str(row.get("trial")): row.get("status") for row in study.run.of_kind("trial")}.values())
    done, stopped, failed = (counts.get(name, status.count(name)) for name in ("done", "stopped", "failed"))
    return done, stopped, failed


def _planes(study: Study) -> list[Part]:
    """Return the weight planes, those of the selecting metric first; other metrics are tabs beside it."""
    by_metric = {metric: planes(study, metric) for metric in (study.metric, *study.metrics)}
    tabs = [(metric, figures) for metric, figures in by_metric.items() if figures]
    return [Tabs("Metric of the weight plane", tabs)] if len(tabs) > 1 else list(itertools.chain(*by_metric.values()))


def _settings(study: Study) -> Table:
    """Return the table of the summary, or while there is none the same table of the trials that have ended."""
    stored = study.run.titled("Settings") if "tables" in study.run.summary else []
    if stored:
        return stored[0]
    return settings(study.selection | {"settings": [s.entry for s in study.settings]}, study.metric)


def _trials(run: ReadRun) -> list[Part]:
    """Every trial of all models and data sets."""
    trials = run.of_kind("trial")
    return [every_trial(trials) if trials else Note("No trial has finished yet.")]
