"""The command: options from the config classes, config files, and every bad input: exit code 2, place, hint, nothing
written.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import runs
from holdfast.cli import main
from materials import make_model, make_tokenizer, write_jsonl


def run(*arguments: Any) -> int:
    """The exit code of a command in this process; argparse-style errors leave by SystemExit."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def test_tune_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "--help") == 0
    text = capsys.readouterr().out
    for option in (
        "--model",
        "--data",
        "--prompt-weight",
        "--response-weight",
        "--lora-rank",
        "--truncation",
        "--normalizer",
        "--dry-run",
    ):
        assert option in text
    assert "--config FILE.yaml" in text


def test_installed_command() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "holdfast.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert made.stdout.startswith("holdfast ")


def test_json_summary_on_stdout_and_log_on_stderr(
    model_folder: Path, chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            "tune",
            "--model",
            model_folder,
            "--data",
            chat_file,
            "--output",
            tmp_path / "run",
            "--max-steps",
            2,
            "--json",
        )
        == 0
    )
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["steps"] == 2
    assert "eval at 2" in err


def test_config_file_and_flags_over_it(
    model_folder: Path, chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(
        f"model: {model_folder}\ndata: {chat_file}\nprompt-weight: 0.2\nresponse_weight: 0.8\nlearning_rate: "
        "2e-3\nmax-steps: 3\n"
        "weights: {system: 0, eos: 1}\ntraining: {adam_beta2: 0.98}\n"
    )
    assert (
        run(
            "tune",
            "--config",
            tmp_path / "c.yaml",
            "--output",
            tmp_path / "run",
            "--prompt-weight",
            0.4,
            "--json",
            "--dry-run",
        )
        == 0
    )
    made = json.loads(capsys.readouterr().out)
    assert made["weights"] == {"template": 0.4, "system": 0.0, "user": 0.4, "tool": 0.4, "assistant": 0.8, "eos": 1.0}
    assert (made["learning_rate"], made["steps"]) == (0.002, 3)


def test_dry_run_shows_the_first_example_and_writes_nothing(
    model_folder: Path, chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_folder_without_weights = tmp_path / "no-weights"
    model_folder_without_weights.mkdir()
    for file in model_folder.iterdir():
        if file.suffix != ".safetensors":
            (model_folder_without_weights / file.name).write_bytes(file.read_bytes())
    arguments = [
        "--model",
        model_folder_without_weights,
        "--data",
        chat_file,
        "--output",
        tmp_path / "run",
        "--prompt-weight",
        "0.2",
    ]
    assert run("tune", *arguments, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "'<|im_start|>'" in text
    assert any(line.split()[1:3] == ["user", "0.2"] for line in text.splitlines() if "user" in line)
    assert any(line.split()[1:3] == ["eos", "1"] for line in text.splitlines() if "<|im_end|>" in line)
    assert "effective prompt share s = " in text
    assert "steps, about" in text
    assert "\x1b[" not in text  # colour on a terminal only
    assert not (tmp_path / "run").exists()


GOOD = {"prompt": "a", "response": "b"}


def file_with(text: str | bytes) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "d.jsonl").write_bytes(text.encode() if isinstance(text, str) else text)
        return {"--data": folder / "d.jsonl"}

    return make


def options(**given: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"--" + key.replace("_", "-"): value for key, value in given.items()}


def empty_folder(folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"--model": folder / "empty"}


def pickled_model(folder: Path) -> dict[str, Any]:
    import torch

    model = make_model()
    model.config.save_pretrained(folder / "pickled")
    make_tokenizer().save_pretrained(folder / "pickled")
    torch.save(model.state_dict(), folder / "pickled" / "pytorch_model.bin")
    return {"--model": folder / "pickled"}


def no_eos(folder: Path) -> dict[str, Any]:
    make_model().save_pretrained(folder / "m")
    make_tokenizer(eos=False).save_pretrained(folder / "m")
    return {"--model": folder / "m"}


def other_run(folder: Path) -> dict[str, Any]:
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text('{"command": "tune", "config": {"model": "another"}}')
    return {}


def no_run(folder: Path) -> dict[str, Any]:
    (folder / "run").mkdir()
    (folder / "run" / "thesis.tex").write_text("mine")
    return {}


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], list[str]]] = {
    "missing file": (options(data="nowhere.jsonl"), ["nowhere.jsonl: no such file", "hint:"]),
    "no output": (options(output=""), ["--output is empty"]),
    "empty file": (file_with(""), ["d.jsonl: no rows", "hint:"]),
    "broken JSON": (file_with(json.dumps(GOOD) + '\n{"prompt": '), ["d.jsonl, row 2: broken JSON", "hint:"]),
    "not UTF-8": (file_with(b'{"prompt": "a", "response": "\xe9"}'), ["d.jsonl, row 1: not UTF-8", "hint:"]),
    "missing column": (file_with(json.dumps(GOOD) + '\n{"prompt": "a"}'), ["d.jsonl, row 2: no column 'response'"]),
    "empty response": (file_with('{"prompt": "a", "response": ""}'), ["d.jsonl, row 1: 'response' is empty", "hint:"]),
    "non-string": (
        file_with('{"prompt": ["a"], "response": "b"}'),
        ["d.jsonl, row 1: 'prompt' is list ['a'], not text"],
    ),
    "prompt too long": (
        file_with(json.dumps({"prompt": "hello " * 200, "response": "b"})),
        [
            "d.jsonl: no example is left: 1 whose prompt fills the 128 tokens of context",
            "d.jsonl, row 1:",
            "hint: use --truncation keep-end",
        ],
    ),
    "all dropped": (
        lambda folder: {**file_with(json.dumps({"text": "hello " * 200}))(folder), "--truncation": "drop"},
        ["no example is left: 1 longer than 128 tokens", "hint:"],
    ),
    "unknown model": (options(model="nobody/no-such-model"), ["nobody/no-such-model: could not be loaded", "hint:"]),
    "missing model folder": (options(model="./no/such/folder"), ["./no/such/folder: no such model folder", "hint:"]),
    "folder without model": (empty_folder, ["empty: a folder without a model", "hint:"]),
    "pickled weights": (pickled_model, ["pickled: no weights in safetensors format", "hint:"]),
    "tokenizer without eos": (no_eos, ["the tokenizer has no EOS token", "hint:"]),
    "negative weight": (options(prompt_weight="-0.5"), ["--prompt-weight is -0.5; a weight is a finite number >= 0"]),
    "NaN weight": (options(response_weight="nan"), ["--response-weight is nan"]),
    "infinite weight": (options(response_weight="inf"), ["--response-weight is inf"]),
    "tiny weight": (options(prompt_weight="1e-9"), ["--prompt-weight is 1e-09", "hint:"]),
    "all weights zero": (options(prompt_weight=0, response_weight=0), ["all weights are zero", "hint:"]),
    "output of another run": (other_run, ["holds another run", "hint:", "--overwrite"]),
    "output that is no run": (no_run, ["is not empty and holds no run", "hint:"]),
    "too long for the model": (options(max_length=4096), ["--max-length 4096: the model takes 2 to 128 tokens"]),
    "batch of nothing": (options(batch_size=0), ["--batch-size is 0; it must be greater than 0"]),
    "seed below 0": (options(seed=-1), ["--seed is -1; it must be at least 0"]),
    "seed too large": (options(seed=2**32), ["--seed is 4294967296; it must be less than 4294967296"]),
    "limit of nothing": (options(limit=0), ["--limit is 0; it must be at least 1"]),
    "NaN option": (options(weight_decay="nan"), ["--weight-decay is nan; it must be a finite number"]),
    "steps of nothing": (options(max_steps=0), ["--max-steps is 0; it must be -1"]),
    "half a character": (
        file_with('{"prompt": "a\\ud800", "response": "b"}'),
        ["row 1: 'prompt' holds half of a surrogate pair", "hint:"],
    ),
    "unknown template": (options(template="vicuna"), ["unknown template 'vicuna'; known: auto, chat, plain"]),
    "missing config": (options(config="none.yaml"), ["--config none.yaml: No such file"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = BAD[name]
    given = {
        "--model": model_folder,
        "--data": write_jsonl(tmp_path / "good.jsonl", [GOOD] * 4),
        "--output": tmp_path / "run",
    } | make(tmp_path)
    before = sorted(p.name for p in (tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else None
    code = run("tune", *(f"{key}={value}" for key, value in given.items()))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    for part in expected:
        assert part in err
    after = sorted(p.name for p in (tmp_path / "run").iterdir()) if (tmp_path / "run").exists() else None
    assert after == before


def test_overwrite_deletes_runs_and_nothing_that_is_read(
    model_folder: Path,
    chat_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "run"

    def again(**changes: Any) -> int:
        given = {"model": model_folder, "data": chat_file, "output": output, "max_steps": 1} | changes
        return run("tune", "--overwrite", *(f"--{key.replace('_', '-')}={value}" for key, value in given.items()))

    assert again() == 0
    inside = output / "more.jsonl"
    inside.write_bytes(chat_file.read_bytes())
    assert again(data=inside) == 2
    assert f"--overwrite would delete --data {inside}" in capsys.readouterr().err
    assert again(model=output) == 2
    assert "would delete --model" in capsys.readouterr().err
    monkeypatch.chdir(output)
    assert again() == 2
    assert "would delete the current directory" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert inside.exists()
    assert again() == 0
    assert not inside.exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    assert again(output=foreign) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert again(output=foreign.with_name("new")) == 0


def test_one_process_at_a_time(model_folder: Path, chat_file: Path, tmp_path: Path) -> None:
    arguments = [
        "tune",
        "--model",
        str(model_folder),
        "--data",
        str(chat_file),
        "--output",
        str(tmp_path / "run"),
        "--max-steps",
        "1",
    ]
    (tmp_path / "run").mkdir()
    other = [sys.executable, "-m", "holdfast.cli", *arguments]
    with runs.locked(tmp_path / "run"):
        made = subprocess.run(other, capture_output=True, text=True)
    assert made.returncode == 2
    assert "another process is at work" in made.stderr
    assert not (tmp_path / "run" / "config.json").exists()
    assert subprocess.run(other, capture_output=True).returncode == 0


def test_a_broken_model_is_not_a_success(chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    make_tokenizer().save_pretrained(tmp_path / "broken")
    for command in ("tune", "weigh"):
        assert run(command, "--model", tmp_path / "broken", "--data", chat_file, "--output", tmp_path / command) == 2
        assert not (tmp_path / command / "summary.json").exists()
    err = capsys.readouterr().err
    assert "the loss is nan at step 0" in err
    assert "logits hold NaN" in err or "not finite" in err


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "a.json", {"a": [float("nan"), {"b": float("inf")}, (1.5,)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, {"b": None}, [1.5]]}


def test_help_into_a_pipe_that_closes() -> None:
    made = subprocess.run(
        f"{sys.executable} -m holdfast.cli --help | head -1", shell=True, capture_output=True, text=True
    )
    assert made.stdout.startswith("usage: holdfast")
    assert made.stderr == ""


def test_unknown_option_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "--model", "m", "--data", "d", "--output", "o", "--promt-weight", 1) == 2
    assert "--prompt-weight" in capsys.readouterr().err
    assert run("tuen") == 2
    assert "did you mean 'tune'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("promt_weight: 1\n", "unknown key 'promt_weight'\n  hint: did you mean 'prompt_weight'?"),
        ("prompt_weight: heavy\n", "'prompt_weight' is 'heavy'"),
        ("weights: [1, 2]\n", "'weights' is [1, 2]"),
        ("weights:\n- user: 1\n", "hint: below 'weights:' belong indented lines 'name: value', without '- '"),
        ("- a\n", "not a list of 'option: value' lines\n  hint: leave out the '- ' before each line"),
        ("epochs:3\n", "hint: a space belongs behind the colon: 'epochs: 3'"),
        (
            "lr: 2\nepochs:3\nseed: 1\n",
            "line 2, column 8: broken YAML: no space behind the colon\n    epochs:3\n           ^\n  hint: write 'epo",
        ),
        ("epochs:3\nlr: 2\n", "line 1, column 8: broken YAML: no space behind the colon"),
        (
            "weights:\n\tuser: 1\n",
            "line 2, column 1: broken YAML: a tab\n     user: 1\n    ^\n  hint: indent",
        ),
        ("lr: 2\ndata: 'a.jsonl\n", "line 2, column 7: broken YAML: the quote ' is never closed"),
        ("stop: [a, b\nlr: 2\n", "line 1, column 7: broken YAML: the bracket [ is not closed with ]"),
        ("weights: {user: 1\nlr: 2\n", "line 1, column 10: broken YAML: the bracket { is not closed with }"),
        ("lr: 1\nlr: 2\n", "line 2, column 1: broken YAML: 'lr' is there twice"),
        ("lr: 1\nmodel\nseed: 1\n", "line 2, column 1: broken YAML: no colon behind 'model'"),
        ("system: a: b\n", "hint: put the value into quotes"),
        ("lr: 1\n seed: 2\n", "hint: lines of one level begin in the same column"),
        ("weights:\n  user: 1\n eos: 1\n", "hint: lines of one level begin in the same column"),
        ("model: @me\n", "hint: put the value into quotes"),
        ('model: "C:\\Users"\n', "hint: single quotes leave a backslash as it is"),
        ("a: [\n", "broken YAML"),
        ("model: 2020-13-45\n", "broken YAML: month must be in 1..12"),
        ("[" * 3000, "broken YAML: maximum recursion depth"),
        ("model: pocket\ndata: pocket:instructions\noutput: o\ntraining: {learning_rate: 1}\n", "use --learning-rate"),
        (
            "model: pocket\ndata: pocket:instructions\noutput: o\ntraining: {lr_scheduler_type: linear}\n",
            "use --schedule",
        ),
        (
            "model: pocket\ndata: pocket:instructions\noutput: o\ntraining: {remove_unused_columns: true}\n",
            "cannot be changed",
        ),
    ],
)
def test_bad_config_file(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert run("tune", "--config", tmp_path / "c.yaml") == 2
    assert expected in capsys.readouterr().err


def test_skip_bad_rows_counts_and_lists(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text((json.dumps(GOOD) + "\n") * 5 + '{"prompt": "a", "response": ""}\n{"broken\n')
    arguments = [
        "--model",
        model_folder,
        "--data",
        data,
        "--output",
        tmp_path / "run",
        "--skip-bad-rows",
        "--max-steps",
        1,
        "--json",
    ]
    assert run("tune", *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bad_rows"]["count"] == 2
    assert summary["train_examples"] + summary["eval_examples"] == 5
    assert [line.split(": ")[0].split(", ")[-1] for line in summary["bad_rows"]["first"]] == ["row 7", "row 6"]


def test_twin_warning(model_folder: Path, chat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--model",
        model_folder,
        "--data",
        chat_file,
        "--output",
        tmp_path / "run",
        "--dry-run",
        "--response-weight",
        "0.4",
    ]
    run("tune", *arguments, "--max-grad-norm", "0")
    assert "scaled copy of 'conventional'" in capsys.readouterr().err
    run("tune", *arguments, "--max-grad-norm", "1")
    assert "scaled copy" not in capsys.readouterr().err
