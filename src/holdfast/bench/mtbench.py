"""MT-Bench: answers -> grades from 1 to 10 by the user's judge, with FastChat's prompts from --data-dir.

OUTPUT/mt_bench/model_answer/MODEL.jsonl             choices[0].turns, as FastChat's llm_judge reads them
OUTPUT/mt_bench/model_judgment/JUDGE_single.jsonl    one line per question and turn, as its show_result.py reads them

FastChat's own gen_judgment is not called, because fschat 0.2.36 needs openai < 1 (AlpacaEval needs a later one), takes
only judges that its code lists, waits for a key to be pressed, ships neither prompts nor reference answers, and records
an unreachable judge as a grade of -1.

Its rules are kept: temperature 0, 2048 tokens, the four single-answer prompts, and references for math, reasoning and
coding. The grade is read from [[N]], else from [N]; one that cannot be read is recorded as -1 and left out of means.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import http
from holdfast.bench.local import read_rows
from holdfast.bench.openended import MT_BENCH_SOURCE, Answers, Question, file_name
from holdfast.chat import Chat
from holdfast.config import BenchConfig
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.runs import kept_rows, write_text

_WITH_REFERENCE = ("math", "reasoning", "coding")
_GRADES = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
Job = tuple[Question, int]


def write_answers(questions: Sequence[Question], answers: Answers, folder: Path, generator: str) -> Path:
    """Write ``model_answer/MODEL.jsonl`` and return its path."""
    file = folder / "model_answer" / f"{file_name(generator)}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question_id": _number(q.id), "model_id": generator, "choices": [{"index": 0, "turns": answers[q.id]}]}
        for q in questions
    ]  # fmt: skip
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


def check(questions: Sequence[Question], config: BenchConfig) -> None:
    """Check that prompts and reference answers are there; the error says where they come from."""
    _prompts(config)
    _references(config, questions)


def verdicts(
    questions: Sequence[Question], answers: Answers, folder: Path, config: BenchConfig
) -> dict[str, dict[str, Any]]:
    """Return question -> {"rating": its grades, "rating_turn_1", "rating_turn_2"}, without grades that cannot be read.

    Raises:
        HoldfastError: the judge failed; grades so far are kept, and are not asked for again.
    """
    prompts, references = _prompts(config), _references(config, questions)
    file = folder / "model_judgment" / f"{file_name(str(config.judge_model))}_single.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    grades = {(str(row["question_id"]), row["turn"], row["user_prompt"]): row["score"] for row in kept_rows(file)}
    asked: dict[Job, tuple[dict[str, Any], str]] = {}
    for question in questions:
        for turn in range(1, len(question.turns) + 1):
            template = prompts[_prompt_name(question, turn)]
            asked[question, turn] = (
                template,
                _fill(template, question, answers[question.id], references.get(question.id), turn),
            )
    left = [job for job, (_, prompt) in asked.items() if (job[0].id, job[1], prompt) not in grades]
    grades |= _ask(left, asked, file, config)
    by_question: dict[str, dict[str, Any]] = {}
    for (question, turn), (_, prompt) in asked.items():
        grade = grades[question.id, turn, prompt]
        if grade != -1:
            own = by_question.setdefault(question.id, {"rating": []})
            own["rating"].append(float(grade))
            own[f"rating_turn_{turn}"] = float(grade)
    return by_question


def _ask(
    jobs: Sequence[Job], asked: dict[Job, tuple[dict[str, Any], str]], file: Path, config: BenchConfig
) -> dict[tuple[str, int, str], float]:
    chat = Chat(
        str(config.judge_url),
        str(config.judge_model),
        max_tokens=2048,
        timeout=config.judge_timeout,
        retries=config.judge_retries,
    )
    grades: dict[tuple[str, int, str], float] = {}
    progress = Progress("grade", len(jobs), doing="MT-Bench")

    def judge(job: Job) -> str:
        template, prompt = asked[job]
        messages = [{"role": "system", "content": template["system_prompt"]}, {"role": "user", "content": prompt}]
        return chat.ask(messages).text

    def keep(job: Job, text: str) -> None:
        (question, turn), (template, prompt), score = job, asked[job], read_grade(text)
        row = {
            "question_id": _number(question.id), "model": config.model, "judge": [config.judge_model, template["name"]],
            "user_prompt": prompt, "judgment": text, "score": score, "turn": turn, "tstamp": time.time(),
        }  # fmt: skip
        with file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")
        grades[question.id, turn, prompt] = score
        progress.add()

    try:
        http.together(judge, jobs, config.judge_concurrency, keep)
    except HoldfastError as error:
        raise HoldfastError(
            f"MT-Bench's judge failed after {len(asked) - len(jobs) + len(grades)} of {len(asked)} grades: "
            f"{error.message.splitlines()[0]}",
            hint=f"answers and grades so far are kept in {file.parent.parent}; the same command asks for the rest only",
        ) from error
    return grades


def read_grade(text: str) -> float:
    """Return the grade in a judgment: [[N]], else [N], else -1."""
    match = next((m for pattern in _GRADES if (m := pattern.search(text))), None)
    return float(match.group(1)) if match else -1.0


def _prompt_name(question: Question, turn: int) -> str:
    kind = "math-" if question.row.get("category") in _WITH_REFERENCE else ""
    return f"single-{kind}v1" + ("-multi-turn" if turn > 1 else "")


def _fill(
    template: dict[str, Any], question: Question, turns: Sequence[str], reference: Sequence[str] | None, turn: int
) -> str:
    names: dict[str, str] = {}
    for number, text in enumerate(reference or (), 1):
        names[f"ref_answer_{number}"] = text
    if turn == 1:
        names |= {"question": question.turns[0], "answer": turns[0]}
    else:
        names |= {f"question_{n}": text for n, text in enumerate(question.turns, 1)}
        names |= {f"answer_{n}": text for n, text in enumerate(turns, 1)}
    return str(template["prompt_template"]).format(**names)


def _prompts(config: BenchConfig) -> dict[str, dict[str, Any]]:
    folder = Path(config.data_dir or "") / "mt_bench"
    file = next(
        (f for f in (folder / "judge_prompts.jsonl", folder.parent / "judge_prompts.jsonl") if f.is_file()), None
    )
    if file is None:
        raise HoldfastError(
            f"MT-Bench's judge needs FastChat's prompts, and {folder} has no judge_prompts.jsonl",
            hint=f"curl -o {folder}/judge_prompts.jsonl {MT_BENCH_SOURCE}/judge_prompts.jsonl",
        )
    prompts = {str(row.get("name")): row for row in read_rows(file)}
    needed = [f"single-{kind}v1{turn}" for kind, turn in itertools.product(("", "math-"), ("", "-multi-turn"))]
    missing = [name for name in needed if name not in prompts]
    if missing:
        raise HoldfastError(
            f"{file}: no prompt named {', '.join(missing)}",
            hint=f"the file is at {MT_BENCH_SOURCE}/judge_prompts.jsonl",
        )
    return prompts


def _references(config: BenchConfig, questions: Sequence[Question]) -> dict[str, list[str]]:
    wanted = [q for q in questions if q.row.get("category") in _WITH_REFERENCE]
    folder = Path(config.data_dir or "") / "mt_bench" / "reference_answer"
    files = sorted(folder.glob("*.jsonl"))
    try:
        references = {
            str(row["question_id"]): row["choices"][0]["turns"] for row in (read_rows(files[0]) if files else [])
        }
    except (KeyError, IndexError, TypeError) as error:
        raise HoldfastError(f"{files[0]}: not reference answers: rows of question_id and choices with turns") from error
    lacking = [q.id for q in wanted if q.id not in references]
    if lacking:
        raise HoldfastError(
            "MT-Bench's math, reasoning and coding questions are graded against reference answers; none for "
            f"{len(lacking)} in {folder}",
            hint=f"curl --create-dirs -o {folder}/gpt-4.jsonl {MT_BENCH_SOURCE}/mt_bench/reference_answer/gpt-4.jsonl",
        )
    return references


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text
