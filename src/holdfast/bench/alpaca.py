"""AlpacaEval 1.0: our answers and the reference's through the installed ``alpaca_eval`` package, with the user's judge.

OUTPUT/alpaca_eval/outputs.json       instruction, output, generator, dataset: what `alpaca_eval --model_outputs` reads
OUTPUT/alpaca_eval/reference.json     the same of text-davinci-003, from the question file
OUTPUT/alpaca_eval/judge-NAME/        the package's own cache of verdicts, from which it goes on

The package runs in a process of its own, because it reads its settings from the environment when it is imported, and so
that it may live in an environment of its own (--judge-python). Its prompt, parser and randomised order are used as they
are (annotator ``alpaca_eval_gpt4``).
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

_FIND = "import importlib.util as u, sys; sys.exit(u.find_spec('alpaca_eval') is None)"
_GAVE_UP = "Max retries reached"
"""What the package logs for a question that its judge has not answered."""
_DRIVER = Path(__file__).with_name("alpaca_driver.py")


def write_answers(questions: Sequence[Question], answers: Answers, folder: Path, generator: str) -> Path:
    """``outputs.json``, and ``reference.json`` where the question file holds reference answers."""
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
    """The package and reference answers are there, or an error that says where they come from."""
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
    """Question -> {"win_rate": 0, 0.5 or 1}; a question whose verdict the package could not read is absent.

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
        [_python(config), str(_DRIVER)], input=json.dumps(order), text=True, capture_output=True, env=_environment(config), check=False
    )  # fmt: skip
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise HoldfastError(f"AlpacaEval's judge failed: {last.strip()}", hint=_kept(folder))
    silent = done.stderr.count(_GAVE_UP)
    if silent:  # after ten refusals the package takes a judge for one that has said nothing
        raise HoldfastError(
            f"AlpacaEval's judge did not answer {silent} of {len(questions)} questions", hint=_kept(folder)
        )
    return _read(questions, read_json(judge / "verdicts.json"))


def _kept(folder: Path) -> str:
    return f"answers and verdicts so far are kept in {folder}; the same command asks for the rest only"


def _python(config: BenchConfig) -> str:
    return config.judge_python or sys.executable


def _read(questions: Sequence[Question], annotations: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The package's preference is 1 for the reference, 2 for us, 1.5 for a draw."""
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
