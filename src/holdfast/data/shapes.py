"""The shapes in which others write rows -> ours: which column is what, and messages as OpenAI's API has them.

messages        role and content; or ShareGPT's from and value (human, gpt, function_call, observation), or speaker
                and text
content         text, or a list of parts {"type": "text", "text": ...}
columns         question and answer, input and output, Dolly's and Alpaca's own, ... (see ``recognise``)
--columns       prompt=question,response=answer    ours=theirs
--roles         Anna=user,Ben=assistant            theirs=ours
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.data.columns import is_plain
from holdfast.data.media import refuse_media
from holdfast.errors import HoldfastError, from_json, nearest

COLUMNS = (
    "messages", "prompt", "response", "completion", "instruction", "input", "output", "text", "system", "history",
    "chosen", "rejected",
)  # fmt: skip
"""What ``--columns`` can name."""
JOINTS = {"auto": None, "none": "", "space": " ", "newline": "\n"}
"""What ``--joint`` puts between prompt and response; None: a space where the texts need one."""
_SPEAKERS = {
    "human": "user", "prompter": "user", "instruction": "user", "gpt": "assistant", "chatgpt": "assistant",
    "model": "assistant", "ai": "assistant", "function_call": "function_call",
    "tool_call": "function_call", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "tool_result": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
_CONTENT_KEYS = ("content", "value", "text", "message", "utterance")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PAIRS = (
    ("question", "answer"), ("question", "response"), ("question", "completion"), ("question", "output"),
    ("query", "response"), ("query", "answer"), ("query", "completion"), ("query", "output"),
    ("prompt", "answer"), ("prompt", "output"), ("prompt", "target"),
    ("input", "output"), ("input", "target"), ("input", "response"), ("input", "completion"), ("input", "answer"),
    ("source", "target"),
)  # fmt: skip
_ANSWERS = ("output", "response", "completion", "answer")


@dataclass(frozen=True)
class Shape:
    """What the options say of the rows: our column -> theirs, their role -> ours, and what joins prompt and response
    (None: a space where the texts need one).
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    joint: str | None = None


USUAL = Shape()
"""No option says anything."""


@dataclass(frozen=True)
class Reading:
    """How the rows of a file are read: the layout, and our name -> the column. ``turns``: whether a system message or a
    history stands before some of them, so that all are chats.
    """

    layout: str
    columns: Mapping[str, str]
    turns: bool = False

    def name(self, column: str) -> str:
        """Return the column that is ours of this name."""
        return self.columns.get(column, column)


def shape_of(config: Any) -> Shape:
    """Return what ``--columns``, ``--roles`` and ``--joint`` of a config say.

    Raises:
        HoldfastError: a part without ``=``, or a name that is none of ours.
    """
    columns = _named(config.columns, "--columns prompt=question,response=answer", COLUMNS, "columns")
    roles = dict(_parts(config.roles, "--roles Anna=user,Ben=assistant"))
    for name, role in roles.items():
        if role not in _ROLES:
            raise HoldfastError(f"--roles {name}={role}: roles are {', '.join(_ROLES)}", hint=nearest(role, _ROLES))
    return Shape(columns, roles, JOINTS[config.joint])


