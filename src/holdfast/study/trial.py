"""One job of a study, as a worker does it: train or go on training, measure, and write a row.

trials/ID/                                  a run directory of `holdfast tune` with learning curves and the model
trials/ID/row.json                          written last, so where it is the trial is done
trials/ID/rung-K.json                       the same for the end of rung K (halving)
trials/ID/items-dev.npz, items-test.npz     scores per item, one array per metric
"""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from holdfast import lm as models
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import DivergedError, HoldfastError
from holdfast.runs import check_output, read_json, resolve, write_json
from holdfast.study.jobs import Job, Row
from holdfast.study.measure import Evaluator
from holdfast.study.planning import Trial
from holdfast.study.sources import ROLE_COUNTS, SourceFacts, load_tokens, roles_counter
from holdfast.tune.model import load_base, whole_checkpoint
from holdfast.tune.pipeline import Start, train
from holdfast.tune.plan import Source, make_plan
from holdfast.tune.roles import TokenReport

_SAVE_SECONDS = 300.0
T = TypeVar("T")


class WorkerState:
    """What a worker keeps between jobs: a base model and its scores, one set of tokens and one evaluator."""

    def __init__(self, study: Path) -> None:
        self.study = study
        gc.collect()
        gc.freeze()  # accelerate collects garbage after every training: 0.4 s over what the imports have made
        self._kept: dict[str, tuple[str, Any]] = {}

    def base(self, config: TuneConfig) -> Any:
        """Return a copy of the base model, to train or to measure."""
        return copy.deepcopy(self._keep("model", config.model, lambda: load_base(config)))

    def source(self, facts: SourceFacts, config: TuneConfig) -> Source:
        """Return tokens in the form of ``tune``."""
        return self._keep("source", facts.key, lambda: self._read(facts, config))

    def evaluator(self, job: Job, config: TuneConfig) -> Evaluator:
        """Return the evaluator of the job's data."""
        return self._keep(
            "evaluator",
            job.facts.key,
            lambda: Evaluator(job.facts, config, job.measures, self.study / "data", job.items),
        )

    def before(self, job: Job, config: TuneConfig) -> dict[str, Any]:
        """Return the base model's scores on dev in the form of ``tune``, without the loss, as it depends on weights."""
        return self._keep("before", job.facts.key, lambda: self._evaluate(job, config))

    def _keep(self, kind: str, key: str, make: Callable[[], T]) -> T:
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)  # the old one goes first, because two base models may not fit in memory
            self._kept[kind] = (key, make())
        return cast(T, self._kept[kind][1])

    def _read(self, facts: SourceFacts, config: TuneConfig) -> Source:
        tokens = {name: load_tokens(self.study / "data" / f"{facts.key}.npz", name) for name in ("train", "dev")}
        fields = dict(facts.report)
        bad_rows = fields.pop("bad_rows")
        report = TokenReport(**fields | {name: roles_counter(fields.get(name, {})) for name in ROLE_COUNTS})
        tokenizer = models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        date = models.print_date(tokenizer, config.date)
        held_out = tokens["dev"]
        return Source(
            tokenizer, facts.parameters, tokens["train"], held_out, report, bad_rows, facts.max_length, date=date
        )

    def _evaluate(self, job: Job, config: TuneConfig) -> dict[str, Any]:
        lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
        scores = self.evaluator(job, config).nll(lm, "dev").values
        nll = scores["response_nll"]
        return {"loss": None, **scores, "response_perplexity": None if nll is None else math.exp(min(nll, 700))}


def perform(job: Job, state: WorkerState) -> Row:
    """Do a job and return its row. Every error ends up in the row, because one trial must not stop the others."""
    try:
        return _measure_base(job, state) if job.trial is None else _train(job, job.trial, state)
    except HoldfastError as error:
        return job.failed(str(error), diverged=isinstance(error, DivergedError))
    except Exception as error:  # whatever libraries raise
        traceback.print_exc()
        return job.failed(f"{type(error).__name__}: {error}")


def _measure_base(job: Job, state: WorkerState) -> Row:
    clock = _Clock({})
    config = TuneConfig(**job.tune, output="")
    folder = state.study / "base" / job.facts.key
    folder.mkdir(parents=True, exist_ok=True)
    lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
    models.print_date(lm.tokenizer, config.date)
    clock.lap("other")
    scores, items = _measure_splits(job, config, state, lm, config.model, folder)
    clock.lap("measure")
    row = {"kind": "base", "group": job.group, "status": "done", **scores, "items": items, "seconds": clock.seconds}
    write_json(state.study / job.file, row)
    return row


