"""A ``study run`` -> what it found, said first; then what the finding rests on, down to every single trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from holdfast.report.choice_figures import differences, share_figure, trade_off
from holdfast.report.parts import Choice, Facts, Figure, Note, Part
from holdfast.report.plane import planes
from holdfast.report.progress import cost, cost_of_trials, learning
from holdfast.report.reading import Run
from holdfast.report.settings import Study, metrics_of, name_of, open_studies
from holdfast.tables.record import Cell, Column, Table
from holdfast.tables.study import settings
from holdfast.tables.text import number


def studied(run: Run, limit: int) -> list[Part]:
    """What a study shows, finished or not."""
    studies = open_studies(run)
    if len(studies) == 1:
        return [*_finding(studies[0][1]), *_parts(studies[0][1]), *cost(run), *_trials(run)]
    options = [(name, [*_finding(study), *_titled(_parts(study), name)]) for name, study in studies]
    findings = [Note(line, "finding") for line in str(run.summary.get("finding") or "").splitlines()]
    return [*findings, Choice("Model and data", options), *cost(run), *_trials(run)]


def _titled(parts: Sequence[Part], name: str) -> list[Part]:
    """The parts with the model and the data in their titles, so that files and pictures say whose they are."""
    made: list[Part] = []
    for part in parts:
        if isinstance(part, Choice):
            options = [(option, _titled(inner, name)) for option, inner in part.options]
            made.append(Choice(part.title, options))
        else:
            made.append(
                dataclasses.replace(part, title=f"{part.title}: {name}") if isinstance(part, Figure | Table) else part
            )
    return made


def _parts(study: Study) -> list[Part]:
    """What a study of one model and one data set shows."""
    if not study.settings:
        return [_facts(study)]
    parts: list[Part] = [_facts(study), *_planes(study), share_figure(study), *differences(study), _settings(study)]
    return [*parts, *trade_off(study), *learning(study), *cost_of_trials(study)]


def _finding(study: Study) -> list[Part]:
    made: list[Part] = []
    finding = study.run.summary.get("finding") or study.selection.get("finding")
    if finding:
        made.append(Note(str(finding), "finding"))
    elif study.settings:
        text = "Nothing has been selected yet: the study is not complete, and means of single settings prove nothing."
        made.append(Note(text, "warning"))
    naive = study.selection.get("naive") or {}
    best = naive.get("setting_name")
    if len(study.settings) < 2:
        return made  # the best of one is no best
    if best is not None and best == study.selection.get("conventional"):
        made.append(
            Note(
                f"The best on the test split is the conventional setting itself, {best} ({number(naive.get('test'))})."
            )
        )
    elif naive.get("warning"):
        gain = f", {number(naive['gain'])} ahead of conventional" if isinstance(naive.get("gain"), float | int) else ""
        text = f"The best on the test split is {best} ({number(naive.get('test'))}{gain}): {naive['warning']}"
        made.append(Note(f"{text.rstrip('.')}.", "warning"))
    return made


def _facts(study: Study) -> Facts:
    summary, selection = study.run.summary, study.selection
    counts, noise, naive = (
        found or {} for found in (summary.get("trials"), selection.get("noise"), selection.get("naive"))
    )
    planned = study.run.resolved.get("trials")
    done, stopped, failed = _ended(study)
    planned = counts.get("planned", len(planned) if isinstance(planned, list) else None)
    rest = max(0, planned - done - stopped - failed) if planned else 0
    chosen, conventional = study.named("chosen"), study.named("conventional")
    pairs: list[tuple[str, Cell]] = [
        ("metric", f"{study.metric} ({study.better(study.metric)} is better)" if study.metric else None),
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
    ]
    return Facts([(name, value) for name, value in pairs if value is not None])


def _ended(study: Study) -> tuple[int, int, int]:
    """How many trials are done, stopped early and failed, as the summary says it, else by their rows."""
    counts = study.run.summary.get("trials") or {}
    status = {str(row.get("trial")): row.get("status") for row in study.run.of_kind("trial")}
    done, stopped, failed = (
        counts.get(name, sum(s == name for s in status.values())) for name in ("done", "stopped", "failed")
    )
    return done, stopped, failed


def _planes(study: Study) -> list[Part]:
    """The plane of the selecting metric first; the other metrics behind the same choice."""
    metrics = [study.metric, *(m for m in study.metrics if m != study.metric)]
    options = [(metric, found) for metric in metrics if (found := planes(study, metric))]
    return (
        [Choice("Metric of the weight plane", options)] if len(options) > 1 else list(options[0][1]) if options else []
    )


def _settings(study: Study) -> Table:
    """The table of the summary; while there is none, the same of the trials that have ended."""
    stored = study.run.titled("Settings") if "tables" in study.run.summary else []
    return (
        stored[0]
        if stored
        else settings(study.selection | {"settings": [s.entry for s in study.settings]}, study.metric)
    )


def _trials(run: Run) -> list[Part]:
    """Every trial of all models and data sets, the failed and the stopped ones too."""
    trials = run.of_kind("trial")
    if not trials:
        return [Note("No trial has finished yet.")]
    shown = [(split, m) for m in metrics_of(trials) for split in ("dev", "test")]
    columns = [
        Column("setting", kind="code"),
        Column("model and data", kind="code"),
        Column("seed"),
        Column("twin"),
        Column("status"),
        Column("rung"),
        Column("prompt share"),
        *(Column(f"{split} {m}", 4) for split, m in shown),
        Column("steps"),
        Column("tokens"),
        Column("train, s", 1),
        Column("measure, s", 1),
        Column("error", kind="code"),
        Column("trial", kind="code"),
    ]
    rows: list[list[Cell]] = []
    for t in trials:
        seconds, scores = t.get("seconds") or {}, [(t.get(split) or {}).get(m) for split, m in shown]
        head = [name_of(t), *(t.get(key) for key in ("group", "seed", "twin", "status", "rung", "prompt_share"))]
        tail = [
            t.get("steps"),
            t.get("tokens"),
            seconds.get("train"),
            seconds.get("measure"),
            t.get("error"),
            t.get("trial"),
        ]
        rows.append([*head, *scores, *tail])
    return [Table("Every trial", columns, rows, f"{len(rows):,} trials, as they finished.", filterable=True)]
