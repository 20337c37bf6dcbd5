"""Rows from outside: what nothing reads is refused or listed, what is missing is named, and CSV files are read to the
letter.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from holdfast import cli
from holdfast.align import align
from holdfast.config import AlignConfig, TuneConfig, WeighConfig
from holdfast.data.examples import load_examples
from holdfast.data.pairs import load_pairs
from holdfast.errors import HoldfastError
from holdfast.study.table import read_table
from holdfast.tune import train, weigh
from materials import make_tokenizer, write_jsonl

USER, ANSWER = {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Let me see."}
CHAT = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "Count.", "response": "one two"}
CHOICE = {"prompt": "Count.", "chosen": "one two", "rejected": "two one"}
ALPACA = {"instruction": "Count.", "input": "", "output": "one two"}
CALL = [{"type": "function", "function": {"name": "wx", "arguments": {}}}]


def with_key(turn: int, **keys: Any) -> dict[str, Any]:
    turns = [USER, ANSWER]
    return {"messages": [*turns[:turn], turns[turn] | keys, *turns[turn + 1 :]]}


REFUSED = {
    "tools": PAIR | {"tools": CALL},
    "tool_calls": with_key(0, tool_calls=CALL),
    "reasoning_content": with_key(0, reasoning_content="It may."),
    "name": with_key(0, name="Ada"),
    "train ": PAIR | {"train": False},
    "masked": with_key(1, masked=True),
    "train  ": CHAT | {"train": False},
    "system": PAIR | {"system": "Be brief."},
    "system_prompt": ALPACA | {"system_prompt": "Be brief."},
    "history": PAIR | {"history": [["Hi", "Hello"]]},
    "context": PAIR | {"context": "Numbers come in order."},
    "chosen": PAIR | {"chosen": "one"},
    "rejected": CHAT | {"rejected": [USER, {"role": "assistant", "content": "No."}]},
    "prompt": CHAT | {"prompt": "Something else"},
    "loss_weight": PAIR | {"loss_weight": 0.0},
    "enable_thinking": CHAT | {"enable_thinking": False},
    "answer": PAIR | {"answer": 42},
    "chat_template_kwargs": PAIR | {"chat_template_kwargs": {"enable_thinking": False}},
    "notes": {"text": "Once.", "notes": "Something else."},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_change_the_learning_is_refused_by_name(tmp_path: Path, name: str) -> None:
    without = {key: value for key, value in REFUSED[name].items() if key != name.strip()}
    if without != REFUSED[name]:
        load_examples(str(write_jsonl(tmp_path / "a.jsonl", [without])))  # without the column the row is fine
    file = write_jsonl(tmp_path / "a.jsonl", [REFUSED[name]])
    with pytest.raises(HoldfastError, match=rf"a\.jsonl, row 1.*'{name.strip()}' is not used") as error:
        load_examples(str(file))
    assert "drop it" in str(error.value)


LISTED = {
    "id": "a-1", "category": "counting", "source": "web", "url": "https://a.example",
    "timestamp": "2024-01-01T00:00:00", "language": "en", "score": 0.5, "num_turns": 3, "prompt_id": "9f",
    "is_safe": True, "metadata": {"by": "Ada"}, "created_at": 17,
}  # fmt: skip


@pytest.mark.parametrize("row", [CHAT, PAIR, ALPACA, {"text": "Once."}], ids=["chat", "pair", "alpaca", "text"])
def test_plain_metadata_is_listed(tmp_path: Path, row: dict[str, Any]) -> None:
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row | LISTED])))
    assert set(example.unused) == set(LISTED)
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [with_key(0, id="m1") | {"id": 1}])))
    assert example.unused == ("id", "messages.id")


@pytest.mark.parametrize("name", ["keep", "drop", "deleted", "is_selected", "use"])
def test_a_truth_value_that_picks_rows_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HoldfastError, match=f"'{name}' is not used"):
        load_examples(str(write_jsonl(tmp_path / "a.jsonl", [PAIR | {name: False}])))


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "a", "response": "b", "response": "c"}',
        '{"messages": [{"role": "assistant", "content": "b", "content": "c"}]}',
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_key_that_is_there_twice_is_no_choice_of_ours(tmp_path: Path, row: str, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text(row if suffix == "jsonl" else f"[{row}]")
    with pytest.raises(HoldfastError, match=r"'(response|content)' is there twice"):
        load_examples(str(file))


def test_bad_rows_of_a_json_file_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "a", "response": "b"}, 3, {"prompt": "\\ud800", "response": "b"}]')
    bad: list[str] = []
    assert len(load_examples(str(tmp_path / "a.json"), bad_rows=bad)) == 1
    assert [message.partition("a.json, ")[2][:5] for message in bad] == ["row 2", "row 3"]
    with pytest.raises(HoldfastError, match=r"a\.json"):
        load_examples(str(tmp_path / "a.json"))


def test_splits_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = datasets.Dataset.from_list([PAIR])
    datasets.DatasetDict(train=rows, test=rows, validation=rows).save_to_disk(str(tmp_path / "data"))
    assert len(load_examples(str(tmp_path / "data"))) == 1
    assert "split 'train' is read; test, validation are not" in capsys.readouterr().err


def test_what_says_nothing_is_passed_over(tmp_path: Path) -> None:
    """Parquet fills every row with every column, and every struct with every key."""
    says_nothing = {"tool_calls": None, "reasoning_content": "", "name": None}
    rows = [
        {"messages": [USER | says_nothing, ANSWER | says_nothing | {"tool_calls": []}], "tools": [], "system": None},
        {
            "messages": [USER, ANSWER | {"tool_calls": [{"name": None, "arguments": {"city": None}}]}],
            "history": [],
            "system": "  ",
        },
    ]
    assert [e.unused for e in load_examples(str(write_jsonl(tmp_path / "a.jsonl", rows)))] == [(), ()]
    datasets.Dataset.from_list([CHAT | {"tools": None}, CHAT | {"tools": [{"name": None}]}]).to_parquet(
        str(tmp_path / "a.parquet")
    )
    assert [e.unused for e in load_examples(str(tmp_path / "a.parquet"))] == [(), ()]


def test_a_column_that_repeats_what_is_read_is_passed_over(tmp_path: Path) -> None:
    """As in UltraChat (the prompt is the first message) and in what `crosstask label` writes (the answer ends the
    response).
    """
    rows = [CHAT | {"prompt": "Rain?", "prompt_id": "1"}, CHAT | {"prompt": "Rain? ", "prompt_id": "2"}]
    assert [e.unused for e in load_examples(str(write_jsonl(tmp_path / "a.jsonl", rows)))] == [("prompt_id",)] * 2
    labelled = {
        "prompt": "Topic:",
        "response": "so: food",
        "answer": "food",
        "fields": {"text": "Tea"},
        "votes": {"food": 2},
    }
    assert load_examples(str(write_jsonl(tmp_path / "b.jsonl", [labelled])))[0].unused == ("fields", "votes")
    with pytest.raises(HoldfastError, match="'answer' is not used"):  # `od` is no word of the response
        load_examples(str(write_jsonl(tmp_path / "c.jsonl", [labelled | {"answer": "od"}])))


def test_a_named_layout_lists_the_columns_of_the_others_and_refuses_the_rest(tmp_path: Path) -> None:
    row = {"text": "Once.", "prompt": "p", "response": "r"}
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row])), layout="text")
    assert example.unused == ("prompt", "response")
    with pytest.raises(HoldfastError, match="column 'system' is not used"):
        load_examples(str(write_jsonl(tmp_path / "b.jsonl", [row | {"system": "s"}])), layout="text")


def test_numbers_and_truth_values_in_a_csv_file_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",prompt,response,helpfulness,checked,system\n0,p,r,3,true,\n1,p,r,4,false,\n")
    assert load_examples(str(tmp_path / "a.csv"))[0].unused == ("", "helpfulness", "checked")
    (tmp_path / "a.csv").write_text("prompt,response,train\np,r,false\n")
    with pytest.raises(HoldfastError, match=r"row 1: column 'train' is not used"):
        load_examples(str(tmp_path / "a.csv"))


def test_tune_lists_unused_columns_once_and_in_its_summary(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [PAIR | {"id": n, "category": "counting"} for n in range(6)]
    data, held_out = (
        write_jsonl(tmp_path / "a.jsonl", rows),
        write_jsonl(tmp_path / "b.jsonl", [PAIR | {"id": 1, "split": "dev"}]),
    )
    config = TuneConfig(
        model=str(model_folder), data=str(data), eval_data=str(held_out), output=str(tmp_path / "run"), max_steps=1
    )
    summary = train(config)
    assert summary["data_report"]["columns_not_used"] == ["category", "id", "split"]
    assert capsys.readouterr().err.count("columns not used: category, id, split\n") == 1


def test_a_column_of_every_row_is_no_matter_of_bad_rows(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = write_jsonl(tmp_path / "a.jsonl", [PAIR | {"system": "Be brief."}] * 4)
    arguments = [
        "tune",
        "--model",
        str(model_folder),
        "--output",
        str(tmp_path / "run"),
        "--skip-bad-rows",
        "--dry-run",
        "--data",
    ]
    assert cli.main([*arguments, str(every)]) == 2
    assert "every row is refused (4 in all); the first: " in (error := capsys.readouterr().err)
    assert "row 1: column 'system' is not used" in error
    some = write_jsonl(tmp_path / "b.jsonl", [PAIR | {"system": "Be brief."}, *[PAIR] * 4])
    assert cli.main([*arguments, str(some)]) == 0
    assert "1 bad row left out; the first: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"system": "s"}, "system"),
        ({"tools": CALL}, "tools"),
        ({"messages": [USER, ANSWER]}, "messages"),
        ({"weight": 0.5}, "weight"),
    ],
)
def test_pairs_refuse_what_they_do_not_use(tmp_path: Path, extra: dict[str, Any], name: str) -> None:
    with pytest.raises(HoldfastError, match=rf"row 1: column '{name}' is not used"):
        load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [CHOICE | extra])))
    with pytest.raises(HoldfastError, match=r"every row is refused \(1 in all\)"):
        load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [CHOICE | extra])), bad_rows=[])


def test_pairs_look_into_their_messages(tmp_path: Path) -> None:
    chosen, rejected = [USER, ANSWER | {"masked": True}], [USER, {"role": "assistant", "content": "No."}]
    with pytest.raises(HoldfastError, match=r"row 1, message 2 of 'chosen': key 'masked' is not used"):
        load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [{"chosen": chosen, "rejected": rejected}])))
    with pytest.raises(HoldfastError, match=r"key 'weight' is not used"):
        load_pairs(
            str(write_jsonl(tmp_path / "a.jsonl", [{"chosen": [USER, ANSWER | {"weight": 0}], "rejected": rejected}]))
        )
    row = {
        "chosen": [USER, ANSWER],
        "rejected": rejected,
        "messages": [USER, ANSWER],
        "prompt": "Rain?",
        "score_chosen": 7.5,
        "weight": 1,
    }
    (pair,) = load_pairs(str(write_jsonl(tmp_path / "a.jsonl", [row])))
    assert pair.unused == ("score_chosen",)


def test_align_and_weigh_list_unused_columns(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl")
    choices = write_jsonl(tmp_path / "a.jsonl", [CHOICE | {"id": n} for n in range(4)])
    summary = align(AlignConfig(model=str(model_folder), data=str(choices), output=str(tmp_path / "a"), dry_run=True))
    assert summary["data_report"]["columns_not_used"] == ["id"]
    assert capsys.readouterr().err.count("columns not used: id\n") == 1
    rows = datasets.Dataset.from_list([PAIR | {"id": n, "created": "2024-01-01"} for n in range(4)])
    rows.cast_column("created", datasets.Value("date32")).to_parquet(str(tmp_path / "b.parquet"))
    summary = weigh(WeighConfig(model=str(model_folder), data=str(tmp_path / "b.parquet"), output=str(tmp_path / "b")))
    assert summary["columns_not_used"] == ["created", "id"]
    assert capsys.readouterr().err.count("columns not used: created, id\n") == 1
    assert json.loads((tmp_path / "b" / "data.jsonl").read_text().splitlines()[0])["created"] == "2024-01-01"
    data = write_jsonl(tmp_path / "c.jsonl", [PAIR | {"system": "s"}])
    with pytest.raises(HoldfastError, match="column 'system' is not used"):
        weigh(WeighConfig(model=str(model_folder), data=str(data), output=str(tmp_path / "c")))


def test_the_adapter_refuses_and_lists_as_tune_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    from trl_trainer import trainer

    with pytest.raises(HoldfastError, match=r"train_dataset, row 1, message 1: key 'tool_calls' is not used"):
        trainer(tmp_path, [REFUSED["tool_calls"]])
    trainer(tmp_path, [PAIR | {"id": 1, "category": "counting"}])
    assert "train_dataset: columns not used: category, id\n" in capsys.readouterr().err
    with pytest.raises(HoldfastError, match=r"train_dataset, row 2: a str, not an object"):
        trainer(tmp_path, [PAIR, "Once."])


def test_real_data_is_read_as_before(shared: Path) -> None:
    folder = shared / "data"
    expected = {"dolly_3k/data.jsonl": {"dataset", "id"}, "dolly_hhrlhf_small/data.jsonl": set()}
    for name, columns in expected.items():
        examples = load_examples(str(folder / name))
        assert len(examples) > 900
        assert {column for example in examples for column in example.unused} == columns
    pairs = load_pairs(str(folder / "ultrafeedback_pairs" / "train.jsonl"), bad_rows=[])
    assert len(pairs) > 900
    assert {column for pair in pairs for column in pair.unused} == {"source_index", "metadata"}


MISSING = {
    "prompt": [PAIR, {"response": "c"}],
    "prompt ": [{"prompt": [USER], "completion": [ANSWER]}, {"completion": [ANSWER]}],
    "response": [PAIR, {"prompt": "p"}],
    "response ": [{"prompt": [USER], "response": [ANSWER]}, {"prompt": [USER]}],
    "instruction": [ALPACA, {"output": "o"}],
    "output": [ALPACA, {"instruction": "o"}],
    "text": [{"text": "t"}, {"id": 1}],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_column_names_file_and_row_or_is_skipped(tmp_path: Path, name: str) -> None:
    file = str(write_jsonl(tmp_path / "a.jsonl", MISSING[name]))
    with pytest.raises(HoldfastError, match=rf"a\.jsonl, row 2: .*'{name.strip()}'"):
        load_examples(file)
    bad: list[str] = []
    assert len(load_examples(file, bad_rows=bad)) == 1
    assert len(bad) == 1


def test_a_missing_prompt_is_skipped_and_counted_by_the_command(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [PAIR, {"response": "c"}, PAIR, PAIR])
    arguments = [
        "tune",
        "--model",
        str(model_folder),
        "--data",
        str(file),
        "--output",
        str(tmp_path / "run"),
        "--dry-run",
        "--json",
    ]
    assert cli.main(arguments) == 2
    assert "row 2: no column 'prompt'; the row has response\n  hint: " in capsys.readouterr().err
    assert cli.main([*arguments, "--skip-bad-rows"]) == 0
    assert json.loads(capsys.readouterr().out)["bad_rows"]["count"] == 1


def test_an_unclosed_quote_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    lines = ["prompt,response", "a,b", 'c,"d', "e,f", "g,h", "i,j"]
    later = 'g,"h"', '"g",h'  # a later quote closes the field, before more text
    glued = [lines, *([*lines[:4], row, lines[5]] for row in later)]
    for rows, ending in itertools.product(glued, ("\n", "\r\n")):
        (tmp_path / "a.csv").write_bytes((ending.join(rows) + ending).encode())
        with pytest.raises(HoldfastError, match=r"a\.csv, row 2 \(line 3\): a quoted field begins there"):
            load_examples(str(tmp_path / "a.csv"))
        bad: list[str] = []  # with --skip-bad-rows only the row itself is lost
        texts = [[m.content for m in e.messages] for e in load_examples(str(tmp_path / "a.csv"), bad_rows=bad)]
        assert texts == [["a", "b"], ["e", "f"], ["g", "h"], ["i", "j"]]
        assert ["row 2 (line 3)" in message for message in bad] == [True]
        assert "reading went on in line 4" in bad[0]
    (tmp_path / "a.tsv").write_text('prompt\tresponse\na\t"b\nc\td\n')
    with pytest.raises(HoldfastError, match=r"a\.tsv, row 1 \(line 2\)"):
        load_examples(str(tmp_path / "a.tsv"))


def test_quotes_that_mean_themselves_and_line_breaks_within_quotes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'prompt,response\na 5" pipe,say "hi" now\n"two\nlines, ""quoted""","x"\n\nlast,row\n'
    )
    texts = [[m.content for m in e.messages] for e in load_examples(str(tmp_path / "a.csv"))]
    assert texts == [['a 5" pipe', 'say "hi" now'], ['two\nlines, "quoted"', "x"], ["last", "row"]]
    (tmp_path / "a.csv").write_text('prompt,response\n"two\nlines",x\nc,"d\n')
    with pytest.raises(HoldfastError, match=r"row 2 \(line 4\)"):
        load_examples(str(tmp_path / "a.csv"))


