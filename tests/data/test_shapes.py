"""The shapes in which others write rows, each with its right value; files are made by the libraries that make them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from holdfast import cli
from holdfast.config import TuneConfig
from holdfast.data.examples import load_examples
from holdfast.data.pairs import load_pairs
from holdfast.data.shapes import Shape, as_openai
from holdfast.errors import HoldfastError
from holdfast.records import Role
from holdfast.tune.plan import train_and_held_out
from materials import write_jsonl

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
PARTS = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
TWO = [{"prompt": "Hi", "response": "Yo"}, {"prompt": "Naïve?", "response": "Café"}]
HI = [("user", "Hi"), ("assistant", "Yo")]
BOTH = [HI, [("user", "Naïve?"), ("assistant", "Café")]]


def read(source: Path | str, **options: Any) -> list[list[tuple[str, str]]]:
    return [[(m.role.label, m.content) for m in example.messages] for example in load_examples(str(source), **options)]


def layouts(source: Path | str, **options: Any) -> set[str]:
    return {example.layout for example in load_examples(str(source), **options)}


ROWS: dict[str, tuple[dict[str, Any], list[tuple[str, str]], str]] = {
    "Alpaca": (
        {"instruction": "Say", "input": "Hi", "output": "Yo"},
        [("user", "Say"), ("user", "Hi"), ("assistant", "Yo")],
        "alpaca",
    ),
    "Dolly": (
        {"instruction": "Say", "context": "Hi", "response": "Yo", "category": "open_qa"},
        [("user", "Say"), ("user", "Hi"), ("assistant", "Yo")],
        "alpaca",
    ),
    "Dolly without context": (
        {"instruction": "Hi", "context": "", "response": "Yo", "category": "open_qa"},
        HI,
        "alpaca",
    ),
    "Alpaca with system and history": (
        {"instruction": "Hi", "input": "you", "output": "Yo", "system": "Be brief.",
         "history": [["A", "B"], ["C", "D"]]},
        [("system", "Be brief."), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D"),
         ("user", "Hi\n\nyou"), ("assistant", "Yo")],
        "chat",
    ),
    "OpenAI": ({"messages": CHAT}, HI, "chat"),
    "OpenAI with weight": ({"messages": [CHAT[0], CHAT[1] | {"weight": 0}, *CHAT]}, HI * 2, "chat"),
    "text parts": (
        {"messages": [{"role": "user", "content": PARTS},
                      {"role": "assistant", "content": [{"type": "text", "text": "Yo"}]}]},
        HI,
        "chat",
    ),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}, HI, "chat"),
    "ShareGPT with system": (
        {"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Hi"},
                           {"from": "gpt", "value": "Yo"}]},
        [("system", "S"), *HI],
        "chat",
    ),
    "ShareGPT with a system column": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}], "system": "S"},
        [("system", "S"), *HI],
        "chat",
    ),
    "question/answer": ({"question": "Hi", "answer": "Yo"}, HI, "pair"),
    "question/answer from a source": ({"question": "Hi", "answer": "Yo", "source": "web"}, HI, "pair"),
    "input/target": ({"input": "Hi", "target": "Yo"}, HI, "pair"),
    "input/output": ({"input": "Hi", "output": "Yo"}, HI, "pair"),
    "query/response": ({"query": "Hi", "response": "Yo"}, HI, "pair"),
    "source/target": ({"source": "Hi", "target": "Yo"}, HI, "pair"),
    "prompt/completion of messages": ({"prompt": CHAT[:1], "completion": CHAT[1:]}, HI, "chat"),
    "developer": ({"messages": [{"role": "developer", "content": "S"}, *CHAT]}, [("system", "S"), *HI], "chat"),
    "text": ({"text": "Yo"}, [("assistant", "Yo")], "text"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_of_every_shape(tmp_path: Path, name: str, kind: str) -> None:
    row, messages, layout = ROWS[name]
    source = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        write_jsonl(source, [row])
    else:
        datasets.Dataset.from_list([row]).to_parquet(str(source))
    assert read(source) == [messages]
    assert layouts(source) == {layout}


def _csv(path: Path, encoding: str = "utf-8", **options: Any) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, **options)
        writer.writerows([["prompt", "response"], *([row["prompt"], row["response"]] for row in TWO)])
    return path


def _folder(path: Path) -> Path:
    (path / "folder").mkdir()
    for number, row in enumerate(TWO):
        write_jsonl(path / "folder" / f"part-{number}.jsonl", [row])
    return path / "folder"


def _saved(path: Path) -> Path:
    datasets.Dataset.from_list(TWO).save_to_disk(str(path / "saved"))
    return path / "saved"


def _lines(path: Path) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in TWO).encode()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _zst(path: Path) -> Path:
    import pyarrow

    with pyarrow.output_stream(str(path / "a.jsonl.zst"), compression="zstd") as file:
        file.write(_lines(path))
    return path / "a.jsonl.zst"


def _frame(path: Path, name: str, **options: Any) -> Path:
    frame = pandas.DataFrame(TWO)
    if "csv" in name:
        frame.to_csv(path / name, index=False, **options)
    else:
        frame.to_json(path / name, orient="records", lines=True, **options)
    return path / name


FILES: dict[str, Callable[[Path], Path]] = {
    "TSV": lambda path: _csv(path / "a.tsv", delimiter="\t"),
    "CSV with semicolons": lambda path: _csv(path / "a.csv", delimiter=";"),
    "CSV with tabs": lambda path: _csv(path / "a.csv", delimiter="\t"),
    "CSV in cp1252": lambda path: _csv(path / "a.csv", "cp1252"),
    "CSV in UTF-16": lambda path: _csv(path / "a.csv", "utf-16", delimiter="\t"),
    "CSV of Excel": lambda path: _csv(path / "a.csv", "utf-8-sig", delimiter=";", dialect="excel"),
    "CSV that names its separator": lambda path: _written(
        path / "a.csv", b"sep=;\r\n" + _csv(path / "b.csv", delimiter=";").read_bytes()
    ),
    "CSV with empty rows of a sheet": lambda path: _written(
        path / "a.csv", b"\xef\xbb\xbfprompt;response;;\r\n" + "Hi;Yo;;\r\n;;;\r\nNaïve?;Café;;\r\n\r\n".encode()
    ),
    "CSV of pandas, packed": lambda path: _frame(path, "a.csv.gz"),
    "JSONL of pandas, bz2": lambda path: _frame(path, "a.jsonl.bz2"),
    "JSONL of pandas, xz": lambda path: _frame(path, "a.jsonl.xz"),
    "JSONL, gz": lambda path: _written(path / "a.jsonl.gz", gzip.compress(_lines(path))),
    "JSONL, zst": _zst,
    "JSONL with BOM, CRLF and blank lines": lambda path: _written(
        path / "a.jsonl", b"\xef\xbb\xbf" + _lines(path).replace(b"\n", b"\r\n\r\n")
    ),
    "JSON under data": lambda path: _written(path / "a.json", json.dumps({"version": 1, "data": TWO}).encode()),
    "JSON under another name": lambda path: _written(path / "a.json", json.dumps({"rows": TWO}).encode()),
    "a saved data set": _saved,
    "a folder of JSONL": _folder,
    "a glob": lambda path: _folder(path) / "part-*.jsonl",
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_shape(tmp_path: Path, name: str) -> None:
    assert read(FILES[name](tmp_path)) == BOTH


def test_the_encoding_that_was_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for encoding, words in (
        ("cp1252", "read as cp1252"),
        ("utf-16", "read as UTF-16"),
        ("utf-8-sig", ""),
        ("utf-8", ""),
    ):
        read(_csv(tmp_path / "a.csv", encoding))
        err = capsys.readouterr().err
        assert words in err
        assert bool(err) == bool(words)


def test_a_damaged_file_in_utf8_is_no_file_in_cp1252(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("prompt,response\nNaïve?,Café\n".encode() + b"Hi,Caf\xe9\nHi,Yo\n")
    with pytest.raises(HoldfastError, match=r"a\.csv, row 2: not UTF-8 \(byte 0xe9\)"):
        read(tmp_path / "a.csv")
    bad: list[str] = []
    assert read(tmp_path / "a.csv", bad_rows=bad) == BOTH[::-1]
    assert len(bad) == 1


def test_text_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    assert read(tmp_path / "a.txt") == [[("assistant", "One.")], [("assistant", "Two.")]]
    assert "each of its 2 lines is a row" in capsys.readouterr().err
    lines = datasets.load_dataset(
        "text", data_files=str(tmp_path / "a.txt"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert [line for line in lines["text"] if line] == ["One.", "Two."]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_bytes(b"Caf\xe9\n")
    (tmp_path / "folder" / "a.txt.gz").write_bytes(gzip.compress(b"One.\n"))
    (tmp_path / "folder" / "README.md").write_text("About\n")
    assert read(tmp_path / "folder") == [[("assistant", "One.")], [("assistant", "Café")]]
    assert "not read: README.md" in capsys.readouterr().err


def test_named_roles_and_the_line_to_type(tmp_path: Path) -> None:
    log = {"messages": [{"role": "Anna", "content": "Hi"}, {"role": "Ben", "content": "Yo"}]}
    talk = {"dialogue": [{"speaker": "Anna", "text": "Hi"}, {"speaker": "Ben", "text": "Yo"}]}
    shape = Shape(roles={"Anna": "user", "Ben": "assistant"})
    for row in (log, talk):
        file = write_jsonl(tmp_path / "a.jsonl", [row])
        with pytest.raises(HoldfastError, match="row 1, message 1: role is 'Anna'") as error:
            read(file)
        assert error.value.hint == "say who is who, such as --roles Anna=user,Ben=assistant"
        assert read(file, shape=shape) == [HI]


def test_the_error_for_unknown_columns_prints_the_line_to_type(tmp_path: Path) -> None:
    for row, line, columns in (
        (
            {"id": 1, "frage": "Hi", "antwort": "Yo"},
            "prompt=frage,response=antwort",
            {"prompt": "frage", "response": "antwort"},
        ),
        (
            {"reply": "Yo", "user_query": "Hi"},
            "prompt=user_query,response=reply",
            {"prompt": "user_query", "response": "reply"},
        ),
        ({"log": CHAT}, "messages=log", {"messages": "log"}),
    ):
        file = write_jsonl(tmp_path / "a.jsonl", [row])
        with pytest.raises(HoldfastError, match="no reading fits") as error:
            read(file)
        assert f"--columns {line}" in str(error.value)
        assert read(file, shape=Shape(columns=columns)) == [HI]
    with pytest.raises(HoldfastError, match="no column 'farge', which --columns names"):
        read(file, shape=Shape(columns={"prompt": "farge"}))


def test_one_empty_answer(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"question": "Hi", "answer": ""}, {"question": "Hi", "answer": "Yo"}])
    with pytest.raises(HoldfastError, match=r"row 1: 'answer' is empty"):
        read(file)
    assert read(file, bad_rows=[]) == [HI]


def test_calls_of_functions_become_those_of_openai() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "Wx?"},
            {"from": "gpt", "value": "Let me see."},
            {"from": "function_call", "value": '{"name": "wx", "arguments": {"city": "Oslo"}}'},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "Rain."},
        ],
        "tools": '[{"name": "wx", "parameters": {}}]',
    }
    changed = as_openai(row, ["conversations"], Shape(), "row 1")
    call = {"type": "function", "function": {"name": "wx", "arguments": {"city": "Oslo"}}}
    assert changed["conversations"] == [
        {"role": "user", "content": "Wx?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "Rain."},
    ]
    assert changed["tools"] == [{"type": "function", "function": {"name": "wx", "parameters": {}}}]
    row["conversations"][2]["value"] = "wx(Oslo)"
    with pytest.raises(HoldfastError, match=r"row 1, message 3: 'function_call' is no JSON: 'wx\(Oslo\)'"):
        as_openai(row, ["conversations"], Shape(), "row 1")


def test_pairs_of_other_shapes(tmp_path: Path) -> None:
    answers = {"chosen": "Yo", "rejected": "No"}
    sides = {"chosen": {"from": "gpt", "value": "Yo"}, "rejected": {"from": "gpt", "value": "No"}}
    for row in (
        {"question": "Hi", **answers},
        {"conversations": [{"from": "human", "value": "Hi"}], **sides},
        {"prompt": [{"type": "text", "text": "Hi"}], **answers},
        {"instruction": "Hi", "input": "", **answers},
    ):
        (pair,) = load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [row])))
        assert [(m.role, m.content) for m in (*pair.prompt, pair.chosen, pair.rejected)] == [
            (Role.USER, "Hi"), (Role.ASSISTANT, "Yo"), (Role.ASSISTANT, "No"),
        ]  # fmt: skip
    alpaca = {"instruction": "Hi", "input": "you", **answers}
    (pair,) = load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [alpaca])))
    assert [m.content for m in pair.prompt] == ["Hi\n\nyou"]
    file = write_jsonl(tmp_path / "a.jsonl", [{"system_prompt": "S", "frage": "Hi", "good": "Yo", "bad": "No"}])
    columns = {"system": "system_prompt", "prompt": "frage", "chosen": "good", "rejected": "bad"}
    (pair,) = load_pairs(str(file), shape=Shape(columns=columns))
    assert [(m.role, m.content) for m in pair.prompt] == [(Role.SYSTEM, "S"), (Role.USER, "Hi")]
    assert pair.layout == "chat"


# the rest of the 31 shapes: agent rows, a set with its held-out split, several files, names of speakers

AGENT = {
    "messages": [
        {"role": "user", "content": "wx?"},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "wx", "arguments": '{"city": "Oslo"}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": "Rain."},
    ],
    "tools": [
        {"type": "function", "function": {"name": "wx", "parameters": {"properties": {"city": {"type": "string"}}}}}
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tool_calls_of_openai(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        write_jsonl(source, [AGENT])
    else:
        datasets.Dataset.from_list([AGENT]).to_parquet(str(source))
    (example,) = load_examples(str(source))
    assert [(m.role.label, m.content) for m in example.messages] == [
        ("user", "wx?"), ("assistant", ""), ("tool", "rain"), ("assistant", "Rain."),
    ]  # fmt: skip
    (call,) = example.messages[1].extras["tool_calls"]
    assert call["function"] == {"name": "wx", "arguments": {"city": "Oslo"}}
    assert example.messages[1].absent
    assert example.messages[2].extras["tool_call_id"] == "c1"
    assert example.tools[0]["function"]["name"] == "wx"


def test_weights_of_openai_stay(tmp_path: Path) -> None:
    rows = [{"messages": [CHAT[0], CHAT[1] | {"weight": 0}, *CHAT]}]
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert [message.weight for message in example.messages] == [1, 0, 1, 1]


def test_a_data_set_with_splits_and_several_files(tmp_path: Path) -> None:
    splits = {"train": datasets.Dataset.from_list(TWO), "test": datasets.Dataset.from_list(TWO[:1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    write_jsonl(tmp_path / "chat.jsonl", [{"messages": CHAT}])
    plan = TuneConfig(model="m", data=[str(tmp_path / "both"), str(tmp_path / "chat.jsonl")], output="unused")
    rows = train_and_held_out(plan, load_examples, None)
    assert [[(m.role.label, m.content) for m in e.messages] for e in rows.train] == [*BOTH, HI]
    assert [(e.layout, e.source) for e in rows.train] == [("pair", 0), ("pair", 0), ("chat", 1)]
    assert [[(m.role.label, m.content) for m in e.messages] for e in rows.held_out] == [HI]
    assert rows.rows == [2, 1]


def test_the_command_takes_every_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run over a file of each shape at once: every source is counted, and nothing is left out."""
    files = [str(write_jsonl(tmp_path / f"{number}.jsonl", [row])) for number, (row, _, _) in enumerate(ROWS.values())]
    for name, make in FILES.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        files.append(str(make(folder)))
    code = cli.main(["tune", "--model", "pocket", "--output", "unused", "--eval-share", "0", "--dry-run", "--json",
                     "--data", *files])  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0
    figures = json.loads(out)
    assert [(s["rows"], s["drawn"]) for s in figures["data_sources"]] == [(1, 1)] * len(ROWS) + [(2, 2)] * len(FILES)
    assert figures["data_report"]["columns_not_used"] == ["category", "source"]
    assert "columns not used: category, source" in err


