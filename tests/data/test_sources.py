"""Several sources at once, splits that are held out, packed and broken files, and what the commands say of them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import datasets
import pytest

from holdfast import cli
from holdfast.config import AlignConfig, TuneConfig, WeighConfig
from holdfast.data.examples import load_examples
from holdfast.data.files import lines_of
from holdfast.data.read import source_digest, with_held_out
from holdfast.data.shapes import shape_of
from holdfast.data.sources import draw
from holdfast.errors import HoldfastError
from holdfast.tune import train, weigh
from holdfast.tune.plan import make_plan
from materials import write_jsonl

COUNT = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(1, n + 1)))} for n in range(1, 21)]
ASK = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(6)]


def config(model: Path, data: Any, **options: Any) -> TuneConfig:
    return TuneConfig(**{"model": str(model), "data": data, "output": "unused", **options})


def saved(path: Path, **sizes: int) -> str:
    splits = {name: datasets.Dataset.from_list(COUNT[:size]) for name, size in sizes.items()}
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    datasets.Dataset.from_list(ASK).to_parquet(str(tmp_path / "b.parquet"))
    return [str(write_jsonl(tmp_path / "a.jsonl", COUNT)), str(tmp_path / "b.parquet")]


def test_two_files_are_each_read_for_themselves(model_folder: Path, two: list[str]) -> None:
    plan = make_plan(config(model_folder, two, eval_share=0))
    assert len(plan.train) == 26
    assert plan.resolved()["data_sources"] == [
        {"source": two[0], "rows": 20, "drawn": 20, "distinct": 20},
        {"source": two[1], "rows": 6, "drawn": 6, "distinct": 6},
    ]
    assert "data_sources" not in make_plan(config(model_folder, two[0])).resolved()


def test_shares_are_drawn_with_the_seed_and_counted(model_folder: Path, two: list[str], tmp_path: Path) -> None:
    options = {"data_share": "2,1", "eval_share": 0, "max_steps": 1}
    first = train(config(model_folder, two, output=str(tmp_path / "a"), **options))
    assert first["data_sources"] == [
        {"source": two[0], "rows": 20, "drawn": 12, "distinct": 12},
        {"source": two[1], "rows": 6, "drawn": 6, "distinct": 6},
    ]
    assert first["train_examples"] == 18
    assert first["data"] == ", ".join(two)
    plans = [make_plan(config(model_folder, two, seed=seed, **options)) for seed in (0, 0, 1)]
    ids = [[tokens.ids.tolist() for tokens in plan.train] for plan in plans]
    assert ids[0] == ids[1] != ids[2]
    assert train(config(model_folder, two, output=str(tmp_path / "a"), **options)) == first  # a whole run is returned


def test_draw_takes_nothing_twice_and_keeps_the_order() -> None:
    parts = [list(range(100)), list(range(100, 110)), list(range(200, 1000))]
    drawn = draw(parts, [3, 1, 0.5], seed=3)
    assert [len(part) for part in drawn] == [30, 10, 5]
    assert all(sorted(set(part)) == part for part in drawn)
    assert draw(parts, None, seed=3) == parts


@pytest.mark.parametrize("share", ["1", "1,2,3", "1,0", "1,-1", "a,b", "1,inf", "nan,1"])
def test_shares_that_are_none(model_folder: Path, two: list[str], share: str) -> None:
    with pytest.raises(HoldfastError, match="2 numbers greater than 0"):
        make_plan(config(model_folder, two, data_share=share))


@pytest.mark.parametrize(
    ("sizes", "held_out"),
    [({"train": 9, "test": 4}, "test"), ({"train": 9, "test": 4, "validation": 3}, "validation"), ({"train": 9}, None)],
)
def test_the_split_of_a_data_set_is_the_held_out_data(
    model_folder: Path, tmp_path: Path, sizes: dict[str, int], held_out: str | None, capsys: Any
) -> None:
    data = saved(tmp_path / "data", **sizes)
    plan = make_plan(config(model_folder, data, eval_share=0.2))
    err = capsys.readouterr().err
    if held_out is None:
        assert (len(plan.train), len(plan.held_out)) == (7, 2)
        return
    assert (len(plan.train), len(plan.held_out)) == (9, sizes[held_out])
    assert err.count(f"split 'train' is trained on, and split '{held_out}' is the held-out data") == 1
    assert ("test is not read" in err) == (len(sizes) == 3)
    for options in ({"eval_share": 0}, {"eval_data": f"{data}:{held_out}"}):
        plan = make_plan(config(model_folder, data, **options))
        assert len(plan.held_out) == (0 if "eval_share" in options else sizes[held_out])
        assert "split 'train' is read; " in capsys.readouterr().err
    assert len(make_plan(config(model_folder, f"{data}:{held_out}", eval_share=0)).train) == sizes[held_out]


def test_a_folder_whose_files_are_named_for_their_splits(model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    write_jsonl(folder / "train-00000-of-00002.jsonl", COUNT[:3])
    write_jsonl(folder / "more" / "train-00001-of-00002.jsonl", COUNT[3:5])
    write_jsonl(folder / "test.jsonl", COUNT[5:7])
    assert with_held_out(str(folder)) == (f"{folder}:train", f"{folder}:test")
    plan = make_plan(config(model_folder, str(folder)))
    assert (len(plan.train), len(plan.held_out)) == (5, 2)
    capsys.readouterr()
    assert len(load_examples(str(folder))) == 5
    assert "not read: test.jsonl" in capsys.readouterr().err
    with pytest.raises(HoldfastError, match="no split 'dev'; its files are of train, test"):
        load_examples(f"{folder}:dev")
    digest = source_digest(str(folder))
    write_jsonl(folder / "train-00000-of-00002.jsonl", COUNT[:4])
    assert source_digest(str(folder)) != digest


def test_a_glob_reads_each_file_for_itself(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "part-1.jsonl", COUNT[:2])
    write_jsonl(tmp_path / "part-2.jsonl", ASK[:2])
    examples = load_examples(str(tmp_path / "part-?.jsonl"), limit=3)
    assert [example.messages[0].content for example in examples] == ["Count to 1.", "Count to 2.", "What is 0?"]
    assert examples[2].where.endswith("part-2.jsonl, row 1")
    with pytest.raises(HoldfastError, match=r"part-\*\.csv: no file fits"):
        load_examples(str(tmp_path / "part-*.csv"))


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": None}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_that_are_cut_or_no_such_files(tmp_path: Path, suffix: str) -> None:
    import pyarrow

    content = "".join(json.dumps(row) + "\n" for row in COUNT * 50).encode()
    pack = PACKERS[suffix] or (lambda text: pyarrow.Codec("zstd").compress(text, asbytes=True))
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(pack(content) + pack(b'{"text": "x"}\n'))  # as `cat a.gz b.gz` makes it
    assert len(list(lines_of(file))) == 1001
    for broken in (pack(content)[:-9], pack(content)[:40], b"no such file"):
        file.write_bytes(broken)
        with pytest.raises(HoldfastError, match=rf"a\.jsonl{suffix}: cannot be read"):
            load_examples(str(file))


def test_the_command_takes_several_files_and_names(model_folder: Path, two: list[str], capsys: Any) -> None:
    arguments = ["tune", "--model", str(model_folder), "--output", "unused", "--dry-run", "--data"]
    assert cli.main([*arguments, *two, "--data-share", "2,1"]) == 0
    out = capsys.readouterr().out
    assert f"{two[0]}: 10 of 20 rows\n{two[1]}: 5 of 6 rows" in out  # one of the six is held out
    assert "template plain" in out
    columns = ["--columns", "prompt=question,response=answer"]
    assert cli.main([*arguments, two[1], *columns, "--joint", "newline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train_examples"] == 5
    assert cli.main([*arguments, two[0], *columns]) == 2
    assert "no column 'question', which --columns names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "question"}, "'question' has no two sides"),
        ({"columns": "promt=question"}, "'promt' is none of the columns"),
        ({"columns": "prompt=a,prompt=b"}, "'prompt' is there twice"),
        ({"roles": "Anna=human"}, "--roles Anna=human: roles are"),
        ({"roles": "Anna="}, "has no two sides"),
    ],
)
def test_names_that_are_none(options: dict[str, str], message: str) -> None:
    with pytest.raises(HoldfastError, match=message) as error:
        shape_of(TuneConfig(model="m", data="d", output="o", **options))
    assert error.value.exit_code == 2


def test_rows_without_turns_on_a_model_with_a_chat_template(model_folder: Path, two: list[str], capsys: Any) -> None:
    for template, count in (("auto", 1), ("plain", 0), ("chat", 0)):
        make_plan(config(model_folder, two[0], template=template, eval_share=0))
        err = capsys.readouterr().err
        assert err.count("trained as plain text (20 by the template 'plain')") == count
        assert err.count("--template chat makes each a question and an answer") == count
    chat = write_jsonl(
        Path(two[0]), [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    make_plan(config(model_folder, str(chat)))
    assert "plain text" not in capsys.readouterr().err


def test_align_and_weigh_take_the_same_rows(model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("trl")
    from holdfast.align.plan import make_plan as pairs_of

    rows = [{"frage": f"Count {n}.", "good": "one two", "bad": "two one"} for n in range(6)]
    files = [str(write_jsonl(tmp_path / name, rows)) for name in ("a.jsonl", "b.jsonl")]
    options = {"columns": "prompt=frage,chosen=good,rejected=bad", "data_share": "1,1", "eval_share": 0}
    plan = pairs_of(AlignConfig(model=str(model_folder), data=files, output="unused", **options))
    assert len(plan.train) == 12
    assert plan.resolved()["data_sources"][1] == {"source": files[1], "rows": 6, "drawn": 6, "distinct": 6}
    assert "--template chat" in capsys.readouterr().err
    talk = {"dialogue": [{"speaker": "Anna", "text": "Hi"}, {"speaker": "Ben", "text": "one two"}]}
    data = write_jsonl(tmp_path / "c.jsonl", [talk] * 2)
    out = tmp_path / "weighed"
    weigh(WeighConfig(model=str(model_folder), data=str(data), output=str(out), roles="Anna=user,Ben=assistant"))
    again = config(model_folder, str(out / "data.jsonl"), roles="Anna=user,Ben=assistant", eval_share=0)
    assert any(tokens.scale is not None for tokens in make_plan(again).train)


def test_a_label_that_says_which_completions_are_good_is_refused(tmp_path: Path) -> None:
    row = {"prompt": "The sky is", "completion": " green.", "label": False}  # TRL's unpaired preferences
    with pytest.raises(HoldfastError, match="column 'label' is not used"):
        load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row])))
