"""Agent rows: tools, calls, results and thoughts in every command that trains, and what each token is paid."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import cli
from holdfast.align.tokens import tokenize_pairs
from holdfast.config import TuneConfig, WeighConfig
from holdfast.data.chat_template import render
from holdfast.data.conversation import set_stops
from holdfast.data.examples import examples_of
from holdfast.data.pairs import read_pair
from holdfast.errors import HoldfastError
from holdfast.records import Role, Span
from holdfast.tune import train, weigh
from holdfast.tune.roles import assign_roles, stop_ids, tokenize
from holdfast.tune.spans import span_rules
from holdfast.tune.weights import role_weights
from materials import CHATML, make_model, make_tokenizer, write_jsonl

AGENT = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "wx", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "wx", "arguments": {"city": "Oslo", "days": 2}}}
ROW: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "wx?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
        {"role": "tool", "name": "wx", "content": "rain"},
        {"role": "assistant", "content": "rain.", "reasoning_content": "It says so."},
    ],
    "tools": TOOLS,
}


def spans_of(row: dict[str, Any], tokenizer: Any, **options: Any) -> list[Span]:
    (example,) = examples_of([(row, "a.jsonl, row 1")], "a.jsonl")
    return render(example.messages, "chat", tokenizer, example.tools, example.template_kwargs | options)


def paid(spans: list[Span]) -> list[tuple[str, str]]:
    return [(s.text, s.role.label) for s in spans if s.role is not Role.TEMPLATE]


EXPECTED = [
    ("wx?", "user"), ("Let me see.", "assistant"), ("<call>", "format"), ("wx", "tool_call"), (" ", "format"),
    ('{"city": "', "tool_call"), ("Oslo", "tool_call"), ('", "days": 2}', "tool_call"), ("</call>", "format"),
    ("<|im_end|>", "eos"), ("rain", "tool"), ("<think>", "format"), ("It says so.", "think"), ("</think>", "format"),
    ("rain.", "assistant"), ("<|im_end|>", "eos"),
]  # fmt: skip


def test_every_part_of_an_agent_row_by_hand() -> None:
    tokenizer = make_tokenizer(chat_template=AGENT)
    assert paid(spans_of(ROW, tokenizer)) == EXPECTED
    text = json.loads(json.dumps(ROW))
    text["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"city": "Oslo", "days": 2}'
    text["tools"] = json.dumps(TOOLS)
    assert paid(spans_of(text, tokenizer)) == EXPECTED  # arguments and tools as text
    short = json.loads(json.dumps(ROW))
    short["messages"][1] |= {"content": None, "tool_calls": [CALL["function"]]}
    assert paid(spans_of(short, tokenizer)) == [EXPECTED[0], *EXPECTED[2:]]  # null content, calls without a wrapper
    given = [s.text for s in spans_of(ROW, tokenizer) if s.role is Role.TEMPLATE]
    assert '"name": "wx"' in given[0]  # the schema is given to the model


def test_a_template_that_takes_arguments_as_text_gets_them_so() -> None:
    template = AGENT.replace("c.function.arguments | tojson", "'' + c.function.arguments")
    assert paid(spans_of(ROW, make_tokenizer(chat_template=template)))[3:7] == [
        ("wx", "tool_call"), (" ", "format"), ('{"city": "Oslo", "days": 2}', "tool_call"), ("</call>", "format"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("{{ c.function.name }} {{ c.function.arguments | tojson }}", "no trace of the tool call of message 2"),
        ("{{ m.reasoning_content }}", "no trace of the reasoning of message 4"),
        ("{{ tools | tojson }}", "no trace of the tools"),
        ("{{ m.content or '' }}", "no trace of the content of message 1"),
    ],
)
def test_what_a_row_says_and_the_template_does_not_print_is_refused(without: str, message: str) -> None:
    assert without in AGENT
    tokenizer = make_tokenizer(chat_template=AGENT.replace(without, ""))
    with pytest.raises(HoldfastError, match=message) as error:
        spans_of(ROW, tokenizer)
    assert "FILE" in str(error.value.hint)


def test_plain_templates_and_unread_kwargs_are_refused() -> None:
    (example,) = examples_of([(ROW, "row 1")], "a")
    with pytest.raises(HoldfastError, match="template 'dialogue' has no place for tools, tool_calls"):
        render(example.messages, "dialogue", make_tokenizer(), example.tools)
    with pytest.raises(HoldfastError, match="does not read 'enable_thinking'"):
        spans_of(ROW | {"chat_template_kwargs": {"enable_thinking": False}}, make_tokenizer(chat_template=AGENT))
    turn = {"role": "assistant", "content": "b", "reasoning_content": "c", "thinking": "d"}
    with pytest.raises(HoldfastError, match=r"row 1, message 2: reasoning_content and thinking differ"):
        examples_of([({"messages": [ROW["messages"][0], turn]}, "row 1")], "a")


def test_kwargs_of_a_row_reach_the_template() -> None:
    loud = AGENT.replace("{% if add_generation_prompt %}", "{% if loud %}LOUD{% endif %}{% if add_generation_prompt %}")
    row = {"messages": [ROW["messages"][0], {"role": "assistant", "content": "ok"}]}
    tokenizer = make_tokenizer(chat_template=loud)
    assert "LOUD" not in "".join(s.text for s in spans_of(row, tokenizer))
    assert "LOUD" in "".join(s.text for s in spans_of(row | {"chat_template_kwargs": {"loud": True}}, tokenizer))


def test_earlier_thoughts_that_the_template_drops_are_dropped() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "early"}]
    turns += [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "thinking": "late"}]
    spans = spans_of({"messages": turns}, make_tokenizer(chat_template=AGENT))
    assert [s.text for s in spans if s.role is Role.THINK] == ["late"]


def test_the_stop_that_generation_uses_closes_every_turn() -> None:
    """As in GLM: the header of the next turn is what generation stops on, also behind the last response."""
    header = "{{ '<|im_end|>' if m['role'] == 'user' else '<|im_start|>' }}"
    glm = "{% for m in messages %}" + header + "\n{{ m['content'] }}{% endfor %}"
    tokenizer = make_tokenizer(chat_template=glm + "{% if add_generation_prompt %}<|im_start|>{% endif %}")
    set_stops(tokenizer, tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|end|>"]))
    turns = [
        {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    ]
    spans = spans_of({"messages": turns}, tokenizer)
    assert [s.text for s in spans if s.role is Role.EOS] == ["<|im_end|>", "<|im_end|>"]
    (tokens,) = assign_roles([spans], tokenizer)
    assert stop_ids(tokens) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_empty_thoughts_and_prompts_that_are_no_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    scaffold = CHATML.replace(
        "m['content']", "('<think>\n\n</think>\n\n' if m['role'] == 'assistant' else '') + m['content']"
    )
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert paid(spans_of(row, make_tokenizer(chat_template=scaffold)))[1] == ("<think>\n\n</think>\n\n", "empty_think")
    assert capsys.readouterr().err == ""
    asks = scaffold.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n\n</think>\n\n'")
    assert paid(spans_of(row, make_tokenizer(chat_template=asks)))[1] == ("b", "assistant")  # then it is given
    assert capsys.readouterr().err == ""
    other = make_tokenizer(
        chat_template=scaffold.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\nThought:'")
    )
    for _ in range(2):
        assert paid(spans_of(row, other))[1] == ("<think>\n\n</think>\n\n", "empty_think")
    assert capsys.readouterr().err.count("it asks with 'Thought:' where the text has '<think>") == 1


def test_weights_of_roles_spans_turns_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer(chat_template=AGENT)
    weights = role_weights(weights={"think": 0.5, "tool_call": 2.0, "tool": 0.25, "format": 0.0})
    row = json.loads(json.dumps(ROW))
    rules = span_rules([{"match": "see", "role": "assistant", "weight": 0.3}, {"match": "s..", "weight": 0.1}])

    def weighed(row: dict[str, Any], **options: Any) -> dict[str, set[float]]:
        examples = examples_of([(row, "row 1")], "a")
        (tokens,), _ = tokenize(examples, tokenizer, weights, max_length=10**4, **options)
        scale = [1.0] * len(tokens) if tokens.scale is None else tokens.scale.tolist()
        table: dict[str, set[float]] = {}
        for role, factor in zip(tokens.roles.tolist(), scale, strict=True):
            table.setdefault(Role(role).label, set()).add(round(weights[Role(role)] * factor, 4))
        return table

    assert weighed(row) == {
        "template": {0.0}, "user": {0.0}, "tool": {0.25}, "assistant": {1.0}, "think": {0.5}, "tool_call": {2.0},
        "format": {0.0}, "eos": {1.0},
    }  # fmt: skip
    spanned = weighed(row, spans=rules)
    assert spanned["assistant"] == {1.0, 0.3}  # "see" has its own rule; the first match wins
    assert spanned["think"] == {0.5, 0.05}
    weighed(row, spans=span_rules([{"match": "never", "weight": 0}]))
    assert "spans: 'never' matched nothing" in capsys.readouterr().err
    last = weighed(row, turns="last")
    assert last["tool_call"] == {0.0}
    assert last["think"] == {0.5}
    row["messages"][3]["train"] = False
    assert weighed(row)["think"] == {0.0}
    assert weighed(row)["eos"] == {0.0, 1.0}
    for entry, message in (
        ({"match": "("}, "keys are match"),
        ({"match": "(", "weight": 1}, "no regular expression"),
        ({"match": "a", "weight": 1, "role": "dog"}, "unknown role 'dog'"),
        ({"match": "a", "weight": -1}, "finite number"),
    ):
        with pytest.raises(HoldfastError, match=message):
            span_rules([entry])


def independent_loss(model: Any, tokens: Any, weights: dict[Role, float]) -> float:
    """Eq. 2 of arXiv 2507.07817 in plain torch: weighted NLLs over the count of tokens of non-zero weight."""
    ids = torch.tensor(tokens.ids.tolist())[None]
    with torch.no_grad():
        logprobs = model(ids).logits[0].float().log_softmax(-1)
    total, count = 0.0, 0
    scale = [1.0] * len(tokens) if tokens.scale is None else tokens.scale.tolist()
    for t in range(1, len(tokens)):
        weight = weights[Role(int(tokens.roles[t]))] * scale[t]
        total += weight * -logprobs[t - 1, ids[0, t]].item()
        count += weight != 0
    return total / count


@pytest.fixture(scope="module")
def agent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent")
    make_model(max_position_embeddings=512).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    (folder / "agent.jinja").write_text(AGENT)
    return folder


def test_tune_on_agent_rows_has_the_loss_of_plain_torch(agent_folder: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", [ROW])
    weights = {"think": 0.8, "tool": 0.05, "format": 0.5}
    config = TuneConfig(
        model=str(agent_folder), data=str(data), eval_data=str(data), output=str(tmp_path / "run"), max_steps=1,
        chat_template=str(agent_folder / "agent.jinja"), weights=weights, spans=[{"match": "rain", "weight": 0.5}],
    )  # fmt: skip
    summary = train(config)
    tokenizer = make_tokenizer(chat_template=AGENT)
    table = role_weights(weights=weights)
    (tokens,), _ = tokenize(
        examples_of([(ROW, "row 1")], "a"), tokenizer, table, max_length=512, spans=span_rules(config.spans)
    )
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(agent_folder, dtype=torch.float32)
    assert math.isclose(summary["before"]["loss"], independent_loss(model, tokens, table), rel_tol=1e-5)
    assert {"think", "tool_call", "format"} <= summary["data_report"]["targets_per_role"].keys()
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert saved.chat_template == AGENT


def test_dry_run_shows_any_row(agent_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    data = write_jsonl(tmp_path / "a.jsonl", [plain, ROW, plain])
    arguments = ["tune", "--model", str(agent_folder), "--data", str(data), "--output", str(tmp_path / "run"),
                 "--dry-run", "--chat-template", str(agent_folder / "agent.jinja"), "--row"]  # fmt: skip
    assert cli.main([*arguments, "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["position", "id", "role", "weight", "token"]
    assert {line.split()[2] for line in lines[1:] if line[:8].strip().isdigit()} >= {
        "tool_call",
        "think",
        "tool",
        "eos",
    }
    assert cli.main([*arguments, "9"]) == 2
    assert "--row 9: " in capsys.readouterr().err
    assert cli.main([argument for argument in [*arguments, "2"] if argument != "--dry-run"]) == 2
    assert "give --dry-run" in capsys.readouterr().err
    pairs = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    assert cli.main([*arguments[:4], str(pairs), *arguments[5:-1]]) == 2
    assert "has no effect: the rows are rendered by plain" in capsys.readouterr().err


def test_align_weigh_and_the_adapter_read_agent_rows(agent_folder: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(chat_template=AGENT)
    other = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sun", "arguments": {}}}]}
    row = {"prompt": ROW["messages"][:1], "chosen": [ROW["messages"][1]], "rejected": [other], "tools": TOOLS}
    (pair,), _ = tokenize_pairs([read_pair(row, "row 1")], tokenizer, max_length=512)
    assert tokenizer.decode(pair.chosen) == 'Let me see.<call>wx {"city": "Oslo", "days": 2}</call><|im_end|>'
    assert tokenizer.decode(pair.rejected) == "<call>sun {}</call><|im_end|>"
    data = write_jsonl(tmp_path / "a.jsonl", [ROW])
    config = WeighConfig(model=str(agent_folder), data=str(data), output=str(tmp_path / "weighed"))
    template = str(agent_folder / "agent.jinja")
    config.chat_template = template
    weigh(config)
    written = json.loads((tmp_path / "weighed" / "data.jsonl").read_text())
    assert written["messages"] == ROW["messages"]
    assert written["tools"] == TOOLS
    said = [entry for entry in written["token_weights"] if entry]
    assert written["token_weights"][::2] == [None, None]
    assert said
    pytest.importorskip("trl")
    from holdfast.integrations.trl import _token_rows

    rows = _token_rows([ROW], "train_dataset", tokenizer=tokenizer, weights=role_weights(), template="auto",
                       truncation="keep-start", longest=None)  # fmt: skip
    assert {Role.TOOL_CALL, Role.THINK, Role.TOOL} <= {*rows[0]["roles"]}


def test_a_real_model_and_its_template(tmp_path: Path) -> None:
    folder = os.environ.get("HOLDFAST_REAL_MODEL", "")
    if not Path(folder, "config.json").is_file():
        pytest.skip("HOLDFAST_REAL_MODEL names no folder with SmolLM2-135M-Instruct")
    from holdfast import lm

    tokenizer = lm.load_tokenizer(folder)
    row = {"messages": [ROW["messages"][0], {"role": "assistant", "content": "rain."}]}
    spans = spans_of(row, tokenizer)
    assert paid(spans)[-2:] == [("rain.", "assistant"), ("<|im_end|>", "eos")]
    with pytest.raises(HoldfastError, match="no trace of"):
        spans_of(ROW, tokenizer)


def test_a_stop_can_be_named_for_a_tokenizer_without_eos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer(eos=False).save_pretrained(tmp_path / "model")
    data = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    arguments = ["tune", "--model", str(tmp_path / "model"), "--data", str(data), "--output", str(tmp_path / "run"),
                 "--dry-run"]  # fmt: skip
    assert cli.main(arguments) == 2
    assert "--stop" in capsys.readouterr().err
    assert cli.main([*arguments, "--stop", "<|im_end|>"]) == 0
    assert "eos             1  '<|im_end|>'" in capsys.readouterr().out
    assert cli.main([*arguments, "--stop", "no such token"]) == 2
    assert "tokens, not one" in capsys.readouterr().err
