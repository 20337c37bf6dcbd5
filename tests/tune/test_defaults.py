"""Defaults, recipes and what a run began with; --save-best and --patience; dates of chat templates; what a plan
refuses.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import cli, lm, runs
from holdfast.cli import main
from holdfast.config import AlignConfig, SensitivityConfig, TuneConfig, from_keywords, with_recipe
from holdfast.config.base import is_open
from holdfast.config.legacy import as_begun, old_values
from holdfast.errors import HoldfastError, NotComparableError
from holdfast.records import Role
from holdfast.runs import read_json
from holdfast.study.choosing import as_command
from holdfast.study.spec import make_spec, with_defaults
from holdfast.tune import train
from holdfast.tune.arguments import Schedule, check_training, settled
from holdfast.tune.plan import make_plan
from holdfast.tune.weights import NORMALIZERS, role_weights, token_weights
from materials import make_model, make_tokenizer, write_jsonl

NEEDS: dict[str, Any] = {"model": "m", "data": "d", "output": "o"}
DATED = (
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    rows = [{"prompt": f"Add {n} and {n % 7}.", "response": " ".join(["so"] * (n % 5) + [str(n)])} for n in range(60)]
    folder = tmp_path_factory.mktemp("chats")
    parts = {"data": rows[:48], "eval_data": rows[48:]}
    return {name: str(write_jsonl(folder / f"{name}.jsonl", part)) for name, part in parts.items()}


# defaults


def test_defaults_are_those_of_an_expert() -> None:
    full, adapters = settled(TuneConfig(**NEEDS)), settled(TuneConfig(**NEEDS, lora_rank=4))
    assert (full.max_grad_norm, full.weight_decay, adapters.weight_decay) == (1.0, 0.1, 0.0)
    assert settled(TuneConfig(**NEEDS, lora_rank=4, weight_decay=0.3, max_grad_norm=0)).weight_decay == 0.3


@pytest.mark.parametrize(
    ("ratio", "steps", "warmup"),
    [(None, 3, 0), (None, 20, 4), (None, 50, 10), (None, 400, 10), (None, 3000, 30),
     (0.01, 50, 0), (0.01, 150, 2), (0.0, 50, 0)],
)  # fmt: skip
def test_warm_up_is_a_few_steps(ratio: float | None, steps: int, warmup: int) -> None:
    plan = Schedule(TuneConfig(**NEEDS, warmup_ratio=ratio), [], 1e-3, 1, 1, steps)
    assert plan.warmup_steps == warmup


def test_the_recipe_is_the_papers_and_what_is_given_wins() -> None:
    config = settled(TuneConfig(**NEEDS, recipe="paper", learning_rate=5e-6))
    assert (config.learning_rate, config.schedule, config.warmup_ratio) == (5e-6, "cosine", 0.01)
    assert (config.batch_size, config.weight_decay, config.max_grad_norm, config.normalizer) == (
        64,
        0.1,
        0.0,
        "nonzero",
    )
    assert settled(AlignConfig(**NEEDS, recipe="paper")).learning_rate == 5e-7


def _of_command_line(tmp_path: Path, options: dict[str, Any]) -> Any:
    flags = [part for name, value in (NEEDS | options).items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return cli._asked(["tune", *flags])[0]


def _of_yaml(tmp_path: Path, options: dict[str, Any]) -> Any:
    file = tmp_path / "c.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in (NEEDS | options).items()))
    return cli._asked(["tune", "--config", str(file)])[0]


def _of_keywords(tmp_path: Path, options: dict[str, Any]) -> Any:
    return from_keywords(TuneConfig, **NEEDS, **options)


def _of_the_class(tmp_path: Path, options: dict[str, Any]) -> Any:
    return dataclasses.replace(TuneConfig(**NEEDS, **options), seed=3)


def _over_a_config(tmp_path: Path, options: dict[str, Any]) -> Any:
    return from_keywords(TuneConfig, TuneConfig(**NEEDS, recipe="paper"), **options)


@pytest.mark.parametrize("door", [_of_command_line, _of_yaml, _of_keywords, _of_the_class, _over_a_config])
def test_an_option_given_at_its_default_wins_over_the_recipe(door: Any, tmp_path: Path) -> None:
    by_recipe = settled(door(tmp_path, {"recipe": "paper"}))
    assert (by_recipe.batch_size, by_recipe.max_grad_norm, by_recipe.learning_rate) == (64, 0.0, 2e-5)
    chosen = settled(door(tmp_path, {"recipe": "paper", "batch_size": 32, "max_grad_norm": 1.0}))
    assert (chosen.batch_size, chosen.max_grad_norm, chosen.learning_rate) == (32, 1.0, 2e-5)
    assert settled(door(tmp_path, {"seed": 1})).batch_size == (64 if door is _over_a_config else 32)


def test_every_default_that_a_recipe_would_change_is_left_open() -> None:
    for kind in (TuneConfig, AlignConfig):
        for option, value in kind.recipes["paper"].items():
            default = getattr(kind(**NEEDS), option)
            assert is_open(default) or default == value, option


def test_a_run_of_a_recipe_that_an_older_version_began_is_that_run(tmp_path: Path) -> None:
    about = {"command": "tune", "config": dataclasses.asdict(TuneConfig(**NEEDS)) | {"recipe": "paper"}}
    assert about["config"]["learning_rate"] is None  # as older versions wrote it, with a batch size of 32
    now = json.loads(json.dumps(dataclasses.asdict(with_recipe(TuneConfig(**NEEDS, recipe="paper")))))
    assert old_values(TuneConfig, about["config"]) == now
    chosen = now | {"batch_size": 32}
    assert old_values(TuneConfig, chosen) == chosen
    for begun, options in ((about, {}), ({"command": "tune", "config": chosen}, {"batch_size": 32})):
        (tmp_path / "config.json").write_text(json.dumps(begun | {"version": "1"}))
        config = TuneConfig(**NEEDS | {"output": str(tmp_path)}, recipe="paper", **options)
        assert runs.check_output(config, "tune") is None  # to go on with
        with pytest.raises(HoldfastError, match="batch_size"):
            runs.check_output(dataclasses.replace(config, batch_size=16), "tune")
    with pytest.raises(HoldfastError, match="batch_size"):  # a run whose batches of 32 were chosen
        runs.check_output(TuneConfig(**NEEDS | {"output": str(tmp_path)}, recipe="paper"), "tune")


def test_a_run_goes_on_with_the_defaults_that_it_began_with() -> None:
    old = {"config": {"max_grad_norm": 0.0, "weight_decay": 0.1, "warmup_ratio": 0.01}}
    begun = as_begun(TuneConfig(**NEEDS, lora_rank=2), old)
    assert (begun.max_grad_norm, begun.weight_decay, begun.warmup_ratio) == (0.0, 0.1, 0.01)
    assert as_begun(TuneConfig(**NEEDS, max_grad_norm=2), old).max_grad_norm == 2
    new = {"config": dataclasses.asdict(TuneConfig(**NEEDS))}
    assert as_begun(TuneConfig(**NEEDS), new).max_grad_norm is None


def test_a_study_of_weights_does_not_clip_and_its_best_says_so() -> None:
    case = {"model": "m", "data": "d", "vary": {"weights": [[0, 1], [1, 1]]}}
    assert make_spec(case).settled == {"max_grad_norm": 0.0}
    assert make_spec(case | {"tune": {"max_grad_norm": 1}}).settled == {"max_grad_norm": 1}
    assert make_spec({"model": "m", "data": "d", "vary": {"learning_rate": [1, 2]}, "search": "grid"}).settled == {}
    old = with_defaults(make_spec(case), {"resolved": {}})
    assert old.settled == {"max_grad_norm": 0.0, "weight_decay": 0.1, "warmup_ratio": 0.01}
    line = as_command({"output": "a b", "max_grad_norm": 0.0, "weights": {"eos": 0.5}})
    assert line == "holdfast tune --output 'a b' --max-grad-norm 0.0 --weights eos 0.5"


def test_the_second_stage_of_a_study_is_addressed_as_ever() -> None:
    for name in ("preset", "recipe"):
        spec = make_spec({"model": "m", "data": "d", "then": {"align": {"data": "p", name: "paper"}}})
        assert spec.then["align"]["recipe"] == "paper"
        assert spec.then_as_addressed == {"align": {"data": "p", "preset": "paper"}}


# role-mean


def test_role_mean_is_the_sum_of_the_means_of_the_roles() -> None:
    torch.manual_seed(0)
    roles = torch.randint(1, 7, (5, 9))
    weights = token_weights(roles, role_weights(0.2, 0.8), dtype=torch.float64)
    nll = torch.rand(5, 9, dtype=torch.float64)
    entering, parts = NORMALIZERS["role-mean"](weights, roles)
    by_hand = 0.0
    for role in Role:
        own = (roles == int(role)) & (weights != 0)
        by_hand += float((weights * nll)[own].mean()) if own.any() else 0.0
    assert float((entering * nll).sum() / parts.sum()) == pytest.approx(by_hand, rel=1e-12)


def test_an_evaluation_under_role_mean_does_not_depend_on_its_batches(
    model_folder: Path, chats: dict[str, str], tmp_path: Path
) -> None:
    losses = []
    for size in ("2", "12"):
        config = TuneConfig(
            model=str(model_folder), output=str(tmp_path / size), max_steps=1, batch_size=4, normalizer="role-mean",
            prompt_weight=0.2, response_weight=0.8, training={"per_device_eval_batch_size": size}, **chats,
        )  # fmt: skip
        before = train(config)["before"]
        losses.append(before["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] > before["response_nll"], "assistant and eos count one mean each"


# --save-best


def best_config(model: Any, chats: dict[str, str], output: Path, **changes: Any) -> TuneConfig:
    """A learning rate at which the loss falls at first and then rises."""
    settings: dict[str, Any] = {
        "learning_rate": 1.0, "schedule": "linear", "warmup_ratio": 0.9, "batch_size": 4, "max_steps": 12,
        "eval_steps": 2, "log_steps": 2, "save_best": "response_nll", "weight_decay": 0.1, "max_grad_norm": 0.0,
    }  # fmt: skip
    return TuneConfig(model=str(model), output=str(output), **settings | chats | changes)


def test_save_best_keeps_the_best_and_patience_ends_the_training(
    model_folder: Path, chats: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    summary = train(best_config(model_folder, chats, output, patience=2))
    rows = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    nll = {row["step"]: row["response_nll"] for row in rows if row["kind"] == "eval" and row["step"]}
    best = min(nll, key=lambda step: nll[step])
    assert summary["best_step"] == best
    assert summary["ended_at"] == max(nll) == best + 4 < 12
    assert summary["after"]["response_nll"] == pytest.approx(nll[best], rel=1e-6)
    again = train(best_config(output, chats, tmp_path / "again", max_steps=1, save_best=None, learning_rate=1e-6))
    assert again["before"]["response_nll"] == pytest.approx(nll[best], rel=1e-5)

    (output / "summary.json").unlink()  # killed after the last step, before the end
    shutil.rmtree(output / "model")
    resumed = train(best_config(model_folder, chats, output, patience=2))
    assert {k: v for k, v in resumed.items() if "second" not in k} == {
        k: v for k, v in summary.items() if "second" not in k
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patience": 2}, "--patience needs --save-best"),
        ({"save_best": "bleu"}, "no metric of an evaluation"),
        ({"save_best": "loss", "eval_share": 0}, "needs held-out data"),
        ({"save_best": "loss", "save_steps": 3}, "needs --eval-steps"),
        ({"save_best": "loss", "save_steps": 3, "eval_steps": 2}, "multiple of --eval-steps"),
        ({"save_best": "loss", "training": {"greater_is_better": "true"}}, "says what --save-best says"),
        ({"training": {"optim": "paged_adamw_8bit"}}, "needs the package bitsandbytes"),
        ({"training": {"deepspeed": "ds.json"}}, "needs the package deepspeed"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(HoldfastError, match=says):
        check_training(TuneConfig(**NEEDS, **options))
    check_training(AlignConfig(**NEEDS, save_best="accuracy"))


# dates


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose chat template prints the day."""
    folder = tmp_path_factory.mktemp("dated") / "model"
    tokenizer = make_tokenizer()
    tokenizer.chat_template = DATED
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}]}
        for n in range(12)
    ]
    return str(write_jsonl(tmp_path_factory.mktemp("turns") / "t.jsonl", rows))


