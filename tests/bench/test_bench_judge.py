"""Open-ended benchmarks over real HTTP: answers are kept, scores resume, and a judge that misbehaves is said to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.bench import run
from holdfast.bench.mtbench import read_grade
from holdfast.bench.pipeline import averages
from holdfast.bench.suites import PAPER
from holdfast.config import BenchConfig
from holdfast.errors import HoldfastError
from judge_server import Judge, judging

PYTHON = os.environ.get("HOLDFAST_JUDGE_PYTHON", sys.executable)
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write about Lily.", "Now about Tom."]},
    {"question_id": 111, "category": "math", "turns": ["What is 2 plus 3?", "And plus 4?"]},
    {"question_id": 1, "category": "generic", "turns": ["How does a bird fly?"]},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions, prompts and references in FastChat's and AlpacaEval's forms; the sentences are ours."""
    folder = tmp_path / "data"
    (folder / "mt_bench" / "reference_answer").mkdir(parents=True)
    (folder / "alpaca_eval").mkdir()
    prompts = []
    for kind, reference in (("", ""), ("math-", "Right: {ref_answer_1}. ")):
        for turn, body in (
            ("", "Q: {question} A: {answer}"),
            ("-multi-turn", "Q: {question_1} / {question_2} A: {answer_1} / {answer_2}"),
        ):
            prompts.append(
                {
                    "name": f"single-{kind}v1{turn}",
                    "system_prompt": "Grade from 1 to 10.",
                    "prompt_template": reference + body,
                }
            )
    lines(folder / "mt_bench" / "question.jsonl", QUESTIONS)
    lines(folder / "mt_bench" / "judge_prompts.jsonl", prompts)
    lines(
        folder / "mt_bench" / "reference_answer" / "gpt-4.jsonl",
        [{"question_id": 111, "choices": [{"turns": ["five", "nine"]}]}],
    )
    rows = [
        {"instruction": f"Say {n} words.", "output": "A reference.", "generator": "other", "dataset": "x"}
        for n in range(8)
    ]
    (folder / "alpaca_eval" / "alpaca_eval.json").write_text(json.dumps(rows))
    return folder


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def config(suite: str, data: Path, out: Path, judge: Judge | None = None, **more: Any) -> BenchConfig:
    asked: dict[str, Any] = {"judge_python": PYTHON}
    asked |= (
        {"judge_url": judge.url, "judge_model": "stand-in", "judge_timeout": 1.0, "judge_retries": 2} if judge else {}
    )
    return BenchConfig(
        model="pocket", suite=suite, data_dir=str(data), output=str(out), max_new_tokens=8, **(asked | more)
    )


def test_no_judge_no_score(data: Path, tmp_path: Path) -> None:
    summary = run(config("chat", data, tmp_path / "run"))
    assert [b["value"] for b in summary["benchmarks"].values()] == [None, None]
    assert all("no --judge-url, so no score" in note for note in summary["notes"])
    assert summary["averages"] == {"mean": None, "of": []}
    answers = json.loads((tmp_path / "run" / "alpaca_eval" / "outputs.json").read_text())
    assert [a["instruction"] for a in answers] == [f"Say {n} words." for n in range(8)]
    assert {"instruction", "output", "generator", "dataset"} == answers[0].keys()
    answer = json.loads((tmp_path / "run" / "mt_bench" / "model_answer" / "pocket.jsonl").read_text().splitlines()[0])
    assert answer["question_id"] == 81
    assert len(answer["choices"][0]["turns"]) == 2


def test_grades_of_both_turns(data: Path, tmp_path: Path) -> None:
    with judging(lambda prompt: "Fine. [[4]]" if " / " in prompt else "Rating: [8.5]") as judge:
        summary = run(config("mt_bench", data, tmp_path / "run", judge))
    scores = summary["scores"]["mt_bench"]
    assert scores["rating_turn_1"]["value"] == 8.5
    assert scores["rating_turn_2"]["value"] == 4
    assert scores["rating"]["value"] == pytest.approx((3 * 8.5 + 2 * 4) / 5)
    assert (scores["rating"]["n"], scores["rating"]["values"]) == (3, 5)
    assert summary["averages"]["mean"] == pytest.approx(10 * scores["rating"]["value"])
    assert sum("Right: five." in prompt for prompt in judge.asked) == 2
    kept = tmp_path / "run" / "mt_bench" / "model_judgment" / "stand-in_single.jsonl"
    assert {"question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"} == json.loads(
        kept.read_text().splitlines()[0]
    ).keys()


