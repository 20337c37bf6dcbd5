"""Every broken file x every command that reads it: an error with file and place, never another exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import cli
from holdfast.bench import local, openended
from holdfast.config import BenchConfig, SensitivityConfig, TuneConfig
from holdfast.crosstask import blocks
from holdfast.crosstask.library import load_task, read_items
from holdfast.crosstask.tasks import make_task
from holdfast.data.examples import load_examples
from holdfast.data.pairs import load_pairs
from holdfast.errors import HoldfastError
from holdfast.runs import kept_rows, read_rows
from holdfast.sensitivity.pipeline import surroundings
from holdfast.sensitivity.sets import load_sets
from holdfast.sensitivity.variants.items import load_items
from holdfast.sensitivity.variants.wording import paraphrases_from
from holdfast.study.sources import splits
from holdfast.study.spec import Data, load_spec
from holdfast.study.table import read_table
from holdfast.tune.arguments import _scalar

ROW = (
    '{"prompt": "a", "response": "b", "chosen": "c", "rejected": "d", "set_id": "s", "variant_id": "0", '
    '"paraphrases": ["e"],'
    ' "turns": ["f"], "instruction": "g"'
)
GOOD = (ROW + "}").encode()
TASK = make_task({"definition": "d", "template": "{prompt}"}, [({"prompt": "x"}, "t, row 1")], "t")


def task(path: Path, yaml: str) -> Any:
    (path.parent / "task.yaml").write_text(yaml, encoding="utf-8")
    return load_task(path.parent / "task.yaml")


def questions(path: Path, name: str) -> Any:
    folder = path.parent / name
    folder.mkdir()
    path.rename(folder / path.name)
    return openended.read(name, BenchConfig(model="m", tasks=name, output="o", data_dir=str(path.parent)))


READERS: dict[str, Callable[[Path], Any]] = {
    "tune": lambda path: load_examples(str(path), layout="pair"),
    "align": lambda path: load_pairs(str(path)),
    "sensitivity prompts": lambda path: load_items(str(path)),
    "sensitivity sets": lambda path: load_sets(str(path)),
    "paraphrases": lambda path: paraphrases_from(str(path)),
    "crosstask task": lambda path: task(path, f"definition: d\ntemplate: '{{prompt}}'\ndata: {path.name}\n"),
    "crosstask task of lm-eval": lambda path: task(
        path, f"dataset_kwargs: {{data_files: {path.name}}}\ndoc_to_text: prompt\ndoc_to_target: response\n"
    ),
    "crosstask pool": lambda path: read_items(path, TASK),
    "bench data": local.read_rows,
    "study data": lambda path: splits(Data(str(path), name="d"), path.parent),
}
QUESTIONS = {"mt_bench": "question.jsonl", "alpaca_eval": "alpaca_eval.json"}

BROKEN = {
    "cut": ROW.encode(),
    "not UTF-8": GOOD.replace(b'"b"', b'"\xe9"'),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "nested too deep": b'{"prompt": ' + b"[" * 100_000,
    "5,000 digits": ROW.encode() + b', "weight": ' + b"9" * 5000 + b"}",
    "400 digits": ROW.encode() + b', "weight": ' + b"9" * 400 + b"}",
    "400 digits within": ROW.encode() + b', "meta": {"n": [' + b"9" * 400 + b"]}}",
    "half a character": GOOD.replace(b'"b"', b'"\\ud83d"'),
    "half a character within": ROW.encode() + b', "meta": {"x": ["\\ud83d"]}}',
    "half a character in a name": ROW.encode() + b', "\\ud83d": 1}',
    "a number": b"3",
    "zeros": b"\x00" * 20,
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("reader", READERS)
def test_broken_rows(tmp_path: Path, reader: str, broken: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n\n" + BROKEN[broken] + b"\n")
    with pytest.raises(HoldfastError, match=r"rows\.jsonl, row 3"):
        READERS[reader](path)
    path = tmp_path / "list.json"
    path.write_bytes(b"[" + GOOD + b"," + BROKEN[broken] + b"]")
    with pytest.raises(HoldfastError, match=r"list\.json"):
        READERS[reader](path)


@pytest.mark.parametrize("broken", [*BROKEN, "turns"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_broken_questions(tmp_path: Path, name: str, broken: str) -> None:
    content = BROKEN.get(broken, b'{"turns": 5, "instruction": 5}')
    path = tmp_path / QUESTIONS[name]
    path.write_bytes(GOOD + b"\n" + content + b"\n" if path.suffix == ".jsonl" else b"[" + GOOD + b"," + content + b"]")
    with pytest.raises(HoldfastError, match=path.name):
        questions(path, name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'prompt,response\n"a,b\n'),
        ("a.csv", b"prompt,response\na,b,c\n"),
        ("a.csv", b"prompt,response\n\x81,b\n"),
        ("a.tsv", b'prompt\tresponse\n"a" x\tb\n'),
        ("a.parquet", b"PAR1 cut"),
        ("a.json", b"3"),
        ("a.json", b"[1, "),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_broken_files_of_other_kinds(tmp_path: Path, reader: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HoldfastError, match=rf"{name}"):
        READERS[reader](tmp_path / name)


@pytest.mark.parametrize(
    "damage", ["state.json of {}", "state.json of []", "state.json cut", "no state.json", "Arrow cut", "Arrow gone"]
)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_saved_data_set(tmp_path: Path, reader: str, damage: str) -> None:
    import datasets

    datasets.Dataset.from_list([json.loads(GOOD) for _ in range(500)]).save_to_disk(str(tmp_path / "saved"))
    arrow, state = next((tmp_path / "saved").glob("*.arrow")), tmp_path / "saved" / "state.json"
    if damage.startswith("state.json"):
        state.write_text({"cut": '{"_data', "{}": "{}", "[]": "[]"}[damage.split()[-1]])
    elif damage == "Arrow cut":
        arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    else:
        (arrow if damage == "Arrow gone" else state).unlink()
    with pytest.raises(HoldfastError, match="saved"):
        READERS[reader](tmp_path / "saved")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "saved"])
def test_every_reader_takes_every_kind(tmp_path: Path, kind: str) -> None:
    import datasets

    path, rows = tmp_path / f"rows.{kind}", [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]
    if kind in ("csv", "tsv"):
        rows_of_cells = [["prompt", "response"], ["a", "b"], ["c", "d"]]
        path.write_text("".join(("\t" if kind == "tsv" else ",").join(cells) + "\n" for cells in rows_of_cells))
    elif kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(str(path := tmp_path / "saved"))
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert [[m.content for m in example.messages] for example in load_examples(str(path))] == [["a", "b"], ["c", "d"]]
    assert [item.question for item in load_items(str(path))] == ["a", "c"]
    assert [item.fields for item in READERS["crosstask pool"](path)] == [{"prompt": "a"}, {"prompt": "c"}]
    assert [item.fields for item in READERS["crosstask task"](path).items] == [{"prompt": "a"}, {"prompt": "c"}]
    assert local.read_rows(path) == rows


def test_exemplars_of_every_kind_are_told_apart(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([json.loads(GOOD)]).to_parquet(str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    sources = [str(tmp_path / "a.parquet"), str(tmp_path / "a.jsonl"), "pocket:intents"]
    configs = [SensitivityConfig(model="m", output="o", shots=1, shots_data=source) for source in sources]
    assert len({surroundings(config, None)["exemplars_sha"] for config in configs}) == 3


def test_blank_cells_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text(
        "set_id,variant_id,kind,seed,prompt,target\ns,0,original,,a,\ns,1,spelling,3,b,B\n"
    )
    variants = load_sets(str(tmp_path / "sets.csv"))[0].variants
    assert [(v.kind, v.seed, v.target) for v in variants] == [("original", 0, None), ("spelling", 3, "B")]
    (tmp_path / "pool.csv").write_text("prompt,answer\na,\n")
    assert read_items(tmp_path / "pool.csv", TASK)[0].answer is None


YAML = {
    "timestamp": "name: !!timestamp x\n",
    "int": "name: !!int x\n",
    "float": "name: !!float x\n",
    "bool": "name: !!bool x\n",
    "binary": "name: !!binary é\n",
    "date": "name: 2020-13-45\n",
    "400 digits": "name: " + "9" * 400 + "\n",
    "5,000 digits": "name: " + "9" * 5000 + "\n",
    "key twice": "name: a\nname: b\n",
    "key twice within": "name: {a: 1, a: 2}\n",
    "list as key": "? [a]\n: b\n",
    "unknown tag": "name: !function x\n",
    "unknown alias": "name: *x\n",
    "nested too deep": "name: " + "[" * 3000,
    "control character": "name: \x07\n",
    "a tab": "name:\n\t- a\n",
    "not UTF-8": "name: \udce9\n",
    "a list": "- a\n",
    "a text": "a\n",
}


def _config(path: Path) -> Any:
    return cli._read_config(TuneConfig, str(path))


YAML_READERS: dict[str, Callable[[Path], Any]] = {
    "crosstask": load_task,
    "study": lambda path: load_spec(str(path)),
    "--config": _config,
}


@pytest.mark.parametrize("broken", YAML)
@pytest.mark.parametrize("reader", YAML_READERS)
def test_broken_yaml(tmp_path: Path, reader: str, broken: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(YAML[broken].encode("utf-8", "surrogateescape"))
    with pytest.raises(HoldfastError, match=r"a\.yaml"):
        YAML_READERS[reader](path)
    with pytest.raises(HoldfastError, match=r"gone\.yaml"):
        YAML_READERS[reader](tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    "content",
    [
        "embed_fields: 5",
        "dataset: x\ncolumns: {a: b}\nsplit: 5",
        "doc_to_text: q\ndoc_to_target: a\ndataset_kwargs: 5",
        "doc_to_text: q\ndoc_to_target: '{{ q / 2 }}'\ndataset_kwargs: {data_files: a.jsonl}",
        "doc_to_text: q\ndoc_to_target: '²'\ndoc_to_choice: [a, b]\ndataset_kwargs: {data_files: a.jsonl}",
        "doc_to_text: q\ndoc_to_target: a\ndoc_to_choice: '5'\ndataset_kwargs: {data_files: a.jsonl}",
    ],
)
def test_task_files_that_hold_other_things(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "x", "a": "y"}\n')
    (tmp_path / "a.yaml").write_text(("" if "doc_to" in content else "definition: d\ntemplate: '{q}'\n") + content)
    with pytest.raises(HoldfastError, match=r"a\.(yaml|jsonl)"):
        load_task(tmp_path / "a.yaml")


def test_options_of_training_arguments() -> None:
    assert (_scalar("1e-8"), _scalar("[a, 2]")) == (1e-8, ["a", 2])
    for text in ("!!timestamp x", "2020-13-45", "[" * 3000, "{a: 1, a: 2}"):
        with pytest.raises(HoldfastError, match="broken YAML"):
            _scalar(text)


@pytest.mark.parametrize("content", [b"", b'a,b\n"x', b"\xe9", b"\x00", b"a,b\n1,2,3\n"])
def test_broken_tables(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(HoldfastError, match=r"t\.csv"):
        read_table(tmp_path / "t.csv")


# --- what Holdfast itself has written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [name for name in BROKEN if not name.startswith(("half", "400"))])
def test_rows_of_a_run(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\xe2\x80\xa8"}\n' + BROKEN[broken] + b'\n{"b": 2}\n')
    with pytest.raises(HoldfastError, match=r"rows\.jsonl, row 2"):
        read_rows(path)
    with pytest.raises(HoldfastError, match=r"rows\.jsonl, row 2"):
        read_rows(path, cut_off=True)  # no kill breaks a row in the middle
    problems: list[str] = []
    assert read_rows(path, problems=problems) == [{"a": "\u2028"}, {"b": 2}]
    assert problems == ["1 row of rows.jsonl could not be read and was skipped."]


def test_a_last_row_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path, cut_off=True) == kept_rows(path) == []
    path.write_bytes(b'{"a": 1}\n{"b": "\xc3')
    with pytest.raises(HoldfastError, match="row 2: cut or damaged"):
        read_rows(path)
    assert read_rows(path, cut_off=True) == [{"a": 1}]
    assert kept_rows(path) == [{"a": 1}]
    assert path.read_bytes() == b'{"a": 1}\n'
    path.write_bytes(b'{"a": ')
    assert kept_rows(path) == []
    with pytest.raises(HoldfastError, match="no rows"):
        read_rows(path)
    with pytest.raises(HoldfastError, match="no such file"):
        read_rows(tmp_path / "gone.jsonl")


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_block_that_was_cut(tmp_path: Path, cut: int) -> None:
    data = blocks.pack(blocks.Block([], blocks.Cost(), {}))
    (tmp_path / "b.npz").write_bytes(data)
    assert blocks.read(tmp_path / "b.npz") == blocks.Block([], blocks.Cost(), {})
    (tmp_path / "b.npz").write_bytes(data[:cut])
    with pytest.raises(HoldfastError, match=r"b\.npz: cannot be read"):
        blocks.read(tmp_path / "b.npz")