def test_a_template_prints_the_day_that_it_is_told(dated: Path) -> None:
    tokenizer = lm.load_tokenizer(dated)
    messages = [{"role": "user", "content": "hi"}]
    assert lm.print_date(tokenizer, "2024-02-29") == "2024-02-29"
    assert tokenizer.apply_chat_template(messages, tokenize=False).startswith("29 Feb 2024\n")
    other = lm.load_tokenizer(dated)
    assert datetime.date.today().strftime("%Y") in other.apply_chat_template(messages, tokenize=False)
    assert lm.print_date(make_tokenizer(), "2024-02-29") is None
    with pytest.raises(HoldfastError, match=r"--date 31.12.2024: not a day"):
        TuneConfig(**NEEDS, date="31.12.2024")


def test_a_run_goes_on_with_the_day_on_which_it_began(
    dated: Path, turns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(**options: Any) -> TuneConfig:
        return TuneConfig(
            model=str(dated), data=turns, output=str(tmp_path / "run"), batch_size=4, max_steps=2, **options
        )

    first = train(config())
    assert first["date"] == datetime.date.today().isoformat()
    stored = tmp_path / "run" / "config.json"
    about = read_json(stored)
    about["resolved"]["date"] = "2024-02-29"  # as if it had been begun then
    runs.write_json(stored, about)
    assert train(config()) == first, "complete"
    with pytest.raises(HoldfastError, match=r"another run .date differ"):
        train(config(date="2025-01-01"))
    (tmp_path / "run" / "summary.json").unlink()
    assert train(config())["date"] == "2024-02-29"
    assert read_json(stored)["resolved"]["date"] == "2024-02-29"
    text = "".join(token["text"] for token in read_json(tmp_path / "run" / "summary.json")["example"])
    assert "29 Feb 2024" in text


def test_a_sensitivity_run_records_the_day(dated: Path, tmp_path: Path) -> None:
    from holdfast.sensitivity import measure

    common: dict[str, Any] = {
        "model": str(dated),
        "sets": "pocket:intents",
        "limit": 2,
        "max_new_tokens": 2,
        "chat": True,
    }
    summary = measure(SensitivityConfig(output=str(tmp_path / "a"), date="2024-02-29", **common))
    assert summary["resolved"]["date"] == "2024-02-29"
    measure(SensitivityConfig(output=str(tmp_path / "b"), date="2024-03-01", **common))
    from holdfast.sensitivity import CompareConfig, compare

    with pytest.raises(NotComparableError, match=r"dates that the chat template prints differ: 2024-02-29 in"):
        compare(CompareConfig(run_a=str(tmp_path / "a"), run_b=str(tmp_path / "b"), json=True))


# what a plan refuses


def test_ids_beyond_the_embedding_are_refused_before_a_byte_is_written(
    model_folder: Path, chats: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    about = read_json(folder / "config.json")
    runs.write_json(folder / "config.json", about | {"vocab_size": 20})
    line = ["tune", "--model", str(folder), "--data", chats["data"], "--output", str(tmp_path / "run")]
    assert main(line) == 2
    assert "embedding has 20 rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_model_of_images_is_refused_in_one_line(model_folder: Path, chats: dict[str, str], tmp_path: Path) -> None:
    import transformers

    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    transformers.LlavaConfig().save_pretrained(folder)
    with pytest.raises(HoldfastError, match="a model of images and text"):
        make_plan(TuneConfig(model=str(folder), output=str(tmp_path / "run"), data=chats["data"]))


def test_files_of_tensorboard_go_into_the_run(
    model_folder: Path, chats: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    monkeypatch.chdir(tmp_path)
    config = TuneConfig(
        model=str(model_folder), output="run", max_steps=1, batch_size=4, report_to="tensorboard", **chats
    )
    train(config)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
