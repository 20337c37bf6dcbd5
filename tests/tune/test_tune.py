"""``holdfast tune`` from end to end on real, small models: the run directory, continuing, refusing, real data."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import lm
from holdfast.config import TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import resolve
from holdfast.tune import train
from holdfast.tune.arguments import training_arguments
from holdfast.tune.plan import default_learning_rate, make_plan
from materials import make_model, make_tokenizer, write_jsonl


def config(model: Path, data: Path, output: Path, **changes: Any) -> TuneConfig:
    settings = {"learning_rate": 5e-3, "batch_size": 8, "log_steps": 2} | changes
    return TuneConfig(model=str(model), data=str(data), output=str(output), **settings)


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, (output / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


def test_run_directory(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    summary = train(config(model_folder, chat_file, output, prompt_weight=0.2, response_weight=0.8, epochs=3))
    assert summary == json.loads((output / "summary.json").read_text())
    assert summary["after"]["response_nll"] < summary["before"]["response_nll"]
    saved = json.loads((output / "config.json").read_text())
    assert (saved["command"], saved["config"]["prompt_weight"], saved["resolved"]["weights"]["eos"]) == (
        "tune",
        0.2,
        0.8,
    )
    training = rows(output, "train")
    assert [row["step"] for row in training] == [2, 4, 6, 8, 10, 12, 14]
    for name in ("tokens", "loss", "prompt_nll", "response_nll", "grad_norm", "learning_rate", "tokens_per_second"):
        assert all(row[name] is not None for row in training), name
    assert [row["step"] for row in rows(output, "eval")] == [0, 5, 10, 15]
    assert summary["steps"] == 15
    card = (output / "model" / "README.md").read_text()
    assert "| weight | 0.2 | 0.2 | 0.2 | 0.2 | 0.8 | 0.8 |" in card
    assert resolve(output) == output / "model"
    tuned = lm.load(output)
    assert tuned.model.dtype is torch.float32
    assert {p.suffix for p in (output / "model").iterdir()} == {".json", ".md", ".safetensors", ".jinja"}
    report = summary["data_report"]
    assert report["targets_per_role"]["eos"] + report["eos_cut"] == summary["train_examples"]


def test_weighted_share_is_reported(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    made = make_plan(config(model_folder, chat_file, tmp_path / "x", prompt_weight=0.2, response_weight=0.8))
    counts = {role.label: n for role, n in made.report.targets.items()}
    prompt, response = counts["template"] + counts["user"], counts["assistant"] + counts["eos"]
    assert made.share == pytest.approx(0.2 * prompt / (0.2 * prompt + 0.8 * response))


def test_same_seed_same_numbers_other_seed_other_split(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    first, again, other = (
        train(config(model_folder, chat_file, tmp_path / f"{n}", seed=s)) for n, s in ((1, 0), (2, 0), (3, 1))
    )
    assert first["after"] == again["after"]
    assert first["after"] != other["after"]


def test_finished_run_is_returned_and_another_is_refused(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    summary = train(config(model_folder, chat_file, output))
    stamp = (output / "model" / "model.safetensors").stat().st_mtime_ns
    assert train(config(model_folder, chat_file, output)) == summary
    assert (output / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(HoldfastError, match=r"holds another run \(prompt_weight differ\)"):
        train(config(model_folder, chat_file, output, prompt_weight=0.5))
    chat_file.write_text("\n".join(chat_file.read_text().splitlines()[:-1]))
    with pytest.raises(HoldfastError, match="the data has changed since this run began"):
        train(config(model_folder, chat_file, output))
    changed = train(config(model_folder, chat_file, output, prompt_weight=0.5, overwrite=True))
    assert changed["weights"]["user"] == 0.5


def test_killed_run_continues_and_ends_as_if_nothing_had_happened(
    model_folder: Path, chat_file: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 8, "save_steps": 5, "log_steps": 5, "eval_share": 0.2}
    whole = train(config(model_folder, chat_file, tmp_path / "whole", **settings))
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "holdfast.cli", "tune", "--model", str(model_folder), "--data", str(chat_file)]
    command += ["--output", str(output), "--learning-rate", "5e-3", "--batch-size", "8"]
    command += ["--epochs", "8", "--save-steps", "5", "--log-steps", "5", "--eval-share", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(output.glob("checkpoints/checkpoint-[12]*/trainer_state.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "summary.json").exists(), "it was too fast to be killed"
    resumed = train(config(model_folder, chat_file, output, **settings))
    assert resumed["after"] == pytest.approx(whole["after"])
    assert resumed["before"] == whole["before"]
    assert [r["step"] for r in rows(output, "train")] == [r["step"] for r in rows(tmp_path / "whole", "train")]
    ours, theirs = (lm.load(p).model.state_dict() for p in (output, tmp_path / "whole"))
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


def test_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    from holdfast.tune.model import whole_checkpoint

    for step, text in ((5, '{"global_step": 5}'), (10, '{"global_st')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-15").mkdir()
    assert whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    for name in ("checkpoint-best", "checkpoint-9 (copy)", "checkpoint-7.bak"):  # a user's: neither read nor removed
        shutil.copytree(tmp_path / "checkpoint-5", tmp_path / name)
        (tmp_path / name / "trainer_state.json").write_text("cut")
    assert whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert len(list(tmp_path.glob("checkpoint-*"))) == 4


def test_full_disk_on_save_keeps_the_previous_checkpoint(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    """The file-size limit of the process stands for a full disk: the first checkpoint fits, a grown rows file or model
    does not.
    """
    output = tmp_path / "run"
    first = config(model_folder, chat_file, output, max_steps=4, save_steps=2, eval_share=0)
    code = (
        "import sys, holdfast.tune.model as saving, resource, signal\n"
        "from holdfast.cli import main\n"
        "whole = saving.save_model\n"
        "def limited(*arguments):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    whole(*arguments)\n"
        "import holdfast.tune.pipeline as pipeline\n"
        "pipeline.save_model = limited\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "tune",
        "--model",
        first.model,
        "--data",
        first.data,
        "--output",
        str(output),
        "--max-steps",
        "4",
        "--save-steps",
        "2",
    ]
    arguments += ["--eval-share", "0", "--learning-rate", "5e-3", "--batch-size", "8", "--log-steps", "2"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "disk is full" in run.stderr
    assert "checkpoint-4 is whole" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (output / "model").exists()
    assert not (output / "model.partial").exists()
    assert train(first)["steps"] == 4  # with room again, the same command ends the run
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_lora_and_tuning_a_tuned_model(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    summary = train(config(model_folder, chat_file, tmp_path / "lora", lora_rank=4, learning_rate=2e-2))
    assert summary["after"]["response_nll"] < summary["before"]["response_nll"]
    assert (tmp_path / "lora" / "model" / "adapter_model.safetensors").exists()
    again = train(config(tmp_path / "lora", chat_file, tmp_path / "second", lora_rank=4))
    assert again["before"]["response_nll"] == pytest.approx(summary["after"]["response_nll"], rel=1e-4)
    full = train(config(tmp_path / "second", chat_file, tmp_path / "third", max_steps=1))
    assert full["before"]["response_nll"] == pytest.approx(again["after"]["response_nll"], rel=1e-4)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_tuned_model_ends_where_its_template_does(
    model_folder: Path, chat_file: Path, tmp_path: Path, lora_rank: int
) -> None:
    """The template ends a response with <|im_end|>, which is not the tokenizer's EOS, so the base model does not stop
    at it.
    """
    train(config(model_folder, chat_file, tmp_path / "run", lora_rank=lora_rank, max_steps=2))
    base, tuned = lm.load(str(model_folder)), lm.load(str(tmp_path / "run"))
    end = tuned.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert lm.stop_ids(base.model, base.tokenizer) == {base.tokenizer.eos_token_id}
    assert lm.stop_ids(tuned.model, tuned.tokenizer) == {base.tokenizer.eos_token_id, end}

    def steps(model: lm.LM) -> int:
        model.generate(["Count"], max_new_tokens=1)  # what the engine tries on a new model is not counted
        calls = []

        def say_end(module: Any, arguments: Any, output: Any) -> None:
            output[..., end] = 1e9
            calls.append(1)

        model.model.get_output_embeddings().register_forward_hook(say_end)
        assert model.generate(["Count to 3."], max_new_tokens=5) == [""]
        return len(calls)

    assert steps(base) == 5
    assert steps(tuned) == 1


def test_prompt_only_on_unannotated_data(model_folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"Name {n} colours."} for n in range(30)])
    summary = train(config(model_folder, data, tmp_path / "run", preset="prompt-only"))
    assert summary["after"]["prompt_nll"] < summary["before"]["prompt_nll"]
    assert summary["after"]["response_nll"] is None


def test_training_keys_reach_the_trainer(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    train(
        config(model_folder, chat_file, tmp_path / "a", training={"optim": "adafactor", "label_smoothing_factor": "0"})
    )
    with pytest.raises(HoldfastError, match="training arguments"):
        train(config(model_folder, chat_file, tmp_path / "b", training={"optimiser": "adam"}))


@pytest.mark.parametrize(("steps", "first"), [(1, 1.0), (60, 1.0), (200, 0.0)])
def test_a_warm_up_of_less_than_a_step_is_none(
    model_folder: Path, chat_file: Path, tmp_path: Path, steps: int, first: float
) -> None:
    """The first step of a warm-up has a learning rate of 0, so a short training would lose it, and one of a single step
    everything.
    """
    options = {"max_steps": steps, "learning_rate": 1.0, "warmup_ratio": 0.01}
    plan = make_plan(config(model_folder, chat_file, tmp_path / "run", **options))
    arguments = training_arguments(plan, tmp_path / "checkpoints")
    assert (arguments.get_warmup_steps(steps) == 0) == (first == 1.0)


def test_default_learning_rate_grows_for_small_models() -> None:
    import transformers

    assert default_learning_rate(lm.count_parameters(make_model().config)) == 1e-3
    shapes = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "vocab_size": 128256,
    }
    billion = lm.count_parameters(transformers.LlamaConfig(**shapes))
    assert default_learning_rate(billion) == 2e-5
    assert default_learning_rate(billion, lora=True) == 2e-4


def test_chat_rendering_of_alpaca_rows(model_folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Add.", "input": "2 2", "output": "4"}] * 4)
    made = make_plan(config(model_folder, data, tmp_path / "x", template="chat"))
    assert made.tokenizer.decode(made.train[0].ids.tolist()).startswith("<|im_start|>user\nAdd.\n\n2 2<|im_end|>")


def test_tokenizer_without_fast_version_or_eos(chat_file: Path, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "m")
    make_tokenizer(eos=False).save_pretrained(tmp_path / "m")
    with pytest.raises(HoldfastError, match="no EOS token"):
        train(config(tmp_path / "m", chat_file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_generate_with_left_padding_equals_one_by_one() -> None:
    model = lm.load(make_model(), make_tokenizer())
    prompts = ["hello", "What is the capital of France?", "Red, green and blue. Name three colours.", "a"]
    together = model.generate(prompts, max_new_tokens=8)
    assert together == [model.generate([p], max_new_tokens=8)[0] for p in prompts]


def test_real_data_and_a_real_model(shared: Path, tmp_path: Path) -> None:
    summary = train(
        TuneConfig(
            model=str(shared / "models" / "stories260k"),
            data=str(shared / "data" / "dolly_3k" / "data.jsonl"),
            output=str(tmp_path / "run"),
            limit=500,
        )
    )
    assert summary["after"]["response_nll"] < summary["before"]["response_nll"] - 0.1
    report = summary["data_report"]
    assert report["templates"] == {"dialogue": 475}
    assert report["prompt_too_long"] == 475 - summary["train_examples"] == 30


def test_real_pairs_in_the_alpaca_layout(shared: Path, tmp_path: Path) -> None:
    made = make_plan(
        TuneConfig(
            model=str(shared / "models" / "stories260k"),
            data=str(shared / "data" / "dolly_hhrlhf_small" / "data.jsonl"),
            output=str(tmp_path / "x"),
            limit=50,
            max_length=512,
            truncation="keep-end",
        )
    )
    assert made.report.templates == {"plain": len(made.train)}


@pytest.mark.full
def test_killed_again_and_again(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    """Kill at random moments, over and over, until the run is through: it ends, and as the uninterrupted one."""
    import random

    whole = train(config(model_folder, chat_file, tmp_path / "whole", epochs=6, save_steps=2))
    output, rng = tmp_path / "run", random.Random(0)
    command = [
        sys.executable,
        "-m",
        "holdfast.cli",
        "tune",
        "--model",
        str(model_folder),
        "--data",
        str(chat_file),
        "--output",
        str(output),
    ]
    command += [
        "--learning-rate",
        "5e-3",
        "--batch-size",
        "8",
        "--log-steps",
        "2",
        "--epochs",
        "6",
        "--save-steps",
        "2",
    ]
    for _ in range(30):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        time.sleep(rng.uniform(4, 9))
        process.kill()
        process.wait()
        if (output / "summary.json").exists():
            break
    resumed = train(config(model_folder, chat_file, output, epochs=6, save_steps=2))
    assert resumed["after"] == pytest.approx(whole["after"])


def test_two_processes_train_as_one(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    """DDP over gloo: the divisor spans ranks, evaluation is exact with an uneven last batch, one process writes."""
    settings = {"batch_size": 8, "epochs": 2, "prompt_weight": 0.2, "response_weight": 0.8, "eval_share": 0.18}
    alone = train(config(model_folder, chat_file, tmp_path / "one", micro_batch_size=4, **settings))
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += [
        "-m",
        "holdfast.cli",
        "tune",
        "--model",
        str(model_folder),
        "--data",
        str(chat_file),
        "--output",
        str(tmp_path / "two"),
    ]
    command += [
        "--learning-rate",
        "5e-3",
        "--batch-size",
        "8",
        "--micro-batch-size",
        "4",
        "--epochs",
        "2",
        "--log-steps",
        "2",
    ]
    command += ["--prompt-weight", "0.2", "--response-weight", "0.8", "--eval-share", "0.18"]
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert made.returncode == 0, made.stderr[-3000:]
    together = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert together["eval_examples"] == alone["eval_examples"] == 7
    assert together["before"] == pytest.approx(alone["before"], rel=1e-6)
    assert together["after"] == pytest.approx(alone["after"], rel=1e-4)
    ours, theirs = rows(tmp_path / "two", "train"), rows(tmp_path / "one", "train")
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for mine, other in zip(ours, theirs):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert (mine["tokens"], mine["grad_norm"]) == pytest.approx((other["tokens"], other["grad_norm"]), rel=1e-3)
