"""Prompts against hand-written ones, to the byte; prompts that are too long lose demonstrations, never the question."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.crosstask.prompts import Demonstrations, Prompt, build, demonstration, fit
from holdfast.crosstask.tasks import Item, Task, make_task
from holdfast.errors import HoldfastError


def task(name: str, rows: list[dict[str, Any]], **given: Any) -> Task:
    return make_task(
        {"name": name} | given, [(row, f"{name}.jsonl, row {i}") for i, row in enumerate(rows, 1)], f"{name}.yaml"
    )


BOOLQ = task(
    "boolq",
    [{"context": "Snow is frozen water.", "question": "is snow hot?", "answer": "False"},
     {"context": "The sun is a star.", "question": "is the sun a star?", "answer": "True"}],
    definition="Answer a yes/no question.", labels=["True", "False"], fields=["context", "question"],
)  # fmt: skip
NEWS = task(
    "news", [{"text": "Shares fell.", "answer": "business"}, {"text": "The match was lost.", "answer": "sports"}],
    definition="Classify the news.", labels=["business", "sports"], template="Sentence: {text}\nLabel:",
)  # fmt: skip


def test_one_source_one_example() -> None:
    prompt = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items[:1])])
    assert prompt.text == (
        "Definition: Answer a yes/no question.\n"
        "Context: Snow is frozen water.\nQuestion: is snow hot?\nAnswer: False\n"
        "Definition: Classify the news.\n"
        "Sentence: Shares fell.\nLabel:"
    )
    assert prompt.demos == (("boolq", "1"),)


def test_the_most_similar_example_is_farthest_from_the_target_unless_asked_otherwise() -> None:
    first, second = (f"{BOOLQ.render(item)} {item.answer}\n" for item in BOOLQ.items)
    head, tail = (
        "Definition: Answer a yes/no question.\n",
        "Definition: Classify the news.\nSentence: Shares fell.\nLabel:",
    )
    assert build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items)]).text == head + first + second + tail
    assert (
        build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items)], order="similar-last").text
        == head + second + first + tail
    )


def test_mixed_sources_have_a_definition_each() -> None:
    prompt = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items[:1]), Demonstrations(NEWS, NEWS.items[1:])])
    kinds = [segment.kind for segment in prompt.segments]
    assert kinds == ["source definition", "demonstration"] * 2 + ["target definition", "input"]
    assert prompt.text.count("Definition: ") == 3


def test_cross_task_and_in_task() -> None:
    prompt = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items[:1])], NEWS.items[1:], with_labels=True)
    assert prompt.text.endswith(
        "Answer: False\nDefinition: Classify the news.\nPossible answers: business, sports\n"
        "Sentence: The match was lost.\nLabel: sports\nSentence: Shares fell.\nLabel:"
    )


def test_nothing_shown_is_zero_shot() -> None:
    assert build(NEWS, NEWS.items[0]).text == "Definition: Classify the news.\nSentence: Shares fell.\nLabel:"
    assert build(NEWS, NEWS.items[0], [], ()).segments == build(NEWS, NEWS.items[0]).segments


def test_white_space_of_a_template_is_kept_to_the_byte() -> None:
    odd = task("odd", [{"q": "What?", "c": ["bank", "mall"], "answer": "A"}],
               definition="Pick.", labels=["A", "B"], template="Question:{q} \n {c} \n Answer:",
               option_end=" ")  # fmt: skip
    prompt = build(odd, odd.items[0], [Demonstrations(odd, odd.items)])
    assert (
        prompt.text == "Definition: Pick.\nQuestion:What? \n A. bank \nB. mall \n Answer: A\n"
        "Definition: Pick.\nQuestion:What? \n A. bank \nB. mall \n Answer:"
    )
    assert prompt.text.endswith(" \n Answer:")


def test_no_label_is_glued_to_what_follows() -> None:
    prompt = build(
        NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items), Demonstrations(NEWS, NEWS.items[1:])], NEWS.items[1:]
    )
    assert all(segment.text.endswith("\n") for segment in prompt.segments[:-1])
    assert not any(f"{label}Definition" in prompt.text for label in ("True", "False", "sports"))


def test_positions_of_pieces() -> None:
    prompt = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items)])
    text = prompt.text
    assert text[: prompt.end_of("source definition")].endswith("yes/no question.")
    assert text[: prompt.end_of("target definition")].endswith("Classify the news.")
    assert text[: prompt.end_of("demonstration", answer=True)].endswith("is the sun a star?\nAnswer: True")
    assert build(NEWS, NEWS.items[0]).end_of("demonstration") is None


def words(text: str) -> int:
    return len(text.split())


def fitted(limit: int, k: int = 2, **options: Any) -> Prompt:
    return fit(
        NEWS,
        NEWS.items[0],
        [Demonstrations(BOOLQ, BOOLQ.items[:k])],
        NEWS.items[1:],
        count=words,
        limit=limit,
        **options,
    )


def test_what_fits_is_left_alone() -> None:
    whole = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items)], NEWS.items[1:])
    assert fitted(words(whole.text)) == whole


def test_the_least_similar_demonstration_goes_first_then_the_last_one_is_cut_from_its_beginning() -> None:
    one = build(NEWS, NEWS.items[0], [Demonstrations(BOOLQ, BOOLQ.items[:1])], NEWS.items[1:])
    prompt = fitted(words(one.text))
    assert (prompt.text, prompt.dropped, prompt.shortened) == (one.text, 1, 0)
    cut = fitted(words(one.text) - 2)
    assert cut.dropped == 1
    assert cut.shortened == len("Context: Snow")
    assert "question.\n is frozen water.\nQuestion: is snow hot?\nAnswer: False\nDefinition:" in cut.text
    assert cut.text[: cut.end_of("demonstration", answer=True)].endswith("Answer: False")


def test_without_shortening_it_is_dropped_with_its_definition() -> None:
    inside = build(NEWS, NEWS.items[0], [], NEWS.items[1:])
    prompt = fitted(words(inside.text), shorten=False)
    assert (prompt.text, prompt.dropped) == (inside.text, 2)
    bare = build(NEWS, NEWS.items[0])
    assert (fitted(words(bare.text)).text, fitted(words(bare.text)).dropped) == (bare.text, 3)


@pytest.mark.parametrize("limit", range(8, 45, 3))
def test_the_target_is_never_touched(limit: int) -> None:
    prompt = fitted(limit)
    assert words(prompt.text) <= limit
    assert prompt.text.endswith("\nSentence: Shares fell.\nLabel:")
    assert "Definition: Classify the news.\n" in prompt.text


def test_a_target_that_cannot_fit_is_an_error_with_its_row() -> None:
    with pytest.raises(
        HoldfastError, match=r"news.jsonl, row 1: the prompt has 8 tokens even with no demonstration; the model takes 6"
    ):
        fitted(6)


def test_a_demonstration_needs_an_answer() -> None:
    with pytest.raises(HoldfastError, match="row 9: no answer"):
        demonstration(NEWS, Item("9", {"text": "x"}, None, "row 9"))
