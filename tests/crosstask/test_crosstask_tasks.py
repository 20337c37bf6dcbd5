"""Tasks from files: what is read, and every way in which it can be wrong, with file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.crosstask.library import load_library, load_task
from holdfast.crosstask.tasks import make_task
from holdfast.errors import HoldfastError
from materials import write_jsonl

ROWS: list[dict[str, Any]] = [{"text": "good", "answer": "positive"}, {"text": "bad", "answer": "negative"}]
YAML = "definition: Say the mood.\nlabels: [positive, negative]\nfields: [text]\ncue: 'Mood:'\n"


def write(folder: Path, name: str = "mood", yaml: str = YAML, rows: list[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / f"{name}.jsonl", rows)
    (folder / f"{name}.yaml").write_text(yaml, encoding="utf-8")
    return folder / f"{name}.yaml"


def test_a_task_file(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    assert (task.name, task.template, task.labels) == ("mood", "Text: {text}\nMood:", ("positive", "negative"))
    assert [task.render(item) for item in task.items] == ["Text: good\nMood:", "Text: bad\nMood:"]
    assert [item.where for item in task.items] == [f"{tmp_path / 'mood.jsonl'}, row {i}" for i in (1, 2)]


def test_a_library_is_a_folder_or_a_list(tmp_path: Path) -> None:
    write(tmp_path), write(tmp_path, "other")
    assert list(load_library(str(tmp_path))) == ["mood", "other"]
    assert list(load_library(f"{tmp_path / 'other.yaml'}, pocket:tasks/topic")) == ["other", "topic"]
    assert len(load_library("pocket:tasks")) == 16


def test_a_task_of_a_folder_by_name(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: reviews\ndefinition: d\nlabels: [good, bad]\ntemplate: '{text}'\n")
    (tmp_path / "r.jsonl").write_text('{"text": "x", "answer": "good"}\n')
    for name in ("reviews", "r", "r.yaml"):
        assert list(load_library(f"{tmp_path}/{name}")) == ["reviews"]
    with pytest.raises(HoldfastError, match=r"no such task file or folder; the tasks in .* are r, reviews") as error:
        load_library(f"{tmp_path}/review")
    assert error.value.hint == "did you mean 'reviews'?"
    with pytest.raises(HoldfastError, match="the rows of a task, not the task") as error:
        load_library(f"{tmp_path}/r.jsonl")
    assert error.value.hint == f"name the task: {tmp_path / 'r.yaml'}"


def test_options_answers_and_splits() -> None:
    rows = [
        ({"fields": {"q": "Where?", "c": ["bank", "mall"]}, "answer": 1, "split": "test"}, "row 1"),
        ({"q": "Who?", "c": ["me"], "answer": 0}, "row 2"),
    ]
    task = make_task(
        {"definition": "d", "labels": ["A", "B"], "template": "{q}\n{c}\nAnswer:", "answer_is": "index"}, rows, "t.yaml"
    )
    assert task.render(task.items[0]) == "Where?\nA. bank\nB. mall\nAnswer:"
    assert [item.answer for item in task.items] == ["B", "A"]
    assert [len(part) for part in (task.pool, task.test, task.dev)] == [0, 1, 0]


def test_items_of_one_content_are_the_same_item() -> None:
    task = make_task(
        {"definition": "d", "fields": ["text"]},
        [({"text": "Good  day"}, "1"), ({"text": "good day"}, "2"), ({"text": "x"}, "3")],
        "t",
    )
    contents = [task.content(item) for item in task.items]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(
    ("yaml", "rows", "says"),
    [
        (
            YAML,
            [{"text": "x", "answer": "happy"}],
            r"mood.jsonl, row 1: answer 'happy' is outside the label space positive, negative",
        ),
        (YAML, [ROWS[0] | {"id": 7}, ROWS[1] | {"id": 7}], r"row 2: id '7' is already used \(.*row 1\)"),
        (YAML, [{"body": "x"}], r"row 1: the template wants 'text'; the row has body"),
        (YAML, [], r"mood.yaml: the task has no rows"),
        (YAML, [{"text": None}], r"row 1: field 'text' is a NoneType"),
        (YAML, [{"text": "x", "answer": 1}], r"answer_is: index"),
        (YAML.replace("Say the mood.", ""), ROWS, "'definition' is missing or empty"),
        (
            YAML.replace("[positive, negative]", "[yes, no]"),
            ROWS,
            r"YAML reads yes, no, true and false as truth values",
        ),
        (YAML.replace("[positive, negative]", "[positive, positive]"), ROWS, "label 'positive' is listed twice"),
        (YAML.replace("[positive, negative]", "[positive]"), ROWS, "at least two labels"),
        (YAML + "colour: red\n", ROWS, "unknown key 'colour'"),
        (YAML + "template: 'no slot'\n", ROWS, "has no slot"),
        (YAML.replace("fields: [text]\n", ""), ROWS, "neither 'template' nor 'fields'"),
        ("- a\n", ROWS, "not a list of 'key: value' lines"),
        ("a: [", ROWS, "broken YAML"),
    ],
)
def test_bad_tasks(tmp_path: Path, yaml: str, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(HoldfastError, match=says):
        load_task(write(tmp_path, yaml=yaml, rows=rows))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "x"\n', r"row 1: broken JSON"),
        (b"\xff\n", r"row 1: not UTF-8"),
        (b"[1]\n", r"row 1: a list, not an object"),
    ],
)
def test_broken_rows(tmp_path: Path, content: bytes, says: str) -> None:
    path = write(tmp_path)
    (tmp_path / "mood.jsonl").write_bytes(content)
    with pytest.raises(HoldfastError, match=says):
        load_task(path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/nowhere", "no such task file or folder"),
        ("pocket:tasks/chess", "no such task; there are who_has"),
        ("pocket:tasks/topic,pocket:tasks", "already there"),
    ],
)
def test_bad_libraries(source: str, says: str) -> None:
    with pytest.raises(HoldfastError, match=says):
        load_library(source)


def test_an_empty_folder_and_a_missing_data_file(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match=r"no task files \(\*.yaml\)"):
        load_library(str(tmp_path))
    (tmp_path / "a.yaml").write_text(YAML)
    with pytest.raises(HoldfastError, match=r"a.jsonl: no such file"):
        load_library(str(tmp_path))


# --- tasks of other tools ------------------------------------------------------------------------------------------

LM_EVAL = """
task: arc_tiny
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
output_type: multiple_choice
description: "Pick the option.\\n"
doc_to_text: "Question: {{question}}\\n{% for c in choices %}{{ 'AB'[loop.index0] }}. {{c}}\\n{% endfor %}Answer:"
doc_to_target: answer
doc_to_choice: [A, B]
"""
DOCS = [
    {"question": "Where?", "choices": ["bank", "mall"], "answer": 1},
    {"question": "Who?", "choices": ["me", "you"], "answer": 0},
]


def test_a_task_of_lm_eval_with_local_data(tmp_path: Path) -> None:
    (tmp_path / "arc.yaml").write_text(LM_EVAL)
    write_jsonl(tmp_path / "docs.jsonl", DOCS)
    task = load_task(tmp_path / "arc.yaml")
    assert (task.name, task.definition, task.labels) == ("arc_tiny", "Pick the option.", ("A", "B"))
    assert task.render(task.items[0]) == "Question: Where?\nA. bank\nB. mall\nAnswer:"
    assert [item.answer for item in task.items] == ["B", "A"]
    assert len(task.test) == 2


def test_lm_eval_free_answers_and_choices_of_each_row(tmp_path: Path) -> None:
    (tmp_path / "arc.yaml").write_text(LM_EVAL.replace("[A, B]", "choices"))
    write_jsonl(tmp_path / "docs.jsonl", DOCS)
    task = load_task(tmp_path / "arc.yaml")
    assert task.labels is None
    assert [item.answer for item in task.items] == ["mall", "me"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("test: docs.jsonl", ""), "no local data"),
        (("doc_to_target: answer\n", ""), "doc_to_target"),
        (("{{question}}", "{{nothing}}"), "row 1: the template"),
        (("doc_to_choice: [A, B]", "process_docs: !function utils.process"), "broken YAML"),
        (("doc_to_choice: [A, B]", "include: base.yaml"), "'include' is not read"),
    ],
)  # fmt: skip
def test_lm_eval_tasks_that_cannot_be_read(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    (tmp_path / "arc.yaml").write_text(LM_EVAL.replace(*change))
    write_jsonl(tmp_path / "docs.jsonl", DOCS)
    with pytest.raises(HoldfastError, match=says):
        load_task(tmp_path / "arc.yaml")


def test_a_labelled_data_set_with_a_column_mapping(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    part = datasets.Dataset.from_dict({"sentence": ["good", "bad"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": part, "validation": part.select([0])}).save_to_disk(str(tmp_path / "sst"))
    given = {
        "definition": "Say the mood.",
        "dataset": "sst",
        "columns": {"text": "sentence"},
        "split": {"train": "train", "test": "validation"},
    }
    (tmp_path / "mood.yaml").write_text(json.dumps(given))
    task = load_task(tmp_path / "mood.yaml")
    assert task.labels == ("negative", "positive")
    assert [(item.id, item.answer) for item in task.items] == [
        ("train-1", "positive"),
        ("train-2", "negative"),
        ("validation-1", "positive"),
    ]
    assert [len(task.pool), len(task.test)] == [2, 1]
    (tmp_path / "mood.yaml").write_text(json.dumps(given | {"columns": {"text": "body"}}))
    with pytest.raises(HoldfastError, match="no column 'body'; it has sentence, label"):
        load_task(tmp_path / "mood.yaml")
