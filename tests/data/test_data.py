"""Files -> examples: every layout from every kind of file, and every error with file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from holdfast.data.examples import load_examples
from holdfast.errors import HoldfastError
from holdfast.records import Role
from materials import write_jsonl

PAIR = [{"prompt": "2+2?", "response": "4"}, {"prompt": "3+3?", "response": "6"}]
ALPACA = [
    {"instruction": "Add.", "input": "2 2", "output": "4"},
    {"instruction": "Say hi.", "input": "", "output": "hi"},
]
CHAT = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}], "weight": 2}
]


def contents(source: Any, **options: Any) -> list[list[tuple[Role, str]]]:
    return [[(m.role, m.content) for m in e.messages] for e in load_examples(str(source), **options)]


def test_layouts(tmp_path: Path) -> None:
    pair = contents(write_jsonl(tmp_path / "a.jsonl", PAIR))
    assert pair[1] == [(Role.USER, "3+3?"), (Role.ASSISTANT, "6")]
    assert contents(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c"}])) == [
        [(Role.USER, "p"), (Role.ASSISTANT, "c")]
    ]
    alpaca = contents(write_jsonl(tmp_path / "c.jsonl", ALPACA))
    assert alpaca == [
        [(Role.USER, "Add."), (Role.USER, "2 2"), (Role.ASSISTANT, "4")],
        [(Role.USER, "Say hi."), (Role.ASSISTANT, "hi")],
    ]
    (chat,) = load_examples(str(write_jsonl(tmp_path / "d.jsonl", CHAT)))
    assert (chat.weight, chat.messages[1].weight, chat.layout) == (2.0, 0.5, "chat")
    assert contents(write_jsonl(tmp_path / "e.jsonl", [{"text": "once"}])) == [[(Role.ASSISTANT, "once")]]
    prompts = write_jsonl(tmp_path / "f.jsonl", [{"prompt": "only"}])
    assert contents(prompts, needs_response=False) == [[(Role.USER, "only")]]
    with pytest.raises(HoldfastError, match="no reading fits; columns are prompt") as error:
        contents(prompts)
    assert "prompt-only" in str(error.value)


def test_every_kind_of_file_reads_the_same(tmp_path: Path) -> None:
    expected = contents(write_jsonl(tmp_path / "a.jsonl", PAIR))
    (tmp_path / "a.json").write_text(json.dumps(PAIR))
    (tmp_path / "a.csv").write_text('prompt,response\n2+2?,4\n"3+3?",6\n')
    (tmp_path / "a.tsv").write_text("prompt\tresponse\n2+2?\t4\n3+3?\t6\n")
    made = datasets.Dataset.from_list(PAIR)
    made.to_parquet(str(tmp_path / "a.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "splits"))
    for name in ("a.json", "a.csv", "a.tsv", "a.parquet", "saved", "splits"):
        assert contents(tmp_path / name) == expected, name


def test_utf8_with_mark_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\n\n{"text": "y"}\n')
    assert len(contents(tmp_path / "a.jsonl")) == 2


def test_csv_weights_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,weight\nx,0.5\n")
    assert load_examples(str(tmp_path / "a.csv"))[0].weight == 0.5
    (tmp_path / "b.csv").write_text("text,weight\nx,heavy\n")
    with pytest.raises(HoldfastError, match=r"b.csv, row 1: weight is 'heavy'"):
        load_examples(str(tmp_path / "b.csv"))


def test_limit_and_pocket() -> None:
    examples = load_examples("pocket:instructions", limit=3)
    assert len(examples) == 3
    assert examples[2].where == "pocket:instructions, row 3"
    with pytest.raises(HoldfastError, match="pocket:nothing"):
        load_examples("pocket:nothing")


def test_ambiguous_columns_and_the_way_out(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "t", "prompt": "p", "response": "r"}])
    with pytest.raises(
        HoldfastError, match="several readings are possible; columns are prompt, response, text"
    ) as error:
        contents(source)
    assert "--layout pair or text" in str(error.value)
    assert contents(source, layout="text") == [[(Role.ASSISTANT, "t")]]


BAD = {
    "broken JSON": ('{"text": "a"}\n{"text": \n', r"row 2: broken JSON"),
    "nested too deep": ("[" * 100_000, r"row 1: broken JSON, maximum recursion depth"),
    "endless number": ('{"text": "a", "weight": ' + "9" * 5000 + "}", r"row 1: broken JSON, Exceeds the limit"),
    "null column": (
        '{"prompt": null, "response": "b"}',
        r"no reading fits; columns are response; (.|\n)*null in every row: prompt",
    ),
    "not an object": ('{"text": "a"}\n[1]\n', r"row 2: a list, not an object"),
    "missing column": (
        '{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n',
        r"row 2: no column 'response'; the row has prompt",
    ),
    "empty response": ('{"prompt": "a", "response": "  "}\n', r"row 1: 'response' is empty"),
    "non-string": ('{"prompt": 3, "response": "b"}\n', r"row 1: 'prompt' is int 3, not text"),
    "negative weight": ('{"text": "a", "weight": -1}\n', r"row 1: 'weight' is -1.0; a weight is a finite number"),
    "weight NaN": ('{"text": "a", "weight": NaN}\n', r"row 1: 'weight' is nan"),
    "weight no number": ('{"text": "a", "weight": "1"}\n', r"row 1: 'weight' is str '1', not a number"),
    "messages no list": ('{"messages": "hi"}\n', r"row 1: 'messages' is str 'hi', not a list"),
    "message no object": ('{"messages": ["hi"]}\n', r"row 1, message 1: str 'hi', not an object"),
    "unknown role": ('{"messages": [{"role": "bot", "content": "x"}]}\n', r"message 1: role is 'bot'; allowed"),
    "null content": ('{"messages": [{"role": "user", "content": null}]}\n', r"message 1: no column 'content'"),
    "no answer": ('{"messages": [{"role": "user", "content": "x"}]}\n', r"row 1: no assistant message"),
    "both answers": ('{"prompt": "p", "response": "r", "completion": "c"}\n', r"both 'response' and 'completion'"),
    "nothing": ("", r"no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(HoldfastError, match=message) as error:
        load_examples(str(tmp_path / "a.jsonl"))
    assert "a.jsonl" in str(error.value)


def test_bad_rows_can_be_skipped_and_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n{"text": "\xff"}\n{"text": ""}\n{"text": "b"}\n')
    bad: list[str] = []
    assert contents(tmp_path / "a.jsonl", bad_rows=bad) == [[(Role.ASSISTANT, "a")], [(Role.ASSISTANT, "b")]]
    assert [line.split(": ")[0].rsplit(", ", 1)[1] for line in bad] == ["row 2", "row 3", "row 4"]


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"xx")
    with pytest.raises(HoldfastError, match=r"a\.parquet: not a Parquet file that can be read"):
        load_examples(str(tmp_path / "a.parquet"))


def test_not_utf8(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b"caf\xe9"), ("a.json", b"caf\xe9"), ("a.csv", b"caf\x81")):
        (tmp_path / name).write_bytes(b'{"text": "' + content + b'"}\n')
        with pytest.raises(HoldfastError, match="not UTF-8"):
            load_examples(str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "no such file"),
        ("./nowhere", "no such file"),
        ("nobody/nothing-at-all", "neither a file or folder here nor a data set"),
    ],
)
def test_missing_sources(source: str, message: str) -> None:
    with pytest.raises(HoldfastError, match=message):
        load_examples(source)


def test_folders_and_files_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="not a saved dataset folder"):
        load_examples(str(tmp_path))
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(HoldfastError, match=r"unknown kind of file '.docx'"):
        load_examples(str(tmp_path / "a.docx"))
    (tmp_path / "a.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(HoldfastError, match="jsonl"):
        load_examples(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("prompt,chosen,rejected\na,b,c\n", "holdfast align"),
        ("frage;antwort\na;b\n", "--columns prompt=frage,response=antwort"),
    ],
)
def test_a_table_for_another_command_or_with_other_separators_is_known(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(HoldfastError, match="no reading fits") as error:
        load_examples(str(tmp_path / "d.csv"))
    assert hint in str(error.value)