def _named(text: str | None, usage: str, allowed: Collection[str], what: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for ours, theirs in _parts(text, usage):
        if ours not in allowed or ours in names:
            wrong = "is there twice" if ours in names else f"is none of the {what}: {', '.join(allowed)}"
            raise HoldfastError(f"{usage.split()[0]} {text}: '{ours}' {wrong}", hint=nearest(ours, allowed))
        names[ours] = theirs
    return names


def _parts(text: str | None, usage: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in filter(str.strip, (text or "").split(",")):
        left, equals, right = part.partition("=")
        if not (equals and left.strip() and right.strip()):
            raise HoldfastError(f"{usage.split()[0]} {text}: '{part}' has no two sides", hint=usage)
        pairs.append((left.strip(), right.strip()))
    return pairs


def readings_of(columns: Collection[str], lists: Collection[str]) -> list[Reading]:
    """Return the ways to read rows of these columns: those by our names, and only where there is none, those by the
    names of others. ``lists`` are the columns that hold lists.
    """
    readings: list[Reading] = []
    chat = next((name for name in _CHATS[:2] if name in columns), None)
    if chat:
        readings.append(Reading("chat", {"messages": chat}))
    if {"instruction", "output"} <= set(columns):
        readings.append(_alpaca(columns, "output"))
    if "prompt" in columns and {"response", "completion"} & set(columns):
        readings.append(Reading("pair", {}))
    if "text" in columns:
        readings.append(Reading("text", {}))
    return readings or _readings_of_others(columns, lists)


def _readings_of_others(columns: Collection[str], lists: Collection[str]) -> list[Reading]:
    chats = [name for name in _CHATS if name in lists]
    if len(chats) == 1:
        return [Reading("chat", {"messages": chats[0]})]
    if "instruction" in columns:
        return [_alpaca(columns, name) for name in _ANSWERS if name in columns]
    return [
        Reading("pair", {"prompt": prompt, "response": response})
        for prompt, response in _PAIRS
        if prompt in columns and response in columns
    ]


def _alpaca(columns: Collection[str], output: str) -> Reading:
    """Alpaca's columns, or Dolly's, whose input is called context and whose output response."""
    context = "context" if "context" in columns and "input" not in columns else "input"
    return Reading("alpaca", {"input": context, "output": output})


def line_to_type(row: Mapping[str, Any]) -> str | None:
    """Return the ``--columns`` option that may fit rows like this one; None where no two columns hold text."""
    talks = [name for name, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    texts = [name for name, value in row.items() if isinstance(value, str) and value.strip() and not is_plain(name)]
    if len(talks) == 1:
        return f"--columns messages={talks[0]}"
    if {*_CHATS} & {*texts} or (any(isinstance(value, list) and value for value in row.values()) and len(texts) < 2):
        return None  # a conversation that is no list of messages
    if len(texts) < 2:
        return f"--columns text={texts[0]}" if texts else None
    asked = next((name for name in texts if _like(name, "prompt quest query instr input source ask user")), None)
    answered = [name for name in texts if _like(name, "resp answ compl output reply target assist label solution")]
    if len(texts) > 2 and not (asked or answered):
        return None
    asked = asked or next(name for name in texts if name not in answered[:1])
    answer = next((name for name in answered if name != asked), None) or next(n for n in texts if n != asked)
    return f"--columns prompt={asked},response={answer}"


def _like(name: str, stems: str) -> bool:
    return any(stem in name.lower() for stem in stems.split())


def as_openai(row: dict[str, Any], columns: Collection[str], shape: Shape, where: str) -> dict[str, Any]:
    """Return a row whose messages are as OpenAI's API has them, and whose contents are text instead of text parts.

    Args:
        columns: those that are read.

    Raises:
        HoldfastError: a part that is no text, or a call of a function that is no JSON; the message is named.
    """
    refuse_media(row, where)
    changed = dict(row)
    for column in columns:
        value = row.get(column)
        if isinstance(value, dict) and _first_key(value, _ROLE_KEYS) is not None:
            value = [value]  # one answer of a preference, without a list around it
        if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
            continue
        if value and all("type" in part and _first_key(part, _ROLE_KEYS) is None for part in value):
            changed[column] = _text_of_parts(value, f"{where}: '{column}'")
        else:
            place = where if column in _CHATS else f"{where}, '{column}'"
            changed[column] = _messages(value, shape, place)
    name = "functions" if row.get("functions") and not row.get("tools") else "tools"  # OpenAI's older name
    tools = changed.get(name)
    if name == "functions" or (isinstance(tools, str) and tools.strip()):
        changed.pop(name)
        changed["tools"] = [_as_tool(tool) for tool in _listed(tools, f"{where}: '{name}'")]
    return changed


def _messages(turns: Sequence[dict[str, Any]], shape: Shape, where: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns, 1):
        message = _message(turn, shape, f"{where}, message {number}")
        before = messages[-1] if messages else {}
        calls = message.get("tool_calls")
        # ShareGPT has the call of a turn beside its text, as a message of its own; here they are one turn
        if "from" in turn and calls and message.get("content") is None and before.get("role") == "assistant":
            before["tool_calls"] = [*before.get("tool_calls", []), *calls]
            continue
        messages.append(message)
    return messages


def _message(turn: dict[str, Any], shape: Shape, place: str) -> dict[str, Any]:
    """Return one message under the keys role and content; keys that we do not know stay."""
    role_key, content_key = _first_key(turn, _ROLE_KEYS), _first_key(turn, _CONTENT_KEYS)
    message = {key: value for key, value in turn.items() if key not in (role_key, content_key)}
    speaker, content = str(turn.get(str(role_key))), turn.get(str(content_key))
    role = shape.roles.get(speaker) or (speaker if speaker in _ROLES else _SPEAKERS.get(speaker, speaker))
    if isinstance(content, list):
        content = _text_of_parts(content, place)
    if message.get("function_call") and not message.get("tool_calls"):  # OpenAI's older name
        message["tool_calls"] = [_as_call(message.pop("function_call"), place)]
    if role == "function_call":
        calls = [_as_call(call, place) for call in _listed(content, f"{place}: '{speaker}'")]
        return {"role": "assistant", "content": None, "tool_calls": calls} | message
    return ({"role": role} if role_key else {}) | ({"content": content} if content_key else {}) | message


def _first_key(turn: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in turn), None)


def _text_of_parts(parts: Sequence[Any], place: str) -> str:
    texts: list[str] = []
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or (isinstance(part, dict) and part.get("type", "text") not in _TEXT_PARTS):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise HoldfastError(
                f"{place}: a part of the content is of the type {kind!r}; only text is read",
                hint=_BESIDE.get(str(kind), "leave such rows out, or put what it shows into words"),
            )
        texts.append(text)
    return "".join(texts)


_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS = 'calls stand beside the content: "tool_calls": [{"function": {"name": ..., "arguments": {...}}}]'
_THOUGHTS = 'a thought stands beside the content: "reasoning_content": "..."'
_RESULTS = 'the result of a call is a message of its own: {"role": "tool", "content": "..."}'
_BESIDE = {
    "tool_use": _CALLS, "tool_call": _CALLS, "function_call": _CALLS, "thinking": _THOUGHTS, "reasoning": _THOUGHTS,
    "tool_result": _RESULTS, "function_call_output": _RESULTS,
}  # fmt: skip
"""Parts of other interfaces -> where we read what they say."""


def _listed(value: Any, place: str) -> list[Any]:
    """Return what JSON text holds, as a list."""
    try:
        content = from_json(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise HoldfastError(f"{place} is no JSON: {value[:60]!r}", hint='{"name": ..., "arguments": {...}}') from error
    return content if isinstance(content, list) else [content]


def _as_call(call: Any, place: str) -> dict[str, Any]:
    if not isinstance(call, dict) or not isinstance(call.get("name", call.get("function")), str | dict):
        raise HoldfastError(f"{place}: a call without a name", hint='{"name": ..., "arguments": {...}}')
    if isinstance(call.get("function"), dict):
        return {"type": "function"} | call
    name = call.get("name", call.get("function"))
    return {"type": "function", "function": {"name": name, "arguments": call.get("arguments", {})}}


def _as_tool(tool: Any) -> Any:
    return {"type": "function", "function": tool} if isinstance(tool, dict) and "function" not in tool else tool


def line_of_roles(turns: Any) -> str | None:
    """Return the ``--roles`` option that names the speakers of a conversation who are none of ours."""
    names = [str(turn.get("role")) for turn in turns if isinstance(turn, dict) and turn.get("role") is not None]
    strangers = [name for name in dict.fromkeys(names) if name not in _ROLES]
    if not strangers:
        return None
    taken = {"user"} & set(names)
    roles = []
    for name in strangers:
        role = name.lower() if name.lower() in _ROLES else _SPEAKERS.get(name.lower())
        if role not in _ROLES:
            role = "assistant" if taken else "user"
            taken = {"user"}
        roles.append(f"{name}={role}")
    return f"--roles {','.join(roles)}"
