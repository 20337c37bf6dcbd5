"""Real tasks and real models: ARC, BoolQ, CommonsenseQA, Social-IQA, OpenBookQA and instruction induction as one
library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import pocket
from holdfast.crosstask import CrossTaskConfig, LabelConfig, label, transfer
from holdfast.crosstask.library import load_library
from materials import write_jsonl

OPTIONS = "Question: {question}\n{choices}\nAnswer:"
EXAM = "Given a question of a science exam, pick the right option."


def options(definition: str, letters: str, template: str = OPTIONS) -> dict[str, Any]:
    return {"definition": definition, "template": template, "labels": list(letters), "answer_is": "index"}


FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "arc_easy": ("arc_easy/data.jsonl", options(EXAM, "ABCD")),
    "arc_challenge": ("arc_challenge/data.jsonl", options(EXAM, "ABCD")),
    "openbook_qa": ("openbook_qa/data.jsonl", options("Finish the sentence with the right option.", "ABCD")),
    "commonsense_qa": ("commonsense_qa/validation.jsonl", options("Use common sense to pick an option.", "ABCDE")),
    "social_iqa": (
        "social_iqa/validation.jsonl",
        options("Pick the option that fits the situation.", "ABC", "Context: {passage}\n" + OPTIONS),
    ),
    "boolq": (
        "boolq/dev.jsonl",
        {
            "definition": "Answer the question with True or False.",
            "fields": ["passage", "question"],
            "labels": ["True", "False"],
        },
    ),
}
INDUCED = ("antonyms", "singular_to_plural", "sentiment")


def rows(path: Path, count: int) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for _, line in zip(range(count), file):
            yield json.loads(line)


@pytest.fixture(scope="module")
def library(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for name, (file, given) in FILES.items():
        write_jsonl(
            folder / f"{name}.jsonl",
            [
                row | ({"answer": str(row["answer"])} if name == "boolq" else {})
                for row in rows(shared / "data" / file, 150)
            ],
        )
        (folder / f"{name}.yaml").write_text(json.dumps(given))
    induction = shared / "data" / "instruction_induction"
    wordings = {row["task"]: row["instructions"] for row in rows(induction / "instructions.jsonl", 100)}
    for name in INDUCED:
        examples = [row for row in rows(induction / "examples.jsonl", 10_000) if row["task"] == name][:80]
        write_jsonl(folder / f"{name}.jsonl", [{"input": row["input"], "answer": row["output"]} for row in examples])
        (folder / f"{name}.yaml").write_text(
            json.dumps({"definition": wordings[name][0], "template": "Input: {input}\nOutput:"})
        )
    return folder


def test_the_library_reads(library: Path) -> None:
    tasks = load_library(str(library))
    assert set(tasks) == {*FILES, *INDUCED}
    assert all(item.answer is not None for task in tasks.values() for item in task.items)
    assert tasks["social_iqa"].render(tasks["social_iqa"].items[0]).count("\n") == 5


@pytest.mark.parametrize("model", ["stories260k", "pocket"])
def test_a_grid_over_real_tasks(model: str, shared: Path, library: Path, tmp_path: Path) -> None:
    """BoolQ passages exceed the 512 tokens of these models: demonstrations are cut and counted, questions never."""
    if model == "pocket" and not (pocket.model_path() / "model.safetensors").is_file():
        pytest.skip("the embedded model has not been built yet")
    name = "pocket" if model == "pocket" else str(shared / "models" / model)
    targets = ",".join(str(library / f"{t}.yaml") for t in ("arc_challenge", "social_iqa"))
    given = {"model": name, "sources": str(library), "target": targets, "limit": 5, "json": True}
    summary = transfer(CrossTaskConfig(**given, output=str(tmp_path / "fast")))
    for target in summary["targets"].values():
        for row in target["conditions"]:
            assert 0 <= row["accuracy"]["value"] <= 100
            assert "mass" in row or row["condition"] == "vote"
    boolq = next(row for row in summary["targets"]["arc_challenge"]["conditions"] if row["condition"] == "boolq")
    assert boolq["demonstrations_shortened"] > 0
    plain = transfer(CrossTaskConfig(**given | {"limit": 1}, exact=True, output=str(tmp_path / "plain")))
    assert plain["cost"]["tokens"] > plain["cost"]["plain_tokens"] * 0.9

    def logp(run: str) -> dict[tuple[str, str, str], dict[str, float]]:
        lines = (tmp_path / run / "rows.jsonl").read_text().splitlines()
        return {(r["target"], r["condition"], r["item"]): r["logp"] for r in map(json.loads, lines)}

    fast, slow = logp("fast"), logp("plain")
    assert max(abs(fast[key][name] - value) for key, values in slow.items() for name, value in values.items()) < 1e-4


def test_pseudo_labels_over_real_tasks(shared: Path, library: Path, tmp_path: Path) -> None:
    sources = ",".join(str(library / f"{s}.yaml") for s in ("arc_easy", "boolq", "antonyms"))
    summary = label(
        LabelConfig(
            model=str(shared / "models" / "stories260k"), sources=sources, target=str(library / "openbook_qa.yaml"),
            limit=30, lm_items=8,
            propagate="spread", calibration="batch", output=str(tmp_path / "labels"), json=True,
        )
    )  # fmt: skip
    assert summary["asked_of_the_model"] == 8
    assert summary["labelled"] > 8
