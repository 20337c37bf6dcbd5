"""Variants ask for the same thing: what a model writes beside its paraphrases, contractions, and what no generator may
touch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli import main
from holdfast.sensitivity.variants import GENERATORS, PromptItem, generator, make
from holdfast.sensitivity.variants.items import BARE, CHOICE_LAYOUT
from holdfast.sensitivity.variants.rewritings import read_answer
from holdfast.sensitivity.variants.wording import paraphrases_by, paraphrases_from
from http_server import Reply, serving
from materials import write_jsonl

QUESTION = "What is the capital of France?"
ITEMS = ["Which city is the capital of France?", "Name the French capital.", "France has which capital?"]


def paraphrased(answer: str, question: str = QUESTION) -> tuple[list[str], dict[str, dict[str, int]]]:
    (made,), report = make(
        [PromptItem("1", question)], {"paraphrases": paraphrases_by(lambda _: answer, "fake", 5)}, 5, 0
    )
    return [v.prompt for v in made.variants[1:]], report.counts


# --- paraphrases ---------------------------------------------------------------------------------------------------

PLAIN = "\n".join(ITEMS)
NUMBERED = "\n".join(f"{i}. {text}" for i, text in enumerate(ITEMS, 1))


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        NUMBERED,
        f"<think>\nThe user wants rewritings.\n1. What about this one?\n</think>\n\n{PLAIN}",
        f"<think></think>{NUMBERED}",
        f"The template has opened the thought already.\nWhat now?\n</think>\n{PLAIN}",
        f"<thinking>First I list them:\n- one\n</thinking>\n{NUMBERED}",
        f"[THINK]Let me see.[/THINK]{PLAIN}",
        f"Sure! Here are 3 rewrites:\n\n{NUMBERED}",
        f"Sure! Here are 3 rewrites:\n{PLAIN}",
        f"Certainly, here you go:\n\n{PLAIN}\n\nLet me know if you need more!",
        f"Here is a list of three rewritings:\n{PLAIN}",
        f"Here are three ways to ask the same thing.\n{PLAIN}\nI hope this helps!",
        f"Of course.\n\n## Rewritings\n\n{NUMBERED}\n\nThese all ask for the same thing.",
        f"Okay, here's my attempt:\n---\n{PLAIN}\n---",
        f"**Rewritten versions:**\n{NUMBERED}",
        "\n".join(f"**{i}.** {text}" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"**{i}. {text}**" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"{i}. **{text}**" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"{i}) \u201c{text}\u201d" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"({i}) {text}" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"{i}.{text}" for i, text in enumerate(ITEMS, 1)),
        "\n".join(f"* {text}" for text in ITEMS),
        "\n".join(f"\u2022 *{text}*" for text in ITEMS),
        "\n".join(f'- "{text}"' for text in ITEMS),
        "\n".join(f"Rewrite {i}: {text}" for i, text in enumerate(ITEMS, 1)),
        "\n\n".join(f"**Version {i}:**\n{text}" for i, text in enumerate(ITEMS, 1)),
        f"```\n{NUMBERED}\n```",
        f"```text\n{PLAIN}\n```",
        f"```json\n{json.dumps(ITEMS)}\n```",
        json.dumps(ITEMS, indent=2),
        f"{PLAIN}\n\n```python\ndef rewrite(text):\n    return text.upper()\n```",
        f"{NUMBERED}\n\nNote: the third one is informal.",
    ],
)
def test_only_the_items_of_an_answer_are_variants(answer: str) -> None:
    assert paraphrased(answer)[0] == ITEMS


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "None",
        "null",
        "<think>\nThe user wants five rewritings.\n1. Which city is it?\n2. I have not finished",
        "[THINK]I wonder which city this is",
        "Sure! Here are 3 rewrites:",
        "1. 1.\n2. 2.\n3. 3.",
        "I'm sorry, but I can't help with that.",
        "As an AI language model, I cannot rewrite this.",
        "import random\n\ndef paraphrase(text):\n    words = text.split()\n    for word in words:\n        "
        "print(word)\n    return words",
        "```python\nprint('What is the capital?')\n```",
        "```\nunclosed = True",
        '#include <stdio.h>\nint main() {\n  printf("hi");\n  return 0;\n}',
        "const words = text.split(' ');\nconsole.log(words);",
    ],
)
def test_an_answer_without_items_gives_no_variant_and_is_counted(answer: str) -> None:
    made, report = paraphrased(answer)
    assert made == []
    assert report["short"] == {"paraphrases": 1}
    assert report["no_variant"]["paraphrases"] >= 1


def test_what_looks_like_a_preamble_but_is_the_prompt_stays() -> None:
    question = "Here are three words: sun, rain, wind. Say which is wet:"
    items = [
        "Here are the words sun, rain, wind. Tell which one is wet:",
        "Sure as rain: which of sun, rain, wind is wet?",
    ]
    assert paraphrased("\n".join(items[:1]), question)[0] == items[:1]
    assert paraphrased("3.5 plus 2 is what?\nWhat is 3.5 plus 2?", "Add 2 to 3.5.")[0] == [
        "3.5 plus 2 is what?",
        "What is 3.5 plus 2?",
    ]
    assert paraphrased('Repeat "hello"\nPlease say "hello"', 'Say "hello"')[0] == [
        'Repeat "hello"',
        'Please say "hello"',
    ]
    code = "def f(x):\n    return x\nSay what the function does."
    assert paraphrased("1. def f(x):\n    return x\nWhat is done by the function?", code)[0] == [
        "def f(x):\n    return x\nWhat is done by the function?"
    ]


def test_a_rewriting_keeps_all_of_a_long_prompt() -> None:
    passage = (
        "Sam went to the old tower in the north and then he took the late train to the harbour, "
        "where Nora was waiting for him with tea."
    )
    question = f"Give a title to this passage.\n{passage}"
    assert paraphrased("1. Name this passage.\n2. Find a title for it.", question)[0] == []
    whole = f"1. Name this passage.\n{passage}\n2. Find a title for what follows.\n{passage}"
    assert paraphrased(whole, question)[0] == [
        f"Name this passage.\n{passage}",
        f"Find a title for what follows.\n{passage}",
    ]


def test_protected_pieces_are_compared_as_whole_words() -> None:
    assert paraphrased("Sum 12 and 3.\nSum 2 and 3.", "Add 2 and 3.")[0] == ["Sum 2 and 3."]


def test_a_file_of_paraphrases_may_hold_no_remarks(tmp_path: Path) -> None:
    texts = ["Sure! Here are 2 rewrites:", "  ", "<think>hm", *ITEMS[:2]]
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": QUESTION, "paraphrases": texts}])
    (made,), report = make([PromptItem("1", QUESTION)], {"paraphrases": paraphrases_from(str(path))}, 5, 0)
    assert [v.prompt for v in made.variants[1:]] == ITEMS[:2]
    assert report.counts["no_variant"] == {"paraphrases": 3}


@pytest.fixture
def chat() -> Iterator[tuple[str, dict[str, Any]]]:
    """A chat server that answers with what the test puts into ``choice``."""
    choice: dict[str, Any] = {}
    with serving(lambda _: Reply({"choices": [choice]})) as server:
        yield f"{server.url}#tiny", choice


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({"message": {"content": None}, "finish_reason": "stop"}, []),
        ({"message": {"content": None, "reasoning_content": "hm", "refusal": None}}, []),
        ({"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": PLAIN}]}}, ITEMS),
        ({"message": {"content": "\n".join([*ITEMS[:2], "France has wh"])}, "finish_reason": "length"}, ITEMS[:2]),
        ({"message": {"content": PLAIN}, "finish_reason": "stop"}, ITEMS),
    ],
)
def test_a_served_paraphraser(
    chat: tuple[str, dict[str, Any]],
    tmp_path: Path,
    choice: dict[str, Any],
    made: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, answer = chat
    answer.update(choice)
    prompts = write_jsonl(tmp_path / "p.jsonl", [QUESTION])
    given = [
        "--prompts",
        str(prompts),
        "--variants",
        "paraphrases",
        "--paraphrase-model",
        address,
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["sensitivity", "variants", *given, "--per-kind", "3", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["kinds"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "sets.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows[1:]] == made
    assert bool(counts["short"].get("paraphrases")) == (made != ITEMS)


# --- contractions --------------------------------------------------------------------------------------------------


def prompts(text: str, kind: str, count: int = 12, **more: Any) -> list[str]:
    (made,), _ = make([PromptItem("1", text, **more)], {kind: generator(kind)}, count, 0)
    return [v.prompt for v in made.variants[1:]]


@pytest.mark.parametrize(
    "text",
    [
        "Please let us know",
        "tell me where it is.",
        "Guess who I am.",
        "it's been",
        "It's been a long day.",
        "It's got three legs.",
        "What's happened here?",
        "Say how old you are.",
        "How tall you are matters.",
        "I know what it is, and who they are!",
        "He is taller than you are today.",
        "As it is late, go home as fast as you are able.",
        "I have to go.",
        "I have a dog and they are",
        "Don't you think so?",
        "Isn't it late?",
        "Why don't you go?",
        "You like it, don't you?",
        "Aren't the apples red?",
        "Which food doesn't John like?",
        "Let us in!",
        "Let us know what you think.",
        "Which of these is NOT a planet?",
        "IT IS WHAT IT IS",
        "I'd say so",
        "The cat's tail is Sam's.",
        'Write the word `do not` and "it is".',
        "Whether you are or are not.",
        "What's he done?",
        "Where's the book gone?",
    ],
)
def test_contractions_leave_alone_what_they_would_break(text: str) -> None:
    assert prompts(text, "contractions") == []


@pytest.mark.parametrize(
    "answer",
    [
        '["Name the capital of France.", null]',
        "**Formal:** Name the capital of France.",
        "1. **Formal:** Name the capital of France.",
        "<answer>Name the capital of France.</answer>",
        "Output: Name the capital of France.",
        "a) Name the capital of France.",
        "Rewritten prompt: Name the capital of France.",
        "Here's a rewrite: Name the capital of France.",
        "Name the capital of France.\nHope this helps!",
        "Name the capital of France.\n(none)",
    ],
)
def test_odd_wrappings_of_a_rewriting(answer: str) -> None:
    assert read_answer(answer, "What is the capital of France?").texts == ["Name the capital of France."]


@pytest.mark.parametrize(
    "answer", ["[null]", "nil", "(none)", "<null>", "As a language model, I cannot do that.", "Hope this helps!"]
)
def test_odd_ways_to_say_nothing(answer: str) -> None:
    assert read_answer(answer, "What is the capital of France?").texts == []


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("I'm planning a trip", ["I am planning a trip"]),
        (
            "I'll go and I've seen it",
            ["I will go and I have seen it", "I will go and I've seen it", "I'll go and I have seen it"],
        ),
        ("i'm here", ["i am here"]),
        ("You\u2019re late", ["You are late"]),
        ("Do not go.", ["Don't go."]),
        ("Don't go.", ["Do not go."]),
        ("Don\u2019t go.", ["Do not go."]),
        ("It is a dog.", ["It's a dog."]),
        ("It's a dog.", ["It is a dog."]),
        ("It's called a dog.", ["It is called a dog."]),
        ("What is the sum?", ["What's the sum?"]),
        ("Where is Nora?", ["Where's Nora?"]),
        ("Say it if you are sure.", ["Say it if you're sure."]),
        ("He doesn't know.", ["He does not know."]),
        ("Let's think step by step.", ["Let us think step by step."]),
        ("Let us assume that x is odd.", ["Let's assume that x is odd."]),
        (
            "I am sure that I will win.",
            ["I'm sure that I'll win.", "I'm sure that I will win.", "I am sure that I'll win."],
        ),
        (
            "They cannot swim, but they can not swim.",
            [
                "They can't swim, but they can't swim.",
                "They can't swim, but they can not swim.",
                "They cannot swim, but they can't swim.",
            ],
        ),
    ],
)
def test_contractions_that_are_right(text: str, made: list[str]) -> None:
    assert prompts(text, "contractions") == made


# --- the other generators ------------------------------------------------------------------------------------------

CODE = "Explain this code:\n    for name in names:\n        print(name, sep=', ')\nand say what it does."
KEPT = [
    (CODE, ["    for name in names:\n        print(name, sep=', ')"]),
    ("What does the file /etc/passwd hold?", ["/etc/passwd"]),
    ("Print the value of $HOME and ${USER}, please.", ["$HOME", "${USER}"]),
    (
        "What is meant by \u201cfreedom\u201d here, and by \u2018truth\u2019?",
        ["\u201cfreedom\u201d", "\u2018truth\u2019"],
    ),
    ("What is meant by 'freedom fighters' in the dogs' house?", ["'freedom fighters'"]),
    ("Is the mood positive or negative?", ["positive or negative"]),
    ("Say whether it is positive, negative, or neutral.", ["positive, negative, or neutral"]),
    ("Answer yes/no or True/False, please.", ["yes/no", "True/False"]),
    ("Say whether this mail is spam or not spam, please.", ["spam or not spam"]),
    ("Labels: positive, negative", ["Labels: positive, negative"]),
    ("Choose one of: red, green, blue", ["red, green, blue"]),
    ("Reply with one of the words sports, politics, business.", ["sports, politics, business"]),
    ("Which categories (news, sport) fit? Categories: news, sport and art.", ["Categories: news, sport and art"]),
    ("What is in %PATH% here?", ["%PATH%"]),
    ("Is the point (0, 0) on the line?", ["(0, 0)"]),
    ("Sort 3, 1, 2 in the list [10, -20, 3.5].", ["3, 1, 2", "[10, -20, 3.5]"]),
    ("Call foo.bar(x, y) and set my_name = other, please.", ["foo.bar(x, y)", "my_name = other"]),
    ("Run git commit --amend -m in the folder ~/code/site now.", ["--amend", "-m", "~/code/site"]),
    ("Open C:\\Users\\sam\\notes.txt, please.", ["C:\\Users\\sam\\notes.txt"]),
    ("What does camelCase mean in JavaScript?", ["camelCase", "JavaScript"]),
    ("Complete this: the sky is ...", ["..."]),
]


@pytest.mark.parametrize("kind", [*GENERATORS])
@pytest.mark.parametrize(("text", "pieces"), KEPT)
def test_what_no_generator_may_touch(kind: str, text: str, pieces: list[str]) -> None:
    for made in prompts(text, kind, 40):
        for piece in pieces:
            assert piece in made


def test_casing_knows_apostrophes_and_letters_that_grow() -> None:
    assert "Don't Say O'clock, Or It's Late" in prompts("don't say o'clock, or it's late", "casing")
    assert "Don\u2019t Go" in prompts("don\u2019t go", "casing")
    for made in prompts("die stra\u00dfe der gr\u00f6\u00dfe zu fu\u00df nach haus", "casing", 40):
        assert made.casefold() == "die strasse der gr\u00f6sse zu fuss nach haus"
    assert all("{Name}" in made or "My_name" in made for made in prompts("My_name is long, you see", "casing", 20))


def test_an_end_mark_that_is_not_there_is_not_put_there() -> None:
    for text in ("The sky is", "Finish this: the sky is ...", "Answer:", "Print `x.`"):
        for made in prompts(text, "punctuation", 40):
            assert " ".join(made.split()) == text
    assert {"Why", "Why??", "Why ?"} <= set(prompts("Why?", "punctuation", 20))


def orders(*choices: str, answer: int = 0, question: str = "Which is a metal?") -> list[tuple[tuple[str, ...], str]]:
    item = PromptItem("1", question, CHOICE_LAYOUT, choices, answer, gold=choices[answer])
    (made,), _ = make([item], {"options": generator("options")}, 30, 0)
    return [(tuple(v.meta["options"].values()), v.target) for v in made.variants[1:]]


@pytest.mark.parametrize(
    "last",
    [
        "None of the above",
        "All of the above.",
        "none of these",
        "All of these",
        "Both of the above",
        "Neither of them",
        "None",
    ],
)
def test_options_that_speak_of_those_above_stay_last(last: str) -> None:
    made = orders("Iron", "Gold", "Oxygen", last)
    assert len(made) == 5
    assert all(order[3] == last and order["ABCD".index(target)] == "Iron" for order, target in made)


@pytest.mark.parametrize(
    "choices",
    [
        ("Iron", "Gold", "Oxygen", "Both A and B"),
        ("Iron", "Gold", "Oxygen", "A and B"),
        ("Iron", "Gold", "Oxygen", "both a and b."),
        ("Iron", "Gold", "Oxygen", "b & c"),
        ("Iron", "Gold", "Oxygen", "Either A or C."),
        ("Iron", "Gold", "Neither (A) nor (B)", "Oxygen"),
        ("Iron", "Gold", "B only", "Oxygen"),
        ("Iron", "Gold", "A, B and C", "Oxygen"),
        ("Iron", "All of the above", "Gold", "Oxygen"),
        ("All of the below.", "Iron", "Gold", "Oxygen"),
        ("Iron", "Gold", "the option before this one", "Oxygen"),
        ("Iron", "Gold", "Oxygen", "Options 1 and 2"),
        ("Iron", "The first two", "Gold", "Oxygen"),
        ("Iron", "Gold", "Same as B", "Oxygen"),
        ("Iron", "Gold", "Oxygen", "A-C"),
        ("Iron", "Gold", "A + B", "Oxygen"),
        ("Iron", "Gold", "A through C", "Oxygen"),
    ],
)
def test_options_that_name_others_are_not_put_in_another_order(choices: tuple[str, ...]) -> None:
    assert orders(*choices) == []


def test_options_that_only_look_like_it_are_put_in_all_orders() -> None:
    assert len(orders("A", "B", "AB", "O", question="Which blood group?")) == 23
    assert len(orders("I only", "II only", "I and II only", "Both I and II")) == 23
    assert (
        len(
            orders(
                "altitude above sea level",
                "All of the fossils were found",
                "Both are metals",
                "neither a bird nor a bee",
            )
        )
        == 23
    )
    assert len(orders("A dog and a cat", "A cow", "A wolf", "a bee")) == 23
    assert orders("Iron", "Gold", "Lead", question="Why is option A better than B?") == []


def test_synonyms_keep_the_sense_in_ordinary_prompts() -> None:
    for text, wrong in [
        ("List three fruits.", "Row three"),
        ("Write a poem.", "Name a poem"),
        ("Give me a reason.", "Name me"),
        ("How many legs?", "How much"),
        ("Do it in order to win.", "in sequence to"),
        ("Add a comma here.", "Sum a comma"),
        ("What kind words did she say?", "sort words"),
        ("Count the birds.", "Number the"),
        ("Now read it.", "Next see"),
    ]:
        assert not [made for made in prompts(text, "synonyms", 20) if wrong in made]


TRICKY = [
    "I'm",
    "I'll",
    "it's",
    "don't",
    "let us",
    "what is",
    "cannot",
    "ISN'T",
    "i\u017f not",
    "a\u0301",
    "\u00df",
    "\u0130",
    "or",
    "/",
]
TRICKY += [
    "$x",
    "$",
    '"',
    "'",
    "`",
    "```",
    "(",
    ")",
    "{",
    "}",
    ",",
    ".",
    "?",
    "\n",
    " ",
    "    ",
    "1.",
    "<think>",
    "Sure!",
    "[",
    "\x00",
]
texts = st.text(max_size=60) | st.lists(st.sampled_from(TRICKY), max_size=20).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.integers(0, 3))
def test_no_generator_crashes_on_arbitrary_text(text: str, gold: str, seed: int) -> None:
    choice = PromptItem("1", text, CHOICE_LAYOUT, (gold, text, "x"), 0, gold=gold)
    for item in (PromptItem("1", text, BARE, gold=gold or None), choice):
        for kind in GENERATORS:
            (made,), _ = make([item], {kind: generator(kind)}, 4, seed)
            assert len({v.prompt for v in made.variants}) == len(made.variants)
            assert all(v.prompt for v in made.variants[1:])


@settings(max_examples=150, deadline=None)
@given(texts, texts)
def test_no_answer_of_a_paraphraser_crashes(text: str, answer: str) -> None:
    generate = paraphrases_by(lambda _: answer, "fake", 3)
    for _, prompt, _ in generate(PromptItem("1", text), Random(0)):
        assert "<think>" not in prompt or "<think>" in text
