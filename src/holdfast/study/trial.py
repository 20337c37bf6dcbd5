"""One job of a study: train or go on training, measure, and leave a row. What workers do, on this machine or on a
cluster.

trials/ID/            a run directory of `holdfast tune`: rows.jsonl with the learning curves, model/
trials/ID/row.json    written last: its presence means that the trial is done
trials/ID/rung-K.json the same for the end of rung K (halving)
trials/ID/items-dev.npz, items-test.npz      values per item, one array per metric
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from holdfast import lm as models
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import DivergedError, HoldfastError
from holdfast.runs import check_output, read_json, resolve, write_json
from holdfast.study.jobs import Job, Row
from holdfast.study.measure import Found, Ruler
from holdfast.study.planning import Trial
from holdfast.study.sources import SourceFacts, load_tokens, roles_counter
from holdfast.tune.base import load_base
from holdfast.tune.pipeline import Start, train
from holdfast.tune.plan import Source, make_plan
from holdfast.tune.roles import TokenReport
from holdfast.tune.saving import whole_checkpoint

_SAVE_SECONDS = 300.0


class Workbench:
    """What a worker keeps between jobs: one base model, one set of tokens, one ruler."""

    def __init__(self, study: Path) -> None:
        self.study = study
        gc.collect()
        # accelerate collects garbage after every training, which would go through all that the imports have made: 0.4 s
        gc.freeze()
        self._kept: dict[str, tuple[str, Any]] = {}

    def base(self, config: TuneConfig) -> Any:
        """A copy of the base model, to train or to measure."""
        return copy.deepcopy(self._keep("model", config.model, lambda: load_base(config)))

    def source(self, facts: SourceFacts, config: TuneConfig) -> Source:
        """Tokens as ``tune`` wants them."""
        found: Source = self._keep("source", facts.key, lambda: self._read(facts, config))
        return found

    def ruler(self, job: Job, config: TuneConfig) -> Ruler:
        """For measuring on the job's data."""
        found: Ruler = self._keep(
            "ruler", job.facts.key, lambda: Ruler(job.facts, config, job.measures, self.study / "data", job.items)
        )
        return found

    def before(self, job: Job, config: TuneConfig) -> dict[str, Any]:
        """The base model on dev, in the form of ``tune``. Without a weighted loss, as that depends on the weights."""
        found: dict[str, Any] = self._keep("before", job.facts.key, lambda: self._evaluate(job, config))
        return found

    def _keep(self, kind: str, key: str, make: Any) -> Any:
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)  # the old one goes first: two base models need not fit
            self._kept[kind] = (key, make())
        return self._kept[kind][1]

    def _read(self, facts: SourceFacts, config: TuneConfig) -> Source:
        tokens = {name: load_tokens(self.study / "data" / f"{facts.key}.npz", name) for name in ("train", "dev")}
        fields = dict(facts.report)
        bad_rows = fields.pop("bad_rows")
        report = TokenReport(**fields | {name: roles_counter(fields[name]) for name in ("targets", "weighted_targets")})
        tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        return Source(tokenizer, facts.parameters, tokens["train"], tokens["dev"], report, bad_rows, facts.max_length)

    def _evaluate(self, job: Job, config: TuneConfig) -> dict[str, Any]:
        scores = (
            self.ruler(job, config)
            .nll(models.load(config.model, trust_remote_code=config.trust_remote_code), "dev")
            .values
        )
        nll = scores["response_nll"]
        return {"loss": None, **scores, "response_perplexity": None if nll is None else math.exp(min(nll, 700))}


def perform(job: Job, bench: Workbench) -> Row:
    """Do a job and return its row. Whatever goes wrong ends up in the row: one trial never stops the others."""
    try:
        return _measure_base(job, bench) if job.trial is None else _train(job, job.trial, bench)
    except HoldfastError as error:
        return job.failed(str(error), diverged=isinstance(error, DivergedError))
    except Exception as error:  # a worker outlives any trial
        traceback.print_exc()
        return job.failed(f"{type(error).__name__}: {error}")


def _measure_base(job: Job, bench: Workbench) -> Row:
    clock = _Clock({})
    config = TuneConfig(**job.tune, output="")
    folder = bench.study / "base" / job.facts.key
    folder.mkdir(parents=True, exist_ok=True)
    lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
    clock.lap("other")
    readings = {split: bench.ruler(job, config).measure(lm, config.model, folder, split) for split in ("dev", "test")}
    clock.lap("measure")
    row = {"kind": "base", "group": job.group, "status": "done", **{split: f.values for split, f in readings.items()}}
    row |= {"items": _write_items(folder, readings, bench.study), "seconds": clock.seconds}
    write_json(bench.study / job.file, row)
    return row