def test_long_fields_of_a_csv_file(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"prompt,response\np,{'word ' * 28_000}\n")
    assert len(load_examples(str(tmp_path / "a.csv"))[0].messages[1].content) == 140_000
    assert csv.field_size_limit() == before  # of the process: not ours to change
    (tmp_path / "t.csv").write_text(f"prompt_weight,response_weight,score,note\n0,1,0.5,{'n' * 140_000}\n")
    assert read_table(tmp_path / "t.csv").metric == "score"


def test_bad_rows_of_a_csv_file_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response,weight\na,b,1\nc,d,heavy\ne,f,1,more\ng\nh,i,2\n")
    bad: list[str] = []
    assert [e.weight for e in load_examples(str(tmp_path / "a.csv"), bad_rows=bad)] == [1.0, 2.0]
    assert len(bad) == 3
    (tmp_path / "a.csv").write_text("prompt,response,response\na,b,c\n")
    with pytest.raises(HoldfastError, match="column 'response' appears twice"):
        load_examples(str(tmp_path / "a.csv"))


def test_a_table_of_results_with_an_unclosed_quote(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('model,prompt_weight,response_weight,score\na,0,1,0.5\n"b,0,1,0.5\nc,0,1,0.5\n')
    with pytest.raises(HoldfastError, match=r"t\.csv, row 2 \(line 3\): a quoted field begins there and never ends"):
        read_table(tmp_path / "t.csv")
    assert cli.main(["study", "best", str(tmp_path / "t.csv")]) == 2


def test_rows_that_are_no_objects_in_the_other_readers(tmp_path: Path) -> None:
    from holdfast.crosstask.library import load_library
    from holdfast.sensitivity.sets import load_sets

    (tmp_path / "t.json").write_text('[{"q": "a", "a": "b"}, 3]')
    (tmp_path / "t.yaml").write_text(
        "task: t\ndataset_kwargs: {data_files: {test: t.json}}\ndoc_to_text: q\ndoc_to_target: a\n"
    )
    with pytest.raises(HoldfastError, match=r"t\.json, row 2: a int, not an object"):
        load_library(str(tmp_path / "t.yaml"))
    rows = [{"set_id": "s", "variant_id": str(n), "prompt": f"p{n}", "seed": None} for n in range(2)]
    assert load_sets(str(write_jsonl(tmp_path / "s.jsonl", rows)))[0].variants[0].seed == 0
    with pytest.raises(HoldfastError, match=r"row 1: 'seed' must be a whole number, not 'x'"):
        load_sets(str(write_jsonl(tmp_path / "s.jsonl", [rows[0] | {"seed": "x"}])))


JOINTS = [("The sky is", " blue."), ("The sky is ", "blue."), ("The sky is", "blue."), ("", "The sky is blue.")]


@pytest.mark.parametrize("joint", JOINTS)
def test_no_space_is_added_where_either_side_has_one(tmp_path: Path, joint: tuple[str, str]) -> None:
    """As TRL has it: the text of both, then EOS."""
    from holdfast.align.tokens import tokenize_pairs
    from holdfast.tune.roles import tokenize
    from holdfast.tune.weights import role_weights

    tokenizer = make_tokenizer()
    prompt, answer = joint
    whole = tokenizer("The sky is blue.")["input_ids"] + [tokenizer.eos_token_id]
    examples = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [{"prompt": prompt, "completion": answer}])))
    (tokens,), _ = tokenize(examples, tokenizer, role_weights(), max_length=64)
    assert tokens.ids.tolist() == whole
    if prompt:
        pairs = load_pairs(
            str(write_jsonl(tmp_path / "b.jsonl", [{"prompt": prompt, "chosen": answer, "rejected": answer + "!"}]))
        )
        (pair,), _ = tokenize_pairs(pairs, tokenizer, max_length=64)
        assert pair.prompt + pair.chosen == whole


