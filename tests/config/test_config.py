"""Config classes: ranges and their words, the field's names, and groups of options, by every door."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from golden_case import call, parse
from holdfast import config as configs
from holdfast.cli import COMMANDS
from holdfast.config import AlignConfig, BenchConfig, ReportConfig, SensitivityConfig, TuneConfig, from_keywords
from holdfast.config.base import ranges_of
from holdfast.config.names import ALIASES, aliases_of
from holdfast.config.options import GROUPS, help_texts
from holdfast.errors import HoldfastError

NEEDED = {"model": "m", "data": "d", "output": "o"}
FLAGS = "tune --model m --data d --output o"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("epochs", 0.0, "must be greater than 0"),
        ("eval_share", 1.0, "must be less than 1 and at least 0"),
        ("eval_share", -0.5, "must be at least 0 and less than 1"),
        ("max_steps", -2, "must be -1 (as many as the epochs give) or greater than 0"),
        ("seed", 2**32, "must be less than 4294967296 and at least 0"),
        ("weight_decay", float("inf"), "must be a finite number"),
    ],
)
def test_every_door_refuses_in_the_same_words(
    option: str, value: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    yaml_value = ".inf" if value == float("inf") else value
    Path("c.yaml").write_text(f"{option}: {yaml_value}\n")
    flag = f"--{option.replace('_', '-')}"
    message = f"{flag} is {value}; it {words}"
    for line in (f"{FLAGS} {flag}={value}", f"{FLAGS} --config c.yaml"):
        answer = parse(line)
        assert answer.exit_code == 2
        assert message in answer.err
    for make in (TuneConfig, lambda **options: from_keywords(TuneConfig, **options)):
        with pytest.raises(HoldfastError) as error:
            make(**NEEDED, **{option: value})
        assert error.value.message == message


def test_another_default_keeps_the_range() -> None:
    shared = {"warmup_ratio", "weight_decay", "max_grad_norm", "lora_rank", "lora_dropout", "learning_rate"}
    for name in shared:
        assert ranges_of(AlignConfig)[name] == ranges_of(TuneConfig)[name]
    with pytest.raises(HoldfastError, match=r"--warmup-ratio is 1\.0; it must be less than 1"):
        AlignConfig(**NEEDED, warmup_ratio=1.0)


VALUES: dict[str, Any] = {
    "learning_rate": 1e-4, "epochs": 2.0, "lora_rank": 8, "prompt_weight": 0.1, "response_weight": 0.9, "shots": 3,
    "output": "elsewhere", "model": "other", "data": "rows.jsonl", "eval_data": "held.jsonl", "max_length": 64,
    "schedule": "linear", "loss": "ipo", "log_steps": 3, "keep_checkpoints": 2, "chat": True, "system": "Be brief.",
    "dtype": "bfloat16", "max_new_tokens": 9,
}  # fmt: skip


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("config_class", [TuneConfig, AlignConfig, SensitivityConfig, BenchConfig])
def test_a_name_of_the_field_is_our_option(
    config_class: type, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ALIASES[alias]
    if name not in {field.name for field in dataclasses.fields(config_class)}:
        pytest.skip("the command has no such option")
    monkeypatch.chdir(tmp_path)
    value = VALUES[name]
    command = next(key for key, (listed, _) in COMMANDS.items() if listed is config_class)
    needed = {key: text for key, text in NEEDED.items() if key in configs.names.required_options(config_class)}
    needed.pop(name, None)
    expected = {**needed, name: value}
    config = from_keywords(config_class, **needed, **{alias: value})
    assert {key: getattr(config, key) for key in expected} == expected
    Path("c.yaml").write_text(f"{alias}: {str(value).lower() if value is True else value}\n")
    flags = " ".join(f"--{key} {text}" for key, text in needed.items())
    texts = ["--config c.yaml"]
    for spelled in (alias, alias.replace("_", "-")):
        texts.append(f"--{spelled}" if value is True else f"--{spelled} '{value}'")
    for text in texts:
        answer = parse(f"{command} {flags} {text}")
        assert answer.config is not None, answer.err
        assert answer.config[name] == value
        assert alias not in answer.config


def test_two_names_with_two_values_are_an_error() -> None:
    with pytest.raises(HoldfastError, match=r"'lr' is 0\.1 and 'learning_rate' is 0\.2, which are one option"):
        from_keywords(TuneConfig, **NEEDED, lr=0.1, learning_rate=0.2)
    assert from_keywords(TuneConfig, **NEEDED, lr=0.1, learning_rate=0.1).learning_rate == 0.1
    answer = parse(f"{FLAGS} --lr 1e-4 --learning-rate=2e-4")
    assert answer.exit_code == 2
    assert "which are one option" in answer.err
    assert parse(f"{FLAGS} --lr 1e-4 --learning-rate=0.0001").exit_code == 0


def test_flags_win_over_a_file_whatever_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("lr: 0.1\nweights: {user: 0.5, eos: 0.25}\n")
    answer = parse(f"{FLAGS} --config c.yaml --learning-rate 0.2 --weights.user 0.75")
    assert answer.config is not None, answer.err
    assert answer.config["learning_rate"] == 0.2
    assert answer.config["weights"] == {"user": 0.75, "eos": 0.25}


def test_keywords_say_what_is_wrong() -> None:
    with pytest.raises(HoldfastError, match="did you mean 'learning_rate'"):
        from_keywords(TuneConfig, **NEEDED, learnig_rate=0.1)
    with pytest.raises(HoldfastError, match="data, output must be stated"):
        from_keywords(TuneConfig, model="m")
    with pytest.raises(HoldfastError, match="'lora_rank' is 'x', which is not of type int"):
        from_keywords(TuneConfig, **NEEDED, lora_r="x")
    assert from_keywords(TuneConfig, model=Path("m"), data="d", output="o").model == "m"
    assert "output_dir" not in aliases_of(ReportConfig)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8},
         "4 per device x 8 accumulation x 2 devices = 64: use --batch-size 64 --micro-batch-size 4"),
        ({"gradient_accumulation_steps": 2},
         "8 per device (the default of transformers) x 2 accumulation x 2 devices = 32"),
        ({"per_device_eval_batch_size": 16}, "training"),
    ],
)  # fmt: skip
def test_batches_per_device_are_refused_with_the_arithmetic(
    options: dict[str, int], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for config_class in (TuneConfig, AlignConfig):
        with pytest.raises(HoldfastError) as error:
            from_keywords(config_class, **NEEDED, **options)
        assert hint in (error.value.hint or "")
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    answer = parse(f"{FLAGS} {flags}")
    assert answer.exit_code == 2
    assert hint in answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_one_group_with_a_help_text(command: str) -> None:
    config_class = COMMANDS[command][0]
    listed = " ".join(GROUPS.values()).split()
    texts = help_texts(config_class)
    for field in dataclasses.fields(config_class):
        assert listed.count(field.name) == 1, field.name
        assert texts[field.name], field.name


def test_help_lists_options_in_groups() -> None:
    text = call("tune --help").out
    places = [text.index(f"{group} options") for group in ("model", "data", "weights", "optimisation", "saving", "run")]
    assert places == sorted(places)
    assert places[2] < text.index("--prompt-weight") < places[3]
    assert "--lr." in text


def test_a_kind_of_variant_is_guessed() -> None:
    from holdfast.sensitivity.variants import generator

    with pytest.raises(HoldfastError) as error:
        generator("speling")
    assert error.value.hint == "did you mean 'spelling'?"
