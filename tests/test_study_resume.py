"""kill -9 of everything at random moments, then the same command again: the rows are those of the study that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from study_case import comparable, make_case, run_study, write_study


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trials of 24 steps with checkpoints in between, of which one run killed at random is usually in the middle."""
    case = make_case(tmp_path_factory.mktemp("case"))
    return case | {"tune": case["tune"] | {"epochs": 8.0, "save_steps": 4}, "vary": {"weights": [[0, 1], [0.2, 0.8], [1, 1]]}}


def start(file: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "holdfast.cli", "study", "run", str(file), "--output", str(output), "--slots", "1"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_at_random(file: Path, output: Path, rng: random.Random) -> str:
    """Start the study and kill its process group at a random moment after the first job has begun; returns what had been reached."""
    began = time.time()
    process = start(file, output)
    while process.poll() is None and not any(log.stat().st_mtime > began for log in output.glob("logs/*")):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 5))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"{len(list(output.glob('trials/*/row.json')))} rows, {len(list(output.glob('trials/*/checkpoints/*')))} checkpoints"


def disturbed(content: dict[str, Any], folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    run_study(content, folder / "calm")
    file = write_study(folder / "torn.yaml", content)
    reached = []
    for attempt in range(kills):
        output = folder / f"torn-{attempt // 3}"  # three kills in a row hit one study, then comes a new one
        reached.append(kill_at_random(file, output, rng))
    for output in sorted(folder.glob("torn-*")):
        if output.is_dir():
            run_study(content, output)
            assert comparable(output) == comparable(folder / "calm"), reached
            for calm in (folder / "calm").glob("trials/*/rows.jsonl"):
                assert curve(output / calm.relative_to(folder / "calm")) == pytest.approx(curve(calm), rel=1e-5), reached
    assert any(at != "0 rows, 0 checkpoints" for at in reached), "no kill hit a training"


def curve(file: Path) -> list[float]:
    """Training losses, step by step."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 25))
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_killed_five_times(content: dict[str, Any], tmp_path: Path) -> None:
    disturbed(content, tmp_path, kills=5, seed=1)


@pytest.mark.full
def test_killed_thirty_times(content: dict[str, Any], tmp_path: Path) -> None:
    disturbed(content, tmp_path, kills=30, seed=2)


def test_workers_do_not_outlive_the_study(content: dict[str, Any], tmp_path: Path) -> None:
    """Only the study itself is killed: its workers notice and end, so that the next run has the directory to itself."""
    process = start(write_study(tmp_path / "s.yaml", content | {"seeds": 40}), tmp_path / "out")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("trials/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
