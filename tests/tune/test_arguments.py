"""Keys under ``training``: what the Trainer accepts either works here or is refused by name; nothing is taken and
ignored.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.tune import train
from holdfast.tune.arguments import check_training
from materials import write_jsonl

REFUSED: dict[str, Any] = {
    "label_smoothing_factor": "0.5", "label_names": ["x"], "prediction_loss_only": True,
    "include_for_metrics": ["inputs"], "use_cache": True, "length_column_name": "n", "do_train": True,
    "do_eval": "true", "do_predict": True, "local_rank": 1, "resume_from_checkpoint": "x",
    "eval_on_start": True, "eval_do_concat_batches": False, "batch_eval_metrics": True, "bf16_full_eval": True,
    "fp16_full_eval": "true", "dataloader_drop_last": True, "auto_find_batch_size": True, "save_only_model": True,
    "ignore_data_skip": True, "restore_callback_states_from_checkpoint": True, "enable_jit_checkpoint": True,
    "parallelism_config": {"tp_size": 1}, "push_to_hub": True, "hub_token": "x", "hub_private_repo": True,
    "hub_model_id": "x", "hub_strategy": "end", "hub_always_push": True, "hub_revision": "x",
    "train_sampling_strategy": "group_by_length", "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "activation_checkpointing_kwargs": {"use_reentrant": False}, "activation_checkpointing": True, "run_name": "x",
    "project": "x", "trackio_space_id": "x", "trackio_bucket_id": "x", "trackio_static_space_id": "x",
    "include_num_input_tokens_seen": "all", "skip_memory_metrics": False,
}  # fmt: skip
REFUSED_BY_TUNE = {"use_liger_kernel": True, "liger_kernel_config": {"rope": True}}
REFUSED_BY_ALIGN = {
    "dataset_num_proc": 2, "truncation_mode": "keep_end", "model_init_kwargs": {"x": 1}, "padding_free": True,
    "sync_ref_model": "true", "precompute_ref_log_probs": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 5,
    "trust_remote_code": True,
}  # fmt: skip
OPTIONS = {
    "output_dir", "seed", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "bf16",
    "gradient_checkpointing", "logging_steps", "eval_strategy", "eval_steps", "save_strategy", "save_steps",
    "save_total_limit", "report_to", "remove_unused_columns", "average_tokens_across_devices", "logging_nan_inf_filter",
    "beta", "loss_type", "max_length",
}  # fmt: skip
WORK = {
    # read by code of the Trainer that runs here unchanged
    "lr_scheduler_kwargs", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules",
    "fp16", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode", "neftune_noise_alpha",
    "torch_empty_cache_steps", "logging_strategy", "logging_first_step", "log_on_each_node", "log_level",
    "log_level_replica", "disable_tqdm", "eval_delay", "per_device_eval_batch_size", "eval_use_gather_object",
    "eval_accumulation_steps", "save_on_each_node", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better", "full_determinism", "data_seed", "use_cpu", "accelerator_config", "dataloader_num_workers",
    "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "dataloader_in_order", "ddp_find_unused_parameters", "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp", "fsdp_config", "deepspeed",
    "debug",
}  # fmt: skip
WORK_IN_ALIGN = {
    "router_aux_loss_coef", "disable_dropout", "pad_to_multiple_of", "precompute_ref_batch_size", "loss_weights",
    "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing", "use_weighting", "discopop_tau",
    "activation_offloading", "pad_token", "use_liger_kernel", "liger_kernel_config",
}  # fmt: skip


def config(kind: type, **training: Any) -> Any:
    return kind(model="m", data="d", output="o", training=training)


def message(kind: type, key: str, value: Any) -> str:
    with pytest.raises(HoldfastError) as error:
        check_training(config(kind, **{key: value}))
    assert error.value.hint
    return error.value.message


@pytest.mark.parametrize("key", REFUSED)
def test_refused_by_name_in_both(key: str) -> None:
    for kind in (TuneConfig, AlignConfig):
        assert f"'{key}'" in message(kind, key, REFUSED[key])


def test_refused_by_one() -> None:
    for kind, refused in ((TuneConfig, REFUSED_BY_TUNE), (AlignConfig, REFUSED_BY_ALIGN)):
        for key, value in refused.items():
            assert f"'{key}'" in message(kind, key, value)


def test_what_is_off_asks_for_nothing() -> None:
    check_training(
        config(TuneConfig, label_smoothing_factor="0", do_train=False, eval_do_concat_batches="true", hub_token=None)
    )


def test_every_argument_of_the_installed_trainers_is_sorted() -> None:
    """A new one must be looked at: does it work here?"""
    transformers = pytest.importorskip("transformers")
    names = {field.name for field in dataclasses.fields(transformers.TrainingArguments) if field.init}
    assert names <= OPTIONS | WORK | REFUSED.keys() | REFUSED_BY_TUNE.keys()
    trl = pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    names = {field.name for field in dataclasses.fields(trl.DPOConfig) if field.init}
    assert names <= OPTIONS | WORK | WORK_IN_ALIGN | REFUSED.keys() | REFUSED_BY_ALIGN.keys()


def test_they_act_together_with_their_option() -> None:
    check_training(
        TuneConfig(
            model="m", data="d", output="o", gradient_checkpointing=True, training={"gradient_checkpointing_kwargs": {}}
        )
    )
    check_training(TuneConfig(model="m", data="d", output="o", report_to="wandb", training={"run_name": "x"}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"prompt": f"Say {n}.", "response": "a b " * (n % 4 + 1)} for n in range(30)]
    return write_jsonl(tmp_path_factory.mktemp("data") / "p.jsonl", rows)


@pytest.mark.parametrize(
    "training",
    [{"neftune_noise_alpha": 5.0}, {"train_sampling_strategy": "sequential"}, {"data_seed": 5}, {"optim": "sgd"},
     {"adam_beta1": 0.5},
     {"lr_scheduler_kwargs": {"num_cycles": 0.3}}],
    ids=lambda training: next(iter(training)),
)  # fmt: skip
def test_what_works_changes_the_training(
    model_folder: Path, data: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    losses = []
    for name, keys in (("bare", {}), ("with", training)):
        output = tmp_path / name
        settings = {
            "learning_rate": 1e-2,
            "batch_size": 4,
            "max_steps": 3,
            "log_steps": 1,
            "eval_share": 0.2,
            "training": keys,
        }
        losses.append(
            train(TuneConfig(model=str(model_folder), data=str(data), output=str(output), **settings))["after"]["loss"]
        )
    assert losses[0] != losses[1]


def test_from_the_command_line_nothing_is_written(
    model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", "--model", str(model_folder), "--data", str(data), "--output", str(tmp_path / "run")]
    assert main([*command, "--training", "label_smoothing_factor", "0.5"]) == 2
    assert "label_smoothing_factor" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_trl_adapter_refuses_its_own(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="the extra trl is not installed")
    from holdfast.integrations.trl import WITSFTTrainer
    from materials import make_model, make_tokenizer

    rows = [json.loads(line) for line in '{"prompt": "a", "completion": "b"}\n'.splitlines()]
    for option in (
        {"label_smoothing_factor": 0.5},
        {"pad_to_multiple_of": 8},
        {"truncation_mode": "keep_end"},
        {"shuffle_dataset": True},
    ):
        args = trl.SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], **option)
        with pytest.raises(HoldfastError, match=next(iter(option))):
            WITSFTTrainer(make_model(), args, train_dataset=rows, processing_class=make_tokenizer())
