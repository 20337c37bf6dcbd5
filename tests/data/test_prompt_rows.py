"""Rows that hold a prompt alone: their text ends where the model is to write, as it does wherever a model is asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import TuneConfig
from holdfast.data.chat_template import generation_prompt
from holdfast.data.examples import load_examples
from holdfast.errors import HoldfastError
from holdfast.records import Example, Message, Role
from holdfast.tune.plan import make_plan
from holdfast.tune.roles import render_example, text_of
from materials import make_tokenizer, write_jsonl

ASKED = (Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hi"))
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def asking(template: str, tokenizer: Any, messages: tuple[Message, ...] = ASKED) -> list[Any]:
    return render_example(Example(messages, "chat", "row 1", asks=True), template, tokenizer)


@pytest.mark.parametrize(
    ("row", "asks"),
    [({"prompt": PROMPT}, True), ({"prompt": "Hi"}, True), ({"messages": PROMPT}, False),
     ({"prompt": [*PROMPT, {"role": "assistant", "content": "Yo"}]}, False),
     ({"prompt": "Hi", "response": "Yo"}, False)],
)  # fmt: skip
def test_a_row_of_a_prompt_alone_asks(tmp_path: Path, row: dict[str, Any], asks: bool) -> None:
    (example,) = load_examples(str(write_jsonl(tmp_path / "a.jsonl", [row])), needs_response=False)
    assert example.asks is asks


def test_training_on_prompts_ends_where_the_model_writes(model_folder: Path, tmp_path: Path) -> None:
    data = str(write_jsonl(tmp_path / "a.jsonl", [{"prompt": PROMPT}, {"prompt": [PROMPT[1]]}]))
    config = TuneConfig(model=str(model_folder), data=data, output="unused", preset="prompt-only", eval_share=0.0)
    plan = make_plan(config)
    texts = [plan.tokenizer.decode(tokens.ids) for tokens in plan.train]
    for text, turns in zip(texts, (PROMPT, PROMPT[1:]), strict=True):
        assert text == plan.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert {Role(int(role)).label for role in plan.train[0].roles} == {"template", "system", "user"}


@pytest.mark.parametrize("template", ["chat", "plain", "alpaca", "dialogue"])
def test_what_is_trained_is_what_is_asked(template: str) -> None:
    tokenizer = make_tokenizer(bos=True)
    spans = asking(template, tokenizer)
    assert text_of(spans) == generation_prompt(ASKED, template, tokenizer)
    assert {span.role for span in spans} <= {Role.TEMPLATE, Role.SYSTEM, Role.USER}


def test_a_template_whose_generation_prompt_changes_the_end() -> None:
    ends = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if not (loop.last and add_generation_prompt) %}[end]"
    tokenizer = make_tokenizer(
        chat_template=ends + "{% endif %}{% endfor %}{% if add_generation_prompt %}[go]{% endif %}"
    )
    assert text_of(asking("chat", tokenizer)) == "[system]Be brief.[end][user]Hi[go]"
    shouts = "{% for m in messages %}{{ m.content if not add_generation_prompt else m.content | upper }}{% endfor %}"
    with pytest.raises(HoldfastError, match="in another way where it asks"):
        asking("chat", make_tokenizer(chat_template=shouts))


def asked_by_template(tokenizer: Any, content: Any) -> str | None:
    turns = [{"role": "user", "content": content}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception:  # a form that the template does not take
        return None


def test_every_template_of_trl_ends_as_it_asks() -> None:
    pytest.importorskip("trl")
    import template_matrix

    ends = 0
    for name in template_matrix.names():
        tokenizer = template_matrix.tokenizer_of(name)
        try:
            whole = text_of(render_example(Example(ASKED[1:], "chat", "row 1"), "chat", tokenizer))
        except HoldfastError:
            continue  # refused without the generation prompt, too
        asked = text_of(asking("chat", tokenizer, ASKED[1:]))
        forms = [*map(partial(asked_by_template, tokenizer), ("Hi", [{"type": "text", "text": "Hi"}]))]
        assert asked in forms, name
        ends += asked != whole
    assert ends > 40
