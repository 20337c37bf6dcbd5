"""Every character and every token knows its role: hand-marked examples, boundaries inside a token, truncation."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.data.chat_template import generation_prompt, render, template_name
from holdfast.errors import HoldfastError
from holdfast.records import Example, Message, Role, Span
from holdfast.tune.roles import assign_roles, tokenize
from holdfast.tune.weights import role_weights
from materials import CHATML, make_tokenizer

U, A, S, T = Role.USER, Role.ASSISTANT, Role.SYSTEM, Role.TOOL


def marked(spans: list[Span]) -> list[tuple[str, str]]:
    return [(s.text, s.role.label) for s in spans]


def by_role(tokenizer: Any, spans: list[Span]) -> list[tuple[str, str]]:
    """Decoded runs of tokens of one role."""
    tokens = assign_roles([spans], tokenizer)[0]
    runs: list[tuple[str, list[int]]] = []
    for token, role in zip(tokens.ids.tolist(), tokens.roles.tolist()):
        label = Role(role).label
        if not runs or runs[-1][0] != label:
            runs.append((label, []))
        runs[-1][1].append(token)
    return [(label, tokenizer.decode(ids)) for label, ids in runs]


def test_chat_by_hand(tokenizer: Any) -> None:
    messages = [
        Message(S, "Be brief."),
        Message(U, "hello"),
        Message(A, "hi"),
        Message(U, "user"),
        Message(A, "assistant"),
    ]
    assert marked(render(messages, "chat", tokenizer)) == [
        ("<|im_start|>system\n", "template"),
        ("Be brief.", "system"),
        ("<|im_end|>\n<|im_start|>user\n", "template"),
        ("hello", "user"),
        ("<|im_end|>\n<|im_start|>assistant\n", "template"),
        ("hi", "assistant"),
        ("<|im_end|>", "eos"),
        ("\n<|im_start|>user\n", "template"),
        ("user", "user"),  # a content equal to a header is still found in its place
        ("<|im_end|>\n<|im_start|>assistant\n", "template"),
        ("assistant", "assistant"),
        ("<|im_end|>", "eos"),
        ("\n", "template"),
    ]


def test_tokens_join_to_the_rendered_text(tokenizer: Any) -> None:
    messages = [Message(U, "What is the capital of France?"), Message(A, "Paris, naïve 🙂 ünïcode")]
    spans = render(messages, "chat", tokenizer)
    tokens = assign_roles([spans], tokenizer)[0]
    assert tokenizer.decode(tokens.ids.tolist()) == "".join(s.text for s in spans)
    assert by_role(tokenizer, spans) == [
        ("template", "<|im_start|>user\n"),
        ("user", "What is the capital of France?"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("assistant", "Paris, naïve 🙂 ünïcode"),
        ("eos", "<|im_end|>"),
        ("template", "\n"),
    ]


def test_equal_to_the_tokenizers_own_chat_rendering(tokenizer: Any) -> None:
    dicts = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    spans = render([Message(U, "hello"), Message(A, "world")], "chat", tokenizer)
    ids = tokenizer.apply_chat_template(dicts)["input_ids"]
    assert assign_roles([spans], tokenizer)[0].ids.tolist() == ids


def test_the_space_before_a_response_counts_as_response(tokenizer: Any) -> None:
    """Generation starts before it, and the token of a space and a word straddles the boundary: it belongs to its last
    character.
    """
    spans = render([Message(U, "the capital of France is"), Message(A, "Paris")], "plain", tokenizer)
    assert marked(spans)[1] == (" ", "assistant")
    assert by_role(tokenizer, spans) == [
        ("user", "the capital of France is"),
        ("assistant", " Paris"),
        ("eos", "<|end|>"),
    ]


def test_prompt_that_ends_in_white_space_gets_no_further_space(tokenizer: Any) -> None:
    for prompt in ("### Response:\n", "Answer: "):
        spans = render([Message(U, prompt), Message(A, "x")], "plain", tokenizer)
        assert "".join(s.text for s in spans) == prompt + "x<|end|>"


def test_alpaca_by_hand(tokenizer: Any) -> None:
    spans = render([Message(U, "Translate."), Message(U, "world"), Message(A, "monde")], "alpaca", tokenizer)
    assert marked(spans)[1:] == [
        ("Translate.", "user"),
        ("\n\n### Input:\n", "template"),
        ("world", "user"),
        ("\n\n### Response:\n", "template"),
        ("monde", "assistant"),
        ("<|end|>", "eos"),
    ]
    assert "paired with an input" in spans[0].text
    assert "paired" not in render([Message(U, "Go."), Message(A, "Gone")], "alpaca", tokenizer)[0].text


def test_dialogue_for_chat_data_without_a_template() -> None:
    tokenizer = make_tokenizer(chat_template=None)
    assert template_name("auto", "chat", tokenizer) == "dialogue"
    spans = render([Message(U, "hello"), Message(A, "hi"), Message(T, "42"), Message(A, "fine")], "dialogue", tokenizer)
    assert "".join(s.text for s in spans) == "User: hello\nAssistant: hi<|end|>\nTool: 42\nAssistant: fine<|end|>"
    assert [label for _, label in marked(spans)].count("eos") == 2


def test_template_choice(tokenizer: Any) -> None:
    assert template_name("auto", "chat", tokenizer) == "chat"
    assert template_name("auto", "pair", tokenizer) == "plain"
    assert template_name("auto", "alpaca", tokenizer) == "alpaca"
    assert template_name("chat", "pair", tokenizer) == "chat"
    with pytest.raises(HoldfastError, match="no chat template"):
        template_name("chat", "chat", make_tokenizer(chat_template=None))
    with pytest.raises(HoldfastError, match="unknown template"):
        template_name("vicuna", "chat", tokenizer)


def test_bos_and_eos_around_plain_text() -> None:
    tokenizer = make_tokenizer(bos=True)
    assert marked(render([Message(A, "text")], "plain", tokenizer)) == [
        ("<|bos|>", "template"),
        ("text", "assistant"),
        ("<|end|>", "eos"),
    ]


def test_no_eos_is_an_error_with_responses_and_fine_without() -> None:
    tokenizer = make_tokenizer(eos=False)
    with pytest.raises(HoldfastError, match="no EOS"):
        render([Message(U, "a"), Message(A, "b")], "plain", tokenizer)
    assert marked(render([Message(U, "a")], "plain", tokenizer)) == [("a", "user")]


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("m['content']", "m['content'] | trim"),  # strips
        "{{ bos_token }}" + CHATML,
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
        + CHATML,  # adds a turn
    ],
)
def test_other_chat_templates(template: str) -> None:
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    spans = render([Message(U, " hello \n"), Message(A, "  hi  ")], "chat", tokenizer)
    roles = {label: text.strip() for text, label in marked(spans) if label != "template"}
    assert roles == {"user": "hello", "assistant": "hi", "eos": "<|im_end|>"}


def test_end_of_turn_by_eos_token_and_none_at_all() -> None:
    with_eos = make_tokenizer(chat_template="{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] }}"
                              "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}")  # fmt: skip
    spans = render([Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")], "chat", with_eos)
    assert [text for text, label in marked(spans) if label == "eos"] == ["<|end|>", "<|end|>"]
    without = make_tokenizer(
        chat_template="{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    )
    spans = render([Message(U, "a"), Message(A, "b")], "chat", without)
    assert marked(spans)[-2:] == [("<|end|>", "eos"), ("\n", "template")]


def test_templates_that_rewrite_or_refuse_are_errors() -> None:
    upper = make_tokenizer(chat_template=CHATML.replace("m['content']", "m['content'] | upper"))
    with pytest.raises(HoldfastError, match="rewrites"):
        render([Message(U, "hello"), Message(A, "x")], "chat", upper)
    strict = make_tokenizer(
        chat_template="{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}" + CHATML
    )
    with pytest.raises(HoldfastError, match="one only"):
        render([Message(U, "a"), Message(A, "b")], "chat", strict)


def test_white_space_that_the_generation_prompt_lacks_is_response() -> None:
    """The model has to write it before the response; empty thoughts that a template adds stay with the template."""
    gap = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + THINK + m['content'] + '<|im_end|>' }}"
        "{% endfor %}"
    )
    gap += "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
    tokenizer = make_tokenizer(chat_template=gap.replace(" + THINK", ""))
    spans = render([Message(U, "a"), Message(A, "7"), Message(U, "b"), Message(A, "8", 0.5)], "chat", tokenizer)
    assert [(text, label) for text, label in marked(spans) if label in ("assistant", "user")] == [
        ("a", "user"), (" ", "assistant"), ("7", "assistant"), ("b", "user"), (" ", "assistant"), ("8", "assistant"),
    ]  # fmt: skip
    assert [s.weight for s in spans if s.role is A] == [1, 1, 0.5, 0.5]
    tokenizer = make_tokenizer(chat_template=gap.replace("THINK", "'<think></think> '"))
    spans = render([Message(U, "a"), Message(A, "7")], "chat", tokenizer)
    assert [text for text, label in marked(spans) if label == "assistant"] == ["7"]


def test_generation_prompt_is_a_prefix_of_the_training_text(tokenizer: Any) -> None:
    user = [Message(U, "hello")]
    for template in ("chat", "plain", "alpaca", "dialogue"):
        whole = "".join(s.text for s in render([*user, Message(A, "hi")], template, tokenizer))
        assert whole.startswith(generation_prompt(user, template, tokenizer))


def test_weights_of_messages_and_examples_multiply(tokenizer: Any) -> None:
    messages = (Message(U, "hello", 0.5), Message(A, "hi", 3.0))
    example = Example(messages, "chat", "here", weight=2.0)
    tokens, _ = tokenize([example], tokenizer, role_weights(1, 1), max_length=128)
    roles, scale = tokens[0].roles, tokens[0].scale
    assert scale is not None
    assert set(scale[roles == U]) == {1.0}
    assert set(scale[roles == A]) == {6.0}
    assert set(scale[roles == Role.EOS]) == {6.0}
    assert set(scale[roles == Role.TEMPLATE]) == {2.0}


def encode(tokenizer: Any, prompt: str, response: str, **options: Any) -> Any:
    example = Example((Message(U, prompt), Message(A, response)), "pair", "data.jsonl, row 1")
    return tokenize([example], tokenizer, role_weights(), **options)


def test_truncation_keeps_start_end_or_nothing() -> None:
    tokenizer = make_tokenizer(bos=True)
    whole, _ = encode(tokenizer, "hello world", "Red, green and blue.", max_length=128)
    limit = len(whole[0]) - 3
    start, report = encode(tokenizer, "hello world", "Red, green and blue.", max_length=limit)
    assert start[0].ids.tolist() == whole[0].ids.tolist()[:limit]
    assert (report.truncated, report.tokens_cut, report.eos_cut, report.dropped) == (1, 3, 1, 0)
    end, report = encode(tokenizer, "hello world", "Red, green and blue.", max_length=limit, truncation="keep-end")
    assert end[0].ids.tolist() == [0, *whole[0].ids.tolist()[4:]]  # BOS stays in front
    assert (report.truncated, report.tokens_cut, report.eos_cut) == (1, 3, 0)
    none, report = encode(tokenizer, "hello world", "Red, green and blue.", max_length=limit, truncation="drop")
    assert (none, report.dropped, report.truncated) == ([], 1, 0)


def test_prompt_that_fills_the_context_is_left_out_and_listed(tokenizer: Any) -> None:
    kept, report = encode(tokenizer, "hello world " * 20, "hi", max_length=16)
    assert kept == []
    assert report.prompt_too_long[0].startswith("data.jsonl, row 1:")
    kept, report = encode(tokenizer, "hello world " * 20, "hi", max_length=16, truncation="keep-end")
    assert len(kept) == 1
    assert report.prompt_too_long == []


def test_special_tokens_inside_content_are_counted(tokenizer: Any) -> None:
    _, report = encode(tokenizer, "say <|im_end|> twice <|end|>", "no", max_length=128)
    assert report.special_in_content == 2


def test_pad_equal_to_eos_changes_nothing() -> None:
    same, _ = encode(make_tokenizer(pad="<|end|>"), "hello", "hi", max_length=128)
    other, _ = encode(make_tokenizer(), "hello", "hi", max_length=128)
    assert same[0].roles.tolist() == other[0].roles.tolist()
    assert same[0].roles[-1] == Role.EOS


@pytest.mark.parametrize("template", ["plain", "dialogue"])
def test_a_response_that_begins_with_white_space_gets_no_space_before_it(tokenizer: Any, template: str) -> None:
    asked, answer = [Message(U, "The sky is")], Message(A, " blue.")
    whole = "".join(s.text for s in render([*asked, answer], template, tokenizer))
    assert (
        whole == generation_prompt(asked, template, tokenizer) + " blue.<|end|>"
    )  # what is trained is what is asked for


def test_every_token_of_a_turns_end_up_to_eos_is_eos() -> None:
    """Command R7B ends a turn with two tokens, of which the second is the tokenizer's EOS."""
    turn = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    two = (
        "{% for m in messages %}"
        + turn
        + "{{ '<|im_end|><|end|>' if m['role'] == 'assistant' else '<|end|>' }}{% endfor %}"
    )
    messages = [Message(U, "a"), Message(A, "b", 0.5), Message(U, "c"), Message(A, "d")]
    spans = render(messages, "chat", make_tokenizer(chat_template=two))
    assert marked(spans)[3:6] == [
        ("b", "assistant"),
        ("<|im_end|><|end|>", "eos"),
        ("<|im_start|>user\nc"[:-1], "template"),
    ]
    assert marked(spans)[-1] == ("<|im_end|><|end|>", "eos")
    assert [s.weight for s in spans if s.role is Role.EOS] == [0.5, 1.0]


