"""A finished run directory of every command, and unfinished ones, as a user of this version has them on disk. See
``make_golden.py``.

Every path in them is relative to the folder in which ``inputs`` and ``runs`` lie. What a crash would have left of an
unfinished run is made by an interruption: of `tune` at its third step, of a study as it begins its fourth job.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from golden_case import RUNS, call, dump, prepare

TUNE = (
    "tune --model inputs/model --data inputs/chat.jsonl --eval-share 0.2 --batch-size 8 --micro-batch-size 4"
    " --learning-rate 0.01"
)
SOURCES = "pocket:tasks/colour_of,pocket:tasks/opposite,pocket:tasks/plural,pocket:tasks/topic"
MEASURE = "sensitivity run --sets runs/variants --max-new-tokens 4 --bootstrap 200"
BENCH = "bench run --tasks my_sums --data-dir inputs/bench --template none"
LINES = {
    "tune": f"{TUNE} --max-steps 4 --log-steps 1 --prompt-weight 0.2 --response-weight 0.8 --training adam_beta2 0.98 "
    "--output runs/tune",
    "tune-lora": f"{TUNE} --max-steps 3 --log-steps 1 --lora-rank 2 --preset continual --output runs/tune-lora",
    "weigh": "weigh --model inputs/model --reference runs/tune --data inputs/chat.jsonl --output runs/weigh",
    "align": "align --model runs/tune --data inputs/pairs.jsonl --eval-share 0.5 --batch-size 4 --max-steps 2 "
    "--log-steps 1"
    " --output runs/align",
    "variants": "sensitivity variants --prompts inputs/prompts.jsonl --variants spelling,casing --per-kind 2 --output "
    "runs/variants",
    "sensitivity": f"{MEASURE} --model inputs/model --output runs/sensitivity",
    "sensitivity-tuned": f"{MEASURE} --model runs/tune --output runs/sensitivity-tuned",
    "compare": "sensitivity compare runs/sensitivity runs/sensitivity-tuned --bootstrap 200 --output runs/compare",
    "check": "sensitivity check runs/sensitivity-tuned --baseline runs/sensitivity --max-increase 10 --bootstrap 200 "
    "--output runs/check",
    "crosstask": f"crosstask run --model inputs/model --sources {SOURCES} --target pocket:tasks/sentiment --limit 4 "
    "--pool-limit 20"
    " --states --dev-items 2 --output runs/crosstask",
    "analyse": "crosstask analyse --run runs/crosstask --permutations 200 --output runs/analyse",
    "label": f"crosstask label --model inputs/model --sources {SOURCES} --target pocket:tasks/sentiment --limit 6 "
    "--pool-limit 20"
    " --output runs/label",
    "bench": f"{BENCH} --model inputs/model --output runs/bench",
    "bench-tuned": f"{BENCH} --model runs/tune --output runs/bench-tuned",
    "bench-compare": "bench compare runs/bench runs/bench-tuned --bootstrap 200 --output runs/bench-compare",
    "study": "study run inputs/tiny.yaml --slots 2 --output runs/study",
    "best": "study best runs/study --output runs/best",
    "best-table": "study best inputs/results.csv --metric accuracy --output runs/best-table",
    "demo": "demo --limit 16 --output runs/demo",
}
UNFINISHED = {
    "tune-unfinished": f"{TUNE} --max-steps 4 --log-steps 1 --save-steps 2 --output runs/tune-unfinished",
    "study-unfinished": "study run inputs/tiny.yaml --slots 2 --output runs/study-unfinished",
}
OLD = {"tune-old": f"{TUNE} --max-steps 3 --log-steps 1 --batching padded --output runs/tune-old"}
"""A run of the version that had no --batching: it padded."""
# Not needed to open a run again: locks, logs (times and places of this machine), and of the demo seven models of 5 MB
# each and pages.
PRUNED = (
    ".lock",
    "logs",
    "demo/trials/*/model",
    "demo/*/*/posix-*",
    "demo/*/*/answers-*",
    "demo/data/sets-*",
    "demo/report.html",
    "tune-old/model",
    "*/cache-*",
)


def record(names: set[str]) -> None:
    """Make all of them anew."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        os.mkdir("runs")
        for line in (LINES | OLD).values():
            answer = call(line)
            assert answer.exit_code == 0, (line, answer.err)
        interrupt_tune(UNFINISHED["tune-unfinished"])
        interrupt_study(UNFINISHED["study-unfinished"])
        forget("runs/tune-old", "batching")
        for pattern in PRUNED:
            for path in [
                *Path("runs").glob(pattern),
                *Path("runs").glob(f"*/{pattern}"),
                *Path("runs").glob(f"*/trials/*/{pattern}"),
            ]:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        Path("runs/commands.json").write_text(dump(LINES | UNFINISHED | OLD), encoding="utf-8")
        for entry in RUNS.iterdir() if RUNS.is_dir() else ():
            if entry.name != "README.md":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree("runs", RUNS, dirs_exist_ok=True)


def interrupt_tune(line: str) -> None:
    """As a crash at the third step leaves it, with the checkpoint of the second."""
    from holdfast.runs import RunDir

    append = RunDir.append

    def do(run: RunDir, row: dict[str, Any]) -> None:
        if row["kind"] == "train" and row["step"] == 3:
            raise KeyboardInterrupt
        append(run, row)

    with mock.patch.object(RunDir, "append", do):
        assert call(line).exit_code == 130


def interrupt_study(line: str) -> None:
    """As a crash leaves it when the base model and two of four trials are done."""
    import study_case
    from holdfast.study.trial import perform

    jobs = [perform] * 3

    def do(*given: Any) -> Any:
        if not jobs:
            raise KeyboardInterrupt
        return jobs.pop()(*given)

    with (
        mock.patch("holdfast.study.pipeline.open_pool", lambda _, study: study_case.HerePool(study)),
        mock.patch("study_case.perform", do),
    ):
        assert call(line).exit_code == 130


def forget(run: str, key: str) -> None:
    """Make a run directory one of a version that did not have this option."""
    file = Path(run, "config.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["config"][key]
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