def test_a_judge_with_faults_is_asked_again(data: Path, tmp_path: Path) -> None:
    faults = {1: "429", 3: "drop", 5: "slow", 7: "half", 9: "503"}
    with judging(lambda _: "[[6]]", faults.get) as judge:
        summary = run(config("mt_bench", data, tmp_path / "run", judge, judge_concurrency=1))
    assert summary["scores"]["mt_bench"]["rating"] == {"value": 6.0, "low": 6.0, "high": 6.0, "n": 3, "values": 5}
    assert judge.requests == 10


def test_a_judge_may_come_later_and_another_one_grades_anew(data: Path, tmp_path: Path) -> None:
    run(config("mt_bench", data, tmp_path / "run"))
    values = []
    for grade in (3, 9):
        with judging(lambda _, grade=grade: f"[[{grade}]]") as judge:
            values.append(
                run(config("mt_bench", data, tmp_path / "run", judge, judge_model=f"judge {grade}"))["benchmarks"][
                    "mt_bench"
                ]
            )
            run(config("mt_bench", data, tmp_path / "run", judge, judge_model=f"judge {grade}"))
            assert judge.requests == 5
    assert [v["value"] for v in values] == [3, 9]


def test_nonsense_is_counted_and_left_out(data: Path, tmp_path: Path) -> None:
    with judging(lambda prompt: "I like birds." if "bird" in prompt else "[[5]]") as judge:
        summary = run(config("mt_bench", data, tmp_path / "run", judge))
    assert summary["scores"]["mt_bench"]["rating"]["values"] == 4
    assert summary["notes"] == ["mt_bench: 1 of 3 questions have a verdict that could not be read; it is not counted"]


def test_a_judge_that_dies_half_way(data: Path, tmp_path: Path) -> None:
    with judging(lambda _: "[[7]]", lambda number: "500" if number > 3 else None) as judge:
        with pytest.raises(HoldfastError, match="after 3 of 5 grades") as caught:
            run(config("mt_bench", data, tmp_path / "run", judge, judge_concurrency=1, judge_retries=0))
        assert "the same command asks for the rest only" in str(caught.value)
        port = int(judge.url.split(":")[2].split("/")[0])
        assert len(judge.asked) == 3
    assert not (tmp_path / "run" / "summary.json").exists()
    answers = (tmp_path / "run" / "mt_bench" / "model_answer" / "pocket.jsonl").read_text()
    with judging(lambda _: "[[7]]", port=port) as judge:
        summary = run(config("mt_bench", data, tmp_path / "run", judge, judge_concurrency=1, judge_retries=0))
        assert sum(judge.asked.values()) == 2
    assert summary["scores"]["mt_bench"]["rating"]["values"] == 5
    assert (tmp_path / "run" / "mt_bench" / "model_answer" / "pocket.jsonl").read_text() == answers


def test_a_judge_that_wants_to_be_paid(data: Path, tmp_path: Path) -> None:
    with judging(lambda _: "[[7]] \ud83d", lambda number: "402" if number > 2 else None) as judge:
        with pytest.raises(HoldfastError, match=r"after 2 of 5 grades: .*HTTP 402"):
            run(config("mt_bench", data, tmp_path / "run", judge))
        judge.fault = lambda _: None
        before = judge.requests
        assert run(config("mt_bench", data, tmp_path / "run", judge))["scores"]["mt_bench"]["rating"]["values"] == 5
        assert judge.requests - before == 3


def test_answers_are_not_made_twice(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    run(config("mt_bench", data, tmp_path / "run"))
    kept = next((tmp_path / "run" / "mt_bench").glob("answers-*.jsonl"))
    with kept.open("a") as file:
        file.write('{"id": "1", "tu')  # as a kill leaves it
    (tmp_path / "run" / "summary.json").unlink()
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", lambda *_, **__: pytest.fail("asked again"))
    assert run(config("mt_bench", data, tmp_path / "run"))["items"] == 3


def test_what_a_judge_needs_is_looked_for_first(data: Path, tmp_path: Path) -> None:
    with judging(lambda _: "") as judge:
        for file, says in (
            ("reference_answer/gpt-4.jsonl", "none for 1"),
            ("judge_prompts.jsonl", "no judge_prompts.jsonl"),
        ):
            (data / "mt_bench" / file).unlink()
            with pytest.raises(HoldfastError, match=says) as caught:
                run(config("mt_bench", data, tmp_path / "run", judge))
            assert "curl" in str(caught.value.hint)
        with pytest.raises(HoldfastError, match="--judge-python"):
            run(config("alpaca_eval", data, tmp_path / "run", judge, judge_python="/no/python"))
    assert judge.requests == 0
    assert not (tmp_path / "run").exists()


def test_missing_questions_say_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="mt_bench/question") as caught:
        run(BenchConfig(model="pocket", suite="mt_bench", output=str(tmp_path / "run")))
    assert "FastChat" in str(caught.value.hint)
    with pytest.raises(HoldfastError, match="alpaca_eval"):
        run(BenchConfig(model="pocket", suite="alpaca_eval", data_dir=str(tmp_path), output=str(tmp_path / "run")))