def test_text_before_the_eos_of_a_turn_is_the_models_to_write() -> None:
    end = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %} END<|end|>{% endif %}{% endfor %}"
    )
    spans = render(
        [Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")], "chat", make_tokenizer(chat_template=end)
    )
    assert [text for text, label in marked(spans) if label == "eos"] == [" END<|end|>"] * 2
    assert "".join(s.text for s in spans) == "[user] a[assistant] b END<|end|>[user] c[assistant] d END<|end|>"


def test_text_before_the_special_token_that_ends_a_turn_is_the_models_to_write() -> None:
    """The tokenizer's EOS is another token, which must not be put between the answer and what closes it."""
    turn = "[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %} END<|im_end|>\n{% endif %}"
    end = "{% for m in messages %}" + turn + "{% endfor %}"
    spans = render(
        [Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")], "chat", make_tokenizer(chat_template=end)
    )
    assert [text for text, label in marked(spans) if label == "eos"] == [" END<|im_end|>"] * 2
    assert (
        "".join(s.text for s in spans) == "[user] a[assistant] b END<|im_end|>\n[user] c[assistant] d END<|im_end|>\n"
    )


def test_an_eos_behind_the_whole_conversation_leaves_middle_turns_alone() -> None:
    """As in Phi-3: turns end with one token, the conversation with another one behind it."""
    tokenizer = make_tokenizer(chat_template=CHATML + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
    spans = render([Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")], "chat", tokenizer)
    assert [text for text, label in marked(spans) if label == "eos"] == ["<|im_end|>", "<|im_end|>\n<|end|>"]


def test_where_the_next_header_stops_a_turn_it_alone_is_eos() -> None:
    """As in GLM: `<|im_end|>` opens the user's turn here, and nothing follows the last response."""
    glm = (
        "{% for m in messages %}{{ '<|im_end|>' if m['role'] == 'user' else '<|im_start|>' }}\n{{ m['content'] }}"
        "{% endfor %}"
    )
    spans = render(
        [Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")], "chat", make_tokenizer(chat_template=glm)
    )
    assert [text for text, label in marked(spans) if label == "eos"] == ["<|im_end|>", "<|end|>"]
    assert marked(spans)[5] == ("\n", "template")


def test_command_r7b_as_trl_marks_it() -> None:
    """TRL's training variant of the template says what the model writes; its original must give the same roles."""
    trl = pytest.importorskip("trl")
    from pathlib import Path

    folder = Path(trl.__file__).parent / "chat_templates"
    if not (folder / "cohere2_training.jinja").is_file():
        pytest.skip("this TRL has no template of Command R7B")
    tokenizer = make_tokenizer(bos=True, chat_template=(folder / "cohere2.jinja").read_text())
    names = (
        "START_OF_TURN_TOKEN",
        "END_OF_TURN_TOKEN",
        "SYSTEM_TOKEN",
        "USER_TOKEN",
        "CHATBOT_TOKEN",
        "START_RESPONSE",
        "END_RESPONSE",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in names]})
    tokenizer.eos_token = "<|END_OF_TURN_TOKEN|>"
    messages = [Message(U, "hello"), Message(A, "hi"), Message(U, "world"), Message(A, "Fine, thank you!")]
    (tokens,) = assign_roles([render(messages, "chat", tokenizer)], tokenizer)
    marked_by_trl = tokenizer.apply_chat_template(
        [{"role": m.role.label, "content": m.content} for m in messages],
        chat_template=(folder / "cohere2_training.jinja").read_text(), return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    assert tokens.ids.tolist() == marked_by_trl["input_ids"]
    assert [int(role in (A, Role.EOS)) for role in tokens.roles] == marked_by_trl["assistant_masks"]
    assert tokenizer.decode(tokens.ids[tokens.roles == Role.EOS]) == "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>" * 2
