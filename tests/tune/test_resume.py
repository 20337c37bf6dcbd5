"""A run that is killed ends, by the same command, as the one left alone: weights bit for bit, rows and summary apart
from times.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import AlignConfig, TuneConfig
from holdfast.runs import RunDir
from holdfast.tune import train
from materials import write_jsonl

TIMES = {"seconds", "tokens_per_second"}


class Killed(BaseException):
    """What ends a run in these tests: nothing catches it, and nothing is written after it."""


def tune_config(model: Path, data: Path, output: Path, **changes: Any) -> TuneConfig:
    settings: dict[str, Any] = {
        "learning_rate": 5e-3,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": 8,
        "save_steps": 2,
        "log_steps": 3,
    }
    return TuneConfig(model=str(model), data=str(data), output=str(output), **settings | changes)


def align_config(model: Path, data: Path, output: Path, **changes: Any) -> AlignConfig:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": 8,
        "save_steps": 2,
        "log_steps": 3,
    }
    return AlignConfig(model=str(model), data=str(data), output=str(output), **settings | changes)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outcome(output: Path) -> dict[str, Any]:
    """Everything that a run leaves and that must not depend on when it was interrupted."""
    summary = (output / "summary.json").read_text().replace(str(output), "RUN")
    files = sorted((output / "model").glob("*.safetensors"))
    return {
        "rows": [without_times(json.loads(line)) for line in (output / "rows.jsonl").read_text().splitlines()],
        "summary": without_times(json.loads(summary)),
        "card": (output / "model" / "README.md").read_text(),
        "weights": {file.name: file.read_bytes() for file in files},
    }


def check_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Small things first, so that a failure is readable."""
    for key in ("rows", "summary", "card"):
        assert ours[key] == theirs[key], key
    assert theirs["weights"]
    assert ours["weights"] == theirs["weights"]


@contextmanager
def killed_at_row(number: int) -> Iterator[None]:
    """The process ends when it is about to write its row ``number``."""
    append, count = RunDir.append, 0

    def dying(self: RunDir, row: dict[str, Any]) -> None:
        nonlocal count
        if count == number:
            raise Killed
        count += 1
        append(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "append", dying)
        yield


@contextmanager
def killed_at(owner: Any, name: str) -> Iterator[None]:
    def dying(*_: Any, **__: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        yield


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Add {n} and {n % 7}."},
                {"role": "assistant", "content": " ".join(["so"] * (n % 5) + [str(n)])},
            ]
        }
        for n in range(200)
    ]
    return write_jsonl(tmp_path_factory.mktemp("chats") / "chats.jsonl", rows)


@pytest.fixture(scope="module")
def few_chats(chats: Path) -> Path:
    """Twenty, so that a run sees several epochs."""
    file = chats.with_name("few.jsonl")
    file.write_text("".join(chats.read_text().splitlines(keepends=True)[:20]))
    return file


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "prompt": f"Count {n}.",
            "chosen": " ".join("123456"[: n % 5 + 2]),
            "rejected": " ".join("654321"[: n % 4 + 2]),
        }
        for n in range(200)
    ]
    return write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def few_pairs(pairs: Path) -> Path:
    file = pairs.with_name("few.jsonl")
    file.write_text("".join(pairs.read_text().splitlines(keepends=True)[:20]))
    return file


def run_align(config: AlignConfig) -> dict[str, Any]:
    pytest.importorskip("trl", reason="the extra align (trl) is not installed")
    from holdfast.align import align

    return align(config)


# After the last checkpoint, before the summary


def end_twice(
    run: Callable[[Any], Any], make: Callable[..., Any], model: Path, data: Path, output: Path, **changes: Any
) -> None:
    """End a run, take away what comes after the last checkpoint, give the same command again."""
    run(make(model, data, output, **changes))
    first = outcome(output)
    for leftover in ("model", "model.partial", None):  # gone; half-written; whole, and only the summary missing
        (output / "summary.json").unlink()
        if leftover is not None:
            shutil.move(output / "model", output / "moved")
        if leftover == "model.partial":
            (output / "model.partial").mkdir()
            (output / "model.partial" / "model.safetensors").write_bytes(b"half")
        shutil.rmtree(output / "moved", ignore_errors=True)
        run(make(model, data, output, **changes))
        check_same(outcome(output), first)