def test_real_questions_of_two_turns(shared: Path, tmp_path: Path) -> None:
    run(config("mt_bench", shared / "data", tmp_path / "r", limit=3))
    rows = [json.loads(line) for line in (tmp_path / "r" / "rows.jsonl").read_text().splitlines()]
    assert [len(row["turns"]) for row in rows] == [2, 2, 2]


def has_alpaca_eval() -> bool:
    return subprocess.run([PYTHON, "-c", "import alpaca_eval"], capture_output=True, check=False).returncode == 0


def prefers(text: str) -> Any:
    """A judge of AlpacaEval that ranks the answer with ``text`` first, wherever it stands."""

    def say(prompt: str) -> str:
        first = prompt.index(text) < prompt.index('"model_2"')
        return str([{"model": f"model_{n}", "rank": 1 if (n == 1) == first else 2} for n in (1, 2)])

    return say


@pytest.mark.skipif(
    not has_alpaca_eval(),
    reason="alpaca_eval is not installed; HOLDFAST_JUDGE_PYTHON can name an environment that has it",
)
def test_alpaca_eval_itself_judges(data: Path, tmp_path: Path) -> None:
    with judging(prefers("A reference."), lambda number: "429" if number == 2 else None) as judge:
        lost = run(config("alpaca_eval", data, tmp_path / "lost", judge))
    assert lost["scores"]["alpaca_eval"]["win_rate"]["value"] == 0.0
    assert lost["scores"]["alpaca_eval"]["win_rate"]["n"] == 8
    assert sum(judge.asked.values()) == 8
    with judging(lambda _: "no ranking here") as judge:
        none = run(config("alpaca_eval", data, tmp_path / "none", judge))
    assert none["benchmarks"]["alpaca_eval"]["value"] is None
    assert "8 of 8" in none["notes"][0]


@pytest.mark.skipif(
    not has_alpaca_eval(),
    reason="alpaca_eval is not installed; HOLDFAST_JUDGE_PYTHON can name an environment that has it",
)
def test_alpaca_eval_goes_on_after_its_judge_died(data: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Say {n}.", "output": "A reference.", "generator": "other", "dataset": "x"} for n in range(20)
    ]
    (data / "alpaca_eval" / "alpaca_eval.json").write_text(json.dumps(rows))
    with judging(prefers("A reference."), lambda number: "500" if number > 16 else None) as judge:
        with pytest.raises(HoldfastError, match="judge failed"):
            run(config("alpaca_eval", data, tmp_path / "run", judge, judge_retries=0))
        port = int(judge.url.split(":")[2].split("/")[0])
    with judging(prefers("A reference."), port=port) as judge:
        summary = run(config("alpaca_eval", data, tmp_path / "run", judge, judge_retries=0))
    assert sum(judge.asked.values()) == 4
    assert summary["scores"]["alpaca_eval"]["win_rate"]["n"] == 20


@pytest.mark.parametrize(
    ("text", "grade"), [("[[9]]", 9), ("[[7.5]] or [[2]]", 7.5), ("maybe [3]", 3), ("ten", -1), ("", -1)]
)
def test_grades_are_read_as_fastchat_reads_them(text: str, grade: float) -> None:
    assert read_grade(text) == grade


def test_the_papers_average_is_not_the_mean() -> None:
    published = (0.2693, 0.2826, 0.154, 0.048, 3.9)  # arXiv 2507.07817: Llama-3.2-1B on Tulu-v2 at (0, 1)
    values = dict(zip([pin.task for pin in PAPER], published, strict=True))
    results = {task: {"value": v, "metric": "rating" if task == "mt_bench" else "x"} for task, v in values.items()}
    made = averages(results)
    assert made["paper_average"] == pytest.approx(28.60, abs=0.005)
    assert made["mean"] == pytest.approx(0.8 * made["paper_average"])
    assert "paper_average" not in averages({t: r for t, r in results.items() if t != "ifeval"})
