"""Studies that run: rows as agreed, trials as `holdfast tune` alone would train them, failures that stop nothing,
nothing done twice.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from holdfast import lm
from holdfast.config import StudyConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import empty
from holdfast.study import run
from holdfast.study.measure import nll_sums
from holdfast.study.measures import empty_answers, exact_match, token_f1
from holdfast.study.search import promoted, rung_steps
from holdfast.study.sources import load_tokens
from holdfast.study.spec import SearchSpec
from holdfast.tune import train
from study_case import comparable, make_case, other_model, planned, rows_of, run_study


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def done(case: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished study and its summary."""
    output = tmp_path_factory.mktemp("done") / "study"
    return output, run_study(case, output, processes=True)


def mean_answer_length(model: Any, source: str) -> list[float]:
    """A measure of a user's own."""
    rows = [json.loads(line) for line in Path(source).read_text().splitlines()]
    return [float(len(row["messages"][-1]["content"])) + 0 * len(model.name) for row in rows]


def test_rows_are_as_agreed(done: tuple[Path, dict[str, Any]]) -> None:
    output, summary = done
    rows = rows_of(output)
    assert [row["kind"] for row in rows] == ["base"] + ["trial"] * 6
    for row in rows[1:]:
        assert row["status"] == "done"
        assert row["steps"] == 3
        assert set(row["dev"]) == set(row["test"]) == {"response_nll", "prompt_nll", "exact_match"}
        assert set(row["seconds"]) == {"train", "measure", "other"}
        assert (output / row["path"] / "model" / "model.safetensors").is_file()
        kinds = [json.loads(line)["kind"] for line in (output / row["path"] / "rows.jsonl").read_text().splitlines()]
        assert kinds == ["eval", "train", "train", "train", "eval"]
    assert rows[1]["members"] == [[0.0, 1.0], [0.0, 0.4]]
    assert summary["trials"] == {"planned": 6, "done": 6, "stopped": 0, "failed": 0, "not_started": 0, "merged_from": 8}
    assert summary["base"] == {"dev": rows[0]["dev"], "test": rows[0]["test"]}
    assert summary["selection"]["chosen"] in {row["setting_name"] for row in rows[1:]}
    assert json.loads((output / "summary.json").read_text()) == summary


def test_the_mean_of_the_items_is_the_value(done: tuple[Path, dict[str, Any]]) -> None:
    output, _ = done
    for row in rows_of(output):
        for split in ("dev", "test"):
            with np.load(output / row["items"][split]) as arrays:
                assert {name: pytest.approx(arrays[name].mean(), abs=1e-12) for name in arrays} == row[split]
                assert {len(arrays[name]) for name in arrays} == {6}


def test_nlls_are_those_of_the_model_alone(done: tuple[Path, dict[str, Any]], case: dict[str, Any]) -> None:
    """Against one example at a time, in float64, from logits."""
    output, _ = done
    row = rows_of(output)[-1]
    model = lm.load(output / row["path"])
    model.model.double()
    tokens = load_tokens(next((output / "data").glob("*.npz")), "test")
    total = {True: 0.0, False: 0.0}
    count = {True: 0, False: 0}
    for t in tokens:
        ids = torch.from_numpy(t.ids.astype(np.int64))
        with torch.no_grad():
            logp = model.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for i in range(1, len(ids)):
            response = int(t.roles[i]) in (5, 6)
            total[response] -= float(logp[i - 1, ids[i]])
            count[response] += 1
    assert row["test"]["response_nll"] == pytest.approx(total[True] / count[True], rel=1e-5)
    assert row["test"]["prompt_nll"] == pytest.approx(total[False] / count[False], rel=1e-5)
    sums = nll_sums(lm.load(output / row["path"]), tokens)
    assert (sums[:, 1].sum(), sums[:, 3].sum()) == (count[False], count[True])


