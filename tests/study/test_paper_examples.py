"""``examples/paper``: the study files hold the hyper-parameters of arXiv 2507.07817, and plan 525 + 525 trainings, 315
+ 315 distinct.

The hub is not needed: what is planned is the files' own settings on copies of the embedded model and on its data.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast import pocket
from holdfast.config import AlignConfig, SensitivityConfig, TuneConfig
from holdfast.data.pairs import read_pair
from holdfast.study.planning import make_plan
from holdfast.study.spec import Data, Spec, load_spec
from materials import write_jsonl

PAPER = Path(__file__).resolve().parents[2] / "examples" / "paper"
EPOCHS = {"lima": 5, "alpaca": 2, "tulu": 1}
MODELS = {"Llama-3.2-1B", "gemma-2-2b", "Llama-3.2-3B", "Meta-Llama-3-8B", "Mistral-7B-v0.1"}
STUDIES = [f"{data}{group}" for data in EPOCHS for group in ("", "-mistral")]


def stand_in(spec: Spec, folder: Path) -> Spec:
    """The study with local models and data in the place of the hub's."""
    models = []
    for name in spec.models:
        copy = folder / name.split("/")[-1]
        if not copy.exists():  # a study refuses one model under two names, so the configs differ
            shutil.copytree(pocket.model_path(), copy)
            config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
            (copy / "config.json").write_text(json.dumps(config | {"stand_in_for": name}), encoding="utf-8")
        models.append(str(copy))
    files = {split: folder / f"{split}.jsonl" for split in ("train", "dev", "test")}
    for split, file in files.items():
        if not file.exists():
            write_jsonl(file, pocket.rows(f"pocket:instructions/{split}")[:40])
    data = Data(**{split: str(file) for split, file in files.items()}, name=spec.data[0].name)
    return dataclasses.replace(spec, models=tuple(models), data=(data,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-ins and their tokens are, for both stages."""
    return tmp_path_factory.mktemp("stand-ins")


@pytest.mark.parametrize("stage", ["tune", "align"])
def test_525_trainings_are_asked_for_and_315_are_distinct(stage: str, folder: Path) -> None:
    plans = [make_plan(stand_in(load_spec(str(PAPER / f"{stage}-{name}.yaml")), folder), [folder]) for name in STUDIES]
    assert sum(plan.requested for plan in plans) == 525
    assert sum(len(plan.trials) for plan in plans) == 315
    for plan in plans:
        for group in plan.groups:
            assert (group.cells, len(group.trials)) == (35, 21)
            (conventional,) = [t for t in group.trials if t.conventional]
            assert set(conventional.members) == {(0.0, 0.2), (0.0, 0.4), (0.0, 0.6), (0.0, 0.8), (0.0, 1.0)}


@pytest.mark.parametrize("stage", ["tune", "align"])
@pytest.mark.parametrize("name", STUDIES)
def test_hyper_parameters_are_those_of_the_paper(stage: str, name: str) -> None:
    spec = load_spec(str(PAPER / f"{stage}-{name}.yaml"))
    mistral = name.endswith("-mistral")
    assert {model.split("/")[-1] for model in spec.models} == (
        {"Mistral-7B-v0.1"} if mistral else MODELS - {"Mistral-7B-v0.1"}
    )
    assert spec.data[0].name == name.removesuffix("-mistral")
    assert (spec.weights, spec.seeds, spec.search.kind) == ("paper", (23,), "grid")
    made = TuneConfig(model=spec.models[0], data=spec.data[0].train, output="", **spec.tune)
    stated = {
        "epochs": EPOCHS[spec.data[0].name],
        "learning_rate": 5e-6 if mistral else 2e-5,
        "schedule": "cosine",
        "warmup_ratio": 0.01,
        "batch_size": 64,
        "weight_decay": 0.1,
        "max_grad_norm": 0,
        "lora_rank": 0,
        "normalizer": "nonzero",
        "precision": "bf16",
        "max_length": None,  # the model's context, at most 4,096
    }
    assert {key: getattr(made, key) for key in stated} == stated
    assert {m.name for m in spec.measures} >= {
        "lm_eval:mmlu_flan_n_shot_generative",
        "lm_eval:bbh_zeroshot",
        "lm_eval:ifeval",
    }
    assert ("posix" in {m.name for m in spec.measures}) == (stage == "tune")
    assert set(spec.then) == ({"align"} if stage == "align" else set())


def test_second_stage_is_the_papers(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    from holdfast.align.plan import make_plan as plan_of

    data = write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "1?", "chosen": "yes", "rejected": "no"}] * 3)
    given: list[dict[str, Any]] = [dict(load_spec(str(PAPER / f"align-{name}.yaml")).then["align"]) for name in STUDIES]
    given.append(yaml.safe_load((PAPER / "align.yaml").read_text()))
    for options in given:
        local = {"data": str(data), "eval_data": None, "model": "pocket", "output": str(tmp_path)}
        plan = plan_of(AlignConfig(**options | local))
        config = plan.config
        assert (plan.learning_rate, config.batch_size, config.epochs, config.warmup_ratio, config.weight_decay) == (
            5e-7,
            32,
            2,
            0.1,
            0,
        )
        assert (config.beta, plan.losses, config.lora_rank) == (0.1, ["sigmoid"], 0)


def test_sensitivity_is_the_papers() -> None:
    options = yaml.safe_load((PAPER / "sensitivity.yaml").read_text())
    made = SensitivityConfig(model="pocket", output="x", **options)
    assert (made.recipe, made.limit, made.definition) == ("paper", 5000, "paper")


# prepare.py, as far as it needs no hub


def prepare() -> Any:
    spec = importlib.util.spec_from_file_location("prepare", PAPER / "prepare.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_dev_and_test_rows_are_apart() -> None:
    origins = ["flan_v2", "lima", "gpt4_alpaca", "sharegpt", "cot"] * 200
    train, dev, test = prepare().draw(origins, 600, 50)
    assert (len(train), len(dev), len(test)) == (600, 50, 50)
    assert len({*train, *dev, *test}) == 700
    assert {origins[i] for i in train} == set(origins)
    assert not {origins[i] for i in dev + test} & {"lima", "gpt4_alpaca"}
    assert prepare().draw(origins, 600, 50) == (train, dev, test)


def test_conversations_and_prompts_are_read() -> None:
    made = prepare().lima_messages(["Hi", "Hello", "Bye", "Farewell"])
    assert [m["role"] for m in made] == ["user", "assistant", "user", "assistant"]
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Name one.", "input": "", "output": "A"},
    ]
    assert sorted(row["prompt"] for row in prepare().alpaca_prompts(rows, 2)) == ["Add.\n\n1 2", "Name one."]


def test_a_row_of_ultrafeedback_binarized_is_read() -> None:
    row = {
        "prompt": "Why?",
        "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
        "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
        "score_chosen": 8.0,
    }
    assert read_pair(row, "row 1").rejected.content == "No."


# docs/replication.md


def test_estimates_are_the_arithmetic_that_is_stated() -> None:
    text = (PAPER.parents[1] / "docs" / "replication.md").read_text(encoding="utf-8")
    parameters, speed = 22.33e9, 0.4 * 312e12 * 3600
    tokens = {"lima": 0.75e6 * 5, "alpaca": 51_760 * 200 * 2, "tulu": 150_000 * 600}
    for name, count in tokens.items():
        hours = 6 * parameters * count / speed
        assert f"`tune-{name}-mistral.yaml` | 105 of 175 | {21 * hours:,.0f} (" in text
        assert f"{35 * hours:,.0f})" in text
    first = 6 * parameters * sum(tokens.values()) / speed
    assert f"| 315 of 525 | {21 * first:,.0f} ({35 * first:,.0f}) |" in text
    epoch = 61_135 * 2 * 400
    second = parameters * (6 * 2 * epoch + 2 * epoch) / speed
    assert f"| 315 of 525 | {63 * second:,.0f} ({105 * second:,.0f}) |" in text
    prompts = 5_000 * 61
    posix = 2 * parameters * prompts * (60 + 61 * 30) / speed
    assert f"| 315 of 525 | {63 * posix:,.0f} ({105 * posix:,.0f}) |" in text


def test_the_benchmarks_are_the_five_of_the_paper() -> None:
    from holdfast.bench.suites import SUITES, names
    from holdfast.cli import _read_config
    from holdfast.config import BenchConfig

    given = _read_config(BenchConfig, str(PAPER / "bench.yaml"))
    assert {pin.task for suite in names(given["suite"]) for pin in SUITES[suite]} == {
        "mmlu_flan_n_shot_generative", "bbh_zeroshot", "ifeval", "alpaca_eval", "mt_bench",
    }  # fmt: skip
