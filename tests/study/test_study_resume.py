"""kill -9 of everything at random moments, then the same command again: the rows are those of the study that nobody
disturbed.
"""

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
from unittest import mock

import pytest

from holdfast.study.planning import disk_bytes
from holdfast.study.trial import _opens, perform
from materials import make_model
from study_case import comparable, make_case, planned, rows_of, run_study, write_study


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trials of 24 steps with checkpoints in between, of which one run killed at random is usually in the middle."""
    case = make_case(tmp_path_factory.mktemp("case"))
    return case | {
        "tune": case["tune"] | {"epochs": 8.0, "save_steps": 4},
        "vary": {"weights": [[0, 1], [0.2, 0.8], [1, 1]]},
    }


def start(file: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "holdfast.cli", "study", "run", str(file), "--output", str(output), "--slots", "1"]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_one_core
    )


def _one_core() -> None:
    """A worker has a thread per core. The calm study runs on one thread, and sums differ in their last digits with
    another number.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def kill_at_random(file: Path, output: Path, rng: random.Random) -> str:
    """Start the study and kill its process group at a random moment after the first job has begun; returns what had
    been reached.
    """
    began = time.time()
    process = start(file, output)
    while process.poll() is None and not any(log.stat().st_mtime > began for log in output.glob("logs/*")):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 5))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    rows, checkpoints = (len(list(output.glob(f"trials/*/{name}"))) for name in ("row.json", "checkpoints/*"))
    return f"{rows} rows, {checkpoints} checkpoints"


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
                assert curve(output / calm.relative_to(folder / "calm")) == pytest.approx(curve(calm), rel=1e-5), (
                    reached
                )
    assert any(at != "0 rows, 0 checkpoints" for at in reached), "no kill hit a training"


