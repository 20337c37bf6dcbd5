"""Run directories that version 33c6712 has left: today's code opens each, shows each, and does only what is missing of
an unfinished one.

They lie in ``golden/runs`` (see the README there), and are copied before they are touched.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from golden_case import HOME, RUNS, call, differences, prepare, read_rows, stable

LINES: dict[str, str] = json.loads((RUNS / "commands.json").read_text(encoding="utf-8"))
UNFINISHED = ("tune-unfinished", "study-unfinished")
FINISHED = sorted(LINES.keys() - {*UNFINISHED, "tune-old"})
QUIET = {"variants", "analyse", "compare", "check", "bench-compare", "best", "best-table", "study", "demo"}
"""Finished runs of which a second call does not say that they are complete: it gives the same again."""
REWRITTEN = {
    "config.json",
    "summary.json",
    "report.html",
    ".lock",
    "best.json",
    "comparison.json",
    "check.json",
    "tables.json",
}
SCORED_ANEW = {"bench", "bench-tuned"}
"""Complete runs whose scores that version took for means: they are made again from the answers that are kept."""
MEASURED_ANEW = {"study", "demo"}
"""Ends of turns and joints are read in another way since: the base model is measured again, and named anew in the rows.
No trial is.
"""
NEEDS = {"align": "trl", "bench": "lm_eval", "bench-tuned": "lm_eval"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run directories, and the current directory there; both and the environment come back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    prepare(tmp_path, runs=True)
    return tmp_path


def content(name: str) -> dict[str, str]:
    """Every file of a run directory that a second call has no reason to write, and the digest of what is in it."""
    folder = Path("runs", name)
    files = [
        file for file in folder.rglob("*") if file.is_file() and file.relative_to(folder).as_posix() not in REWRITTEN
    ]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def saved(name: str) -> Any:
    """The summary of a run directory, or of a command that leaves a lone file."""
    places = [Path("runs", name, file) for file in ("summary.json", "comparison.json", "check.json", "best.json")]
    return json.loads(next(place for place in places if place.is_file()).read_text(encoding="utf-8"))


def need(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_given_again_and_not_run(name: str) -> None:
    need(name)
    before, summary = content(name), saved(name)
    answer = call(f"{LINES[name]} --json")
    assert answer.exit_code == 0, answer.err
    assert ("already complete" in answer.err) == (name not in QUIET | SCORED_ANEW), answer.err
    after = content(name)
    changed = {file for file in before if after.get(file) != before[file]}
    if name in MEASURED_ANEW:
        changed.discard("rows.jsonl")
    if name == "check":
        changed.discard("summary.md")  # the table of it is laid out as everywhere
    if name == "best":
        changed.discard("best.yaml")  # clipping and the command line stand in it now
    if name == "best":
        changed.discard("best.yaml")  # clipping and the command line stand in it now
    if name in SCORED_ANEW:
        changed.discard("lm-eval/results.json")
    assert not changed, "these files were written anew, with other content"
    assert not {file for file in after.keys() - before.keys() if not remade(file, name)}, "something ran"
    told = json.loads(answer.out)
    if name == "demo":
        told = told["study"]
    assert not differences(stable(summary), stable(told))
    if name not in QUIET | SCORED_ANEW:
        assert told == summary


def remade(file: str, name: str) -> bool:
    """Files that the README of the runs says were left out, and that are made of what is there; those of a base model;
    and a cache of answers."""
    own = {"base/", "data/"} if name in MEASURED_ANEW else {"cache-"} if name in SCORED_ANEW else set()
    return file.startswith(("logs/", "data/sets-", "tables.json", *own))


def test_of_an_unfinished_study_only_what_is_missing_is_trained() -> None:
    study = Path("runs/study-unfinished")
    done = {row.parent.name for row in study.glob("trials/*/row.json")}
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in study.glob("trials/*/**/*") if file.is_file()
    }
    assert len(done) == 2
    assert not (study / "summary.json").exists()
    answer = call(LINES["study-unfinished"])
    assert answer.exit_code == 0, answer.err
    trained = {row.parent.name for row in study.glob("trials/*/row.json")} - done
    assert len(trained) == 2
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before, (
        "what was done has been done again"
    )
    summary = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    assert summary["trials"] == {"planned": 4, "done": 4, "stopped": 0, "failed": 0, "not_started": 0, "merged_from": 4}
    rows, whole = read_rows(study / "rows.jsonl"), read_rows(Path("runs/study/rows.jsonl"))
    for row, calm in zip(rows, whole, strict=True):
        apart = {"dev", "test", "seconds"} | (
            {"items"} if row["kind"] == "base" else set()
        )  # of the base model by another name
        assert {key: row[key] for key in row if key not in apart} == {
            key: calm[key] for key in calm if key not in apart
        }
        for split in ("dev", "test"):
            assert row[split] == pytest.approx(calm[split], rel=1e-3), "not the study that nobody disturbed"


def test_an_unfinished_run_goes_on_from_its_checkpoint() -> None:
    run = Path("runs/tune-unfinished")
    before = read_rows(run / "rows.jsonl")
    answer = call(f"{LINES['tune-unfinished']} --json")
    assert answer.exit_code == 0, answer.err
    assert "continuing from" in answer.err
    assert "checkpoint-2" in answer.err
    rows = read_rows(run / "rows.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    assert rows[: len(before)] == before
    assert json.loads(answer.out)["before"] == {key: before[0][key] for key in before[0] if key not in ("kind", "step")}


@pytest.mark.parametrize("name", LINES)
def test_every_run_directory_is_shown(name: str) -> None:
    answer = call(f"report runs/{name} --format html,md,csv --output page.html --json")
    assert answer.exit_code == 0, answer.err
    assert json.loads(answer.out)["runs"][0]["complete"] == (name not in UNFINISHED)
    text = Path("page.md").read_text(encoding="utf-8")
    assert name in text
    assert "Shown plainly" not in text
    assert ("is not complete" in text) == (name in UNFINISHED)
    assert "<html" in Path("page.html").read_text(encoding="utf-8")


def test_a_key_that_an_old_config_lacks_means_the_value_of_its_version() -> None:
    """The version that left this run had no --batching, and padded."""
    config = json.loads(Path("runs/tune-old/config.json").read_text(encoding="utf-8"))["config"]
    assert "batching" not in config
    answer = call(f"{LINES['tune-old']} --json")
    assert answer.exit_code == 0, answer.err
    assert "already complete" in answer.err


def test_a_record_names_no_place_of_the_machine_that_made_it() -> None:
    places = [str(HOME.parents[1]), f"{tempfile.gettempdir()}/", f"{Path.home()}/"]
    files = [file for file in HOME.rglob("*") if file.is_file()]
    named = {str(file.relative_to(HOME)) for file in files for place in places if place.encode() in file.read_bytes()}
    assert not named
    assert sum(file.stat().st_size for file in files if file.is_relative_to(RUNS)) < 1.5e6
