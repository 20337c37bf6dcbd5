"""``holdfast align`` on real, small models: what the model sees, TRL's numbers against plain arithmetic, continuing,
bad input.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="the extra align (trl) is not installed")

from holdfast import lm, pocket
from holdfast.align import align
from holdfast.align.measure import finding, pair_logprobs
from holdfast.align.plan import make_plan, trl_losses
from holdfast.align.tokens import PairTokens, tokenize_pairs
from holdfast.cli import main
from holdfast.config import AlignConfig, TuneConfig
from holdfast.data.pairs import load_pairs, read_pair
from holdfast.errors import HoldfastError
from holdfast.stats import proportion
from holdfast.tune import train
from materials import make_tokenizer, write_jsonl

LEARNABLE = {"category", "reverse", "drop_first", "largest", "sort_numbers", "colour_of"}


def wrong_answers(split: str) -> list[dict[str, Any]]:
    """Pairs of pocket in which the rejected answer is wrong, for tasks that few steps can teach."""
    return [r for r in pocket.rows(f"pocket:preferences/{split}") if r["fault"] == "wrong" and r["task"] in LEARNABLE]


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, (output / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs in which counting up is preferred to counting down."""
    made = []
    for n in range(2, 42):
        up = [str(i % 10) for i in range(n % 7 + 2)]
        made.append({"prompt": f"Count {n}.", "chosen": " ".join(up), "rejected": " ".join(reversed(up))})
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", made)


def config(model: Any, data: Any, output: Path, **changes: Any) -> AlignConfig:
    settings = {
        "learning_rate": 1e-3,
        "batch_size": 8,
        "micro_batch_size": 4,
        "log_steps": 1,
        "eval_share": 0.2,
    } | changes
    return AlignConfig(model=str(model), data=str(data), output=str(output), **settings)


# The model learns what is preferred


