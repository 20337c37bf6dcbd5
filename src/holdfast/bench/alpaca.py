"""AlpacaEval 1.0: answers -> verdicts of the user's judge against reference answers, by the ``alpaca_eval`` package.

OUTPUT/alpaca_eval/outputs.json       instruction, output, generator, dataset, as `alpaca_eval --model_outputs` reads it
OUTPUT/alpaca_eval/reference.json     the same of text-davinci-003, from the question file
OUTPUT/alpaca_eval/judge-NAME/        the package's own cache of verdicts, from which it goes on

The package runs in a process of its own, because it reads its settings from environment variables when it is imported,
and because it may be installed in another environment (--judge-python). Its prompt, parser and randomised order
(annotator ``alpaca_eval_gpt4``) are used unchanged.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import http
from holdfast.bench.openended import Answers, Question, file_name
from holdfast.config import BenchConfig
from holdfast.errors import HoldfastError
from holdfast.runs import read_json, write_json
from holdfast.tables.text import counted

_FIND = "import importlib.util as u, sys; sys.exit(u.find_spec('alpaca_eval') is None)"
_GAVE_UP = "Max retries reached"
"""The package's log line for a question that its judge has not answered."""
_DRIVER = Path(__file__).with_name("alpaca_driver.py")


def write_answers(questions: Sequence[Question], answers: Answers, folder: Path, generator: str) -> Path:
    """Write ``outputs.json``, and ``reference.json`` if the questions have reference answers; return the first."""
    outputs = [
        {
            "instruction": q.turns[0],
            "output": answers[q.id][0],
            "generator": generator,
            "dataset": q.row.get("dataset", ""),
        }
        for q in questions
    ]
    write_json(folder / "outputs.json", outputs)
    if all("output" in q.row for q in questions):
        write_json(folder / "reference.json", [{"dataset": ""} | q.row for q in questions])
    return folder / "outputs.json"


def check(questions: Sequence[Question], config: BenchConfig) -> None:
    """Check that the package and reference answers are there; the error says where they come from."""
    if not all("output" in q.row for q in questions):
        raise HoldfastError(
            "AlpacaEval compares with reference answers, and the question file has no 'output' column",
            hint="use alpaca_eval.json of the hub's tatsu-lab/alpaca_eval",
        )
    try:
        installed = subprocess.run([_python(config), "-c", _FIND], check=False, capture_output=True).returncode == 0
    except OSError as error:
        raise HoldfastError(f"--judge-python {config.judge_python}: {error.strerror}") from error
    if not installed:
        raise HoldfastError(
            f"AlpacaEval's judge needs the package alpaca_eval, which {_python(config)} has not",
            hint='pip install "holdfast[alpacaeval]", or --judge-python with an environment that has it',
        )


def verdicts(
    questions: Sequence[Question], answers: Answers, folder: Path, config: BenchConfig
) -> dict[str, dict[str, float]]:
    """Return question -> {"win_rate": 0, 0.5 or 1}, without questions whose verdict the package could not read.

    Raises:
        HoldfastError: the judge failed; what it judged is kept, in chunks of 16.
    """
    judge = folder / f"judge-{file_name(str(config.judge_model))}"
    judge.mkdir(exist_ok=True)
    order = {
        "folder": str(folder.resolve()), "judge": str(judge.resolve()), "model": config.judge_model,
        "timeout": config.judge_timeout, "retries": config.judge_retries,
    }  # fmt: skip
    done = subprocess.run(
        [_python(config), str(_DRIVER)],
        input=json.dumps(order),
        env=_environment(config),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise HoldfastError(f"AlpacaEval's judge failed: {last.strip()}", hint=_kept(folder))
    silent = done.stderr.count(_GAVE_UP)
    if silent:  # after ten retries the package goes on as if the judge had given no verdict
        raise HoldfastError(
            f"AlpacaEval's judge did not answer {silent} of {counted(len(questions), 'question')}", hint=_kept(folder)
        )
    return _read(questions, read_json(judge / "verdicts.json"))


def _kept(folder: Path) -> str:
    return f"answers and verdicts so far are kept in {folder}; the same command asks for the rest only"


def _python(config: BenchConfig) -> str:
    return config.judge_python or sys.executable


def _read(questions: Sequence[Question], annotations: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return preferences as win rates: 1 (the reference is better) is 0, 1.5 (a draw) is 0.5, and 2 is 1."""
    by_text = {row["instruction"]: row.get("preference") for row in annotations}
    wins = {q.id: by_text.get(q.turns[0]) for q in questions}
    return {i: {"win_rate": float(p) - 1.0} for i, p in wins.items() if p is not None and not math.isnan(p)}


def _environment(config: BenchConfig) -> dict[str, str]:
    own = {
        "IS_ALPACA_EVAL_2": "False",
        "OPENAI_API_BASE": config.judge_url or "",
        "OPENAI_API_KEY": http.api_key("OPENAI_API_KEY") or "none",
        "OPENAI_MAX_CONCURRENCY": str(config.judge_concurrency),
        "OPENAI_CLIENT_CONFIG_PATH": os.devnull,
    }
    return os.environ | own
