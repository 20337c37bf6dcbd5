"""Every chat template of TRL's wheel against ten conversations: what Holdfast reads of each, and what it must be.

``cell`` gives the outcome of one template and one conversation; ``renderings`` and ``marked_by_trl`` are made with none
of the code under test, and show what it must be.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.data.examples import examples_of
from holdfast.errors import HoldfastError
from holdfast.records import RESPONSE_ROLES, Role
from holdfast.tune.roles import assign_roles, render_example
from materials import make_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Name of it."}},
                "required": ["place"],
            },
        },
    }
]


def _call(place: str, *, text: bool = False, **more: Any) -> dict[str, Any]:
    arguments = {"place": place, **more}
    function = {"name": "weather", "arguments": json.dumps(arguments) if text else arguments}
    return {"type": "function", "function": function}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _says(text: str | None, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **keys}


_RESULT = {"role": "tool", "name": "weather", "content": "drizzle 11C"}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "text": {"messages": [_user("Which metal rusts?"), _says("Iron does.")]},
    "system": {
        "messages": [
            {"role": "system", "content": "Be brief today."},
            _user("Which metal rusts?"),
            _says("Iron does."),
            _user("Why so?"),
            _says("Water and air."),
        ]
    },
    "call": {
        "messages": [
            _user("Rain in Oslo?"), _says("Let me look.", tool_calls=[_call("Oslo")]), _RESULT, _says("It drizzles."),
        ],
        "tools": TOOLS,
    },
    "call alone": {
        "messages": [_user("Rain in Oslo?"), _says(None, tool_calls=[_call("Oslo")]), _RESULT, _says("It drizzles.")],
        "tools": TOOLS,
    },
    "arguments as text": {
        "messages": [
            _user("Rain in Oslo?"), _says("", tool_calls=[_call("Oslo", text=True)]), _RESULT, _says("It drizzles."),
        ],
        "tools": TOOLS,
    },
    "ends with a call": {
        "messages": [_user("Rain in Oslo?"), _says(None, tool_calls=[_call("Oslo", days=3, hourly=True)])],
        "tools": TOOLS,
    },
    "two calls": {
        "messages": [
            _user("Rain in Oslo or Rome?"),
            _says(None, tool_calls=[_call("Oslo"), _call("Rome")]),
            _RESULT,
            {"role": "tool", "name": "weather", "content": "sunny 24C"},
            _says("Only in Oslo."),
        ],
        "tools": TOOLS,
    },
    "thought": {
        "messages": [_user("Which metal rusts?"), _says("Iron does.", reasoning_content="Rust is iron oxide.")]
    },
    "thought in content": {
        "messages": [_user("Which metal rusts?"), _says("<think>\nRust is iron oxide.\n</think>\n\nIron does.")]
    },
    "thoughts of an agent": {
        "messages": [
            _user("Rain in Oslo?"),
            _says(None, reasoning_content="I must look it up.", tool_calls=[_call("Oslo")]),
            _RESULT,
            _says("It drizzles.", reasoning_content="Eleven degrees and wet."),
            _user("Thanks, and now?"),
            _says("Take a coat.", reasoning_content="A coat keeps one dry."),
        ],
        "tools": TOOLS,
    },
}  # fmt: skip

_CONTROL = re.compile(
    r"<\|[^|<>' ]{1,30}\|?>|<[a-z_]+\|>|<\uff5c[^\uff5c]+\uff5c>|<(?:start|end)_of_[a-z]+>"
    r"|\[gMASK\]|<sop>|</?think>|</?tool_call>|</?s>"
)
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|END_OF_TURN_TOKEN|>", "<\uff5cend▁of▁sentence\uff5c>",
    "<|return|>", "<|eot|>", "<end_of_utterance>", "<|end|>", "</s>",
)  # fmt: skip
# what the models' generation configs stop on, where it is not the EOS alone
_STOPS = {
    "glm4moe": ("<|endoftext|>", "<|user|>", "<|observation|>"),
    **dict.fromkeys(("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"), ("<turn|>", "<|tool_response>")),
    "diffusion_gemma": ("<turn|>", "<|tool_response>"),
    "gptoss": ("<|return|>", "<|call|>"),
    "llama3_1": ("<|eot_id|>", "<|eom_id|>"),
    "llama3_2": ("<|eot_id|>", "<|eom_id|>"),
}


def names() -> list[str]:
    """The templates of the installed TRL."""
    return sorted(path.stem for path in _folder().glob("*.jinja"))


def _folder() -> Path:
    import trl

    return Path(trl.__file__).parent / "chat_templates"


def tokenizer_of(name: str) -> Any:
    """A tokenizer with a template and its control tokens."""
    template = (_folder() / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    stops = _STOPS.get(name.removesuffix("_training"), ())
    tokens = sorted({*_CONTROL.findall(template), *stops, *(end for end in _ENDS if end in template)})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *tokens]})
    tokenizer.eos_token = next((end for end in (*stops, *_ENDS) if end in tokens), "<|end|>")
    if stops:
        from holdfast.data.conversation import set_stops

        set_stops(tokenizer, tokenizer.convert_tokens_to_ids(list(stops)))
    return tokenizer


def cell(tokenizer: Any, row: dict[str, Any]) -> dict[str, Any]:
    """The outcome: {"read": the responses as runs of one role, "spans": all of it} or {"refused": message}."""
    (example,) = examples_of([(row, "row 1")], "matrix")
    try:
        spans = render_example(example, "chat", tokenizer)
    except HoldfastError as error:
        return {"refused": re.sub(r"\s+", " ", error.message)}
    (tokens,) = assign_roles([spans], tokenizer)
    runs: list[tuple[str, list[int]]] = []
    for token, role in zip(tokens.ids.tolist(), tokens.roles.tolist(), strict=True):
        label = Role(role).label
        if not runs or runs[-1][0] != label:
            runs.append((label, []))
        runs[-1][1].append(token)
    responses = [[label, tokenizer.decode(ids)] for label, ids in runs if Role[label.upper()] in RESPONSE_ROLES]
    return {"read": responses, "spans": spans, "ids": tokens.ids.tolist()}


def renderings(tokenizer: Any, row: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Every form in which a row can be given to a template: the whole text, and the generation prompt of each turn with
    the number of its message.
    """
    for absent, as_text, thought, parts in itertools.product(
        (None, ""), (False, True), ("reasoning_content", "reasoning", "thinking"), (False, True)
    ):
        turns = [_in_form(turn, absent, thought, as_text=as_text, parts=parts) for turn in row["messages"]]
        tools = {"tools": row["tools"]} if "tools" in row else {}
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, **tools)
            yield (
                text,
                [
                    (tokenizer.apply_chat_template(turns[:i], tokenize=False, add_generation_prompt=True, **tools), i)
                    for i, turn in enumerate(turns)
                    if turn["role"] == "assistant"
                ],
            )
        except Exception:  # a form that the template does not take
            continue


