"""The whole of ``holdfast study run``, top to bottom: file -> plan -> trials -> rows -> selection -> study directory.

    STUDY/config.json    the plan                 STUDY/trials/ID/    run directories of `holdfast tune`, addressed by content
    STUDY/rows.jsonl     one row per trial        STUDY/data/         tokens, made once
    STUDY/summary.json   the selection, and what it cost
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holdfast
from holdfast.config import StudyConfig
from holdfast.errors import HoldfastError
from holdfast.runs import RunDir, read_json, write_json, write_text
from holdfast.study.jobs import Job, Pool, Row
from holdfast.study.measure import split_sets
from holdfast.study.plan import StudyPlan, make_plan
from holdfast.study.preview import preview
from holdfast.study.progress import Progress, clock
from holdfast.study.search import check_search, search
from holdfast.study.spec import Spec, load_spec


def plan(config: StudyConfig) -> dict[str, Any]:
    """Say what a study will train and what that costs. Writes nothing.

    Raises:
        HoldfastError: bad input.
    """
    spec = load_spec(config.study, limit=config.limit, seed=config.seed)
    output = _output(config, spec)
    with tempfile.TemporaryDirectory() as folder:
        made = _planned(spec, [output / "data", Path(folder)])
        _check_output(output, made, overwrite=config.overwrite)
        return preview(made, config, output, Path(folder))


def run(config: StudyConfig) -> dict[str, Any]:
    """Train what is missing, measure it, choose.

    Returns:
        The summary: selection per group, cost, counts. A study that is complete is returned, not repeated.

    Raises:
        HoldfastError: bad input (nothing has been trained then), or no trial that worked.
    """
    if config.dry_run:
        return plan(config)
    spec = load_spec(config.study, limit=config.limit, seed=config.seed)
    output = _output(config, spec)
    if config.overwrite:
        _delete(output)
    started = time.perf_counter()
    with _locked(output):
        made = _planned(spec, [output / "data"])
        _check_output(output, made, overwrite=False)
        known = dataclasses.asdict(config) | {"study": config.study}
        resolved = made.resolved()
        _write_config(output, known, resolved)
        rows = _execute(config, made, output)
        summary = _summary(made, rows, output, time.perf_counter() - started, _slots(config))
        write_json(output / "summary.json", summary)
    if not config.json:
        print(f"{summary['finding']}\n\n{summary['trials']['done']} trials in {output.resolve()}")
    return summary
