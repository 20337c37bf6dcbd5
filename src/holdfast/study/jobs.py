"""What travels to a worker and what comes back. Plain data: it is pickled.

Job -> row of STUDY/rows.jsonl
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import HoldfastError
from holdfast.runs import check_arrays, read_json
from holdfast.study.measures import Measure
from holdfast.study.planning import Group, StudyPlan, Trial
from holdfast.study.sources import SourceFacts

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A trial, or with ``trial`` None the untuned model of a group. ``stop_at``: stop after this step, at the end of
    ``rung``, and measure ``rung_metric`` on dev; None: go on to the end and measure everything."""

    group: str
    trial: Trial | None
    tune: dict[str, Any]
    facts: SourceFacts
    measures: tuple[Measure, ...]
    items: int | None
    then: dict[str, Any]
    keep_model: bool
    rung: int | None = None
    stop_at: int | None = None
    rung_metric: str = "response_nll"

    @property
    def name(self) -> str:
        """As shown while it runs."""
        return f"{self.trial.setting_name} seed {self.trial.seed}" if self.trial else "base model"

    @property
    def file(self) -> str:
        """Where its row is kept, relative to the study directory."""
        if self.trial is None:
            measured = [m.pinned() for m in self.measures], self.items
            return f"base/{self.facts.key}-{hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:8]}.json"
        return f"trials/{self.trial.id}/{'row' if self.stop_at is None else f'rung-{self.rung}'}.json"

    @property
    def log(self) -> str:
        """Where what it prints goes, relative to the study directory."""
        return f"logs/{self.trial.id if self.trial else 'base'}.txt"

    def row(
        self,
        status: str,
        dev: dict[str, float | None],
        test: dict[str, float | None],
        *,
        steps: int,
        error: str | None = None,
    ) -> Row:
        """The row of this trial."""
        t = self.trial
        assert t is not None
        return {
            "kind": "trial",
            "trial": t.id,
            "group": t.group,
            "status": status,
            "error": error,
            "setting": t.setting,
            "setting_name": t.setting_name,
            "ratio": t.ratio,
            "prompt_share": t.prompt_share,
            "members": [list(pair) for pair in t.members],
            "seed": t.seed,
            "twin": t.twin,
            "rung": self.rung,
            "steps": steps,
            "tokens": round(t.tokens * steps / t.steps),
            "dev": finite(dev),
            "test": finite(test),
            "items": None,
            "path": f"trials/{t.id}",
        }

    def failed(self, error: str, *, diverged: bool = False) -> Row:
        """The row of a job that could not be done; ``diverged``: because its loss is no number any more."""
        seconds = {"train": 0.0, "measure": 0.0, "other": 0.0}
        if self.trial is None:
            return {
                "kind": "base",
                "group": self.group,
                "status": "failed",
                "error": error,
                "dev": {},
                "test": {},
                "seconds": seconds,
            }
        mark = {"diverged": True} if diverged else {}
        return self.row("failed", {}, {}, steps=0, error=error) | mark | {"seconds": seconds}


def diverged(row: Row, base: Mapping[str, float | None]) -> bool:
    """Whether a trial's training has gone astray: its loss became no number, or its model has no NLL on dev where the
    base model has one.

    Args:
        base: dev scores of the untuned model.
    """
    if row["status"] == "failed":
        return bool(row.get("diverged"))
    return any(base.get(name) is not None and row["dev"].get(name) is None for name in ("response_nll", "prompt_nll"))


def job_of(plan: StudyPlan, group: Group, trial: Trial | None, **halving: Any) -> Job:
    """The job of a trial, or of a group's base model."""
    facts = next(f for f in group.facts if trial is None or f.key == trial.source)
    spec = plan.spec
    base = {"model": group.model, "data": facts.files["train"], "eval_data": facts.files["dev"]} | dict(spec.tune)
    return Job(
        group=group.name,
        trial=trial,
        tune=trial.tune if trial else base,
        facts=facts,
        measures=spec.measures,
        items=spec.items,
        then=dict(spec.then),
        keep_model=spec.keep_models,
        **halving,
    )


def read_row(file: Path, study: Path) -> Row:
    """The row that a job has left behind.

    Raises:
        HoldfastError: it cannot be read, or the scores per item that it names cannot.
    """
    row = read_json(file)
    if not isinstance(row, dict) or not {"status", "dev", "test", "seconds"} <= row.keys():
        raise HoldfastError(f"{file}: not the row of a trial")
    for name in (row.get("items") or {}).values():
        check_arrays(study / name)
    return row


def finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Values as JSON can hold them: a training that has diverged has none."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


class Pool(Protocol):
    """Workers. ``slots``: how many jobs at a time."""

    slots: int

    def results(self, jobs: list[Job], started: Any) -> Any:
        """Yield (job, row) as jobs end, in any order; ``started`` is called with each job as it begins."""

    def close(self) -> None:
        """End the workers."""