def _in_form(turn: dict[str, Any], absent: str | None, thought: str, *, as_text: bool, parts: bool) -> dict[str, Any]:
    turn = dict(turn)
    content = turn["content"] or absent
    turn["content"] = ([] if content is None else [{"type": "text", "text": content}]) if parts else content
    if "reasoning_content" in turn:
        turn[thought] = turn.pop("reasoning_content")
    if "tool_calls" in turn:
        turn["tool_calls"] = [_call_in_form(call, as_text=as_text) for call in turn["tool_calls"]]
    return turn


def _call_in_form(call: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    whole = json.loads(arguments) if isinstance(arguments, str) else arguments
    return call | {"function": {"name": call["function"]["name"], "arguments": json.dumps(whole) if as_text else whole}}


def said(turn: dict[str, Any]) -> list[str]:
    """What a message says, thought and content apart; every piece stands nowhere else."""
    content = turn["content"] or ""
    thought = turn.get("reasoning_content") or content.partition("</think>")[0].removeprefix("<think>").strip()
    thought = thought if turn.get("reasoning_content") or "</think>" in content else ""
    return [piece for piece in (thought, content.rpartition("</think>")[2].strip()) if piece]


def marked_by_trl(tokenizer: Any, row: dict[str, Any], ids: list[int]) -> list[int] | None:
    """The tokens between the generation markers of a template, in the form of the row that has these ids."""
    tools = {"tools": row["tools"]} if "tools" in row else {}
    for absent, as_text, thought in itertools.product(
        (None, ""), (False, True), ("reasoning_content", "reasoning", "thinking")
    ):
        turns = [_in_form(turn, absent, thought, as_text=as_text, parts=False) for turn in row["messages"]]
        try:
            marked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True, **tools)
        except Exception:  # a form that the template does not take
            continue
        if marked["input_ids"] == ids:
            return list(marked["assistant_masks"])
    return None