def test_preference_accuracy_on_held_out_pairs_rises_beyond_its_interval(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", wrong_answers("train"))
    held_out = write_jsonl(tmp_path / "held-out.jsonl", wrong_answers("dev") + wrong_answers("test"))
    settings = {
        "eval_data": str(held_out),
        "learning_rate": 4e-4,
        "batch_size": 16,
        "micro_batch_size": 8,
        "log_steps": 10,
    }
    summary = align(config("pocket", data, tmp_path / "run", **settings))
    before, after = (summary[when]["preference_accuracy"] for when in ("before", "after"))
    assert after["value"] > before["high"]
    assert summary["gain"]["low"] > 0
    assert summary["gain"]["p"] < 0.01
    assert summary["after"]["reward_accuracy"]["low"] > 0.5
    logged = np.asarray(
        [[row["before"], row["after"]] for row in map(json.loads, (tmp_path / "run" / "pairs.jsonl").open())]
    )
    assert float((logged[:, 1, 0] > logged[:, 1, 1]).mean()) == after["value"]


# The run directory, and TRL's numbers against plain arithmetic


@pytest.fixture(scope="module")
def staged(model_folder: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``tune`` with LoRA, and ``align`` with all weights on top of it."""
    folder = tmp_path_factory.mktemp("staged")
    data = [
        {"messages": [say("user", row["prompt"]), say("assistant", row["chosen"])]}
        for row in map(json.loads, pairs_file.open())
    ]
    file = write_jsonl(folder / "chat.jsonl", data)
    train(TuneConfig(model=str(model_folder), data=str(file), output=str(folder / "tune"), lora_rank=2, max_steps=3,
                     prompt_weight=0.2, learning_rate=5e-3, batch_size=8, template="dialogue"))  # fmt: skip
    align(config(folder / "tune", pairs_file, folder / "align", epochs=2))
    return folder


def test_rows_and_summary(staged: Path) -> None:
    output = staged / "align"
    summary = json.loads((output / "summary.json").read_text())
    training, evaluations = rows(output, "train"), rows(output, "eval")
    assert [row["step"] for row in training] == list(range(1, summary["steps"] + 1))
    assert [row["step"] for row in evaluations] == [0, 4, 8]
    for name in (
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "grad_norm",
        "learning_rate",
    ):
        assert all(row[name] is not None for row in training), name
    assert (output / "model" / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert summary["before"]["reward_accuracy"] is None
    assert lm.load(output).model.dtype is torch.float32


def test_lineage_names_base_tune_and_align(staged: Path, model_folder: Path) -> None:
    base, tuned, aligned = json.loads((staged / "align" / "summary.json").read_text())["lineage"]
    assert base == {"command": "base", "model": str(model_folder)}
    assert (tuned["command"], tuned["weights"]["user"], tuned["lora_rank"]) == ("tune", 0.2, 2)
    assert (aligned["command"], aligned["beta"], aligned["losses"]) == ("align", 0.1, ["sigmoid"])


def test_template_of_the_tuned_run_is_used(staged: Path) -> None:
    assert json.loads((staged / "align" / "config.json").read_text())["resolved"]["templates"] == {"dialogue": 32}


def test_reference_is_the_start_point_with_its_adapters(staged: Path) -> None:
    """TRL's rewards and loss at the end equal those of two models on disk, scored plainly in float64."""
    output = staged / "align"
    first, last = rows(output, "eval")[0], rows(output, "eval")[-1]
    assert first["loss"] == pytest.approx(math.log(2))
    assert first["rewards/margins"] == 0
    summary = json.loads((output / "summary.json").read_text())
    plan = make_plan(config(staged / "tune", Path(summary["data"]), output, epochs=2))
    start, end = (lm.load(staged / name, device="cpu").model.double() for name in ("tune", "align"))
    ratio = np.asarray(
        [
            [logprob(end, p.prompt, a) - logprob(start, p.prompt, a) for a in (p.chosen, p.rejected)]
            for p in plan.held_out
        ]
    )
    margins = 0.1 * (ratio[:, 0] - ratio[:, 1])
    assert summary["after"]["reward_margin"]["value"] == pytest.approx(margins.mean(), abs=1e-5)
    assert last["rewards/margins"] == pytest.approx(margins.mean(), abs=1e-5)
    assert last["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-5)


def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Plainly: one sequence, no padding."""
    with torch.no_grad():
        logp_TV = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logp_TV[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def test_batched_log_probs_equal_one_by_one(model_folder: Path) -> None:
    model = lm.load(model_folder, device="cpu").model.double()
    pairs = [PairTokens([5, 6, 7], [8, 9], [10], "a"), PairTokens([11], [12, 13, 14, 15], [16, 17], "b")]
    oracle = [[logprob(model, p.prompt, p.chosen), logprob(model, p.prompt, p.rejected)] for p in pairs]
    assert pair_logprobs(model, pairs, pad_id=2) == pytest.approx(np.asarray(oracle), abs=1e-10)


def test_share_has_wilsons_interval() -> None:
    made = proportion(9, 10)
    assert (made["value"], round(made["low"], 4), round(made["high"], 4)) == (0.9, 0.5958, 0.9821)


@pytest.mark.parametrize("loss", ["ipo", "hinge", "sigmoid,sft"])
def test_other_losses_by_name(model_folder: Path, pairs_file: Path, tmp_path: Path, loss: str) -> None:
    summary = align(config(model_folder, pairs_file, tmp_path / "run", loss=loss, max_steps=2, eval_share=0))
    assert summary["losses"] == loss.split(",")
    assert summary["after"] is None
    assert math.isfinite(rows(tmp_path / "run", "train")[-1]["loss"])


def test_lora_is_trained_continued_and_saved_without_the_reference(
    model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    first = align(config(model_folder, pairs_file, tmp_path / "one", lora_rank=2, max_steps=4))
    assert {p.name for p in (tmp_path / "one" / "model").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (tmp_path / "one" / "model" / "ref").exists()
    second = align(config(tmp_path / "one", pairs_file, tmp_path / "two", lora_rank=2, max_steps=4))
    assert second["before"]["logps/chosen"] == pytest.approx(first["after"]["logps/chosen"], abs=1e-4)
    assert rows(tmp_path / "two", "eval")[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert second["after"]["reward_margin"]["value"] != 0
    with pytest.raises(HoldfastError, match="adapters of rank 2"):
        align(config(tmp_path / "one", pairs_file, tmp_path / "three", lora_rank=4))


# What the model sees


def test_prompt_and_answers_are_those_of_tune(tokenizer: Any) -> None:
    row = {"prompt": [say("user", "Hi")], "chosen": [say("assistant", "Yes")], "rejected": [say("assistant", "No")]}
    (pair,), report = tokenize_pairs([read_pair(row, "row 1")], tokenizer, max_length=64)
    assert tokenizer.decode(pair.prompt) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.decode(pair.chosen), tokenizer.decode(pair.rejected)) == ("Yes<|im_end|>", "No<|im_end|>")
    assert report.templates == {"chat": 1}


def test_text_pairs_take_the_plain_template_and_its_space_belongs_to_the_answer() -> None:
    (pair,), _ = tokenize_pairs(
        [read_pair({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, "row 1")],
        make_tokenizer(bos=True),
        max_length=64,
    )
    decode = make_tokenizer(bos=True).decode
    assert (decode(pair.prompt), decode(pair.chosen), decode(pair.rejected)) == (
        "<|bos|>Hi",
        " Yes<|end|>",
        " No<|end|>",
    )


def test_whole_conversations_are_split_where_they_part(tokenizer: Any) -> None:
    asked = [say("system", "Be brief."), say("user", "Hi"), say("assistant", "Hello"), say("user", "Bye")]
    implicit = {"chosen": [*asked, say("assistant", "Farewell")], "rejected": [*asked, say("assistant", "What")]}
    explicit = implicit | {"prompt": asked}
    apart = {"prompt": asked, "chosen": [say("assistant", "Farewell")], "rejected": [say("assistant", "What")]}
    made = [
        tokenize_pairs([read_pair(row, "row 1")], tokenizer, max_length=100)[0] for row in (implicit, explicit, apart)
    ]
    assert made[0] == made[1] == made[2]
    ultrafeedback = {
        "prompt": "Hi",
        "chosen": [say("user", "Hi"), say("assistant", "A")],
        "rejected": [say("assistant", "B")],
    }
    with pytest.raises(HoldfastError, match="row 1: 'prompt' is not how 'rejected' begins"):
        read_pair(ultrafeedback, "row 1")
    assert (
        read_pair(ultrafeedback | {"rejected": [say("user", "Hi"), say("assistant", "B")]}, "row 1").rejected.content
        == "B"
    )


def test_long_pairs_are_cut_dropped_or_left_out(tokenizer: Any) -> None:
    text = "hello world " * 20
    long = [
        {"prompt": "a", "chosen": text, "rejected": "x " + text},
        {"prompt": text * 2, "chosen": "yes", "rejected": "no"},
        {"prompt": "a", "chosen": text + "b", "rejected": text + "c"},
    ]
    pairs = [read_pair(row, f"row {i}") for i, row in enumerate(long, 1)]
    kept, report = tokenize_pairs(pairs, tokenizer, max_length=20)
    assert [(p.where, len(p)) for p in kept] == [("row 1", 20)]
    assert [line.split(":")[0] for line in report.left_out] == ["row 2", "row 3"]
    assert report.truncated == 1
    assert tokenize_pairs(pairs, tokenizer, max_length=20, truncation="drop")[1].dropped == 3


def test_dry_run_shows_the_first_pair_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = align(
        AlignConfig(model="pocket", data="pocket:preferences", output=str(tmp_path / "x"), recipe="paper", dry_run=True)
    )
    shown = capsys.readouterr().out
    assert "' forest<|end|>'" in shown
    assert "' kitchen<|end|>'" in shown
    assert (figures["learning_rate"], figures["epochs"], figures["steps"]) == (5e-7, 2, 2 * 60)
    assert not (tmp_path / "x").exists()


def test_what_is_given_wins_over_the_preset(model_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    plan = make_plan(
        config(model_folder, pairs_file, tmp_path, recipe="paper", learning_rate=1e-5, batch_size=16, epochs=None)
    )
    assert (plan.learning_rate, plan.config.batch_size, plan.config.epochs) == (1e-5, 16, 2)


# Continuing


def test_killed_run_continues_and_ends_as_if_nothing_had_happened(
    model_folder: Path, pairs_file: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"epochs": 12, "save_steps": 5, "log_steps": 5}
    whole = align(config(model_folder, pairs_file, tmp_path / "whole", **settings))
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "holdfast.cli", "align", "--model", str(model_folder), "--data", str(pairs_file)]
    command += [
        "--output",
        str(output),
        "--learning-rate",
        "1e-3",
        "--batch-size",
        "8",
        "--micro-batch-size",
        "4",
        "--eval-share",
        "0.2",
    ]
    command += ["--epochs", "12", "--save-steps", "5", "--log-steps", "5"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(output.glob("checkpoints/checkpoint-*/trainer_state.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "summary.json").exists(), "it was too fast to be killed"
    resumed = align(config(model_folder, pairs_file, output, **settings))
    for key in ("logps/chosen", "logps/rejected"):
        assert resumed["after"][key] == pytest.approx(whole["after"][key], abs=1e-4)
    assert resumed["before"] == whole["before"]
    for kind in ("train", "eval"):
        assert [r["step"] for r in rows(output, kind)] == [r["step"] for r in rows(tmp_path / "whole", kind)]
    assert align(config(model_folder, pairs_file, output, **settings)) == resumed
    with pytest.raises(HoldfastError, match="holds another run"):
        align(config(model_folder, pairs_file, output, **settings | {"beta": 0.2}))


# Bad input


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "row 1: no column 'rejected'; the row has prompt, chosen"),
        ({"chosen": "b", "rejected": "c"}, "row 1: no column 'prompt'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "row 1: 'chosen' and 'rejected' are equal"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "row 1: 'chosen' is empty"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "row 1: 'prompt' is empty"),
        (
            {"prompt": "a", "chosen": "b", "rejected": [say("assistant", "c")]},
            "row 1: 'chosen' and 'rejected' must both be text",
        ),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "row 1: 'chosen' is int 3, not text"),
        (
            {"chosen": [say("user", "a")], "rejected": [say("user", "b")]},
            "row 1: 'chosen' and 'rejected' begin with different messages",
        ),
        (
            {"prompt": "a", "chosen": [say("user", "b")], "rejected": [say("assistant", "c")]},
            "row 1: after the prompt 'chosen' must hold",
        ),
        (
            {"prompt": [say("assistant", "a")], "chosen": "b", "rejected": "c"},
            "row 1: 'prompt' ends with an assistant message",
        ),
        (
            {"prompt": "hello world " * 99, "chosen": "b", "rejected": "c"},
            "no pair is left: 1 with nothing left to compare",
        ),
    ],
)
def test_bad_rows_are_named(model_folder: Path, tmp_path: Path, row: dict[str, Any], message: str) -> None:
    data = write_jsonl(tmp_path / "bad.jsonl", [row])
    with pytest.raises(HoldfastError, match=r"bad\.jsonl") as error:
        align(config(model_folder, data, tmp_path / "run", eval_share=0))
    assert message in error.value.message
    assert not (tmp_path / "run").exists()


def test_bad_rows_can_be_skipped_and_are_listed(model_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    good = [json.loads(line) for line in pairs_file.open()]
    data = write_jsonl(tmp_path / "mixed.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}, *good])
    summary = align(config(model_folder, data, tmp_path / "run", skip_bad_rows=True, max_steps=1))
    assert summary["bad_rows"]["count"] == 1
    assert "row 1: 'chosen' and 'rejected' are equal" in summary["bad_rows"]["first"][0]


def test_unknown_loss_names_those_of_trl(
    model_folder: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"sigmoid", "ipo", "hinge"} <= set(trl_losses())
    command = [
        "align",
        "--model",
        str(model_folder),
        "--data",
        str(pairs_file),
        "--output",
        str(tmp_path / "run"),
        "--loss",
        "sigmiod",
    ]
    assert main(command) == 2
    assert "did you mean 'sigmoid'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "exo_pair"}, "TRL refuses this: Label smoothing"),
        ({"beta": 0.0}, "--beta is 0.0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"max_length": 4096}, "--max-length 4096: the model takes 2 to 128 tokens"),
        ({"training": {"no_such_thing": "1"}}, "training arguments: "),
        ({"training": {"sync_ref_model": "true"}}, "'training' names a setting of the reference model"),
    ],
)
def test_bad_settings(
    model_folder: Path, pairs_file: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HoldfastError) as error:
        align(config(model_folder, pairs_file, tmp_path / "run", **changes))
    assert message in error.value.message
    assert not (tmp_path / "run").exists()


def test_missing_trl_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['trl'] = None; from holdfast.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["align", "--model", "pocket", "--data", "pocket:preferences", "--output", str(tmp_path / "run")]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert 'pip install "holdfast[align]"' in run.stderr


# Real data


def test_ultrafeedback_on_a_real_model(shared: Path, tmp_path: Path) -> None:
    model, data = shared / "models" / "stories260k", shared / "data" / "ultrafeedback_pairs"
    if not model.is_dir() or not data.is_dir():
        pytest.skip("stories260k or ultrafeedback_pairs is absent")
    assert len(load_pairs(str(data / "eval.jsonl"), bad_rows=[])) > 190
    rows_of = [json.loads(line) for line in (data / "train.jsonl").open()][:40]
    file = write_jsonl(
        tmp_path / "chosen.jsonl",
        [{"prompt": r["prompt"], "response": r["chosen"]} for r in rows_of if r["chosen"].strip()],
    )
    train(
        TuneConfig(
            model=str(model),
            data=str(file),
            output=str(tmp_path / "tune"),
            max_steps=2,
            batch_size=8,
            max_length=256,
            eval_share=0,
        )
    )
    options: dict[str, Any] = {
        "limit": 60,
        "max_length": 256,
        "learning_rate": 1e-3,
        "skip_bad_rows": True,
        "log_steps": 1,
    }
    summary = align(config(tmp_path / "tune", data / "train.jsonl", tmp_path / "align", **options))
    assert summary["data_report"]["truncated"] > 0
    assert [stage["command"] for stage in summary["lineage"]] == ["base", "tune", "align"]
    training = rows(tmp_path / "align", "train")
    assert len(training) == summary["steps"]
    assert all(math.isfinite(row["loss"]) for row in training)
    assert summary["after"]["reward_margin"]["value"] != 0


@pytest.mark.full
def test_two_processes_train_as_one(model_folder: Path, pairs_file: Path, tmp_path: Path) -> None:
    one = align(config(model_folder, pairs_file, tmp_path / "one", max_steps=4))
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "-m",
        "holdfast.cli",
        "align",
    ]
    command += [
        "--model",
        str(model_folder),
        "--data",
        str(pairs_file),
        "--output",
        str(tmp_path / "two"),
        "--max-steps",
        "4",
    ]
    command += [
        "--learning-rate",
        "1e-3",
        "--batch-size",
        "8",
        "--micro-batch-size",
        "4",
        "--log-steps",
        "1",
        "--eval-share",
        "0.2",
    ]
    subprocess.run(command, check=True, capture_output=True)
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    for key in ("logps/chosen", "logps/rejected"):
        assert two["after"][key] == pytest.approx(one["after"][key], abs=1e-3)
    assert [r["step"] for r in rows(tmp_path / "two", "train")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("pairs", "gain", "says"),
    [
        (6, {"value": 0.5, "low": 0.1, "high": 0.9, "p": 0.01}, "on 6 held-out pairs: too few to say"),
        (400, {"value": 0.1, "low": 0.06, "high": 0.14, "p": 0.001}, "higher by 10.0 points [6.0, 14.0]"),
        (400, {"value": -0.1, "low": -0.14, "high": -0.06, "p": 0.001}, "lower by 10.0 points [6.0, 14.0]"),
        (400, {"value": 0.01, "low": -0.02, "high": 0.04, "p": 0.6}, "no difference shown (+1.0 points, 95 % interval"),
    ],
)
def test_the_end_claims_no_more_than_the_pairs_show(pairs: int, gain: dict[str, float], says: str) -> None:
    side = {"pairs": pairs, "preference_accuracy": {"value": 0.5}}
    assert says in finding({"before": side, "after": side, "gain": gain})


def test_without_held_out_pairs_the_end_says_so() -> None:
    assert "--eval-share" in finding({"before": None, "after": None})