def test_answers_behind_a_cue_that_ends_in_white_space_get_no_space(tmp_path: Path) -> None:
    from holdfast.crosstask.prompts import demonstration
    from holdfast.crosstask.tasks import make_task
    from holdfast.sensitivity.prompts import Renderer
    from holdfast.sensitivity.sets import Variant

    for template, answer in (
        ("Say: {text}\nTopic: ", "food"),
        ("Say: {text}\nTopic:", "food"),
        ("Say: {text}\nTopic:", " food"),
    ):
        task = make_task(
            {"name": "t", "definition": "d", "template": template},
            [({"text": "Tea", "answer": answer}, "row 1")],
            "t.yaml",
        )
        assert demonstration(task, task.items[0]).text == "Say: Tea\nTopic: food\n"
    given = make_task(
        {"definition": "d", "template": "{text} ", "answer_prefix": "\n"},
        [({"text": "Tea", "answer": "food"}, "row 1")],
        "t.yaml",
    )
    assert demonstration(given, given.items[0]).text == "Tea \nfood\n"  # a prefix that is given is kept to

    for target in ("blue", " blue"):
        file = write_jsonl(tmp_path / "shots.jsonl", [{"prompt": "Sky?", "target": target}])
        made = Renderer(
            make_tokenizer(), chat_template=False, system=None, shots=1, shots_data=str(file), layout="fixed"
        )
        assert made.render(Variant("v", "original", "Sea?")) == "Sky? blue\n\nSea?"
