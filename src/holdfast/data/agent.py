"""What agent rows say beside roles and contents: tools, calls, thoughts, and what a chat template is given.

| where | key | what |
|---|---|---|
| row | ``tools`` | schemas, as a list or as JSON text |
| row | ``chat_template_kwargs`` | further values for the chat template, such as ``enable_thinking`` |
| assistant | ``tool_calls`` | {function: {name, arguments}} or {name, arguments}; arguments: an object or JSON text |
| assistant | ``reasoning_content``, ``reasoning`` or ``thinking`` | its thought |
| tool | ``name``, ``tool_call_id`` | which call it answers |
| any | ``train``: false | the message has weight 0 |
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from holdfast.data.conversation import REASONING_KEYS, texts_in
from holdfast.errors import HoldfastError, from_json, whole_text
from holdfast.records import Role

ROW_KEYS = ("tools", "chat_template_kwargs")
"""Columns that are read beside the messages."""
_KEYS = {"assistant": (*REASONING_KEYS, "tool_calls"), "tool": ("name", "tool_call_id")}


def message_keys(role: Any, weighted: bool) -> tuple[str, ...]:
    """The keys that are read of a message of this role, beside role, content and weight."""
    return (*_KEYS.get(str(role), ()), *(("train",) if weighted else ()))


def extras_of(turn: Mapping[str, Any], role: Role, place: str) -> dict[str, Any]:
    """What a message says beside its content, as a chat template takes it; calls in the one form
    {type, function: {name, arguments}}, with the arguments as an object where they can be read as one.

    Raises:
        HoldfastError: something else stands there; ``place`` is named.
    """
    extras: dict[str, Any] = {}
    if role is Role.ASSISTANT:
        thoughts = {name: turn[name] for name in REASONING_KEYS if turn.get(name)}
        if len(set(map(str, thoughts.values()))) > 1:
            raise HoldfastError(f"{place}: {' and '.join(thoughts)} differ", hint="keep one of them")
        for name, thought in list(thoughts.items())[:1]:
            extras[name] = _text(thought, f"{place}: '{name}'")
        calls = turn.get("tool_calls")
        if calls:
            extras["tool_calls"] = _calls(calls, place)
    if role is Role.TOOL:
        extras |= {name: _text(turn[name], f"{place}: '{name}'") for name in ("name", "tool_call_id") if turn.get(name)}
    return extras


def texts_beside(extras: Mapping[str, Any]) -> list[str]:
    """The texts of a message beside its content, which can be weighed: its thought, then of each call the name and the
    texts of its arguments."""
    texts = [extras[name] for name in REASONING_KEYS if name in extras]
    for call in extras.get("tool_calls", ()):
        texts += [call["function"]["name"], *texts_in(call["function"]["arguments"])]
    return texts


def trains(turn: Mapping[str, Any], place: str) -> bool:
    """Whether a message is to be trained on, as far as its ``train`` says.

    Raises:
        HoldfastError: it is neither true nor false.
    """
    value = turn.get("train")
    if value is not None and not isinstance(value, bool):
        raise HoldfastError(f"{place}: 'train' is {value!r}, neither true nor false")
    return value is not False


def tools_of(row: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    """The schemas of a row.

    Raises:
        HoldfastError: they are no list of objects.
    """
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        tools = _parsed(tools, f"{where}: 'tools'")
    tools = [_without_nulls(tool) for tool in tools] if isinstance(tools, list) else tools
    if tools and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise HoldfastError(f"{where}: 'tools' is no list of objects", hint='[{"type": "function", "function": {...}}]')
    return tuple(tool for tool in tools or () if tool)


def kwargs_of(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a row gives its chat template.

    Raises:
        HoldfastError: it is no object.
    """
    kwargs = row.get("chat_template_kwargs")
    if isinstance(kwargs, str) and kwargs.strip():
        kwargs = _parsed(kwargs, f"{where}: 'chat_template_kwargs'")
    if kwargs and not isinstance(kwargs, dict):
        raise HoldfastError(f"{where}: 'chat_template_kwargs' is no object", hint='{"enable_thinking": false}')
    return {name: value for name, value in (kwargs or {}).items() if value is not None}


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if isinstance(calls, str):
        calls = _parsed(calls, f"{place}: 'tool_calls'")
    if not isinstance(calls, list):
        raise HoldfastError(f"{place}: 'tool_calls' is no list", hint='[{"function": {"name": ..., "arguments": {}}}]')
    return [
        _call(call, f"{place}, tool call {number}") for number, call in enumerate(calls, 1) if not _says_nothing(call)
    ]


def _call(call: Any, place: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise HoldfastError(f"{place} has no name", hint='{"function": {"name": "weather", "arguments": {}}}')
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(json.JSONDecodeError):  # a template that takes text may take it
            arguments = from_json(arguments)
    else:
        arguments = {} if arguments is None else _without_nulls(arguments)
    if not isinstance(arguments, dict | str):
        raise HoldfastError(f"{place}: its arguments are no object")
    outside = {"id": call["id"]} if call.get("id") else {}
    return {**outside, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _says_nothing(value: Any) -> bool:
    """A struct of a Parquet file that stands for an absent one."""
    if isinstance(value, dict):
        return all(map(_says_nothing, value.values()))
    return value is None or value == ""


def _without_nulls(value: Any) -> Any:
    """Without the keys that Parquet files fill up with null."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _parsed(text: str, place: str) -> Any:
    try:
        return from_json(text)
    except json.JSONDecodeError as error:
        raise HoldfastError(f"{place} is text that is no JSON ({error})") from error


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise HoldfastError(f"{place} is a {type(value).__name__}, not text")
    return whole_text(value, place)