def _measure_splits(
    job: Job, config: TuneConfig, state: WorkerState, lm: Any, name: str, folder: Path
) -> tuple[dict[str, dict[str, float | None]], dict[str, str]]:
    """Return the scores of dev and test, and where in the study their scores per item are."""
    scores, files = {}, {}
    for split in ("dev", "test"):
        reading = state.evaluator(job, config).measure(lm, name, folder, split)
        file = folder / f"items-{split}.npz"
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **reading.items)  # type: ignore[arg-type]
        partial.replace(file)
        scores[split], files[split] = reading.values, str(file.relative_to(state.study))
    return scores, files


def _train(job: Job, trial: Trial, state: WorkerState) -> Row:
    folder = state.study / "trials" / trial.id
    clock = _Clock(_spent(folder))
    config = TuneConfig(**trial.tune, output=str(folder))
    _clear_unusable(config, "tune", job.stop_at)
    before = state.before(job, config)
    clock.lap("measure")
    checkpoint = whole_checkpoint(folder / "checkpoints")
    if job.stop_at is None or checkpoint is None or _step(checkpoint) < job.stop_at:
        plan = make_plan(config, state.source(job.facts, config))
        summary = train(config, Start(plan, state.base(config), before, [_Watch(job.stop_at)]))
        _release()
        clock.lap("other", but=("train", summary["seconds"]))
    if job.stop_at is not None:
        return _finish_rung(job, folder, state.evaluator(job, config), clock, state.study)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    model = _align(job, trial, folder)
    clock.lap("train")
    lm = models.load(model)
    models.print_date(lm.tokenizer, config.date)
    clock.lap("other")
    scores, items = _measure_splits(job, config, state, lm, str(model), folder)
    clock.lap("measure")
    row = job.row("done", scores["dev"], scores["test"], steps=trial.steps) | {"items": items, "seconds": clock.seconds}
    shutil.rmtree(folder / "aligned" / "checkpoints", ignore_errors=True)
    for run in () if job.keep_model else (folder, folder / "aligned"):
        shutil.rmtree(run / "model", ignore_errors=True)
    write_json(state.study / job.file, row)
    return row


def _finish_rung(job: Job, folder: Path, evaluator: Evaluator, clock: _Clock, study: Path) -> Row:
    """Return the row of a trial at the end of a rung, measured on dev alone by the metric of the search."""
    checkpoint = whole_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise HoldfastError(f"{folder}: the checkpoint at the end of rung {job.rung} is gone")
    wanted = [m for m in job.measures if m.name == job.rung_metric]
    lm = models.load(checkpoint)
    models.print_date(lm.tokenizer, job.tune.get("date"))
    reading = evaluator.measure(lm, str(checkpoint), folder, "dev", wanted)
    clock.lap("measure")
    row = job.row("stopped", reading.values, {}, steps=_step(checkpoint)) | {"seconds": clock.seconds}
    write_json(study / job.file, row)
    return row


def _align(job: Job, trial: Trial, folder: Path) -> Path:
    """Return the run directory of the model to measure, after the second stage if there is one."""
    if "align" not in job.then:
        return folder
    from holdfast.align import align

    options = {"date": trial.tune.get("date")} | job.then["align"]
    config = AlignConfig(**options, model=str(folder), output=str(folder / "aligned"), seed=trial.seed, json=True)
    _clear_unusable(config, "align")
    align(config)
    return folder / "aligned"


def _release() -> None:
    """Free the trained model, which a reference cycle of its trainer keeps, before it is loaded for measuring."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _clear_unusable(config: TuneConfig | AlignConfig, command: str, stop_at: int | None = None) -> None:
    """Remove what a training cannot go on from: a run with other weights of equal ratio, a damaged checkpoint, a
    complete run whose model was not kept or is damaged, or one past the rung whose row is needed again."""
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
    """Return whether a model is there and whole, as its JSON files and the headers and sizes of its weights say. No
    weights are loaded."""
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


def _spent(folder: Path) -> dict[str, float]:
    """Return the seconds in the row of the last rung, which include those of the rungs before it."""
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
        """Return the seconds by kind, rounded."""
        return {kind: round(value, 3) for kind, value in self._sums.items()}

    def lap(self, kind: str, *, but: tuple[str, float] = ("train", 0.0)) -> None:
        """Count the time since the last lap as ``kind``, except the seconds of ``but``, which are of the kind there."""
        now = time.perf_counter()
        other, seconds = but
        self._sums[other] += seconds
        self._sums[kind] += max(0.0, now - self._last - seconds)
        self._last = now


class _Watch(TrainerCallback):
    """Stops with a checkpoint after step ``stop_at``, and writes one every five minutes in case of a crash."""

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
