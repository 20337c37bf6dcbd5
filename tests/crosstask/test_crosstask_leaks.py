"""A pool that holds test items: under another template, in another spelling, under other field names; and pairs that
are no leak.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.crosstask import CrossTaskConfig, LabelConfig, label, transfer
from holdfast.crosstask.grid import load_grid
from holdfast.crosstask.overlap import normalised
from holdfast.errors import HoldfastError
from holdfast.lm import LM
from materials import make_model, make_tokenizer, write_jsonl

TEXTS = ["I loved every minute of it", "A dull and empty film", "The plot is thin", "Go and see it now"]
MOODS = ["positive", "negative", "negative", "positive"]


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 256
    return LM(make_model(max_position_embeddings=256), tokenizer, "tiny")


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **given: Any) -> str:
    (folder / f"{name}.yaml").write_text(json.dumps({"definition": f"Do {name}.", **given}))
    write_jsonl(folder / f"{name}.jsonl", rows)
    return str(folder / f"{name}.yaml")


def reviews(folder: Path, texts: list[str] = TEXTS, **more: Any) -> str:
    """The target: the texts as reviews, all of them test items."""
    given = {"template": "Review: {text}\nMood:", "labels": ["positive", "negative"]}
    return write_task(folder, "reviews", [{"text": t, "answer": m} for t, m in zip(texts, MOODS)], **given | more)


def run(sources: str, target: str, output: Path, lm: LM, **changes: Any) -> Any:
    return transfer(
        CrossTaskConfig(model="tiny", sources=sources, target=target, output=str(output), json=True, **changes), lm
    )


def test_the_same_texts_under_another_template_are_a_leak(lm: LM, tmp_path: Path) -> None:
    rows = [
        {"s": "Nothing to do with it at all", "answer": "fact"},
        *({"s": text, "answer": "opinion"} for text in TEXTS),
    ]
    pool = write_task(tmp_path, "sentences", rows, template="Sentence: {s}\nKind:", labels=["fact", "opinion"])
    says = (
        r"sentences.jsonl, row 2: the pool of source 'sentences' holds 4 test items of 'reviews' \(this one is "
        r".*reviews.jsonl, row 1\), "
        "under another template"
    )
    with pytest.raises(HoldfastError, match=says):
        run(pool, reviews(tmp_path), tmp_path / "run", lm)
    with pytest.raises(HoldfastError, match="holds 4 test items"):
        label(
            LabelConfig(model="tiny", sources=pool, target=reviews(tmp_path), output=str(tmp_path / "run"), json=True),
            lm,
        )
    assert not (tmp_path / "run").exists()


def test_inputs_to_label_may_have_an_answer_of_another_kind_but_no_label(
    lm: LM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": text, "split": "train"} for text in TEXTS] + [{"text": "One more to test with", "split": "test"}]
    target = write_task(tmp_path, "reviews", rows, template="Review: {text}\nMood:", labels=["positive", "negative"])
    answered = [{"s": text, "answer": "fact"} for text in TEXTS]
    facts = write_task(tmp_path, "facts", answered, template="Sentence: {s}\nKind:", labels=["fact", "opinion"])
    asked = {"model": "tiny", "target": target, "json": True}
    label(LabelConfig(sources=facts, output=str(tmp_path / "run"), **asked), lm)
    assert "note: reviews: 4 inputs are in the pool of source 'facts' too" in capsys.readouterr().err
    known = [{"s": text, "answer": mood} for text, mood in zip(TEXTS, MOODS)]
    moods = write_task(
        tmp_path, "moods", known, template="Sentence: {s}\nMood:", labels=["positive", "negative", "neutral"]
    )
    with pytest.raises(
        HoldfastError, match=r"moods.jsonl, row 1: the pool of source 'moods' holds 4 inputs to label of 'reviews'"
    ):
        label(LabelConfig(sources=moods, output=str(tmp_path / "no"), **asked), lm)


@pytest.mark.parametrize(
    "spelled",
    [
        "i LOVED  every\tminute of it!",
        "\u201cI loved every minute of it.\u201d",
        "I\u00a0loved every minute of it",
        "\uff29 loved every minute of it...",
        "I loved every minute\nof it",
        "&quot;I loved every minute of it&quot;",
        "I loved<br /><br />every minute of it .",
        "``I loved every minute of it''",
        "\u201eI loved every minute of it\u201c",
    ],
)
def test_spelling_of_the_surface_hides_no_leak(lm: LM, tmp_path: Path, spelled: str) -> None:
    rows = [{"s": "Something else entirely", "answer": "fact"}, {"s": spelled, "answer": "opinion"}]
    pool = write_task(tmp_path, "sentences", rows, template="Sentence: {s}\nKind:", labels=["fact", "opinion"])
    with pytest.raises(HoldfastError, match="row 2: the pool of source 'sentences' holds 1 test item of 'reviews'"):
        run(pool, reviews(tmp_path), tmp_path / "run", lm)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It&#39;s Tom &amp; Jerry", "It's Tom & Jerry"),
        ("it\u02bcs good", "it's good"),
        ("it`s good", "it's good"),
        ("hello , world", "hello, world"),
        ("well\u2010known \u2014 yes", "well-known - yes"),
    ],
)
def test_two_spellings_of_one_text(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"), [("3 - 4", "3 + 4"), ("-5", "5"), ("1.5", "15"), ("a < b", "a > b"), ("f(x)", "f x")]
)
def test_two_texts_that_differ(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_a_field_that_is_the_same_everywhere_and_an_empty_one_do_not_count(lm: LM, tmp_path: Path) -> None:
    rows = [{"ask": "What is said here?", "s": text, "note": "", "answer": "x"} for text in TEXTS]
    pool = write_task(tmp_path, "asked", rows, template="{ask}\n{s}{note}\nAnswer:")
    with pytest.raises(HoldfastError, match=r"asked.jsonl, row 1: .* holds 4 test items of 'reviews'"):
        run(pool, reviews(tmp_path), tmp_path / "run", lm)


def test_a_question_without_its_options_is_the_same_question(lm: LM, tmp_path: Path) -> None:
    questions = ["What is the largest of the planets?", "Who wrote the second letter?"]
    rows = [{"q": q, "c": ["Mars", "Jupiter"], "answer": "B"} for q in questions]
    target = write_task(tmp_path, "choice", rows, template="{q}\n{c}\nAnswer:", labels=["A", "B"])
    pool = write_task(tmp_path, "open", [{"ask": q, "answer": "x"} for q in questions], template="Q: {ask}\nA:")
    with pytest.raises(HoldfastError, match="holds 2 test items of 'choice'"):
        run(pool, target, tmp_path / "run", lm)
    # Another question that is asked in the same words has other options.
    other = [{"q": q, "c": ["Venus", "Pluto"], "answer": "A"} for q in questions]
    also = write_task(tmp_path, "other", other, template="{q}\n{c}\nLetter:", labels=["A", "B"])
    assert run(also, target, tmp_path / "run", lm)["targets"]


def test_a_task_of_the_harness_is_compared_by_its_columns(lm: LM, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "docs.jsonl", [{"sentence": text, "label": i % 2} for i, text in enumerate(TEXTS)])
    given = {
        "task": "harness", "dataset_path": "json", "dataset_kwargs": {"data_files": {"train": "docs.jsonl"}},
        "training_split": "train", "doc_to_text": "Read this: {{sentence}}\nQuestion: is it fact or opinion?\nAnswer:",
        "doc_to_target": "label", "doc_to_choice": ["fact", "opinion"],
    }  # fmt: skip
    (tmp_path / "harness.yaml").write_text(json.dumps(given))
    with pytest.raises(
        HoldfastError, match=r"docs.jsonl, row 1: the pool of source 'harness' holds 4 test items of 'reviews'"
    ):
        run(str(tmp_path / "harness.yaml"), reviews(tmp_path), tmp_path / "run", lm)


def test_tasks_that_share_a_passage_or_single_words_are_no_leak(
    lm: LM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passage = "Nora went to the tower and Ben went to the school."
    asked = [{"p": passage, "q": q, "answer": "yes"} for q in ("Is Nora in the tower?", "Is Ben at home?")]
    target = write_task(tmp_path, "reading", asked, template="{p}\n{q}\nAnswer:", labels=["yes", "no"])
    pool = write_task(
        tmp_path, "title", [{"text": passage, "answer": "Two trips"}, {"text": "Rain", "answer": "x"}], fields=["text"]
    )
    assert run(pool, target, tmp_path / "run", lm)["targets"]
    said = capsys.readouterr().err
    assert "note: reading: 2 inputs share a text with the source 'title' too" in said
    assert "reading.jsonl, row 1 and" in said
    grid = load_grid(CrossTaskConfig(model="tiny", sources="pocket:tasks", target="pocket:tasks", output=""))
    assert len(grid.targets) == 16  # plural and category are asked of the same words
    assert "note: category: 9 single words are in the pool of source 'plural' too" in capsys.readouterr().err


def test_single_words_with_the_same_labels_are_a_leak(lm: LM, tmp_path: Path) -> None:
    texts = ["awful", "good", "bad", "nice"]
    rows = [{"s": text, "answer": "positive"} for text in texts]
    pool = write_task(
        tmp_path, "words", rows, template="Word: {s}\nFeeling:", labels=["positive", "negative", "neutral"]
    )
    with pytest.raises(HoldfastError, match="holds 4 test items of 'reviews'"):
        run(pool, reviews(tmp_path, texts), tmp_path / "run", lm)


def test_in_task_examples_and_pools_are_compared_by_their_fields_too(lm: LM, tmp_path: Path) -> None:
    rows = [{"s": "Nothing to do with it at all", "answer": "fact"}]
    source = write_task(tmp_path, "sentences", rows, fields=["s"], labels=["fact", "opinion"])
    more = write_jsonl(
        tmp_path / "more.jsonl",
        [{"text": "a new one", "answer": "positive"}, {"text": "The plot is thin.", "answer": "negative"}],
    )
    says = (
        r"more.jsonl, row 2: 1 of the 2 in-task examples of 'reviews' is a test item too "
        r"\(this one is .*reviews.jsonl, row 3\)"
    )
    with pytest.raises(HoldfastError, match=says):
        run(source, reviews(tmp_path), tmp_path / "run", lm, in_task=str(more))
    asked = LabelConfig(
        model="tiny",
        sources=source,
        target=reviews(tmp_path),
        pool=str(more),
        output=str(tmp_path / "run"),
        propagate="knn",
        lm_items=1,
    )
    with pytest.raises(
        HoldfastError, match=r"more.jsonl, row 2: 1 of the 2 inputs to label of 'reviews' is a test item too"
    ):
        label(asked, lm)


def test_labelling_looks_at_the_test_items_too(lm: LM, tmp_path: Path) -> None:
    rows = [{"text": text, "answer": mood, "split": "test"} for text, mood in zip(TEXTS, MOODS)]
    rows += [{"text": "An input to be labelled", "split": "train"}]
    target = write_task(tmp_path, "reviews", rows, fields=["text"], labels=["positive", "negative"])
    pool = write_task(
        tmp_path, "sentences", [{"s": text, "answer": "opinion"} for text in TEXTS], template="Sentence: {s}\nKind:"
    )
    with pytest.raises(HoldfastError, match="holds 4 test items of 'reviews'"):
        label(LabelConfig(model="tiny", sources=pool, target=target, output=str(tmp_path / "run"), json=True), lm)


def test_the_command_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_task(tmp_path, "sentences", [{"s": t, "answer": "x"} for t in TEXTS], template="Sentence: {s}\nKind:")
    given = ["--model", "pocket", "--sources", pool, "--target", reviews(tmp_path), "--output", str(tmp_path / "run")]
    assert main(["crosstask", "run", *given]) == 2
    assert "holds 4 test items" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "label"])
def test_a_run_is_continued_and_returned_only_on_the_data_that_it_began_with(
    command: str, lm: LM, tmp_path: Path
) -> None:
    rows = [{"s": f"Nothing to do with it, number {number}", "answer": "fact"} for number in range(3)]
    source, target = (
        write_task(tmp_path, "sentences", rows, fields=["s"], labels=["fact", "opinion"]),
        reviews(tmp_path),
    )
    pool = write_jsonl(
        tmp_path / "pool.jsonl", [{"text": text} for text in ("a fine day", "a sad day", "no day at all")]
    )
    output = tmp_path / "run"

    def go() -> Any:
        if command == "run":
            return run(source, target, output, lm)
        return label(
            LabelConfig(model="tiny", sources=source, target=target, pool=str(pool), output=str(output)), lm=lm
        )

    first = go()
    assert go() == json.loads((output / "summary.json").read_text())
    (output / "summary.json").unlink()  # a kill before the summary: the blocks are there
    again = go()
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    if command == "run":
        write_jsonl(tmp_path / "reviews.jsonl", [{"text": text, "answer": "positive"} for text in TEXTS[::-1]])
    else:
        write_jsonl(pool, [{"text": text} for text in ("no day at all", "a sad day", "a fine day")])
    for _ in range(2):
        with pytest.raises(HoldfastError, match="the data has changed"):
            go()
        (output / "summary.json").unlink(missing_ok=True)
