"""A tiny study: a random model of two layers, 24 examples, a few steps. Trains in a tenth of a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from holdfast.config import StudyConfig
from holdfast.study import run
from holdfast.study.jobs import Job, Row
from holdfast.study.planning import StudyPlan, make_plan
from holdfast.study.spec import make_spec
from holdfast.study.trial import WorkerState, perform
from holdfast.study.worker import log_to
from materials import make_model, make_tokenizer, write_jsonl

GRID = {"weights": [[0, 1], [0, 0.4], [0.2, 0.8], [1, 1]]}


def chats(first: int, last: int) -> list[dict[str, Any]]:
    def row(n: int) -> dict[str, Any]:
        answer = " ".join(map(str, range(1, n % 5 + 2)))
        return {"messages": [{"role": "user", "content": f"Count {n}."}, {"role": "assistant", "content": answer}]}

    return [row(n) for n in range(first, last)]


def make_case(folder: Path) -> dict[str, Any]:
    """Model and data on disk; the content of a study file."""
    make_model().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    splits = {"train": (0, 24), "dev": (30, 36), "test": (40, 46)}
    data = {name: str(write_jsonl(folder / f"{name}.jsonl", chats(*span))) for name, span in splits.items()}
    return {
        "name": "tiny",
        "model": str(folder / "model"),
        "data": data,
        "vary": GRID,
        "seeds": 2,
        "tune": {"batch_size": 8, "learning_rate": 0.01, "batching": "padded", "log_steps": 1},
        "measure": [{"exact_match": {"max_new_tokens": 3}}],
    }


def other_model(case: dict[str, Any], folder: Path, seed: int) -> str:
    """Another base model with the tokenizer of the first."""
    shutil.copytree(case["model"], folder)
    make_model(seed=seed).save_pretrained(folder)
    return str(folder)


def planned(content: dict[str, Any], folder: Path) -> StudyPlan:
    folder.mkdir(exist_ok=True)
    return make_plan(make_spec(content), [folder])


def write_study(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


class HerePool:
    """Does jobs in this process: the same work without the seconds that a new process takes to import everything."""

    slots = 1

    def __init__(self, study: Path) -> None:
        self.study, self.bench = study, WorkerState(study)

    def results(self, jobs: list[Job], started: Callable[[Job], None]) -> Iterator[tuple[Job, Row]]:
        for job in jobs:
            started(job)
            with log_to(self.study / job.log):
                row = perform(job, self.bench)
            yield job, row

    def close(self) -> None:
        pass


def run_study(content: dict[str, Any], output: Path, *, processes: bool = False, **options: Any) -> dict[str, Any]:
    """Run a study, in this process unless ``processes``."""
    file = write_study(output.with_suffix(".yaml"), content)
    config = StudyConfig(study=str(file), output=str(output), slots=1, json=True, **options)
    if processes:
        return run(config)
    with mock.patch("holdfast.study.pipeline.open_pool", lambda _, study: HerePool(study)):
        return run(config)


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def comparable(output: Path) -> list[dict[str, Any]]:
    """Rows without what no two runs share."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(output)]
