"""What travels to a worker (a job) and what comes back (a row of STUDY/rows.jsonl). Both are pickled, so both are plain
data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.runs import check_arrays, finite, read_json
from holdfast.study.measures import Measure
from holdfast.study.planning import Group, StudyPlan, Trial
from holdfast.study.sources import SourceFacts, json_digest

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A trial, or where ``trial`` is None the untuned model of a group.

    With ``stop_at`` the training stops after this step, at the end of ``rung``, and ``rung_metric`` is measured on dev.
    Without it the training goes on to its end, and everything is measured.
    """

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
        """Return the name that is printed while it runs."""
        return f"{self.trial.setting_name} seed {self.trial.seed}" if self.trial else "base model"

    @property
    def file(self) -> str:
        """Return where its row is kept, relative to the study directory."""
        if self.trial is None:
            measured = json_digest([[m.pinned() for m in self.measures], self.items])
            return f"base/{self.facts.key}-{measured[:8]}.json"
        return f"trials/{self.trial.id}/{'row' if self.stop_at is None else f'rung-{self.rung}'}.json"

    @property
    def log(self) -> str:
        """Return where its output is kept, relative to the study directory."""
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
        """Return the row of this trial."""
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
        """Return the row of a job that failed. ``diverged``: it failed because its loss became NaN or infinite."""
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
    """Return whether a trial's training has diverged: its loss became NaN or infinite, or its model has no NLL on dev
    where the base model has one.

    Args:
        base: dev scores of the untuned model.
    """
    if row["status"] == "failed":
        return bool(row.get("diverged"))
    return any(base.get(name) is not None and row["dev"].get(name) is None for name in ("response_nll", "prompt_nll"))


def job_of(plan: StudyPlan, group: Group, trial: Trial | None, **halving: Any) -> Job:
    """Return the job of a trial, or of a group's base model where ``trial`` is None."""
    facts = next(f for f in group.facts if trial is None or f.key == trial.source)
    spec = plan.spec
    base = {"model": group.model, "data": facts.files["train"], "eval_data": facts.files["dev"]} | dict(spec.tune)
    base |= {"date": facts.date} if facts.date else {}
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
    """Return the row of a job that has been done.

    Raises:
        HoldfastError: the row, or a file of scores per item that it names, cannot be read.
    """
    row = read_json(file)
    if not isinstance(row, dict) or not {"status", "dev", "test", "seconds"} <= row.keys():
        raise HoldfastError(f"{file}: not the row of a trial")
    for name in (row.get("items") or {}).values():
        check_arrays(study / name)
    return row
