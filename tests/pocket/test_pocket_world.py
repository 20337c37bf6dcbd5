"""The world that `pocket` was made from: its splits never meet, its answers are right, it is the same everywhere.

The rows that the package ships are in `test_pocket_rows.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import islice
from random import Random

import pytest

from pocket import splits, world
from pocket.corpus import MIXTURE, corpus
from pocket.tasks import BY_NAME, SPLITS, TASKS, Item, PocketTask, Split, ask, draw, split_of
from pocket_oracles import ORACLES, fields_in

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
each_split = pytest.mark.parametrize("split", SPLITS)


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(corpus(3000, seed=5))


def items(task: PocketTask, count: int = 300) -> list[Item]:
    rng = Random(11)
    return [task.make(rng) for _ in range(count)]


# --- tasks and wordings --------------------------------------------------------------------------------------------


@each_task
def test_a_task_has_enough_wordings_and_none_twice(task: PocketTask) -> None:
    assert len(task.wordings) >= 12
    assert len(task.held_out_wordings) >= 4
    assert len(set(task.all_wordings)) == len(task.all_wordings)


@each_task
def test_every_wording_shows_every_field(task: PocketTask) -> None:
    item = task.make(Random(0))
    for wording in range(len(task.all_wordings)):
        prompt = ask(task, wording, item)
        assert "{" not in prompt
        assert "}" not in prompt
        assert all(value in prompt for value in item.fields.values())


@each_task
def test_answers_are_short_and_in_the_label_space(task: PocketTask) -> None:
    for item in items(task):
        assert 1 <= len(item.answer.split()) <= 6
        assert task.labels is None or item.answer in task.labels
    if task.labels is not None:
        assert {item.answer for item in items(task)} == set(task.labels)


@pytest.mark.parametrize("name", ORACLES)
def test_answers_agree_with_an_independent_solution(name: str) -> None:
    assert all(item.answer == ORACLES[name](item) for item in items(BY_NAME[name]))


def test_word_tables_are_consistent() -> None:
    assert all(world.OPPOSITES[other] == word for word, other in world.OPPOSITES.items())
    assert len(world.NOUNS) == len(set(world.NOUNS)) == len(set(world.PLURALS.values()))
    assert len(world.OPPOSITES) == 2 * len(world.OPPOSITE_PAIRS)
    assert not set(world.GOOD_WORDS + world.GOOD_FEELINGS) & set(world.BAD_WORDS + world.BAD_FEELINGS)


# --- splits --------------------------------------------------------------------------------------------------------


def test_an_item_is_in_the_same_split_for_good() -> None:
    """A change here changes what the embedded model was trained on: it needs a new model."""
    found = [split_of("add", {"a": "3", "b": str(b)}) for b in range(1, 9)]
    assert found == ["train", "test", "train", "train", "test", "train", "test", "train"]
    assert split_of("opposite", {"word": "new"}) == "train"


@pytest.mark.parametrize("name", ["opposite", "plural", "category"])
def test_small_tables_leave_items_for_every_split(name: str) -> None:
    words = world.OPPOSITES if name == "opposite" else world.NOUNS
    found = [split_of(name, {"word": word}) for word in words]
    assert found.count("train") >= 25
    assert found.count("dev") >= 5
    assert found.count("test") >= 12


def test_items_do_not_meet_across_splits_or_seeds() -> None:
    drawn: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for seed in (0, 1):
            for row in splits.instructions(split, n=640, seed=seed):
                fields = fields_in(row["task"], row["wording"], row["messages"][-2]["content"])
                drawn[split].add(json.dumps([row["task"], fields], sort_keys=True))
    assert not drawn["train"] & drawn["dev"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["dev"] & drawn["test"]


def test_corpus_solves_train_items_only(documents: list[str]) -> None:
    """Items of big spaces, as shown in few-shot blocks, are never those of the dev or test split."""
    text = "\n".join(documents)
    shown = re.findall(r"^Words: (.+)\n(Rest|Reverse|Odd): ", text, flags=re.M)
    names = {"Rest": "drop_first", "Reverse": "reverse", "Odd": "odd_one_out"}
    assert len(shown) > 200
    assert {split_of(names[cue], {"words": words}) for words, cue in shown} == {"train"}
    pairs = re.findall(r"^Word: (\w+)\n(Opposite|Plural|Category): ", text, flags=re.M)
    assert {split_of(cue.lower(), {"word": word}) for word, cue in pairs} == {"train"}


def test_prose_tells_every_table_fact_in_plain_text() -> None:
    rng = Random(0)
    text = "\n".join(world.facts(rng) for _ in range(6000))
    assert all(f"opposite of {word} is {other}" in text for word, other in world.OPPOSITES.items())
    assert all(f"plural of {noun} is {many}" in text for noun, many in world.PLURALS.items())
    assert all(f"category of {noun} is {kind}" in text for noun, kind in world.CATEGORY_OF.items())


# --- held-out wordings ---------------------------------------------------------------------------------------------


def signature(task: PocketTask, wording: str) -> str:
    """A stretch of the held-out wording's own text that no wording in use of its task has."""
    used = "\n".join(re.sub(r"{\w+}", "\x00", w) for w in task.wordings)
    stretches = [s.strip() for s in re.split(r"{\w+}", wording)]
    return max((s for s in stretches if s not in used), key=len)