def test_the_older_names_of_openai_are_read(tmp_path: Path) -> None:
    call = {"name": "wx", "arguments": '{"city": "Rome"}'}
    turns = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": None, "function_call": call}]
    row = {"messages": turns, "functions": [{"name": "wx", "parameters": {}}], "parallel_tool_calls": False}
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row])))
    assert example.messages[1].extras["tool_calls"][0]["function"] == {"name": "wx", "arguments": {"city": "Rome"}}
    assert example.tools == ({"type": "function", "function": {"name": "wx", "parameters": {}}},)
    assert example.unused == ("parallel_tool_calls",)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"id": "0", "data": ["Hi", "Yo"]}, None),
        ({"system": "Be brief.", "chat": "USER: Hi\nASSISTANT: Yo"}, None),
        ({"custom_id": "1", "method": "POST", "url": "/v1"}, None),
        ({"conversations": ["Hi", "Yo"]}, "jq -c '.conversations |= "),
        ({"messages": [{"role": "System", "content": "S"}, {"role": "User", "content": "Hi"}]}, "System=system,User=u"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, '"tool_calls": '),
        ({"system_prompt": "S", "question": "Hi", "response": "Yo"}, "--columns system=system_prompt"),
        ({"question": "Hi", "response": "Yo", "notes": "N", "mine": [{"a": 1}]}, "del(.notes, .mine)"),
    ],
)
def test_a_hint_names_no_line_that_would_misread_the_row(tmp_path: Path, row: dict[str, Any], hint: str | None) -> None:
    with pytest.raises(HoldfastError) as error:
        load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row])))
    assert (hint in str(error.value.hint)) if hint else error.value.hint is None
