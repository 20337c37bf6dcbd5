"""Answers to open-ended questions -> one row per question, with the verdicts of the user's judge where there is one.

AlpacaEval and MT-Bench each have a file that writes the answers in the form of its package and asks the judge.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.bench import alpaca, mtbench
from holdfast.bench.openended import Answers, Question, Row
from holdfast.config import BenchConfig
from holdfast.runs import RunDir
from holdfast.tables.text import counted

_PACKAGES = {"alpaca_eval": alpaca, "mt_bench": mtbench}


def check_judge(name: str, questions: Sequence[Question], config: BenchConfig) -> None:
    """Check what the judge will need, before a model is loaded.

    Raises:
        HoldfastError: a package, a prompt file or reference answers are missing; says where they are.
    """
    if config.judge_url is not None:
        _PACKAGES[name].check(questions, config)


def judge(
    name: str, questions: Sequence[Question], answers: Answers, out: RunDir, config: BenchConfig
) -> tuple[list[Row], list[str]]:
    """Write the answers where the benchmark's package looks for them, and have them judged if there is a judge.

    Returns:
        one row per question, with scores where there are any, and notes for the reader.
    """
    package = _PACKAGES[name]
    file = package.write_answers(questions, answers, out.path / name, config.model)
    rows = [_row(name, question, answers[question.id]) for question in questions]
    if config.judge_url is None:
        return rows, [f"{name}: {counted(len(rows), 'answer')} in {file}; no --judge-url, so no score"]
    verdicts = package.verdicts(questions, answers, out.path / name, config)
    for row in rows:
        row["scores"] = verdicts.get(row["item"], {})
    unread = sum(map(_is_unread, rows))
    note = (
        f"{name}: {unread} of {counted(len(rows), 'question')} have a verdict that could not be read; it is not counted"
    )
    return rows, [note] if unread else []


def _row(name: str, question: Question, turns: Sequence[str]) -> Row:
    return {
        "kind": "item",
        "task": name,
        "item": question.id,
        "prompt": "\n".join(question.turns),
        "answer": "\n".join(turns),
        "turns": list(turns),
        "hash": question.digest,
        "version": "",
        "shots": 0,
        "scores": {},
    }


def _is_unread(row: Row) -> bool:
    """Return whether a verdict is missing: that of AlpacaEval, or of a turn of MT-Bench."""
    return len(row["scores"].get("rating", ())) < len(row["turns"]) if row["task"] == "mt_bench" else not row["scores"]