def curve(file: Path) -> list[float]:
    """Training losses, step by step."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 25))
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_killed_three_times(content: dict[str, Any], tmp_path: Path) -> None:
    disturbed(content, tmp_path, kills=3, seed=1)


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


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("lora", [0, 2])
def test_a_model_cut_short_is_trained_anew(content: dict[str, Any], tmp_path: Path, lora: int) -> None:
    """As a crash of the machine leaves it: complete by its files, without the row, and its weights do not open."""
    small = content | {
        "vary": {"weights": [[0, 1]]},
        "seeds": 1,
        "measure": [],
        "tune": content["tune"] | {"lora_rank": lora},
    }
    run_study(small, tmp_path / "out")
    before = comparable(tmp_path / "out")
    trial = tmp_path / "out" / before[1]["path"]
    for file in ("adapter_model.safetensors" if lora else "model.safetensors", "tokenizer.json"):
        (trial / "row.json").unlink()
        cut_short(trial / "model" / file)
        run_study(small, tmp_path / "out")
        assert comparable(tmp_path / "out") == before


def test_a_model_in_shards_opens_when_all_are_whole(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert _opens(tmp_path)
    shards[0].rename(tmp_path / "away")
    assert not _opens(tmp_path), "one is missing"
    (tmp_path / "away").rename(shards[0])
    cut_short(shards[-1])
    assert not _opens(tmp_path)


@pytest.fixture(scope="module")
def halving(content: dict[str, Any]) -> dict[str, Any]:
    """Two rungs, of 8 and 24 steps, over seven settings; of a trial only its row is wanted."""
    search = {"kind": "halving", "points": 7, "low": 0.2, "factor": 3}
    return {k: v for k, v in content.items() if k != "vary"} | {
        "search": search,
        "seeds": 1,
        "measure": [],
        "keep_models": False,
    }


def interrupted(content: dict[str, Any], output: Path, jobs: int) -> None:
    """Run a study and end it as it begins one job more."""
    effect = [perform] * jobs

    def do(*given: Any) -> Any:
        if not effect:
            raise KeyboardInterrupt
        return effect.pop()(*given)

    with mock.patch("study_case.perform", do), pytest.raises(KeyboardInterrupt):
        run_study(content, output)


def weights_in(output: Path) -> set[str]:
    """Trials that have left anything heavy."""
    return {
        file.relative_to(output).parts[1]
        for name in ("*.safetensors", "*.pt")
        for file in output.glob(f"trials/**/{name}")
    }


def test_only_rows_stay_of_a_halving_search(halving: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupted(halving, output, 1 + 7)  # the base model and the first rung
    stopped = {row["trial"] for row in rows_of(output) if row.get("status") == "stopped"}
    alive = {folder.name for folder in output.glob("trials/*")} - stopped
    assert len(stopped) >= 4
    assert weights_in(output) == alive, "who goes on does so from its checkpoint"
    run_study(halving, output)
    assert weights_in(output) == set()
    run_study(halving | {"keep_models": True}, tmp_path / "calm")
    assert comparable(output) == comparable(tmp_path / "calm")
    assert len(weights_in(tmp_path / "calm")) == 7
    for row in rows_of(output):
        if row["kind"] == "trial" and row["status"] == "done":
            curve(output / row["path"] / "rows.jsonl")  # its second rung went on after the eighth step
    with mock.patch("study_case.perform", side_effect=AssertionError("nothing is left to do")):
        run_study(halving, output)
    before = {row["trial"]: row["status"] for row in rows_of(output)[1:]}
    (output / "trials" / min(stopped) / "rung-0.json").write_text("")
    run_study(halving | {"seeds": 2}, output)
    after = {row["trial"]: row["status"] for row in rows_of(output)[1:]}
    assert after == before | dict.fromkeys(after.keys() - before.keys(), "done")
    assert len(after) == 7 + len(alive)
    assert weights_in(output) == set()


@pytest.mark.parametrize("keep", [True, False])
def test_the_plan_counts_the_disk_at_its_peak(halving: dict[str, Any], tmp_path: Path, keep: bool) -> None:
    content, output, seen = halving | {"seeds": 2, "keep_models": keep}, tmp_path / "out", []

    def do(*given: Any) -> Any:
        row = perform(*given)
        seen.append(sum(f.stat().st_size for f in output.glob("trials/**/*") if f.suffix in (".safetensors", ".pt")))
        return row

    with mock.patch("study_case.perform", do):
        run_study(content, output)
    assert disk_bytes(planned(content, tmp_path / "data"), 1) == pytest.approx(max(seen), rel=0.25)


@pytest.mark.parametrize("keep", [True, False])
def test_a_second_stage_leaves_no_more_than_the_first(content: dict[str, Any], tmp_path: Path, keep: bool) -> None:
    then = {"align": {"data": "pocket:preferences", "limit": 8, "epochs": 1.0, "save_steps": 1, "batch_size": 4}}
    small = content | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": [], "then": then, "keep_models": keep}
    run_study(small, tmp_path / "out")
    row = rows_of(tmp_path / "out")[1]
    trial = tmp_path / "out" / row["path"]
    assert row["status"] == "done", row
    assert [(run / "model").exists() for run in (trial, trial / "aligned")] == [keep, keep]
    assert not list(trial.glob("**/checkpoints"))
    if keep:
        (trial / "row.json").unlink()
        cut_short(trial / "aligned" / "model" / "model.safetensors")
        run_study(small, tmp_path / "out")
        assert rows_of(tmp_path / "out")[1]["dev"] == pytest.approx(row["dev"])


def test_a_stopped_trial_whose_checkpoint_is_gone_goes_on_from_the_start(
    halving: dict[str, Any], tmp_path: Path
) -> None:
    run_study(halving, tmp_path / "out")
    grid = halving | {"search": {"kind": "ratios", "points": 7, "low": 0.2}}
    for name in ("out", "calm"):
        run_study(grid, tmp_path / name)
    assert comparable(tmp_path / "out") == comparable(tmp_path / "calm")
