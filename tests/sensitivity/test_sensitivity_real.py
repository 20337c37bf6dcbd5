"""Real prompts on a real small model: questions with options and instructions in several wordings. Needs ../shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import SensitivityConfig
from holdfast.sensitivity import measure
from holdfast.sensitivity.prompts import Renderer
from holdfast.sensitivity.sets import load_sets
from holdfast.sensitivity.variants import generator, load_items, make
from materials import write_jsonl


def first_rows(path: Path, count: int) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def instruction_sets(shared: Path, tasks: int) -> list[dict[str, Any]]:
    """Each task's instructions around one and the same input."""
    examples: dict[str, Any] = {}
    for row in first_rows(shared / "data/instruction_induction/examples.jsonl", 10_000):
        examples.setdefault(row["task"], row)
    return [
        {
            "set_id": row["task"],
            "variant_id": str(i),
            "kind": "original" if i == 0 else "wording",
            "prompt": f"Instruction: {wording}\nInput: {examples[row['task']]['input']}\nOutput:",
            "target": str(examples[row["task"]]["output"]),
        }
        for row in first_rows(shared / "data/instruction_induction/instructions.jsonl", tasks)
        if row["task"] in examples
        for i, wording in enumerate(row["instructions"])
    ]


def test_questions_of_mmlu(shared: Path, tmp_path: Path) -> None:
    rows = [row for row in first_rows(shared / "data/mmlu/test_40_per_subject.jsonl", 400) if len(str(row)) < 300][:3]
    items = write_jsonl(tmp_path / "mmlu.jsonl", rows)
    common: dict[str, Any] = {
        "model": str(shared / "models/stories260k"), "prompts": str(items), "variants": "spelling,templates,options",
        "per_kind": 2, "max_new_tokens": 5,
    }  # fmt: skip
    fast = measure(SensitivityConfig(**common, output=str(tmp_path / "fast")))
    plain = measure(SensitivityConfig(**common, output=str(tmp_path / "plain"), exact=True))
    assert fast["sets"] == 3
    assert fast["audit"]["max_difference"] < 1e-4
    for view, found in fast["posix"].items():
        assert found["mean"] == pytest.approx(plain["posix"][view]["mean"], abs=1e-5)
    assert (
        fast["posix"]["templates"]["mean"] > fast["posix"]["options"]["mean"]
    )  # other layouts move it more than other orders
    assert plain["cost"]["tokens"] > 3 * fast["cost"]["tokens"]
    assert set(fast["targets"]["options"]) >= {"prompt_sensi_score", "spread", "max_p", "per_case"}


def test_instructions_in_the_wordings_of_several_people(shared: Path, tmp_path: Path) -> None:
    sets = write_jsonl(tmp_path / "sets.jsonl", instruction_sets(shared, 5))
    summary = measure(
        SensitivityConfig(
            model=str(shared / "models/stories260k"), sets=str(sets), max_new_tokens=10, output=str(tmp_path / "out")
        )
    )
    assert summary["sets"] == 3
    assert summary["audit"]["max_difference"] < 1e-4
    assert summary["posix"]["wording"]["mean"] > 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").open()]
    assert all(row["attribution"]["all"]["tokens"] for row in rows)


def test_exemplars_of_the_same_subject_stand_behind_one_header(shared: Path) -> None:
    from holdfast.lm import load_tokenizer

    (item,) = [i for i in load_items(str(shared / "data/mmlu/test_40_per_subject.jsonl")) if "astronomy" in i.header][
        :1
    ]
    (made,), _ = make([item], {"templates": generator("templates")}, 2, 0)
    renderer = Renderer(
        load_tokenizer(shared / "models/stories260k"), chat_template=False, system=None, shots=2,
        shots_data=str(shared / "data/mmlu/dev.jsonl"), layout="same",
    )  # fmt: skip
    text = renderer.render(made.variants[1])
    assert text.count("multiple choice questions (with answers) about astronomy") == 1
    assert text.count("\na:") == 3
    assert text.endswith(made.variants[1].prompt.removeprefix(item.header))


def test_sets_of_pocket() -> None:
    sets = load_sets("pocket:intents", limit=3)
    assert [len(s.variants) for s in sets] == [8, 8, 8]
    assert all(s.kinds == ("wording",) for s in sets)