def test_held_out_wordings_are_in_no_training_text(documents: list[str]) -> None:
    texts = list(documents)
    texts += [m["content"] for s in ("train", "dev") for r in splits.instructions(s) for m in r["messages"]]
    texts += [m["content"] for s in SPLITS for r in splits.preferences(s, n=500) for m in r["prompt"]]
    text = "\n".join(texts)
    for task in TASKS:
        for wording in task.held_out_wordings:
            assert len(signature(task, wording)) >= 6, wording
            assert signature(task, wording) not in text, wording


@each_split
def test_only_test_rows_may_use_held_out_wordings(split: Split) -> None:
    rows = splits.instructions(split, n=640)
    for row in rows:
        assert row["held_out_wording"] == (row["wording"] >= len(BY_NAME[row["task"]].wordings))
    share = sum(row["held_out_wording"] for row in rows) / len(rows)
    assert share == (0.5 if split == "test" else 0.0)


# --- data sets -----------------------------------------------------------------------------------------------------


@each_split
def test_instructions_are_balanced_chats_with_right_answers(split: Split) -> None:
    rows = splits.instructions(split, n=320)
    assert {row["task"] for row in rows} == set(BY_NAME)
    assert all(sum(row["task"] == name for row in rows) == 20 for name in BY_NAME)
    openings = 0
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles in (["user", "assistant"], ["system", "user", "assistant"])
        user, answer = row["messages"][-2]["content"], row["messages"][-1]["content"]
        openings += roles[0] == "system" or user.startswith(splits._POLITE_PREFIXES)
        fields = fields_in(row["task"], row["wording"], user)
        assert answer == ORACLES[row["task"]](Item(fields, answer))
    assert 10 <= openings <= 60


@each_split
def test_rejected_answers_are_never_the_chosen_one(split: Split) -> None:
    rows = splits.preferences(split, n=640)
    assert {row["fault"] for row in rows} == set(splits.FAULTS)
    for row in rows:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert rejected
        assert rejected != chosen
        assert (chosen in rejected) or row["fault"] == "wrong"


def test_corpus_documents_have_the_promised_length_and_no_chat_markers(documents: list[str]) -> None:
    lengths = [len(document) for document in documents]
    assert min(lengths) >= 400
    assert max(lengths) <= 2000
    assert 600 <= sum(lengths) / len(lengths) <= 1000
    assert not any(re.search(r"<\||\|>|\[INST|assistant|user:|Human:", document) for document in documents)
    assert sum(weight for _, weight in MIXTURE.values()) == pytest.approx(1.0)


# --- randomness ----------------------------------------------------------------------------------------------------


def test_corpus_is_a_stream_whose_start_does_not_depend_on_its_length() -> None:
    assert list(islice(corpus(1000, seed=3), 20)) == list(corpus(20, seed=3))
    assert list(corpus(5, seed=3)) != list(corpus(5, seed=4))


DIGEST = """
import hashlib, json
from pocket import splits
from pocket.corpus import corpus
rows = [list(corpus(50)), splits.instructions("test", 64), splits.intents(n_sets=16), splits.preferences("dev", 64)]
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


def test_rows_are_the_same_in_every_process() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout.strip())
    rows = [list(corpus(50)), splits.instructions("test", 64), splits.intents(n_sets=16), splits.preferences("dev", 64)]
    assert digests == {hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def test_draw_stays_in_its_split() -> None:
    rng = Random(0)
    for split in SPLITS:
        for task in TASKS:
            assert split_of(task.name, draw(task, split, rng).fields) == split
