"""Generators: what they change and what they must not, seeds, counts, distances; files of prompts, and their errors."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import VariantsConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity import make_variants
from holdfast.sensitivity.sets import digest, load_sets
from holdfast.sensitivity.variants import GENERATORS, PromptItem, generator, load_items, make
from holdfast.sensitivity.variants.items import BARE, CHOICE_LAYOUT, QUESTION_LAYOUT, without_options
from holdfast.sensitivity.variants.layouts import PAPER_TEMPLATES
from holdfast.sensitivity.variants.make import diff, edit_distance
from holdfast.sensitivity.variants.protect import free_words, protected_spans
from holdfast.sensitivity.variants.surface import KEYBOARD, OPERATIONS
from holdfast.sensitivity.variants.wording import paraphrases_by, paraphrases_from, sentence_similarity
from materials import make_model, make_tokenizer, write_jsonl

CHOICE = PromptItem(
    "q",
    "Which of these is not a colour, as you do not know it?",
    CHOICE_LAYOUT,
    ("red", "blue", "dog", "green"),
    2,
    gold="dog",
)
TRICKY = PromptItem(
    "t",
    'Send {name} 17 of `f(x)` to "Mr Smith" at $x^2$; is not Paris the place_id?',
    BARE,
    target="Paris",
    gold="Paris",
)


def variants(item: PromptItem, kind: str, count: int = 20, seed: int = 0) -> list[Any]:
    (made,), _ = make([item], {kind: generator(kind)}, count, seed)
    return list(made.variants)


@pytest.mark.parametrize("kind", list(GENERATORS))
def test_every_kind_is_seeded_distinct_and_keeps_what_must_stay(kind: str) -> None:
    for item in (CHOICE, TRICKY):
        made = variants(item, kind)
        assert [v.prompt for v in made] == [v.prompt for v in variants(item, kind)]
        assert len({v.prompt for v in made}) == len(made)
        assert made[0].kind == "original"
        for v in made[1:]:
            assert v.kind == kind
            assert v.meta["edits"] == edit_distance(made[0].prompt, v.prompt) > 0
            assert v.meta["diff"]
            for piece in (
                ("{name}", "17", "`f(x)`", '"Mr Smith"', "$x^2$", "Paris", "place_id")
                if item is TRICKY
                else item.choices
            ):
                assert piece in v.prompt
            if item is CHOICE:
                assert v.meta["options"][v.target] == "dog"


def test_options_move_and_the_letter_moves_along() -> None:
    made = variants(CHOICE, "options", 30)
    assert len(made) == 24  # all orders of four, the given one as the original
    assert {v.target for v in made} == set("ABCD")
    assert {tuple(v.meta["options"].values()) for v in made[1:]} | {CHOICE.choices} == set(permutations(CHOICE.choices))


def test_templates_are_those_of_the_paper_byte_for_byte() -> None:
    assert len(PAPER_TEMPLATES) == 20
    made = [v.prompt for v in variants(CHOICE, "templates")[1:]]
    options = "(A)red (B)blue (C)dog (D)green"
    q = CHOICE.question
    assert made[0] == f"q:{q}\n{options}\na:"
    assert made[5] == f"Q: {q} || {options} || A:"
    assert made[18] == f"QUESTION\t{q}\n{options}\nANSWER\t"
    assert made[19] == f"Question: {q} , {options} , Answer:"
    bare = [v.prompt for v in variants(PromptItem("x", "Why?", QUESTION_LAYOUT), "templates")[1:]]
    assert (bare[0], bare[5], bare[18]) == ("q:Why?\na:", "Q: Why? || A:", "QUESTION\tWhy?\nANSWER\t")
    assert without_options("Q: {question} , {options} , A:") == "Q: {question} , A:"
    assert (
        PromptItem("x", "a {options} b", "Q: {question}", ("1", "2")).prompt() == "Q: a {options} b"
    )  # braces of the text stay


@given(st.text("abcdeABC", min_size=2, max_size=9), st.integers(0, 1000))
def test_spelling_operations_make_one_edit(word: str, seed: int) -> None:
    lengths = {"insertion": 1, "omission": -1, "transposition": 0, "substitution": 0}
    for name, operation in OPERATIONS.items():
        made = operation(word, Random(seed))
        assert len(made) - len(word) == (0 if made == word else lengths[name])
        assert edit_distance(word, made) <= (2 if name == "transposition" else 1)
    assert OPERATIONS["transposition"]("aaa", Random(seed)) == "aaa"


def test_spelling_follows_the_paper() -> None:
    made = variants(CHOICE, "spelling")[1:]
    assert len(made) == 20
    assert sorted({v.meta["k"] for v in made}) == [1, 2, 4, 8]
    assert all(v.prompt.endswith("\n(A)red (B)blue (C)dog (D)green\nA:") for v in made)
    assert set(KEYBOARD["s"]) == set("awedxz")
    assert set(KEYBOARD["g"]) == set("ftyhbv")
    assert all(a in KEYBOARD[b] for a in KEYBOARD for b in KEYBOARD[a])
    assert variants(PromptItem("n", "12 + 7 = ?", target="19"), "spelling")[1:] == []  # nothing that may be changed


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abcd", max_size=12))
def test_edit_distance(a: str, b: str) -> None:
    assert edit_distance(a, b) == levenshtein(a, b)


def test_diff_and_protected_places() -> None:
    assert diff("What colour is it?", "What color is it?") == "What [-colour-]{+color+} is it?"
    long = "word " * 1500  # every word fits every other: exact alignment would take hours
    assert diff(f"{long}end", f"Word {long}END").startswith(("[-", "{+"))
    text = "Take {x} and 3 of <b> or Paris, Parisian."
    kept = [text[a:b] for a, b in protected_spans(text, ["paris"])]
    assert kept == ["{x}", "3", "<b>", "Paris"]
    assert [text[a:b] for a, b in free_words(text, ["paris"])] == ["Take", "and", "of", "or", "Parisian"]


def test_counts_of_what_was_not_made() -> None:
    items = [PromptItem("1", "Do not go."), PromptItem("2", "Go on now")]
    sets, report = make(items, {"contractions": generator("contractions"), "casing": generator("casing")}, 3, 0)
    assert report.counts["made"] == {"contractions": 1, "casing": 6}
    assert report.counts["short"] == {"contractions": 2}
    assert report.counts["unchanged"]["contractions"] >= 2
    assert sets[0].variants[1].prompt == "Don't go."


def test_paraphrases_from_a_file_keep_what_is_protected(tmp_path: Path) -> None:
    texts = ["What is 2 plus 3?", "What is two plus three?", "Add 2 and 3."]
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Add 2 and 3.", "paraphrases": texts}])
    sets, report = make([PromptItem("1", "Add 2 and 3.")], {"paraphrases": paraphrases_from(str(path))}, 5, 0)
    assert [v.prompt for v in sets[0].variants] == ["Add 2 and 3.", "What is 2 plus 3?"]
    assert (report.counts["lost_protected"], report.counts["unchanged"]) == ({"paraphrases": 1}, {"paraphrases": 1})
    write_jsonl(path, [{"paraphrases": ["x"]}])
    with pytest.raises(HoldfastError, match=r"p\.jsonl, row 1"):
        paraphrases_from(str(path))


def test_paraphrases_by_a_model_and_a_meaning_check() -> None:
    asked: list[str] = []

    def ask(instruction: str) -> str:
        asked.append(instruction)
        return '1. What is 2 plus 3?\n- "Sum 2 and 3."\n\nForget it.'

    generators = {"paraphrases": paraphrases_by(ask, "fake", 4)}
    accept = {"paraphrases": lambda original, variant: "Sum" not in variant}
    (made,), report = make([PromptItem("1", "Add 2 and 3.")], generators, 4, 0, accept)
    assert [v.prompt for v in made.variants[1:]] == ["What is 2 plus 3?"]
    assert (report.counts["other_meaning"], report.counts["lost_protected"]) == ({"paraphrases": 1}, {"paraphrases": 1})
    assert "Add 2 and 3." in asked[0]


def test_meaning_check_runs_a_real_sentence_model(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers (extra meaning) is not installed")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    make_model().model.save_pretrained(tmp_path / "body")
    make_tokenizer().save_pretrained(tmp_path / "body")
    body = Transformer(str(tmp_path / "body"))
    SentenceTransformer(modules=[body, Pooling(32)]).save(str(tmp_path / "model"))
    similar = sentence_similarity(str(tmp_path / "model"))
    same, other = similar(["What is this?", "What is this?"], ["What is this?", "zebra ! 9"])
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < 0.999
    with pytest.raises(HoldfastError, match="sentence-transformers model"):
        sentence_similarity(str(tmp_path / "absent"))


def test_items_from_rows(tmp_path: Path) -> None:
    rows = [
        {"question": "Q?", "choices": ["x", "y"], "answer": 1, "subject": "high_school_maths"},
        {"question": "Q?", "choices": ["x", "y"], "answer": "A"},
        {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"},
        {"instruction": "Do.", "input": "this", "output": "done"},
        {"prompt": "p", "target": 4},
        "just text",
    ]
    items = load_items(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert [i.expected for i in items] == ["B", "A", "B", "done", "4", None]
    assert (
        items[0].prompt()
        == "The following are multiple choice questions (with answers) about high school maths.\n\nQ:Q?\n(A)x (B)y\nA:"
    )
    assert items[3].prompt() == "Q:Do.\nthis\nA:"
    assert items[5].prompt() == "just text"


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"question": "Q?", "choices": ["x", "y"], "answer": 2}], "row 1: the answer 2 is no option"),
        ([{"question": "Q?", "choices": ["x", "y"], "answer": "z"}], "no option"),
        ([{"question": "Q?", "choices": ["x"]}], "list of 2 to 26"),
        ([{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}], "row 2: id '1' is there twice"),
        ([{"text": "a"}], "row 1: found text"),
        ([3], "not int"),
        ([], "no prompts"),
    ],
)
def test_bad_items_name_file_and_row(tmp_path: Path, rows: list[Any], match: str) -> None:
    with pytest.raises(HoldfastError, match=match):
        load_items(str(write_jsonl(tmp_path / "a.jsonl", rows)))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"set_id": "a", "variant_id": "0", "prompt": "x"}] * 2, "row 2: variant '0' of set 'a'"),
        (
            [{"set_id": "a", "prompt": "x", "target": "C", "meta": {"options": {"A": "1", "B": "2"}}}],
            "row 1: the target 'C' is none of",
        ),
        ([{"prompt": "x"}], "row 1: a row has set_id"),
        ([{"set_id": "a", "prompt": 3}], "prompt must be text"),
        ([{"set_id": "a", "prompt": "x", "meta": 3}], "'meta' must be"),
        ([], "no sets"),
        (
            [{"set_id": "a", "kind": "given", "prompt": "x"}, {"set_id": "a", "kind": "all", "prompt": "y"}],
            "row 2: the kind 'all' is",
        ),
        ([{"set_id": "a", "kind": "mixture", "prompt": "x"}], "row 1: the kind 'mixture' is a name of the results"),
        ([{"set_id": None, "prompt": "x"}, {"set_id": None, "prompt": "y"}], "row 1: 'set_id' is null"),
        ([{"set_id": "a", "prompt": "x", "seed": "many"}], "row 1: 'seed' must be a whole number"),
        (
            [["x", "y"], {"set_id": "set-1", "variant_id": "b", "prompt": "z"}],
            "row 2: the set 'set-1' is the list of row 1",
        ),
        (
            [{"set_id": "set-2", "variant_id": "b", "prompt": "z"}, ["x", "y"]],
            "row 2: a list here is the set 'set-2', which is there",
        ),
    ],
)
def test_bad_sets_name_file_and_row(tmp_path: Path, rows: list[Any], match: str) -> None:
    with pytest.raises(HoldfastError, match=match):
        load_sets(str(write_jsonl(tmp_path / "a.jsonl", rows)))


def test_null_is_as_good_as_absent(tmp_path: Path) -> None:
    rows = [
        {"set_id": "a", "prompt": p, "kind": None, "seed": None, "variant_id": None, "meta": None, "target": None}
        for p in "xy"
    ]
    (made,) = load_sets(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert [(v.variant_id, v.kind, v.seed, v.target, v.meta) for v in made.variants] == [
        ("1", "given", 0, None, {}),
        ("2", "given", 0, None, {}),
    ]


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="no such file"):
        load_sets(str(tmp_path / "absent.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"set_id": "a"\n')
    with pytest.raises(HoldfastError, match=r"a\.jsonl, row 1: broken JSON"):
        load_sets(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("[" * 100_000)
    with pytest.raises(HoldfastError, match=r"a\.jsonl, row 1: broken JSON"):
        load_sets(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"prompt": "a \\ud83d b"}')
    with pytest.raises(HoldfastError, match="row 1: 'prompt' holds half of a surrogate pair"):
        load_items(str(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(HoldfastError, match="cannot be read"):
        load_sets(str(tmp_path / "b.jsonl"))
    (tmp_path / "c.json").write_text('{"a": 1}')
    with pytest.raises(HoldfastError, match="a list is needed"):
        load_sets(str(tmp_path / "c.json"))


def test_lists_of_prompts_are_sets(tmp_path: Path) -> None:
    (a, b) = load_sets(str(write_jsonl(tmp_path / "a.jsonl", [["x", "y", "z"], ["p", "q"]])))
    assert [v.kind for v in a.variants] == ["original", "given", "given"]
    assert [v.prompt for v in b.variants] == ["p", "q"]


def test_the_command_writes_a_file_to_edit(tmp_path: Path) -> None:
    prompts = write_jsonl(
        tmp_path / "p.jsonl", [{"question": "You do not know red?", "choices": ["yes", "no"], "answer": 0}]
    )
    config = VariantsConfig(
        prompts=str(prompts), variants="spelling,options,contractions", per_kind=4, output=str(tmp_path / "out")
    )
    summary = make_variants(config)
    (made,) = load_sets(str(tmp_path / "out" / "sets.jsonl"))
    assert digest(load_sets(str(tmp_path / "out"))) == digest([made]), "the folder will do"
    assert made.kinds == ("spelling", "options", "contractions")
    assert summary["variants"] == len(made.variants) == 1 + 4 + 1 + 1
    assert summary["kinds"]["short"] == {"options": 1, "contractions": 1}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert make_variants(config) == summary


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        ("speling", "unknown kind of variant 'speling'; known: spelling"),
        ("paraphrases", "needs a source"),
        ("os:nothing", "kind 'os:nothing'"),
        ("casing,casing", "twice"),
    ],
)
def test_unknown_kinds(tmp_path: Path, kinds: str, match: str) -> None:
    prompts = write_jsonl(tmp_path / "p.jsonl", ["a b"])
    with pytest.raises(HoldfastError, match=match):
        make_variants(VariantsConfig(prompts=str(prompts), variants=kinds, output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_kind_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def shout(item, rng):\n    made = item.asking(item.question + '!')\n    yield made, made.prompt(), {}\n"
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (made,), _ = make([PromptItem("1", "Go")], {"mine:shout": generator("mine:shout")}, 3, 0)
    assert [v.prompt for v in made.variants] == ["Go", "Go!"]
