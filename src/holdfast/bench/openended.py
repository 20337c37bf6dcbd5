"""Open-ended benchmarks: questions -> the model's greedy answers, which ``judges`` has judged.

Every batch of answers is written as it comes, so that a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.bench.local import read_rows
from holdfast.config import BenchConfig
from holdfast.data.chat_template import generation_prompt
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from holdfast.progress import Progress
from holdfast.records import Message, Role
from holdfast.runs import RunDir, kept_rows

Row = dict[str, Any]
Answers = dict[str, list[str]]
MT_BENCH_SOURCE = "https://raw.githubusercontent.com/lm-sys/FastChat/main/fastchat/llm_judge/data"
_ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Question:
    """One question of one or two turns, and the row that it came from."""

    id: str
    turns: tuple[str, ...]
    row: Row = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """Return a digest of the turns."""
        return hashlib.sha256(json.dumps(self.turns).encode()).hexdigest()


def read(name: str, config: BenchConfig) -> list[Question]:
    """Return the questions of ``alpaca_eval`` or ``mt_bench`` from --data-dir, or those of AlpacaEval from the hub.

    Raises:
        HoldfastError: they are not there, or their rows have another form.
    """
    rows, place = _alpaca_rows(config) if name == "alpaca_eval" else _mt_rows(config)
    questions = []
    for number, row in enumerate(rows[: config.limit], 1):
        turns = (row.get("instruction"),) if name == "alpaca_eval" else row.get("turns")
        if (
            not turns
            or not isinstance(turns, list | tuple)
            or not all(isinstance(turn, str) and turn for turn in turns)
        ):
            wanted = "'instruction'" if name == "alpaca_eval" else "'turns'"
            raise HoldfastError(f"{place}, row {number}: no {wanted}")
        questions.append(Question(str(row.get("question_id", number)), tuple(turns), row))
    return questions


def answer(
    name: str, questions: Sequence[Question], lm: LM, template: str, out: RunDir, config: BenchConfig, sha: str
) -> Answers:
    """Return greedy answers to every turn; the second turn sees the first and its answer.

    Questions with an answer on file are not asked again. A prompt that leaves no room for an answer in the model's
    context gets an empty one.
    """
    file = out.path / name / f"answers-{sha[:12]}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    answers: Answers = {row["id"]: row["turns"] for row in kept_rows(file)}
    length = min(config.max_new_tokens or _ANSWER_TOKENS, lm.context // 2)
    left = [q for q in questions if q.id not in answers]
    progress = Progress("question", len(left), doing=name)
    for start in range(0, len(left), config.batch_size):
        batch = left[start : start + config.batch_size]
        answered: list[list[str]] = [[] for _ in batch]
        for turn in range(max(len(q.turns) for q in batch)):
            asked = [i for i, q in enumerate(batch) if turn < len(q.turns)]
            prompts = [_prompt(batch[i], answered[i], template, lm.tokenizer) for i in asked]
            for i, text in zip(asked, _fitting(lm, prompts, length, config.batch_size), strict=True):
                answered[i].append(text)
        with file.open("a", encoding="utf-8") as opened:
            opened.writelines(
                json.dumps({"id": q.id, "turns": turns}, ensure_ascii=False) + "\n" for q, turns in zip(batch, answered)
            )
        answers |= {q.id: turns for q, turns in zip(batch, answered)}
        progress.add(len(batch))
    progress.close()
    return {q.id: answers[q.id] for q in questions}


def first_prompt(questions: Sequence[Question], template: str, tokenizer: Any) -> str:
    """Return the first prompt that the model will see."""
    return _prompt(questions[0], [], template, tokenizer)


def _prompt(question: Question, answered: Sequence[str], template: str, tokenizer: Any) -> str:
    messages = []
    for turn, text in enumerate(question.turns[: len(answered) + 1]):
        messages.append(Message(Role.USER, text))
        if turn < len(answered):
            messages.append(Message(Role.ASSISTANT, answered[turn]))
    name = "dialogue" if template == "none" and len(messages) > 1 else "plain" if template == "none" else template
    return generation_prompt(messages, name, tokenizer)


def _fitting(lm: LM, prompts: Sequence[str], length: int, batch_size: int) -> list[str]:
    sizes = [len(ids) for ids in lm.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]
    fits = [i for i, size in enumerate(sizes) if size + length <= lm.context]
    texts = lm.generate([prompts[i] for i in fits], max_new_tokens=length, batch_size=batch_size) if fits else []
    answers = dict(zip(fits, texts, strict=True))
    return [answers.get(i, "") for i in range(len(prompts))]


def _alpaca_rows(config: BenchConfig) -> tuple[list[Row], Path]:
    folder = Path(config.data_dir or "") / "alpaca_eval"
    files = sorted([*folder.glob("*.json"), *folder.glob("*.jsonl")]) if config.data_dir else []
    if config.data_dir and not files:
        raise HoldfastError(
            f"--data-dir {config.data_dir}: no alpaca_eval/*.json",
            hint="alpaca_eval.json of the hub's tatsu-lab/alpaca_eval: rows of instruction, output, generator, dataset",
        )
    path = files[0] if files else _from_hub("tatsu-lab/alpaca_eval", "alpaca_eval.json")
    return read_rows(path), path


def _mt_rows(config: BenchConfig) -> tuple[list[Row], Path]:
    folder = Path(config.data_dir or "") / "mt_bench"
    named = [folder / name for name in ("question.jsonl", "mt_bench.jsonl")]
    path = next((p for p in named if config.data_dir and p.is_file()), None)
    if path is None:
        raise HoldfastError(
            "MT-Bench needs --data-dir with mt_bench/question.jsonl"
            + (f"; {folder} has none" if config.data_dir else ""),
            hint=f"curl --create-dirs -o DATA/mt_bench/question.jsonl {MT_BENCH_SOURCE}/mt_bench/question.jsonl",
        )
    return read_rows(path), path


def _from_hub(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except Exception as error:  # offline, refused, gone: the hub's own classes are many
        raise HoldfastError(
            f"{file} of {repository} cannot be fetched ({type(error).__name__})",
            hint=f"or --data-dir DATA with DATA/alpaca_eval/{file}",
        ) from error


def file_name(model: str) -> str:
    """Return a model's name as part of a path."""
    return re.sub(r"[^\w.-]+", "__", model).strip("_") or "model"
