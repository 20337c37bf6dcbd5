"""The gradient of an optimizer step is that of float64 on the whole batch, however the step is cut up. The whole matrix
(720 cells) is ``benchmarks/exactness.py``; here its short form, over the same code: one and two processes, all
batchings, weights and normalizers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = tmp_path_factory.mktemp("exactness") / "cells.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "exactness.py"), "--quick", "--json", str(found)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made: list[dict[str, Any]] = json.loads(found.read_text())["cells"]
    return made


def test_every_cell_is_exact_to_a_millionth_in_float32(cells: list[dict[str, Any]]) -> None:
    ours = [cell for cell in cells if cell["way"] == "holdfast"]
    assert len(ours) >= 30
    for axis, values in {"micro": 3, "processes": 2, "batching": 3, "lora": 2, "normalizer": 5}.items():
        assert len({cell[axis] for cell in ours}) == values, axis
    assert len({tuple(cell["pair"]) for cell in ours}) == 4
    assert max(cell["error"] for cell in ours) <= 1e-6
    means = [cell for cell in ours if cell["normalizer"] == "role-mean"]
    for axis, values in {"micro": 3, "processes": 2, "batching": 3, "lora": 2}.items():
        assert len({cell[axis] for cell in means}) == values, axis


def test_the_usual_recipes_are_not(cells: list[dict[str, Any]]) -> None:
    """So the matrix can tell: a mean per micro-batch depends on the split, and a 2-D mask over one row mixes its
    examples.
    """
    means = [c for c in cells if c["way"] == "Trainer, weighted mean of the micro-batch" and c["pair"] == [0.2, 0.8]]
    errors = {(c["micro"], c["processes"]): c["error"] for c in means}
    assert errors.pop((1, 1)) < 1e-6
    assert len(errors) == 5
    assert min(errors.values()) > 0.05
    mixed = [c["error"] for c in cells if c["batching"] == "one row, 2-D mask" and c["micro"] < 16]
    assert min(mixed) > 0.5


def test_a_sharded_model_has_the_exact_gradient() -> None:
    """FSDP2 over gloo: the head is a DTensor, the divisor spans the ranks. Padded and padding-free, full training and
    adapters.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tests" / "helpers" / "sharded.py"), "padded", "padding-free"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert [f["sharded"] for f in found] == ["DTensor"] * 4
    assert max(f["error"] for f in found) <= 1e-6
