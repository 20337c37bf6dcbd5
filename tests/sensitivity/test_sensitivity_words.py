"""What the end of a sensitivity run says in words, and the figures of its sentences."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from holdfast import lm as models
from holdfast.report.parts import Note
from holdfast.report.reading import ReadRun
from holdfast.report.sensitivity import measured
from holdfast.results import SensitivityResult, from_summary
from holdfast.sensitivity import SensitivityConfig, measure, words
from holdfast.sensitivity.index import psi
from holdfast.sensitivity.score import score
from holdfast.tables.sensitivity import every_set, of_run, over_sets
from materials import write_jsonl

QUESTIONS = {
    "sum": ["What is 2 plus 3?", "Add 2 and 3.", "2 plus 3 is what?"],
    "town": ["Name a town.", "Say the name of a town.", "name a town."],
    "dog": ["What does a dog say?", "Which sound does a dog make?", "what does a dog say?"],
}


def write_sets(path: Path) -> str:
    rows = []
    for name, prompts in QUESTIONS.items():
        for kind, prompt in zip(("original", "wording", "casing"), prompts, strict=True):
            rows.append({"set_id": name, "variant_id": kind, "kind": kind, "prompt": prompt})
    return str(write_jsonl(path, rows))


def run(folder: Path, model: str = "pocket", **more: Any) -> dict[str, Any]:
    sets = write_sets(folder / "sets.jsonl")
    return measure(
        SensitivityConfig(
            model=model, sets=sets, output=str(folder / "run one"), max_new_tokens=4, bootstrap=50, **more
        )
    )


def test_the_end_of_a_run_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(tmp_path)
    model, asked, *said = capsys.readouterr().err.splitlines()
    assert model.startswith("model pocket")
    assert asked.startswith(f"{summary['prompts']} prompts in {summary['sets']} sets")
    assert said[: len(summary["in_words"])] == summary["in_words"]
    folder = tmp_path / "run one"
    assert said[len(summary["in_words"])] == f"As a page: holdfast report '{folder}' --output '{folder}.html'"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").open()]
    differing = [row for row in rows if len({v["answer"] for v in row["variants"]}) > 1]
    assert summary["changed"]["changed"] == len(differing)
    for kind, counts in summary["changed"]["kinds"].items():
        flips = [len({v["answer"] for v in row["variants"] if v["kind"] in ("original", kind)}) > 1 for row in rows]
        assert counts == {"sets": 3, "changed": sum(flips)}
    assert max(differing, key=lambda row: row["indices"]["all"]["psi"])["set_id"] == summary["worst"]["set_id"]
    assert summary["worst"]["answers"][0] != summary["worst"]["answers"][1]
    assert summary["scale"]["yours"] == pytest.approx(summary["posix"]["all"]["mean"], abs=1e-6)
    result = from_summary(SensitivityResult, summary)
    assert result.scale is not None
    assert result.scale.unrelated_pairs == 3


def test_unrelated_prompts_are_scored_as_wordings_of_one_prompt(tmp_path: Path) -> None:
    summary = run(tmp_path)
    lm = models.load("pocket")
    first = [prompts[0] for prompts in QUESTIONS.values()]
    values = []
    for pair in itertools.combinations(first, 2):
        scores = score(lm, list(pair), max_new_tokens=4, exact=True)
        values.append(psi(scores.logp_XY, scores.len_Y))
    assert summary["scale"]["unrelated"] == pytest.approx(statistics.fmean(values), abs=1e-4)
    (tmp_path / "run one" / "summary.json").unlink()
    again = run(tmp_path)
    assert again["cost"]["tokens"] == 0  # also of these, what is in the cache is not computed again
    assert again["scale"] == summary["scale"]


def test_a_model_that_ignores_its_prompt_is_warned_of(tmp_path: Path) -> None:
    lm = models.load("pocket")
    lm.model.model.norm.weight.data.zero_()  # all logits are 0 after any prompt
    lm.model.save_pretrained(tmp_path / "deaf")
    lm.tokenizer.save_pretrained(tmp_path / "deaf")
    summary = run(tmp_path, str(tmp_path / "deaf"))
    assert summary["posix"]["all"]["mean"] == 0
    assert summary["in_words"][0] == "No prompt of 3 changes its answer with the wording."
    warning = summary["in_words"][-1]
    assert warning.startswith("Warning: the model hardly looks at its prompt: ")
    assert "unrelated prompts move the log-probs by 0.00 nats per token only" in warning
    assert not [text for text in run_words(tmp_path / "other") if text.startswith("Warning")]


def run_words(folder: Path) -> list[str]:
    folder.mkdir()
    said: list[str] = run(folder)["in_words"]
    return said


def made_up(*answers: str | None, gold: str | None = None, **kinds: float) -> dict[str, Any]:
    variants = []
    for i, answer in enumerate(answers):
        kind = "original" if i == 0 else "spelling"
        variants.append({"variant_id": f"v{i}", "kind": kind, "answer": answer, "response": f"{answer}!"})
        variants[-1] |= {} if gold is None else {"gold": gold}
    return {"set_id": "s", "prompts": len(answers), "indices": {k: {"psi": v} for k, v in kinds.items()}} | {
        "variants": variants
    }


def said_of(*rows: dict[str, Any], unrelated: float | None = 2.9, pairs: int = 16) -> list[str]:
    scale = {"copies": 0.0, "yours": 0.41, "unrelated": unrelated, "unrelated_pairs": pairs} | words.alike(rows)
    figures = {"changed": words.changed_answers(rows), "worst": words.worst(rows), "scale": scale, "sets": len(rows)}
    return words.in_words(figures | {"answers": words.readable(rows, "option")})


def test_sentences_of_rows() -> None:
    assert said_of(made_up("a", "b", all=1.5), made_up("c", None, all=0.5)) == [
        "1 of 2 prompts changes its answer with the wording.",
        'The worst is \'s\' (psi 1.50): the answer is "a" to variant v0, and "b" to variant v1.',
        "Scale: copies 0.00 | yours 0.41 | unrelated prompts 2.90 nats per token (the last measured on 16 pairs of "
        "prompts of different sets).",
        '1 of 4 responses (25 %) could not be read as an answer (--answers option), such as "None!".',
    ]
    assert said_of(made_up("a", "a", all=0.0), unrelated=None)[:2] == [
        "The answer to the 1 prompt stays the same in every wording.",
        "Scale: copies 0.00 | yours 0.41 nats per token (two sets or more are needed to measure unrelated prompts).",
    ]
    assert said_of(made_up("a", "b", all=math_nan()))[1].startswith("The worst is 's': the answer")


def math_nan() -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("golds", "warned"), [((None, None, None), True), (("a", "b", "c"), True), (("a",) * 3, False)]
)
def test_the_same_answer_to_all_is_no_ground_where_it_is_right(golds: tuple[str | None, ...], warned: bool) -> None:
    rows = [made_up("a", "a", gold=gold, all=0.1) for gold in golds]
    assert any(text.startswith("Warning") for text in said_of(*rows)) == warned


def test_every_kind_of_any_set_has_a_column_and_its_number_of_sets() -> None:
    table = every_set([made_up("a", "b", all=1.0, spelling=1.0), made_up("a", "b", all=1.0, casing=2.0)])
    titles = [column.title for column in table.columns]
    assert titles == [
        "set", "right answers", "most frequent response", "distinct responses", "prompts", "psi", "psi, spelling",
        "psi, casing",
    ]  # fmt: skip
    assert [row[-2:] for row in table.rows] == [[1.0, None], [None, 2.0]]
    assert over_sets({"a": 1, "b": 1}) == "1 set"
    assert over_sets({"a": 18, "b": 1, "c": 2}) == "18 sets (a), 1 set (b) and 2 sets (c)"
    estimate = {"mean": 1.0, "low": 0.5, "high": 1.5}
    psis = {"spelling": estimate | {"sets": 20}, "casing": estimate | {"sets": 18}}
    summary = {"posix": psis, "indices": {view: {"psi": one} for view, one in psis.items()}, "sets": 20}
    assert of_run(summary)[1].caption.endswith("over 20 sets (spelling) and 18 sets (casing).")


def test_the_page_says_the_words_first(tmp_path: Path) -> None:
    row = made_up("a", "b", all=1.0)
    estimate = {"mean": 1.0, "low": 0.5, "high": 1.5, "sets": 1}
    summary = {"posix": {"all": estimate}, "in_words": ["One sentence.", "Warning: another."], "sets": 1}
    page = measured(ReadRun(tmp_path, "sensitivity run", {}, {}, [row], summary), 0)
    notes = [(part.text, part.tone) for part in page if isinstance(part, Note)]
    assert notes[:2] == [("One sentence.", "finding"), ("Another.", "warning")]
    assert "POSIX is 1" in notes[2][0]


def test_answers_that_follow_the_wording_are_no_sign_of_a_model_that_ignores_its_prompt() -> None:
    summary: dict[str, Any] = {"sets": 3}
    summary["scale"] = {"unrelated": 0.0, "same_answer": 1.0, "same_right_answer": None}
    for changed, effect, warned in ((3, 0.67, False), (3, None, False), (0, 0.0, True), (3, 0.01, True)):
        mean = None if effect is None else {"mean": effect}
        summary |= {"changed": {"changed": changed}, "answer_changes": {"all": {"effect": mean}}}
        assert bool(words._ignores(summary)) == warned, (changed, effect)