def test_a_trial_is_what_tune_alone_would_train(
    done: tuple[Path, dict[str, Any]], case: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    output, _ = done
    trial = rows_of(output)[2]
    alone = TuneConfig(
        model=case["model"], data=case["data"]["train"], eval_data=case["data"]["dev"], output=str(tmp_path / "alone"),
        prompt_weight=0.2, response_weight=0.8, max_grad_norm=0, **case["tune"],
    )  # fmt: skip
    summary = train(alone)
    ours, theirs = (load_file(p / "model" / "model.safetensors") for p in (output / trial["path"], tmp_path / "alone"))
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=0, atol=1e-6), name
    assert trial["dev"]["response_nll"] == pytest.approx(summary["after"]["response_nll"], rel=1e-5)


def test_nothing_is_done_twice_and_a_study_can_grow(
    done: tuple[Path, dict[str, Any]], case: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output, summary = done
    before = comparable(output)
    stamps = {p: p.stat().st_mtime_ns for p in output.glob("trials/*/model/model.safetensors")}
    again = run_study(case, output)
    assert "7 of 7 are there already" in capsys.readouterr().err
    assert comparable(output) == before
    assert again["selection"] == summary["selection"]
    run_study(case | {"vary": {"weights": [[1, 1], [0, 0.7], [0.4, 1.6], [1, 0]]}}, output)
    assert "7 of 9 are there already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    names = {row["setting_name"]: row["members"] for row in rows_of(output) if row["kind"] == "trial"}
    assert names == {
        "(1, 1)": [[1.0, 1.0]],
        "(0, 0.7)": [[0.0, 0.7]],
        "(0.4, 1.6)": [[0.4, 1.6]],
        "(1, 0)": [[1.0, 0.0]],
    }
    run_study(case, output)
    assert comparable(output) == before


def test_a_failed_trial_is_recorded_and_stops_nothing(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = case | {"vary": {"weights": [[0, 1], [1, 1]], "learning_rate": [0.01, 1e30]}, "seeds": 1, "measure": []}
    content["tune"] = case["tune"] | {"epochs": 4.0}
    summary = run_study(content, tmp_path / "out")
    rows = {row["setting_name"]: row for row in rows_of(tmp_path / "out") if row["kind"] == "trial"}
    assert [row["status"] for row in rows.values()].count("failed") == 2
    assert "the loss is" in rows["(0, 1), lr 1e+30"]["error"]
    assert summary["trials"]["done"] == 2
    assert "warning: (0, 1), lr 1e+30" in capsys.readouterr().err
    with pytest.raises(HoldfastError, match="every trial failed"):
        run_study(content | {"vary": {"weights": [[0, 1]], "learning_rate": [1e30]}}, tmp_path / "all")


def test_what_is_damaged_on_disk_is_done_again(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    small = case | {"vary": {"weights": [[0, 1], [1, 1]]}, "seeds": 2, "measure": [], "keep_models": False}
    run_study(small, output)
    before = comparable(output)
    paths = [output / row["path"] for row in rows_of(output)[1:]]
    (paths[0] / "row.json").write_text("{")
    (paths[1] / "items-test.npz").unlink()
    content = bytearray((paths[2] / "items-dev.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (paths[2] / "items-dev.npz").write_bytes(content)
    summary = run_study(small, output)
    shown = capsys.readouterr().err
    assert "2 of 5 are there already" in shown
    assert [
        part in shown for part in ("broken JSON", "items-test.npz: cannot be read", "items-dev.npz: cannot be read")
    ] == [True] * 3
    assert comparable(output) == before
    assert summary["selection"]["chosen"] is not None


def test_what_is_known_stays_until_there_is_something_new(case: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_study(case | {"vary": {"weights": [[0, 1]]}, "measure": []}, output)
    before = [(output / name).read_text() for name in ("rows.jsonl", "summary.json")]
    with mock.patch("holdfast.study.jobs.read_json", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run_study(case | {"vary": {"weights": [[0, 1]]}, "measure": []}, output)
    assert [(output / name).read_text() for name in ("rows.jsonl", "summary.json")] == before


def test_a_study_without_a_choice_ends_with_its_sentence(case: dict[str, Any], tmp_path: Path) -> None:
    summary = run_scored(case, tmp_path / "out", [math.nan] * 6)
    assert summary["selection"]["finding"].startswith("nothing can be chosen")
    assert "exit_code" not in summary


def text(model: Any, source: str) -> str:
    return "abc"


def division_by_zero(model: Any, source: str) -> float:
    return 1 / 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("text", r"returned 'abc'; it must return a number"), ("division_by_zero", "failed: ZeroDivisionError")],
)
def test_a_measure_that_fails_on_the_base_model_stops_the_study(
    case: dict[str, Any], tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(HoldfastError, match=f"measure test_study_run:{name} {message}"):
        run_study(case | {"measure": [f"test_study_run:{name}"]}, tmp_path / "out")
    assert not (tmp_path / "out" / "trials").exists(), "nothing has been trained"


def test_whatever_fails_on_the_base_model_stops_the_study(case: dict[str, Any], tmp_path: Path) -> None:
    failing = mock.patch("holdfast.study.measure.Evaluator._answers", side_effect=ValueError("no room"))
    with (
        failing,
        pytest.raises(
            HoldfastError, match="the base model cannot be measured, so nothing more is trained: ValueError: no room"
        ),
    ):
        run_study(case, tmp_path / "out")
    assert not (tmp_path / "out" / "trials").exists()


def kill_own_process(model: Any, source: str) -> float:
    """A measure that is as bad as running out of memory, on tuned models."""
    import os
    import signal

    if "trials" in str(model.name):
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def run_scored(case: dict[str, Any], output: Path, scores: list[float]) -> dict[str, Any]:
    """A study of two settings chosen by a measure that gives these scores: dev and test of the base model, then of each
    trial.
    """
    content = case | {
        "vary": {"weights": [[0, 1], [1, 1]]},
        "seeds": 1,
        "measure": ["test_study_run:mean_answer_length"],
    }
    with mock.patch("holdfast.study.measure.function_of", return_value=mock.Mock(side_effect=scores)):
        return run_study(content, output)


def test_a_trial_whose_score_is_no_number_is_left_out(case: dict[str, Any], tmp_path: Path) -> None:
    summary = run_scored(case, tmp_path / "out", [0.1, 0.1, 0.5, 0.5, math.nan, math.nan])
    left_out = rows_of(tmp_path / "out")[2]
    assert left_out["status"] == "done"
    assert left_out["dev"]["test_study_run:mean_answer_length"] is None
    assert summary["selection"]["left_out"] == [left_out["trial"]]
    assert "exit_code" not in summary


def test_a_process_that_dies_fails_its_trial_only(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(folder.parent / "helpers")]))
    content = case | {
        "vary": {"weights": [[0, 1]]},
        "seeds": 2,
        "measure": ["test_study_run:kill_own_process"],
        "select": "response_nll",
    }
    with pytest.raises(HoldfastError, match=r"every trial failed; the first: its process died \(signal 9; .*memory\)"):
        run_study(content, tmp_path / "out", processes=True)
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["done", "failed", "failed"], (
        "the last job got a new process"
    )


def test_a_measure_of_ones_own(case: dict[str, Any], tmp_path: Path) -> None:
    name = "test_study_run:mean_answer_length"
    content = case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": [{name: {"higher_is_better": False}}]}
    summary = run_study(content, tmp_path / "out")
    assert (summary["metric"], summary["higher_is_better"]) == (name, False)
    wanted = [
        len(json.loads(line)["messages"][-1]["content"]) for line in Path(case["data"]["test"]).read_text().splitlines()
    ]
    assert rows_of(tmp_path / "out")[1]["test"][name] == pytest.approx(np.mean(wanted))


def test_a_test_split_full_of_poison_changes_nothing(case: dict[str, Any], tmp_path: Path) -> None:
    """The same study with another test split: every choice stays, only what is reported of test moves."""
    poison = tmp_path / "poison.jsonl"
    chat = [{"role": "user", "content": "Count 99."}, {"role": "assistant", "content": "zzz qqq"}]
    poison.write_text(
        "".join(json.dumps({"messages": [{**chat[0], "content": f"Count 9{i}."}, chat[1]]}) + "\n" for i in range(6))
    )
    content = case | {"select": "response_nll"}
    clean = run_study(content, tmp_path / "clean")["selection"]
    spoilt = run_study(content | {"data": case["data"] | {"test": str(poison)}}, tmp_path / "spoilt")["selection"]
    for name in ("chosen", "best_on_dev", "one_standard_error", "conventional"):
        assert clean[name] == spoilt[name], name
    assert [s["dev"] for s in clean["settings"]] == [s["dev"] for s in spoilt["settings"]]
    assert clean["settings"][0]["test"] != spoilt["settings"][0]["test"]


def test_halving_trains_the_promising_to_the_end(case: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    content = {key: value for key, value in case.items() if key != "vary"} | {"measure": [], "seeds": 1}
    content["tune"] = case["tune"] | {"batch_size": 4, "epochs": 12.0}
    search = {"kind": "halving", "points": 7, "low": 0.2, "factor": 3}
    run_study(content | {"search": search}, tmp_path / "halving")
    rows = [row for row in rows_of(tmp_path / "halving") if row["kind"] == "trial"]
    assert len(rows) == 7
    steps = {row["setting_name"]: row["steps"] for row in rows}
    assert set(steps.values()) <= {8, 24, 72}
    assert steps["(0, 1)"] == 72, "conventional tuning is the reference"
    stopped = [row for row in rows if row["status"] == "stopped"]
    finished = [row for row in rows if row["status"] == "done"]
    assert len(stopped) >= 4
    assert all(row["test"] == {} for row in stopped)
    full = run_study(content | {"search": {"kind": "ratios", "points": 7, "low": 0.2}}, tmp_path / "full")
    assert sum(row["tokens"] for row in rows) < 0.6 * full["cost"]["tokens"]
    whole = {row["trial"]: row for row in rows_of(tmp_path / "full") if row["kind"] == "trial"}
    for row in finished:  # trained in three pieces, from checkpoints, as in one
        assert row["dev"] == pytest.approx(whole[row["trial"]]["dev"], rel=1e-6)
        one, other = (
            load_file(tmp_path / kind / row["path"] / "model" / "model.safetensors") for kind in ("halving", "full")
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
    before = comparable(tmp_path / "halving")
    for row, rung in ((finished[0], 0), (finished[-1], 1), (stopped[0], 0)):
        (tmp_path / "halving" / row["path"] / f"rung-{rung}.json").write_text("")
    run_study(content | {"search": search}, tmp_path / "halving")
    assert comparable(tmp_path / "halving") == before, "a damaged row of a rung is made again"
    run_study(content | {"search": search | {"rungs": 2}}, tmp_path / "halving")
    assert {row["steps"] for row in rows_of(tmp_path / "halving")[1:]} == {24, 72}, "rows of other rungs do not count"


def test_one_in_so_many_goes_on_whatever_the_order() -> None:
    scores = {f"t{i}": float(value) for i, value in enumerate((5, 3, 11, 8, 1, 12, 9, 2, 10, 6, 4, 7))}
    assert {scores[name] for name in promoted(scores, 3, higher_is_better=False)} == {1, 2, 3, 4}
    assert {scores[name] for name in promoted(scores, 3, higher_is_better=True)} == {9, 10, 11, 12}
    backwards = dict(reversed(scores.items()))
    assert promoted(backwards, 3, higher_is_better=False) == promoted(scores, 3, higher_is_better=False)
    assert promoted({"a": 2.0, "b": 1.0}, 3, higher_is_better=False) == {"b"}
    assert promoted({"a": math.nan, "b": 1.0, "c": 2.0}, 3, higher_is_better=True) == {"c"}
    assert promoted({"a": math.nan}, 3, higher_is_better=True) == set()
    assert promoted({"a": 1.0, "b": 2.0, "c": 2.0, "d": 0.0}, 3, higher_is_better=True) == {"b", "c"}, (
        "equal scores go on together"
    )


def test_no_rung_ends_before_anything_is_learnt() -> None:
    assert rung_steps(72, SearchSpec("halving", rungs=4)) == [8, 24, 72]
    assert rung_steps(32, SearchSpec("halving")) == [10, 32]
    assert rung_steps(7, SearchSpec("halving")) == [7]


def test_several_models_and_data_sets_choose_apart(case: dict[str, Any], tmp_path: Path) -> None:
    content = case | {
        "model": [case["model"], other_model(case, tmp_path / "other", seed=1)],
        "vary": {"weights": [[0, 1], [1, 1]]},
        "measure": [],
    }
    summary = run_study(content, tmp_path / "out")
    assert len(summary["groups"]) == 2
    assert summary["finding"].count("\n") == 1
    assert {row["group"] for row in rows_of(tmp_path / "out")} == set(summary["groups"])


def test_a_directory_holds_one_study(done: tuple[Path, dict[str, Any]], case: dict[str, Any], tmp_path: Path) -> None:
    output, _ = done
    with pytest.raises(HoldfastError, match=r"holds another study \(measure differ\)"):
        run_study(case | {"measure": []}, output)
    for overwrite in (False, True):
        with pytest.raises(HoldfastError, match=r"holds no study"):
            run_study(case, output / "trials" / rows_of(output)[1]["trial"], overwrite=overwrite)


@pytest.mark.parametrize("mine", ["notes.txt", "config.json", ".lock"])
def test_overwrite_deletes_studies_and_nothing_else(case: dict[str, Any], tmp_path: Path, mine: str) -> None:
    """A model of Hugging Face has a config.json too."""
    folder = tmp_path / "out"
    folder.mkdir()
    kept = {mine: "{}", "model.safetensors": "weights"}
    for name, text in kept.items():
        (folder / name).write_text(text)
    for overwrite in (False, True):
        with pytest.raises(HoldfastError, match="holds no study"):
            run_study(case, folder, overwrite=overwrite)
    assert {file.name: file.read_text() for file in folder.iterdir()} == kept


def test_overwrite_keeps_the_old_study_until_the_new_one_is_possible(case: dict[str, Any], tmp_path: Path) -> None:
    small = case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": []}
    run_study(small, tmp_path / "out")
    before = {
        file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file() and file.name != ".lock"
    }
    bad = [
        ({"data": case["data"] | {"test": str(tmp_path / "gone.jsonl")}}, "no such file"),
        ({"data": case["data"] | {"test": case["data"]["dev"]}}, "share 6 examples"),
        ({"model": str(tmp_path / "out" / rows_of(tmp_path / "out")[1]["path"])}, "--overwrite would delete"),
    ]
    for change, message in bad:
        with pytest.raises(HoldfastError, match=message):
            run_study(small | change, tmp_path / "out", overwrite=True)
        assert {file: file.read_bytes() for file in before} == before
    run_study(small | {"seeds": [5]}, tmp_path / "out", overwrite=True)
    assert [row.get("seed") for row in rows_of(tmp_path / "out")] == [None, 5]
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 1


def test_overwrite_spares_what_measures_read(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    small = case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": []}
    run_study(small, output)
    (output / "tasks").mkdir()
    for name in ("one.yaml", "two.yaml"):
        (output / "tasks" / name).write_text("")
    (output / "own_in_output.py").write_text("def score(lm, source):\n    return 1.0\n")
    monkeypatch.syspath_prepend(str(output))
    targets = {"dev": "pocket:tasks/topic", "test": "pocket:tasks/sentiment"}
    for measure, name in (
        ({"crosstask_accuracy": targets | {"sources": [f"{output}/tasks/one.yaml"]}}, "one.yaml"),
        ({"crosstask_accuracy": targets | {"sources": f"pocket:tasks, {output}/tasks/two.yaml"}}, "two.yaml"),
        ("own_in_output:score", "own_in_output.py"),
    ):
        for dry in (False, True):
            with pytest.raises(HoldfastError, match=f"--overwrite would delete .*{name}"):
                run_study(small | {"measure": [measure]}, output, overwrite=True, dry_run=dry, calibrate=0)
    assert (output / "trials").is_dir()


def test_a_plan_with_overwrite_counts_nothing_as_done(done: tuple[Path, dict[str, Any]], case: dict[str, Any]) -> None:
    output, _ = done
    assert [run_study(case, output, overwrite=o, dry_run=True, calibrate=0)["done"] for o in (False, True)] == [6, 0]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [("npz", lambda b: b[: len(b) // 2]), ("json", lambda b: b[: len(b) // 2]), ("json", lambda _: b"{}")],
)
def test_damaged_data_is_made_again(
    case: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    damage: Callable[[bytes], bytes],
) -> None:
    output = tmp_path / "out"
    small = case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": []}
    run_study(small, output)
    before = comparable(output)
    file = next((output / "data").glob(f"*.{suffix}"))
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    (output / before[1]["path"] / "row.json").unlink()
    run_study(small, output)
    assert f"warning: {file}" in capsys.readouterr().err
    assert comparable(output) == before
    assert suffix == "npz" or file.read_bytes() == whole


@pytest.mark.parametrize("config", [None, "{", "{}", '{"command": "study run", "resolved": null}'])
def test_a_study_whose_config_is_damaged(case: dict[str, Any], tmp_path: Path, config: str | None) -> None:
    output = tmp_path / "out"
    small = case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "measure": []}
    run_study(small, output)
    (output / "config.json").unlink() if config is None else (output / "config.json").write_text(config)
    if config is not None:
        with pytest.raises(HoldfastError, match=r"config\.json is damaged"):
            run_study(small, output)
    run_study(small, output, overwrite=True)
    assert json.loads((output / "config.json").read_text())["resolved"]["identity"]


def test_a_crash_while_a_run_is_deleted_leaves_an_unfinished_run(tmp_path: Path) -> None:
    for name in ("config.json", "a.jsonl", "summary.json", "rows.jsonl", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / "trials").mkdir()
    gone: list[str] = []
    with mock.patch.object(Path, "unlink", lambda file: gone.append(file.name)):
        empty(tmp_path)
    assert gone[0] == "summary.json"
    assert gone[-1] == "config.json"
    assert set(gone) == {"summary.json", "rows.jsonl", "a.jsonl", "config.json"}
    assert not (tmp_path / "trials").exists()


def test_two_runs_of_one_study_do_not_meet(done: tuple[Path, dict[str, Any]], case: dict[str, Any]) -> None:
    output, _ = done
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HoldfastError, match="another process is at work"):
            run_study(case, output)


def test_models_need_not_be_kept(case: dict[str, Any], tmp_path: Path) -> None:
    run_study(case | {"vary": {"weights": [[0, 1]]}, "seeds": 1, "keep_models": False}, tmp_path / "out")
    assert not list((tmp_path / "out").glob("trials/*/model"))
    assert planned(case, tmp_path / "data")


@pytest.mark.full
def test_the_built_in_study_runs(tmp_path: Path) -> None:
    summary = run(StudyConfig(study="pocket", output=str(tmp_path / "out"), limit=64, json=True))
    assert summary["trials"]["done"] == 6
    assert {"exact_match", "posix"} <= rows_of(tmp_path / "out")[1]["test"].keys()


def test_scores_of_an_answer() -> None:
    assert (exact_match(" blue ", "blue"), exact_match("Blue", "blue")) == (1.0, 0.0)
    assert token_f1("the blue sky", "blue") == pytest.approx(2 * 1 / (3 + 1))
    assert (token_f1("", ""), token_f1("red", "blue"), token_f1("Red!", "red")) == (1.0, 0.0, 1.0)
    assert (empty_answers(" \n", "x"), empty_answers("x", "x")) == (1.0, 0.0)


def test_posix_counts_no_set_on_both_splits(case: dict[str, Any], tmp_path: Path) -> None:
    sets = tmp_path / "sets.jsonl"
    lines = [
        {"set_id": f"s{i}", "variant_id": f"v{j}", "kind": "wording", "prompt": f"{w} {i}"}
        for i in range(5)
        for j, w in enumerate("abc")
    ]
    sets.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = case | {
        "vary": {"weights": [[0, 1]]},
        "seeds": 1,
        "measure": [{"posix": {"sets": str(sets), "max_new_tokens": 2}}],
    }
    summary = run_study(content, tmp_path / "out")
    assert (summary["metric"], summary["higher_is_better"]) == ("posix", False)
    row = rows_of(tmp_path / "out")[1]
    seen = {}
    for split, count in (("dev", 3), ("test", 2)):
        with np.load(tmp_path / "out" / row["items"][split]) as arrays:
            assert len(arrays["posix"]) == count
            assert row[split]["posix"] == pytest.approx(arrays["posix"].mean())
        file = tmp_path / "out" / row["path"] / f"posix-{split}" / "sets.jsonl"
        seen[split] = {json.loads(line)["set_id"] for line in file.read_text().splitlines()}
    assert not seen["dev"] & seen["test"]