@pytest.mark.parametrize(
    ("lora_rank", "changes"),
    [
        pytest.param(0, {}, id="max-steps"),
        pytest.param(2, {}, id="max-steps, LoRA"),
        pytest.param(2, {"max_steps": -1, "epochs": 0.15}, id="epochs, LoRA"),
        pytest.param(0, {"eval_share": 0}, id="no-held-out"),
        pytest.param(0, {"max_steps": -1, "epochs": 0.15}, id="epochs", marks=pytest.mark.full),
        pytest.param(2, {"eval_share": 0}, id="no-held-out, LoRA", marks=pytest.mark.full),
    ],
)
def test_a_tuning_killed_after_its_last_checkpoint(
    model_folder: Path, chats: Path, tmp_path: Path, lora_rank: int, changes: Any
) -> None:
    end_twice(train, tune_config, model_folder, chats, tmp_path / "run", lora_rank=lora_rank, **changes)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_an_alignment_killed_after_its_last_checkpoint(
    model_folder: Path, pairs: Path, tmp_path: Path, lora_rank: int
) -> None:
    end_twice(run_align, align_config, model_folder, pairs, tmp_path / "run", lora_rank=lora_rank)


# At any moment


def kill_everywhere(
    run: Callable[[Any], Any],
    make: Callable[..., Any],
    model: Path,
    data: Path,
    folder: Path,
    *,
    every: int = 1,
    **changes: Any,
) -> None:
    """``every``: a run is killed at every so-manieth row."""
    run(make(model, data, folder / "whole", **changes))
    whole = outcome(folder / "whole")
    moments: list[Any] = [killed_at_row(number) for number in range(0, len(whole["rows"]), every)]
    moments.append(killed_at(RunDir, "finish"))
    for number, moment in enumerate(moments):
        output = folder / f"killed-{number}"
        with moment, pytest.raises(Killed):
            run(make(model, data, output, **changes))
        assert not (output / "summary.json").exists()
        run(make(model, data, output, **changes))
        check_same(outcome(output), whole)


EPOCHS = {"max_steps": -1, "epochs": 2.5, "save_steps": 2, "log_steps": 3}
AT_ENDS = {
    "max_steps": -1,
    "epochs": 2,
    "save_steps": 4,
    "log_steps": 5,
    "eval_share": 0.2,
}  # a checkpoint at the end of each epoch
BETWEEN = {"max_steps": 7, "save_steps": 3, "eval_steps": 2, "log_steps": 2}
MOMENTS = [
    pytest.param(AT_ENDS, id="at-ends"),
    pytest.param(EPOCHS, id="epochs", marks=pytest.mark.full),
    pytest.param(BETWEEN, id="between", marks=pytest.mark.full),
]


def as_full(moments: Any) -> Any:
    """The same in the long suite alone."""
    return pytest.param(*moments.values, id=moments.id, marks=pytest.mark.full)


@pytest.mark.parametrize("changes", MOMENTS)
def test_a_tuning_killed_at_any_moment(
    model_folder: Path, few_chats: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = {
        "lora_rank": 2,
        "lora_dropout": 0.3,
        "learning_rate": 2e-2,
    } | changes  # dropout: random numbers must go on where they were
    kill_everywhere(train, tune_config, model_folder, few_chats, tmp_path, **settings)


@pytest.mark.parametrize("changes", [pytest.param(AT_ENDS | {"every": 2}, id="every second"), *map(as_full, MOMENTS)])
def test_an_alignment_killed_at_any_moment(
    model_folder: Path, few_pairs: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    kill_everywhere(
        run_align, align_config, model_folder, few_pairs, tmp_path, lora_rank=2, lora_dropout=0.3, **changes
    )


def test_tokens_are_counted_on(model_folder: Path, pairs: Path, tmp_path: Path) -> None:
    """TRL's ``num_tokens`` and the ``tokens`` of ``tune`` never fall."""
    for run, make, column in ((train, tune_config, "tokens"), (run_align, align_config, "num_tokens")):
        output = tmp_path / column
        data = (
            pairs
            if make is align_config
            else write_jsonl(tmp_path / "p.jsonl", [{"prompt": f"Say {n}.", "response": "a b"} for n in range(40)])
        )
        with killed_at_row(5), pytest.raises(Killed):
            run(make(model_folder, data, output, log_steps=1))
        run(make(model_folder, data, output, log_steps=1))
        rows = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
        counts = [row[column] for row in rows if row["kind"] == "train"]
        assert len(counts) == 8
        assert counts == sorted(counts)
        assert counts[0] > 0
