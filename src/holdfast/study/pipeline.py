"""``holdfast study run``, top to bottom: file -> plan -> trials -> rows -> selection -> study directory.

A trial runs in a process of its own: ``search`` asks for jobs, ``execute`` hands them out, ``worker`` runs
``trial.perform``, which trains and measures.

STUDY/config.json     the plan
STUDY/rows.jsonl      one row per trial, and one per base model
STUDY/summary.json    the selection, and what the study cost
STUDY/data/           tokens, which all trials share
STUDY/trials/ID/      run directories of `holdfast tune`; ID is the address of the trial's content
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.cluster import check_address
from holdfast.config import StudyConfig
from holdfast.errors import HoldfastError, redacted_values
from holdfast.progress import Progress, begin, end, without_noise
from holdfast.runs import Run, RunDir, check_not_read, read_json, write_text
from holdfast.study.checks import check_second_stage, check_trainings
from holdfast.study.execute import LocalPool, RayPool, default_slots, open_pool
from holdfast.study.jobs import Job, Row, diverged, read_row
from holdfast.study.measure import check_measures
from holdfast.study.outcomes import count_trials, in_words
from holdfast.study.planning import StudyPlan, make_plan
from holdfast.study.preview import announce, few_held_out, preview, start
from holdfast.study.search import check_search, search
from holdfast.study.spec import Spec, load_spec, with_defaults
from holdfast.tables import lines, with_tables

_FILES = {".lock", "config.json", "rows.jsonl", "summary.json", "data", "trials", "base", "logs"}


def plan(config: StudyConfig) -> dict[str, Any]:
    """Print what a study will train and what that costs, and return the figures. Nothing is written.

    Raises:
        HoldfastError: bad input.

    >>> from holdfast.study import StudyConfig, plan
    >>> len(plan(StudyConfig(study="study.yaml", output="studies/mine", calibrate=0, json=True))["trials"])
    2
    """
    spec, output = _spec_and_output(config)
    with tempfile.TemporaryDirectory() as name, without_noise():
        folder = Path(name)
        if config.overwrite:  # nothing that is there will be used
            _check_not_read(config, spec, output)
            return preview(_planned(spec, [folder]), config, folder, folder)
        study_plan = _planned(spec, [output / "data", folder])
        _check_output(output, study_plan)
        return preview(study_plan, config, output, folder)


def run(config: StudyConfig) -> dict[str, Any]:
    """Train what is missing, measure it and select a setting. Of a complete study nothing is trained again.

    Returns:
        The summary: selection per group, cost, counts.

    Raises:
        HoldfastError: bad input (nothing has been trained then), or every trial failed.

    >>> from holdfast.study import StudyConfig, run
    >>> summary = run(StudyConfig(study="study.yaml", output="studies/mine", slots=1, json=True))
    >>> summary["trials"]["done"], summary["selection"]["claim"]
    (2, 'none')
    """
    if config.dry_run:
        return plan(config)
    spec, output = _spec_and_output(config)
    if config.cluster == "ray":
        check_address(os.environ.get("RAY_ADDRESS"))
    with runs.command(config, "study run", path=output, check=lambda *_: _check_directory(output)) as study:
        study.hold()  # before planning, which writes tokens
        if config.overwrite:
            study_plan = _plan_anew(config, spec, study)
        else:
            study_plan = _planned(spec, [output / "data"])
            _check_output(output, study_plan)
        study.open(study_plan.resolved())
        begin(start(study_plan, config.slots or default_slots(), output))
        ledger = _Ledger(output)
        rows = _execute(config, study_plan, ledger)
        summary = study.finish(with_tables(_summary(study_plan, rows, ledger)))
    if not config.json:
        parts = (lines(summary), summary["finding"], f"{in_words(summary['trials'])}; in {output.resolve()}")
        print("\n\n".join(filter(None, parts)))
        end("", output, "study", "best", str(output))
    return summary


def _execute(config: StudyConfig, study_plan: StudyPlan, ledger: _Ledger) -> list[Row]:
    """Do the jobs of the search and return their rows in the order of the plan.

    Jobs whose row is on disk are not done again, unless they failed. A setting whose first seed diverged is not trained
    with another. Which jobs those are must not depend on timing, so the first seeds are done before the others.
    """
    progress, metric = Progress("trial", doing="study"), study_plan.spec.metric
    pool: list[LocalPool | RayPool] = []
    diverging = _Diverged(study_plan.spec.seeds[0])

    def do(jobs: list[Job]) -> Iterator[tuple[Job, Row]]:
        progress.expect(len(jobs))
        read = [(job, ledger.read(job)) for job in jobs]
        on_disk = [(job, row) for job, row in read if row is not None]
        progress.skip(len(on_disk))
        if on_disk:
            verb = "is" if len(on_disk) == 1 else "are"
            progress.say(f"{len(on_disk)} of {progress.total} {verb} there already")
        for job, row in on_disk:
            diverging.note(job, row)
            yield job, row
        missing = [job for job, row in read if row is None]
        for first in (True, False):
            wave = [job for job in missing if diverging.is_first(job) is first]
            todo = [job for job in wave if not diverging.rules_out(job)]
            for job in filter(diverging.rules_out, wave):
                progress.expect(-1)
                progress.say(f"not started: {job.name}, as its first seed has diverged")
            if todo and not pool:
                pool.append(open_pool(config, ledger.path))
                ledger.slots = pool[0].slots
            for job, row in pool[0].results(todo, lambda _: None) if todo else ():
                ledger.spent(job, row)
                progress.add(what=f"{job.name}: {_outcome(row, metric)}")
                _check_base(row)
                diverging.note(job, row)
                yield job, row

    rows: list[Row] = []
    try:
        for row in search(study_plan, do):
            if not rows:
                ledger.begin()
            ledger.run.append(row)
            rows.append(row)
            if row["status"] == "stopped" and not study_plan.spec.keep_models:
                shutil.rmtree(ledger.path / row["path"] / "checkpoints", ignore_errors=True)
    finally:
        progress.close()
        for opened in pool:
            opened.close()
    place = {trial.id: i for i, trial in enumerate(study_plan.trials)}
    rows.sort(key=lambda row: place.get(row.get("trial", ""), -1))  # base models first
    write_text(ledger.run.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows


def _outcome(row: Row, metric: str) -> str:
    """Return what came of a job in a few words."""
    if row["status"] == "failed":
        return f"failed: {str(row['error']).splitlines()[0]}"
    name = metric if row["dev"].get(metric) is not None else "response_nll"
    value = row["dev"].get(name)
    return f"dev {name} {value:.4g}" if value is not None else str(row["status"])


class _Diverged:
    """The settings of every group whose training with the first seed has diverged."""

    def __init__(self, first_seed: int) -> None:
        self.first_seed = first_seed
        self._settings: set[tuple[str, str, int]] = set()
        self._base: dict[str, dict[str, Any]] = {}

    def is_first(self, job: Job) -> bool:
        """Return whether a job waits for no other, as a base model or a trial of the first seed."""
        return job.trial is None or job.trial.seed == self.first_seed

    def rules_out(self, job: Job) -> bool:
        """Return whether a job is another seed of such a setting."""
        return not self.is_first(job) and self._setting(job) in self._settings

    def note(self, job: Job, row: Row) -> None:
        """Look at the row of a job, and keep its setting if it diverged."""
        if job.trial is None:
            self._base[job.group] = row["dev"]
        elif self.is_first(job) and diverged(row, self._base.get(job.group, {})):
            self._settings.add(self._setting(job))

    @staticmethod
    def _setting(job: Job) -> tuple[str, str, int]:
        assert job.trial is not None
        return job.group, job.trial.setting_name, job.trial.twin


def _check_base(row: Row) -> None:
    """Stop the study if a base model cannot be measured, as then no trial could be after its training."""
    if row["kind"] == "base" and row["status"] == "failed":
        raise HoldfastError(f"the base model cannot be measured, so nothing more is trained: {row['error']}")


class _Ledger:
    """The rows on disk, and the time that this run has spent."""

    def __init__(self, path: Path) -> None:
        self.path, self.run = path, RunDir(path)
        self.started = time.perf_counter()
        self.slots = 1
        self.seconds = {"train": 0.0, "measure": 0.0}
        self._before: dict[str, Row] = {}

    def begin(self) -> None:
        """Remove the rows and summary of an earlier run. Called with the first new row, not before."""
        write_text(self.run.rows, "")
        (self.path / "summary.json").unlink(missing_ok=True)

    def read(self, job: Job) -> Row | None:
        """Return the row of a job that has been done, with the names of today's plan; None if it is still to be done.

        A row that cannot be read, or whose scores per item cannot, is told and counts as not done.
        """
        file = self.path / job.file
        if not file.is_file():
            return None
        try:
            row = read_row(file, self.path)
        except HoldfastError as error:
            print(f"warning: {error}; {job.name} is done again", file=sys.stderr)
            return None
        if job.stop_at is not None and (row["steps"] != job.stop_at or job.rung_metric not in row["dev"]):
            return None  # the row of a search with other rungs, or by another metric
        if job.trial is not None:
            row |= job.row(row["status"], row["dev"], row["test"], steps=row["steps"]) | {"items": row.get("items")}
            self._before[job.trial.id] = row["seconds"]
        return row

    def spent(self, job: Job, row: Row) -> None:
        """Count the seconds of a job. Those of earlier rungs are in its row, too, and are not counted again."""
        before = self._before.get(job.trial.id, {}) if job.trial else {}
        for kind in self.seconds:
            self.seconds[kind] += max(0.0, row["seconds"][kind] - before.get(kind, 0.0))
        if job.trial:
            self._before[job.trial.id] = row["seconds"]

    def cost(self, rows: list[Row]) -> dict[str, Any]:
        """Return what was spent. By this run: wall time, and the share of its slots' time that was neither training nor
        measuring. By the whole study: seconds in training and measuring, tokens, bytes on disk."""
        wall = time.perf_counter() - self.started
        busy = sum(self.seconds.values())
        return {
            "seconds": round(wall, 2),
            "slots": self.slots,
            "train": round(sum(row["seconds"]["train"] for row in rows), 2),
            "measure": round(sum(row["seconds"]["measure"] for row in rows), 2),
            "outside_share": round(1 - busy / (wall * self.slots), 4) if busy else None,
            "tokens": sum(row.get("tokens", 0) for row in rows),
            "disk_bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
        }


def _summary(study_plan: StudyPlan, rows: list[Row], ledger: _Ledger) -> dict[str, Any]:
    trials = [row for row in rows if row["kind"] == "trial"]
    failed = [row for row in trials if row["status"] == "failed"]
    counts = count_trials(rows, len(study_plan.trials))
    if trials and len(failed) == len(trials):
        others = f"; {counts['not_started']} others were not started" if counts["not_started"] else ""
        what = "every trial that was started failed" if others else "every trial failed"
        raise HoldfastError(f"{what}; the first: {failed[0]['error']}{others}", hint=f"logs are in {ledger.path}/logs")
    for row in failed:
        print(f"warning: {row['setting_name']} seed {row['seed']} failed: {row['error']}", file=sys.stderr)
    spec = study_plan.spec
    selections = {group.name: _selection(spec, group.name, rows, ledger.path) for group in study_plan.groups}
    _warn_left_out(trials, selections, spec.metric)
    bases = {row["group"]: {"dev": row["dev"], "test": row["test"]} for row in rows if row["kind"] == "base"}
    astray = [row for row in trials if diverged(row, bases.get(row["group"], {}).get("dev", {}))]
    findings = [f"{name}: {s['finding']}" if len(selections) > 1 else s["finding"] for name, s in selections.items()]
    first = study_plan.groups[0].name
    return {
        "command": "study run",
        "name": spec.name,
        "metric": spec.metric,
        "higher_is_better": spec.higher_is_better,
        "base": bases.get(first),
        "selection": selections[first],
        "groups": {name: {"base": bases.get(name), "selection": selection} for name, selection in selections.items()},
        "finding": "\n".join(findings),
        "trials": {**counts, "merged_from": study_plan.requested},
        "diverged": list(dict.fromkeys(row["setting_name"] for row in astray)),
        "cost": ledger.cost(rows),
    }


def _warn_left_out(trials: list[Row], selections: dict[str, dict[str, Any]], metric: str) -> None:
    for row in trials:
        if row["trial"] in selections[row["group"]].get("left_out", ()):
            name = f"{row['setting_name']} seed {row['seed']}"
            print(f"warning: {name} is left out: its {metric} on dev is not a number", file=sys.stderr)


def _selection(spec: Spec, group: str, rows: list[Row], output: Path) -> dict[str, Any]:
    from holdfast.study.select import select

    own = [row for row in rows if row["group"] == group]
    try:
        return select(own, metric=spec.metric, higher_is_better=spec.higher_is_better, seed=spec.seeds[0], root=output)
    except HoldfastError as error:  # a group in which nothing can be chosen leaves the others theirs
        return {"settings": [], "chosen": None, "finding": f"nothing can be chosen: {error.message}"}


def _spec_and_output(config: StudyConfig) -> tuple[Spec, Path]:
    """Return the study of the file with its defaults, which are those it began with where it is continued, and its
    directory."""
    spec = load_spec(config.study, limit=config.limit, seed=config.seed)
    output = _output(config, spec)
    file = output / "config.json"
    begun = None
    if file.is_file() and not config.overwrite:
        with contextlib.suppress(HoldfastError):  # a damaged file is refused when the plan is made
            begun = read_json(file)
    if isinstance(begun, dict) and isinstance(begun.get("resolved"), dict):
        spec = with_defaults(spec, begun)
    begin(announce(spec))
    return spec, output


def _planned(spec: Spec, folders: list[Path]) -> StudyPlan:
    """Return the plan after trying what could fail later. Tokens and prompt sets go into the last folder."""
    folders[-1].mkdir(parents=True, exist_ok=True)
    study_plan = make_plan(spec, folders)
    check_search(study_plan)
    check_measures(spec.measures, folders[-1])
    check_trainings(study_plan)
    check_second_stage(study_plan)
    for note in few_held_out(study_plan):
        print(note, file=sys.stderr)
    for group in study_plan.groups:
        if not any(trial.conventional for trial in group.trials):
            names = f"{group.name}: " if len(study_plan.groups) > 1 else ""
            why = "the conventional loss (prompt weight 0) is not among the settings, so none is compared with it"
            print(f"note: {names}{why}", file=sys.stderr)
    return study_plan


def _plan_anew(config: StudyConfig, spec: Spec, study: Run) -> StudyPlan:
    """Return the plan of a study that overwrites another, which is removed only after all checks of the new one. The
    data is tokenised once."""
    _check_not_read(config, spec, study.path)
    with tempfile.TemporaryDirectory() as folder:
        _planned(spec, [Path(folder)])
        study.clear()
        shutil.copytree(folder, study.path / "data")
    return make_plan(spec, [study.path / "data"])


def _check_not_read(config: StudyConfig, spec: Spec, output: Path) -> None:
    inputs = {"study": config.study, "model": spec.models, **spec.then.get("align", {})}
    for split in ("train", "dev", "test"):
        inputs[split] = [getattr(data, split) for data in spec.data]
    check_not_read(output, inputs | {measure.name: measure.reads() for measure in spec.measures})


def _output(config: StudyConfig, spec: Spec) -> Path:
    output = Path(config.output or f"studies/{spec.name}")
    _check_directory(output)
    return output


def _check_directory(output: Path) -> None:
    """Refuse a directory that holds something else than a study. A finished study passes, because it may grow."""
    if output.is_file():
        raise HoldfastError(f"--output {output} is a file, not a directory")
    if output.exists() and not _is_study(output):
        raise HoldfastError(f"--output {output} is not empty and holds no study", hint="choose another directory")


def _is_study(output: Path) -> bool:
    """Return whether a directory is empty or a study's. Where the config is damaged, or not there yet, a study's has a
    lock and no file that a study does not write."""
    with contextlib.suppress(HoldfastError):
        content = read_json(output / "config.json")
        if isinstance(content, dict) and "command" in content:
            return bool(content["command"] == "study run")
    names = {entry.name.removesuffix(".partial") for entry in output.iterdir()}
    return names <= _FILES and (".lock" in names or not names)


def _check_output(output: Path, study_plan: StudyPlan) -> None:
    """Refuse a directory of another study: settings and seeds may grow, but base models, data and measures stay."""
    file = output / "config.json"
    if not file.is_file():
        return
    try:
        before = dict(read_json(file)["resolved"]["identity"])
    except (HoldfastError, KeyError, TypeError, ValueError) as error:
        raise HoldfastError(
            f"{file} is damaged: it does not say which study this is",
            hint="delete that file to go on with the trials that are there, or --overwrite to delete them",
        ) from error
    before, now = (
        redacted_values(value) for value in (before, json.loads(json.dumps(study_plan.resolved()["identity"])))
    )
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise HoldfastError(
            f"--output {output} holds another study ({', '.join(changed)} differ)",
            hint="choose another directory, or --overwrite to delete what is there",
        )
