"""Config classes: ranges and their words, the field's names, and groups of options, by every door."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from golden_case import parse
from holdfast import config as configs
from holdfast.cli import COMMANDS
from holdfast.config import AlignConfig, BenchConfig, ReportConfig, SensitivityConfig, TuneConfig, from_keywords
from holdfast.config.base import ranges_of
from holdfast.config.names import _TRAINER, ALIASES, aliases_of, suggestion
from holdfast.config.options import GROUPS, help_texts
from holdfast.errors import HoldfastError
from holdfast.tune.arguments import _NO_EFFECT

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
    "dtype": "bfloat16", "max_new_tokens": 9, "eval_share": 0.25, "limit": 3, "max_grad_norm": 0.5, "patience": 2,
    "gradient_checkpointing": True, "chat_template": "t.jinja", "overwrite": True, "tokenizer": "other",
    "endpoint": "http://localhost:1/v1",
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


FOREIGN = {
    "tune": "bf16 fp16 packing padding_free load_in_4bit load_in_8bit use_peft lora_target_modules target_modules r "
    "warmup_steps eval_strategy evaluation_strategy save_strategy load_best_model_at_end metric_for_best_model optim "
    "neftune_noise_alpha dataset_text_field completion_only_loss assistant_only_loss train_on_inputs eos_token "
    "response_template attn_implementation deepspeed fsdp torch_compile use_liger_kernel push_to_hub do_train "
    "resume_from_checkpoint dataset_num_proc adam_beta2 run_name dataset_train_split device_map",
    "align": "bf16 precompute_ref_log_probs max_prompt_length ref_model label_smoothing use_peft truncation_mode",
    "bench run": "model_args device gen_kwargs log_samples use_cache include_path write_out predict_only "
    "fewshot_as_multiturn samples per_device_eval_batch_size verbosity cache_requests max_batch_size wandb_args "
    "confirm_run_unsafe_code hf_hub_log_args",
    "sensitivity run": "gen_kwargs device top_p load_in_4bit",
}
"""Command -> options of transformers, TRL, peft, axolotl and lm-evaluation-harness that are none of ours."""


@pytest.mark.parametrize("command", FOREIGN)
def test_a_name_that_is_not_ours_gets_the_line_to_type(command: str) -> None:
    config_class = COMMANDS[command][0]
    flags = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(config_class)} | {"--help-all"}
    for name in FOREIGN[command].split():
        hint = suggestion(config_class, name)
        assert hint, name
        assert set(re.findall(r"--[a-z-]+", hint)) <= flags, hint
        for spelled in (name, name.replace("_", "-")):
            answer = parse(f"{command} --{spelled} 1")
            assert answer.exit_code == 2
            assert f"unknown option '--{spelled}'\n  hint: " in answer.err
            assert hint.split("VALUE")[0] in answer.err
        with pytest.raises(HoldfastError) as error:
            from_keywords(config_class, **{name: 1})
        assert hint.split("VALUE")[0] in (error.value.hint or "")


@pytest.mark.parametrize("package", ["transformers", "trl", "peft"])
def test_every_argument_of_a_trainer_is_understood_or_explained(package: str) -> None:
    """What these packages add is to be looked at, too."""
    if package == "peft":
        from peft import LoraConfig

        names = {"r", "target_modules", "lora_alpha", "lora_dropout", "bias", "use_rslora", "modules_to_save",
                 "init_lora_weights", "use_dora", "layers_to_transform", "exclude_modules", "task_type"}  # fmt: skip
        assert names <= {field.name for field in dataclasses.fields(LoraConfig)}
    elif package == "trl":
        trl = pytest.importorskip("trl")
        classes = (trl.SFTConfig, trl.ModelConfig, trl.ScriptArguments)
        names = {field.name for other in classes for field in dataclasses.fields(other)}
    else:
        from transformers import TrainingArguments

        names = {field.name for field in dataclasses.fields(TrainingArguments)}
    ours = {*configs.names.option_names(TuneConfig), *aliases_of(TuneConfig)}
    ours |= {"per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"}
    assert not set(_TRAINER.split()) & set(_NO_EFFECT)
    unexplained = sorted(name for name in names if name not in ours and not suggestion(TuneConfig, name))
    assert unexplained == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tune --bogus 3", "unknown option '--bogus'"),  # before what is missing
        ("tune --promt_weight 3", "hint: did you mean '--prompt-weight'?"),
        ("tune", "--output, --model and --data are missing"),
        ("tune --model m --data d", "--output is missing"),
        (f"{FLAGS} --epochs many", "--epochs is 'many'; it must be a number"),
        (f"{FLAGS} --limit 1.5", "--limit is '1.5'; it must be a whole number"),
        (
            f"{FLAGS} --precision bf61",
            "--precision is 'bf61'; it must be one of auto, fp32, bf16\n  hint: did you",
        ),
        (f"{FLAGS} --dry-run=maybe", "--dry-run is 'maybe'; it is on where it stands, and takes true or false"),
        (f"{FLAGS} --weights user", "--weights takes pairs of a name and a value"),
        (f"{FLAGS} --weights user heavy", "--weights is 'heavy'; it must be a number"),
        (f"{FLAGS} --stop --json", "--stop has no value"),
        (f"{FLAGS} loose", "unexpected argument 'loose'"),
        ("completion tcsh", "the shell is one of bash, zsh, fish, not 'tcsh'"),
        ("completion", "the shell is one of bash, zsh, fish, and none is named"),
    ],
)
def test_an_error_of_arguments_is_in_our_words(line: str, says: str) -> None:
    answer = parse(line)
    assert answer.exit_code == 2
    assert answer.out == ""
    assert says in answer.err
    assert "\n  hint: " in answer.err
    assert not re.search("[\u2500-\u257f]", answer.err)


def test_a_switch_takes_true_and_false_and_what_it_is_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("dry_run: true\n")
    lines = {
        f"{FLAGS} --dry_run True": True, f"{FLAGS} --dry-run=false": False, f"{FLAGS} --no-dry-run": False,
        f"{FLAGS} --config c.yaml --dry-run": True, f"{FLAGS} --config c.yaml --no-dry-run": False,
        f"{FLAGS} --config c.yaml --dry-run False": False,
    }  # fmt: skip
    for line, value in lines.items():
        answer = parse(line)
        assert answer.config is not None, answer.err
        assert answer.config["dry_run"] is value, line


def test_a_kind_of_variant_is_guessed() -> None:
    from holdfast.sensitivity.variants import generator

    with pytest.raises(HoldfastError) as error:
        generator("speling")
    assert error.value.hint == "did you mean 'spelling'?"