def _train(job: Job, trial: Trial, bench: Workbench) -> Row:
    folder = bench.study / "trials" / trial.id
    clock = _Clock(_spent(folder))
    config = TuneConfig(**trial.tune, output=str(folder))
    _clear_unusable(config, "tune", job.stop_at)
    before = bench.before(job, config)
    clock.lap("measure")
    checkpoint = whole_checkpoint(folder / "checkpoints")
    if job.stop_at is None or checkpoint is None or _step(checkpoint) < job.stop_at:
        plan = make_plan(config, bench.source(job.facts, config))
        summary = train(config, Start(plan, bench.base(config), before, [_Watch(job.stop_at)]))
        _release()
        clock.lap("other", but=("train", summary["seconds"]))
    if job.stop_at is not None:
        return _finish_rung(job, folder, bench.ruler(job, config), clock, bench.study)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    model = _align(job, trial, folder)
    clock.lap("train")
    lm = models.load(model)
    clock.lap("other")
    readings = {split: bench.ruler(job, config).measure(lm, str(model), folder, split) for split in ("dev", "test")}
    clock.lap("measure")
    row = job.row("done", readings["dev"].values, readings["test"].values, steps=trial.steps)
    row |= {"items": _write_items(folder, readings, bench.study), "seconds": clock.seconds}
    shutil.rmtree(folder / "aligned" / "checkpoints", ignore_errors=True)
    for run in () if job.keep_model else (folder, folder / "aligned"):
        shutil.rmtree(run / "model", ignore_errors=True)
    write_json(bench.study / job.file, row)
    return row


def _finish_rung(job: Job, folder: Path, ruler: Ruler, clock: _Clock, study: Path) -> Row:
    """The row of a trial that waits at the end of a rung: measured on dev alone, by what the search looks at."""
    checkpoint = whole_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise HoldfastError(f"{folder}: the checkpoint at the end of rung {job.rung} is gone")
    wanted = [m for m in job.measures if m.name == job.rung_metric]
    reading = ruler.measure(models.load(checkpoint), str(checkpoint), folder, "dev", wanted)
    clock.lap("measure")
    row = job.row("stopped", reading.values, {}, steps=_step(checkpoint)) | {"seconds": clock.seconds}
    write_json(study / job.file, row)
    return row


def _align(job: Job, trial: Trial, folder: Path) -> Path:
    """The run directory whose model is measured: of the second stage, if there is one."""
    if "align" not in job.then:
        return folder
    from holdfast.align import align

    config = AlignConfig(
        **job.then["align"], model=str(folder), output=str(folder / "aligned"), seed=trial.seed, json=True
    )
    _clear_unusable(config, "align")
    align(config)
    return folder / "aligned"


def _release() -> None:
    """The trained model goes before it is loaded for measuring; its trainer holds it in a circle."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _clear_unusable(config: TuneConfig | AlignConfig, command: str, stop_at: int | None = None) -> None:
    """Some of what lies in the output cannot be continued: what a run with other weights of equal ratio left, a
    checkpoint that is damaged, a complete run whose model was not kept or is damaged, or one that has gone past the
    rung whose row is wanted again."""
    folder = Path(config.output)
    while (checkpoint := whole_checkpoint(folder / "checkpoints")) is not None and not _opens(checkpoint):
        shutil.rmtree(checkpoint)
    try:
        complete = check_output(config, command) is not None
    except HoldfastError:
        shutil.rmtree(folder)
        return
    past = stop_at is not None and (complete or (checkpoint is not None and _step(checkpoint) > stop_at))
    model = resolve(folder)
    if past or (complete and (model is None or not _opens(model))):
        shutil.rmtree(folder)


def _opens(folder: Path) -> bool:
    """Whether a model is there and whole, as far as its JSON files and the headers and sizes of its weights say:
    nothing is loaded.
    """
    names = {file.name for file in folder.glob("*.safetensors")}
    try:
        for file in folder.glob("*.json"):
            content = read_json(file)
            names |= set(content["weight_map"].values()) if file.name.endswith(".index.json") else set()
        for name in names:
            with safe_open(folder / name, "pt"):
                pass
    except (HoldfastError, OSError, SafetensorError):
        return False
    return bool(names)


def _write_items(folder: Path, readings: Mapping[str, Found], study: Path) -> dict[str, str]:
    files = {}
    for split, f in readings.items():
        file = folder / f"items-{split}.npz"
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **f.items)  # type: ignore[arg-type]
        partial.replace(file)
        files[split] = str(file.relative_to(study))
    return files


def _spent(folder: Path) -> dict[str, float]:
    """Seconds of the rungs before, which the row of a trial includes: those of the last one."""
    for rung in sorted(folder.glob("rung-*.json"), key=lambda p: -int(p.stem.split("-")[1])):
        with contextlib.suppress(HoldfastError):  # a broken one
            return dict(read_json(rung)["seconds"])
    return {}


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


class _Clock:
    """Seconds by kind, added to those spent before."""

    def __init__(self, before: Mapping[str, float]) -> None:
        self._sums = {"train": 0.0, "measure": 0.0, "other": 0.0} | dict(before)
        self._last = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """Rounded."""
        return {kind: round(value, 3) for kind, value in self._sums.items()}

    def lap(self, kind: str, *, but: tuple[str, float] = ("train", 0.0)) -> None:
        """The time since the last lap was spent on ``kind``, ``but`` for so many seconds that were spent on another."""
        now = time.perf_counter()
        other, seconds = but
        self._sums[other] += seconds
        self._sums[kind] += max(0.0, now - self._last - seconds)
        self._last = now


class _Watch(TrainerCallback):
    """Stops with a checkpoint after step ``stop_at``; writes one every five minutes, so that a crash costs no more than
    that.
    """

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See ``transformers.TrainerCallback``."""
        stop = self.stop_at is not None and state.global_step >= self.stop_at
        if stop or time.monotonic() - self.saved > _SAVE_SECONDS:
            control.should_save = True
            self.saved = time.monotonic()
        if stop:
            control.should_evaluate = True
            control.should_training_stop = True
