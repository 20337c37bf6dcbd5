"""``benchmarks/gpu_head.py`` end to end without a GPU, on tiny heads in float32, and its verdicts on figures made by
hand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu_head")
    command = [sys.executable, str(BENCHMARKS / "gpu_head.py"), "--cpu", "--passes", "1"]
    command += ["--json", str(folder / "out.json"), "--markdown", str(folder / "out.md")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return made | {"markdown": (folder / "out.md").read_text()}


@pytest.mark.parametrize("shape", ["tiny", "tiny, capped"])
@pytest.mark.parametrize("way", ["holdfast triton", "holdfast torch", "dense"])
def test_ways_that_run_here_have_exact_gradients(found: dict[str, Any], way: str, shape: str) -> None:
    if way == "holdfast triton" and importlib.util.find_spec("triton") is None:
        pytest.skip('needs Triton: pip install "holdfast[kernels]"')
    cells = found["results"][shape][way]
    assert len(cells) == 6
    for key, cell in cells.items():
        assert cell["error"] <= 3e-6, (key, cell)
        assert cell["ms"] > 0


def test_a_rival_that_cannot_run_is_said_to(found: dict[str, Any]) -> None:
    results = found["results"]
    assert results["tiny"]["Liger, mean"]["0%, trained"] == {"none": "needs a GPU"}
    assert results["tiny"]["CCE exact, none x weights"]["90%, frozen"] == {"none": "needs a GPU"}
    assert "none" in results["tiny, capped"]["torch chunked, none x weights"]["0%, trained"]
    assert "| Liger, mean | 0%, trained | needs a GPU |" in found["markdown"]
    assert found["targets"] == []


def test_trl_runs_where_it_is_installed(found: dict[str, Any]) -> None:
    pytest.importorskip("trl")
    for shape in found["results"].values():
        assert all(cell["error"] <= 3e-6 for cell in shape["TRL fused head"].values()), shape["TRL fused head"]


def test_verdicts_tell_met_from_missed_from_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_head

    def ways(ours: dict[str, float]) -> dict[str, Any]:
        cells = {f"{z}, {h}": {"ms": ms, "peak_gib": 5.0} for z, ms in ours.items() for h in ("trained", "frozen")}
        slow = {key: {"ms": 60.0} for key in cells}
        return {way: {key: {"none": "not installed"} for key in cells} for way in gpu_head.WAYS} | {
            gpu_head.FLOOR: {key: {"ms": 40.0} for key in cells}, gpu_head.OURS: cells, "dense": slow,
        }  # fmt: skip

    good = gpu_head.verdicts("Qwen3-8B", ways({"0%": 44.0, "50%": 22.0, "90%": 5.0}))
    assert sum("met" in line for line in good) == 5
    assert sum("not measured" in line for line in good) == 4
    assert not any("MISSED" in line for line in good)
    bad = gpu_head.verdicts("Qwen3-8B", ways({"0%": 61.0, "50%": 61.0, "90%": 6.1}))
    assert [line.split(": ")[1] for line in bad if "MISSED" in line] == [
        "time over bare products at 0 % zero rows, at most 1.25", "largest time over dense, below 1",
        "time per kept row at 50% zero rows over that at 0 %, at most 1.25 (our tolerance)",
    ]  # fmt: skip
