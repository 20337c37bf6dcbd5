"""What a study asks its models: the prompts of measures that generate answers, as the training renders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import TuneConfig
from holdfast.data.examples import load_examples
from holdfast.records import Role
from holdfast.study.measure import Measured, _posix, prompts_of
from holdfast.study.measures import Measure
from holdfast.tune.plan import make_plan
from materials import make_tokenizer, write_jsonl

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% if thinking is defined and not thinking %}(short)"
    "{% endif %}{% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
    {"messages": [{"role": "user", "content": "Ho"}, {"role": "assistant", "content": "Yo"}],
     "chat_template_kwargs": {"thinking": True}},
]  # fmt: skip


def test_answers_are_asked_for_with_the_template_and_values_of_the_training(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(TEMPLATE)
    data = str(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    options = {"chat_template": str(file), "chat_template_kwargs": {"thinking": "false"}}
    config = TuneConfig(model=str(model_folder), data=data, output="unused", eval_share=0.0, **options)
    prompts = prompts_of(load_examples(data), config, make_tokenizer())
    assert prompts == ["[user]Hi[assistant](short)", "[user]Ho[assistant]"]  # the row's own value goes over the option
    plan = make_plan(config)
    for prompt, tokens in zip(prompts, plan.train, strict=True):
        whole = plan.tokenizer.decode(tokens.ids)
        assert whole.startswith(prompt.removesuffix("(short)"))
        assert Role.ASSISTANT in tokens.roles


@pytest.mark.parametrize(
    ("options", "kwargs"),
    [({"chat": True}, {"thinking": False}), ({}, None),
     ({"chat": True, "chat_template_kwargs": '{"thinking": true}'}, {"thinking": True})],
)  # fmt: skip
def test_posix_in_a_chat_is_asked_with_the_values_of_the_training(
    options: dict[str, Any], kwargs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def run(config: Any) -> dict[str, Any]:
        asked.append(config.chat_template_kwargs)
        return {"posix": {"spelling": {"mean": 0.5}}}

    monkeypatch.setattr("holdfast.sensitivity.measure", run)
    measured = Measured({}, {})
    trained = {"chat_template_kwargs": {"thinking": "false"}, "date": None}
    _posix(Measure("posix", options), "m", tmp_path, tmp_path / "sets", measured, trained)
    assert measured.values["posix"] == 0.5
    assert [value and json.loads(value) for value in asked] == [kwargs]
