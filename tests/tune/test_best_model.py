"""``load_best_model_at_end``: what is saved is what the summary and the card speak of, in ``tune`` and ``align``,
resumed or not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import read_json
from holdfast.tune import train
from materials import write_jsonl

BEST = {"load_best_model_at_end": True}


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("chats")
    rows = [{"prompt": f"Add {n} and {n % 7}.", "response": " ".join(["so"] * (n % 5) + [str(n)])} for n in range(60)]
    return {
        "data": str(write_jsonl(folder / "a.jsonl", rows[:48])),
        "eval_data": str(write_jsonl(folder / "b.jsonl", rows[48:])),
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {
            "prompt": f"Count {n}.",
            "chosen": " ".join("123456"[: n % 5 + 2]),
            "rejected": " ".join("654321"[: n % 4 + 2]),
        }
        for n in range(60)
    ]
    return {
        "data": str(write_jsonl(folder / "a.jsonl", rows[:48])),
        "eval_data": str(write_jsonl(folder / "b.jsonl", rows[48:])),
    }


def tune_config(model: Any, data: dict[str, str], output: Path, **changes: Any) -> TuneConfig:
    """A learning rate at which the loss falls at first and then rises."""
    settings: dict[str, Any] = {
        "learning_rate": 1.0,
        "schedule": "linear",
        "warmup_ratio": 0.9,
        "weight_decay": 0.1,
        "max_grad_norm": 0.0,
        "batch_size": 4,
        "max_steps": 12,
    }
    settings |= {"save_steps": 2, "eval_steps": 2, "log_steps": 2, "training": BEST}
    return TuneConfig(model=str(model), output=str(output), **settings | data | changes)


def align_config(model: Any, data: dict[str, str], output: Path, **changes: Any) -> AlignConfig:
    settings: dict[str, Any] = {
        "learning_rate": 1.0,
        "schedule": "linear",
        "batch_size": 4,
        "max_steps": 12,
        "save_steps": 2,
    }
    settings |= {"eval_steps": 2, "log_steps": 2, "training": BEST}
    return AlignConfig(model=str(model), output=str(output), **settings | data | changes)


def evaluations(output: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "eval"}


def measured(output: Path, data: dict[str, str], folder: Path) -> dict[str, Any]:
    """The model that was saved, measured by another run that starts from it."""
    changes = {"max_steps": 1, "save_steps": None, "eval_steps": None, "training": {}, "learning_rate": 1e-6}
    return train(tune_config(output, data, folder, **changes))["before"]


def best_of(losses: dict[int, float]) -> int:
    trained = {step: loss for step, loss in losses.items() if step}
    return min(trained, key=lambda step: trained[step])


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora_rank": 2, "learning_rate": 10.0, "schedule": "constant"}, {"keep_checkpoints": 1}, {"eval_steps": 1}],
)
def test_tune_evaluates_what_it_saves(
    model_folder: Path, chats: dict[str, str], tmp_path: Path, changes: dict[str, Any]
) -> None:
    output = tmp_path / "run"
    summary = train(tune_config(model_folder, chats, output, **changes))
    losses = evaluations(output)
    best = best_of(losses)
    assert best < 12, "the case is to have its best step before its last"
    assert losses[12] > losses[best] + 0.01
    assert summary["after"]["loss"] == pytest.approx(losses[best], rel=1e-6)
    saved = measured(output, chats, tmp_path / "again")
    assert summary["after"]["response_nll"] == pytest.approx(saved["response_nll"], rel=1e-5)
    assert summary["best_step"] == best
    card = (output / "model" / "README.md").read_text()
    assert f"weights of step {best}" in card
    assert f"{saved['response_nll']:.4f}" in card


def test_a_resumed_run_has_the_same_best_model(model_folder: Path, chats: dict[str, str], tmp_path: Path) -> None:
    """Also when the run directory has been moved in between."""
    first = train(tune_config(model_folder, chats, tmp_path / "first"))
    weights = (tmp_path / "first" / "model" / "model.safetensors").read_bytes()
    shutil.move(tmp_path / "first", tmp_path / "moved")
    (tmp_path / "moved" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "moved" / "model")
    again = train(tune_config(model_folder, chats, tmp_path / "moved"))
    apart = {"seconds", "model_path"}
    assert {k: v for k, v in again.items() if k not in apart} == {k: v for k, v in first.items() if k not in apart}
    assert (tmp_path / "moved" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("metric", "sign"), [("response_nll", 1), ("eval_prompt_nll", 1)])
def test_lower_nll_is_better(model_folder: Path, chats: dict[str, str], tmp_path: Path, metric: str, sign: int) -> None:
    """The Trainer takes every name that does not end in 'loss' for one of which more is better."""
    training = BEST | {"metric_for_best_model": metric}
    summary = train(tune_config(model_folder, chats, tmp_path / "run", training=training, max_steps=8))
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    column = metric.removeprefix("eval_")
    values = {row["step"]: sign * row[column] for row in rows if row["kind"] == "eval"}
    assert summary["best_step"] == best_of(values)


def test_align_says_which_step_it_saved(model_folder: Path, pairs: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    from holdfast.align import align

    output = tmp_path / "run"
    summary = align(align_config(model_folder, pairs, output))
    losses = evaluations(output)
    best = best_of(losses)
    assert best < 12, "the case is to have its best step before its last"
    assert summary["best_step"] == best
    assert f"weights of step {best}" in (output / "model" / "README.md").read_text()
    changes = {"max_steps": 1, "save_steps": None, "eval_steps": None, "training": {}, "learning_rate": 1e-9}
    saved = align(align_config(output, pairs, tmp_path / "again", **changes))["before"]
    assert summary["after"]["logps/chosen"] == pytest.approx(saved["logps/chosen"], abs=1e-3)
    shutil.rmtree(output / "model")
    (output / "summary.json").unlink()
    resumed = align(align_config(model_folder, pairs, output))
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {k: v for k, v in summary.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_steps": None}, "--save-steps"),
        ({"eval_steps": None}, "--eval-steps"),
        ({"eval_data": None, "eval_share": 0.0}, "held-out"),
        ({"training": BEST | {"metric_for_best_model": "accuracy"}}, "metric_for_best_model: 'accuracy'"),
        ({"save_steps": 3}, "multiple"),
    ],
)
def test_what_it_needs(
    model_folder: Path,
    chats: dict[str, str],
    pairs: dict[str, str],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    from holdfast.align import align

    for run, make, data in ((train, tune_config, chats), (align, align_config, pairs)):
        with pytest.raises(HoldfastError) as error:
            run(make(model_folder, data, tmp_path / "run", **changes))
        assert message in f"{error.value.message} {error.value.hint}"
        assert "training: " in error.value.message
        assert not (tmp_path / "run").exists()


def test_a_metric_that_the_data_do_not_have(model_folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"Name {n} colours."} for n in range(30)])
    training = BEST | {"metric_for_best_model": "response_nll"}
    with pytest.raises(HoldfastError, match="'response_nll' is undefined on the held-out data"):
        train(tune_config(model_folder, {"data": str(data)}, tmp_path / "run", preset="prompt-only", training=training))


def test_from_the_command_line(model_folder: Path, chats: dict[str, str], tmp_path: Path) -> None:
    command = [
        "tune",
        "--model",
        str(model_folder),
        "--output",
        str(tmp_path / "run"),
        "--batch-size",
        "4",
        "--max-steps",
        "4",
    ]
    command += [
        "--data",
        chats["data"],
        "--eval-data",
        chats["eval_data"],
        "--training",
        "load_best_model_at_end",
        "true",
    ]
    assert main(command) == 2
    assert main([*command, "--save-steps", "2", "--eval-steps", "2"]) == 0
    assert read_json(tmp_path / "run" / "summary.json")["best_step"] in (2, 4)
