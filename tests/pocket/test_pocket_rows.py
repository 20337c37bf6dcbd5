"""The rows that `pocket` ships: those of old, with right facts: what else could be asked, and the answer then."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import make_pocket_rows
from holdfast import pocket
from holdfast.errors import HoldfastError
from pocket.tasks import BY_NAME, SPLITS, Item, show, split_of
from pocket_oracles import ORACLES, fields_in

Row = dict[str, Any]

# Of the rows that version 0 made at every call (commit 33c6712): SHA-256 of JSON lines, names and order of columns
# included.
OLD_DIGESTS = {
    "pocket:corpus": "43becf8282be90b3bff7657c7fa7028ba2c6092422fd0d8df98ecf60c8feb03e",
    "pocket:instructions": "82dc7039c750c1a905f66eeb7d0744c3293417cf213e48bb5db7e1cfa4136e3f",
    "pocket:instructions/train": "82dc7039c750c1a905f66eeb7d0744c3293417cf213e48bb5db7e1cfa4136e3f",
    "pocket:instructions/dev": "ac914fe6fe89a5cefd538ae3347c3e7a792c28abca99c4477ecb3efb6bd3891a",
    "pocket:instructions/test": "c2e30cf33408d5856ca0592810a36c9fa821f327c9d116353e33024a0049da87",
    "pocket:intents": "546d852aaab518d5b6420d812c16c072d03fe13b5554d96b77a85ac1732d8b28",
    "pocket:tasks": "1a7db9220d735e499a5d05dc62457095ba5f36cf1ed6a1cb999188d5f62f10e9",
    "pocket:preferences": "c93cba64fe6275a1969b35102266230fb3dea5c957387b507be93dd14d7a4e81",
    "pocket:preferences/train": "c93cba64fe6275a1969b35102266230fb3dea5c957387b507be93dd14d7a4e81",
    "pocket:preferences/dev": "793dd787476eecf6d6ec50772519ac3c3a1a254ca90e4eb28fd5c929233be492",
    "pocket:preferences/test": "1708554bf80b0f14f62c207e788ade104aee5f1e4d579908f82d1186e9452e83",
}
SIZES = {
    "pocket:corpus": 20_000,
    "pocket:instructions/train": 8000,
    "pocket:instructions/dev": 600,
    "pocket:instructions/test": 900,
}
OLD_META = ("task", "wording", "held_out_wording", "split")  # of intents, the only rows that had one
WITH_ALTERNATIVES = ("pocket:instructions/test", "pocket:preferences/test", "pocket:intents")
WITHOUT_ALTERNATIVES = tuple(
    f"pocket:{kind}/{split}" for kind in ("instructions", "preferences") for split in ("train", "dev")
)


def as_of_old(name: str, row: Row) -> Row:
    if name == "pocket:intents":
        return row | {"meta": {key: row["meta"][key] for key in OLD_META}}
    return {key: value for key, value in row.items() if key != "meta"}


def user_message(row: Row) -> str:
    if "messages" in row:
        return str(row["messages"][-2]["content"])
    return str(row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"])


def right_answer(row: Row) -> str:
    if "messages" in row:
        return str(row["messages"][-1]["content"])
    return str(row["target"] if "target" in row else row["chosen"][0]["content"])


# --- the door ------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_old_in_content_and_order() -> None:
    assert tuple(OLD_DIGESTS) == pocket.NAMES
    for name, digest in OLD_DIGESTS.items():
        lines = [json.dumps(as_of_old(name, row), ensure_ascii=False) + "\n" for row in pocket.rows(name)]
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == digest, name
        assert len(lines) == SIZES.get(name, len(lines))


def test_every_column_is_documented() -> None:
    for name in pocket.NAMES:
        for column in {column for row in pocket.rows(name) for column in (*row, *row.get("meta", ()))}:
            assert f"`{column}`" in (pocket.__doc__ or ""), (name, column)


def test_callers_get_rows_of_their_own() -> None:
    pocket.rows("pocket:instructions/dev")[0].clear()
    assert pocket.rows("pocket:instructions/dev")[0]["messages"]


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(HoldfastError) as caught:
        pocket.rows("pocket:nothing")
    assert "pocket:nothing" in str(caught.value)
    assert "pocket:instructions/test" in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "cut short", "not gzip", "not JSON"])
def test_a_damaged_installation_is_named(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pocket.rows_path("pocket:intents").read_bytes()
    contents = {
        "cut short": whole[: len(whole) // 2],
        "not gzip": b"version https://git-lfs.github.com",
        "not JSON": gzip.compress(b"{"),
    }
    path = tmp_path / "intents.jsonl.gz"
    if damage in contents:
        path.write_bytes(contents[damage])
    monkeypatch.setattr(pocket, "rows_path", lambda name: path)
    with pytest.raises(HoldfastError, match=r"intents.jsonl.gz: the rows of pocket:intents cannot be read"):
        pocket.rows("pocket:intents")


# --- rebuilding ----------------------------------------------------------------------------------------------------


def rebuilt(name: str, folder: Path) -> None:
    shipped, new = make_pocket_rows.HOME / f"{name}.jsonl.gz", make_pocket_rows.write_rows(folder, name)
    assert gzip.decompress(new.read_bytes()) == gzip.decompress(shipped.read_bytes()), (
        f"{name}: run scripts/make_pocket_rows.py"
    )
    assert new.read_bytes()[:10] == shipped.read_bytes()[:10]  # neither a time nor a file name in the header


@pytest.mark.parametrize("name", [name for name in make_pocket_rows.DATA_SETS if name != "corpus"])
def test_generators_make_the_shipped_rows(name: str, tmp_path: Path) -> None:
    rebuilt(name, tmp_path)


@pytest.mark.full
def test_generators_make_the_shipped_corpus(tmp_path: Path) -> None:
    rebuilt("corpus", tmp_path)


def test_nothing_else_is_shipped() -> None:
    files = {path.name for path in make_pocket_rows.HOME.iterdir()}
    assert (
        files
        == {pocket.rows_path(name).name for name in pocket.NAMES}
        == {f"{name}.jsonl.gz" for name in make_pocket_rows.DATA_SETS}
    )


def test_facts_are_the_same_in_every_process() -> None:
    code = (
        "import json; from pocket import splits; "
        "print(json.dumps([splits.intents(n_sets=32), splits.preferences('test', 64)]))"
    )
    printed = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        printed.add(
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
    assert len(printed) == 1


@pytest.mark.full
def test_the_wheel_holds_the_rows(tmp_path: Path) -> None:
    root = Path(make_pocket_rows.__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(command, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in pocket.NAMES:
            path = pocket.rows_path(name)
            assert packed.read(f"holdfast/pocket/rows/{path.name}") == path.read_bytes()
        assert not [file for file in packed.namelist() if file.startswith(("pocket/", "scripts/"))]


# --- facts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*WITHOUT_ALTERNATIVES, *WITH_ALTERNATIVES])
def test_facts_say_what_the_row_asks_and_its_right_answer(name: str) -> None:
    for row in pocket.rows(name):
        facts = row["meta"]
        task = BY_NAME[facts["task"]]
        assert facts["fields"] == fields_in(task.name, facts["wording"], user_message(row))
        assert facts["answer"] == right_answer(row) == ORACLES[task.name](Item(facts["fields"], ""))
        assert facts["labels"] == (None if task.labels is None else list(task.labels))
        assert facts["split"] == split_of(task.name, facts["fields"]) == (name.partition("/")[2] or "test")
        assert facts["held_out_wording"] == (facts["wording"] >= len(task.wordings))
        assert all(row.get(key, facts[key]) == facts[key] for key in ("task", "wording", "held_out_wording"))


@pytest.mark.parametrize("name", WITH_ALTERNATIVES)
def test_must_move_edits_have_another_right_answer_to_another_question(name: str) -> None:
    kinds: dict[str, set[str]] = {}
    for row in pocket.rows(name):
        facts = row["meta"]
        task = BY_NAME[facts["task"]]
        assert len(facts["alternatives"]) == 3
        assert len({edited["prompt"] for edited in facts["alternatives"]} | {user_message(row)}) == 4
        for edited in facts["alternatives"]:
            kinds.setdefault(task.name, set()).add(edited["edit"])
            assert edited["fields"] == fields_in(task.name, facts["wording"], edited["prompt"])
            assert edited["answer"] == ORACLES[task.name](Item(edited["fields"], "")) != facts["answer"]
            assert task.labels is None or edited["answer"] in task.labels
            assert edited["split"] == split_of(task.name, edited["fields"])
            assert [edited["fields"][key] == value for key, value in facts["fields"].items()].count(False) == 1
    assert kinds.keys() == BY_NAME.keys()
    assert kinds["who_has"] == kinds["where_is"] == {"ask", "swap", "value"}
    assert kinds["yes_no"] == {"person", "place", "swap"}
    assert kinds["sentiment"] == {"opinion", "negation"}
    assert kinds["odd_one_out"] == {"odd", "others"}
    assert kinds["count"] == {"more", "fewer"}


def test_most_edited_items_are_new_to_a_model_that_was_trained_on_the_train_split() -> None:
    edited = [e for row in pocket.rows("pocket:instructions/test") for e in row["meta"]["alternatives"]]
    assert sum(e["split"] == "test" for e in edited) / len(edited) > 0.8


@pytest.mark.parametrize("name", WITH_ALTERNATIVES)
def test_further_wordings_ask_the_same_item(name: str) -> None:
    taken: dict[str, set[int]] = {}  # of intents: the wordings that rows of the set have
    rows = pocket.rows(name)
    for i, row in enumerate(rows):
        taken.setdefault(row.get("set_id", str(i)), set()).add(row["meta"]["wording"])
    for i, row in enumerate(rows):
        facts = row["meta"]
        task = BY_NAME[facts["task"]]
        if row.get("variant_id"):
            assert "wordings" not in facts
            continue
        others = set(range(len(task.all_wordings))) - taken[row.get("set_id", str(i))]
        assert [other["wording"] for other in facts["wordings"]] == sorted(others)
        for other in facts["wordings"]:
            assert other["held_out_wording"] == (other["wording"] >= len(task.wordings))
            assert fields_in(task.name, other["wording"], other["prompt"]) == facts["fields"]


def test_a_polite_prefix_stays_before_whatever_is_asked_instead() -> None:
    rows = [row for row in pocket.rows("pocket:instructions/test") if user_message(row).startswith("Hello! ")]
    assert len(rows) > 5
    for row in rows:
        others = row["meta"]["alternatives"] + row["meta"]["wordings"]
        assert all(other["prompt"].startswith("Hello! ") for other in others)


def test_an_intent_has_one_list_of_edits_in_all_its_wordings() -> None:
    sets: dict[str, set[str]] = {}
    for row in pocket.rows("pocket:intents"):
        edits = [
            {key: value for key, value in edited.items() if key != "prompt"} for edited in row["meta"]["alternatives"]
        ]
        sets.setdefault(row["set_id"], set()).add(json.dumps(edits))
    assert {len(edits) for edits in sets.values()} == {1}


@pytest.mark.parametrize("name", WITHOUT_ALTERNATIVES)
def test_rows_that_may_be_trained_on_hold_no_test_item_and_no_new_wording(name: str) -> None:
    assert not [
        row
        for row in pocket.rows(name)
        if row["meta"].keys() & {"alternatives", "wordings"} or row["meta"]["held_out_wording"]
    ]


# --- data sets -----------------------------------------------------------------------------------------------------


def test_intents_ask_one_item_in_different_wordings() -> None:
    rows = pocket.rows("pocket:intents")
    sets: dict[str, list[Row]] = {}
    asked: set[tuple[str, ...]] = set()
    for row in rows:
        sets.setdefault(row["set_id"], []).append(row)
    assert len(sets) == 120
    assert len(rows) == 960
    for variants in sets.values():
        assert [v["variant_id"] for v in variants] == list(range(8))
        assert [v["kind"] for v in variants] == ["original"] + ["wording"] * 7
        assert not variants[0]["meta"]["held_out_wording"]
        assert sum(v["meta"]["held_out_wording"] for v in variants) == 4
        assert len({v["prompt"] for v in variants}) == 8
        assert len({v["target"] for v in variants}) == 1
        items = {str(sorted(fields_in(v["meta"]["task"], v["meta"]["wording"], v["prompt"]).items())) for v in variants}
        assert len(items) == 1
        asked.add((variants[0]["meta"]["task"], *items))
    assert len(asked) == 120


def test_tasks_list_distinct_items_of_every_split() -> None:
    for task in pocket.rows("pocket:tasks"):
        inputs = [row["input"] for row in task["rows"]]
        assert len(inputs) == len(set(inputs)) >= (48 if task["name"] in ("opposite", "plural", "category") else 200)
        assert {row["split"] for row in task["rows"]} == set(SPLITS)
        assert all(row["split"] == split_of(task["name"], row["fields"]) for row in task["rows"])
        assert all(row["input"] == show(Item(row["fields"], row["answer"])) for row in task["rows"])
        assert all(row["answer"] == ORACLES[task["name"]](Item(row["fields"], "")) for row in task["rows"])
