"""A conversation through a chat template -> text whose every character knows its role.

A chat template is a program, so the place of everything in its output has to be found. The *shape* of a conversation is
the conversation with every text of it (contents, thoughts, names and arguments of calls) replaced by a mark. Of a shape
(cached) we learn

    what the template prints between the marks           one rendering
    where each response begins                           a rendering up to it with ``add_generation_prompt``
    where it ends, with the token generation stops on    a rendering that ends with it

**The response is all that the model has to write after the generation prompt, to the end of the stop run.** Walking the
real rendering with the pieces of the shape then gives the exact place of every text, or an error if the template
rewrites one or leaves one out: never a guess.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from holdfast.errors import HoldfastError, from_json
from holdfast.records import Message, Role, Span

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Names under which rows and templates have the thought of a message: they mean the same."""

_MARK = re.compile(r"@~(\d+)~@")
_THOUGHT = re.compile(r"(\s*(?:<think>)?\s*)(.*?)(\s*</think>\s*)(.*)", re.DOTALL)
_EMPTY_THOUGHT = re.compile(r"\s*(?:<think>\s*</think>|<\|channel>thought\s*<channel\|>)\s*")
_REFUSED_HINT = "--template dialogue needs no chat template; --chat-template FILE gives another one"

Turns = list[dict[str, Any]]


@dataclass(frozen=True)
class _Leaf:
    """A text of a row: whose it is, what it says, which text of its message it is (``Span.part``; None: in a form that
    has no weights), and where it begins in that."""

    message: int
    role: Role
    text: str
    start: int = 0
    part: int | None = 0


@dataclass(frozen=True)
class _Segment:
    """What a template prints: its own text, or a leaf. ``message`` is the one whose weight it has; ``added`` is a stop
    that the template does not print.
    """

    text: str
    leaf: int | None
    role: Role
    message: int | None
    added: bool = False


@dataclass(frozen=True)
class _Shape:
    segments: tuple[_Segment, ...]
    missing: tuple[int, ...]
    """Leaves that are not printed."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Response:
    """Where a response lies: from ``begin`` to ``end``; its stop run from ``stop``. ``appended`` is a stop that the
    template does not print."""

    begin: int
    stop: int
    end: int
    appended: str = ""


@dataclass(frozen=True)
class _Stretch:
    """A turn within the rendering of a shape: where the leaves are printed, and the calls of the turn."""

    text: str
    turns: Turns
    number: int
    places: Mapping[int, tuple[int, int]]
    owners: Sequence[tuple[int, Role]]
    calls: Sequence[tuple[int, int]]
    options: dict[str, Any]

    def printed(self) -> list[tuple[int, tuple[int, Role]]]:
        """The leaves that are printed, with whose and what they are."""
        return [(leaf, owner) for leaf, owner in enumerate(self.owners) if leaf in self.places]

    def next_begin(self, after: int) -> int:
        """Where the next text of another message begins."""
        others = [self.places[leaf][0] for leaf, (message, _) in self.printed() if message != self.number]
        return min([begin for begin in others if begin >= after], default=len(self.text))

    def groups(self) -> list[list[tuple[int, int, Role]]]:
        """(begin, end, role) of the parts of the turn in order, cut where another message stands between."""
        parts = [(begin, end, Role.TOOL_CALL) for begin, end in self.calls]
        for leaf, (message, role) in self.printed():
            if message == self.number and role is not Role.TOOL_CALL:
                parts.append((*self.places[leaf], role))
        groups: list[list[tuple[int, int, Role]]] = []
        for part in sorted(parts):
            if groups and self.next_begin(groups[-1][-1][1]) >= part[0]:
                groups[-1].append(part)
            else:
                groups.append([part])
        return groups


class TokenizerKey:
    """Hashable by the tokenizer's identity and by what a user may change in it.

    So what is cached of its template is never that of another template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        template = str(tokenizer.chat_template)
        self.key = (id(tokenizer), template, len(tokenizer), tokenizer.eos_token, stop_texts(tokenizer))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerKey) and self.key == other.key


def set_stops(tokenizer: Any, ids: Sequence[int]) -> None:
    """Say which tokens generation stops on, where they are known (of a model's generation config, or ``--stop``)."""
    tokenizer._holdfast_stops = tuple(map(str, tokenizer.convert_ids_to_tokens(list(ids)))) if ids else ()


def _stated_stops(tokenizer: Any) -> tuple[str, ...]:
    stops: tuple[str, ...] = getattr(tokenizer, "_holdfast_stops", ())
    return stops


def stop_texts(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that generation stops on: those of ``set_stops``, else the tokenizer's EOS."""
    return _stated_stops(tokenizer) or ((str(tokenizer.eos_token),) if tokenizer.eos_token else ())


def eos_text(tokenizer: Any) -> str:
    """The tokenizer's EOS; without one, the first stop that is known.

    Raises:
        HoldfastError: there is neither.
    """
    stops = stop_texts(tokenizer)
    if not stops:
        raise HoldfastError(
            "the tokenizer has no EOS token, so the model could not learn to stop",
            hint="set eos_token in the tokenizer's tokenizer_config.json",
        )
    return str(tokenizer.eos_token) if tokenizer.eos_token in stops else stops[0]


def render_chat(
    messages: Sequence[Message],
    tokenizer: Any,
    tools: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    asks: bool = False,
) -> list[Span]:
    """The spans of a conversation. Their texts joined are the template's own rendering, and a stop behind the last
    response if the template prints none. With ``asks`` it is the rendering with the generation prompt, whose end is
    given to the model.

    Arguments of calls are tried as objects and as text, contents as text and as parts, an absent content as null and as
    empty text, a thought under each name that templates use: the first form in which all that the row says is printed
    is taken.

    Raises:
        HoldfastError: the template refuses the messages, does not read one of ``kwargs``, leaves out or rewrites
            something that the row says.
    """
    options = {**({"tools": list(tools)} if tools else {}), **(kwargs or {})}
    _check_kwargs(tokenizer, kwargs or {})
    key = TokenizerKey(tokenizer)
    refusals: list[tuple[int, HoldfastError]] = []
    for turns, parts in itertools.product(_forms(messages), (False, True)):
        try:
            return _spans(key, messages, turns, options, parts=parts, asks=asks)
        except HoldfastError as error:
            refusals.append((0, error))
        except Exception as error:  # templates raise what they like (jinja2.TemplateError for the most part)
            text = f"the chat template refuses these messages: {error}"
            refusals.append((_rank(error), HoldfastError(text, hint=_REFUSED_HINT)))
    raise min(refusals, key=operator.itemgetter(0))[1]


def _rank(error: Exception) -> int:
    """Which of the refusals of several forms says most: the template's own words, then a stumble over a form."""
    return 1 if type(error).__name__ == "TemplateError" else 2


def prompt_of(
    messages: Sequence[Message],
    tokenizer: Any,
    tools: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> str:
    """The text after which the model is to answer, in the first form of the messages that the template takes, of those
    first one in which it prints all contents.
    """
    options = {**({"tools": list(tools)} if tools else {}), **(kwargs or {})}
    key, prompts, refusal = TokenizerKey(tokenizer), list[str](), None
    for turns, parts in itertools.product(_forms(messages), (False, True)):
        try:
            prompt = _rendered(key, list(map(_in_parts, turns)) if parts else turns, options, prompt=True)
        except Exception as error:  # templates raise what they like
            refusal = refusal or error
            continue
        if all(message.content.strip() in prompt for message in messages):
            return prompt
        prompts.append(prompt)
    if prompts:
        return prompts[0]
    assert refusal is not None
    raise refusal


def _check_kwargs(tokenizer: Any, kwargs: Mapping[str, Any]) -> None:
    for name, value in kwargs.items():
        if value not in ("", [], {}) and name not in str(tokenizer.chat_template):
            raise HoldfastError(
                f"the chat template does not read '{name}' of chat_template_kwargs", hint="leave it out"
            )


# forms


def _forms(messages: Sequence[Message]) -> Iterator[Turns]:
    """Every way in which the messages can be given to a template, the usual one first."""
    calls = any("tool_calls" in m.extras for m in messages)
    thoughts = [name for name in REASONING_KEYS if any(name in m.extras for m in messages)]
    names = [*thoughts, *(name for name in REASONING_KEYS if name not in thoughts)] if thoughts else [""]
    absent: list[str | None] = [None, ""] if any(m.absent for m in messages) else [""]
    for name, content, as_text in itertools.product(names, absent, (False, True) if calls else (False,)):
        yield [_turn(message, name, content, as_text=as_text) for message in messages]


def _turn(message: Message, reasoning: str, absent: str | None, *, as_text: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role.label, "content": absent if message.absent else message.content}
    for name, value in message.extras.items():
        if name in REASONING_KEYS:
            turn[reasoning] = value
        elif name == "tool_calls":
            turn[name] = [_call(call, as_text=as_text) for call in value]
        else:
            turn[name] = value
    return turn


def _call(call: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    function = dict(call["function"])
    if as_text and not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


# marks


class _Marks:
    """Replaces the texts of turns by marks, and knows which text each stands for."""

    def __init__(self) -> None:
        self.leaves: list[_Leaf] = []

    def mark(self, text: str, message: int, role: Role, start: int = 0, part: int | None = 0) -> str:
        self.leaves.append(_Leaf(message, role, text, start, part))
        return f"@~{len(self.leaves) - 1}~@"

    def turn(self, number: int, turn: dict[str, Any], message: Message) -> dict[str, Any]:
        marked, parts = dict(turn), itertools.count(1)
        for name in REASONING_KEYS:
            if name in turn:
                marked[name] = self.mark(turn[name], number, Role.THINK, part=next(parts))
        if turn["content"] or not (message.absent or message.role is Role.ASSISTANT):
            marked["content"] = self._content(turn["content"], number, message)
        if "tool_calls" in turn:
            calls = zip(turn["tool_calls"], message.extras["tool_calls"], strict=True)
            marked["tool_calls"] = [self._call(call, number, said, parts) for call, said in calls]
        return marked

    def _content(self, content: str, number: int, message: Message) -> str:
        thought = _THOUGHT.fullmatch(content) if message.role is Role.ASSISTANT and "</think>" in content else None
        if thought is None:
            return self.mark(content, number, message.role)
        before, think, between, answer = thought.groups()
        marked = before + (self.mark(think, number, Role.THINK, thought.start(2)) if think else "") + between
        return marked + (self.mark(answer, number, message.role, thought.start(4)) if answer else "")

    def _call(self, call: dict[str, Any], number: int, said: dict[str, Any], parts: Iterator[int]) -> dict[str, Any]:
        """``said``: the call as the message has it, whose arguments may have another form."""
        function = dict(call["function"])
        function["name"] = self.mark(function["name"], number, Role.TOOL_CALL, part=next(parts))
        numbers = [next(parts) for _ in texts_in(said["function"]["arguments"])]
        same = type(function["arguments"]) is type(said["function"]["arguments"])
        function["arguments"] = self._value(function["arguments"], number, iter(numbers if same else ()))
        return {**call, "function": function}

    def _value(self, value: Any, number: int, parts: Iterator[int]) -> Any:
        if isinstance(value, str) and value.strip():
            return self.mark(value, number, Role.TOOL_CALL, part=next(parts, None))
        if isinstance(value, dict):
            return {name: self._value(item, number, parts) for name, item in value.items()}
        return [self._value(item, number, parts) for item in value] if isinstance(value, list) else value


def texts_in(value: Any) -> list[str]:
    """The texts in the arguments of a call, in their order; blank ones are none."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*itertools.chain.from_iterable(map(texts_in, items))]


# one form


def _spans(
    key: TokenizerKey,
    messages: Sequence[Message],
    turns: Turns,
    options: dict[str, Any],
    *,
    parts: bool,
    asks: bool = False,
) -> list[Span]:
    marks = _Marks()
    marked = [marks.turn(number, turn, messages[number]) for number, turn in enumerate(turns)]
    if parts:
        turns, marked = list(map(_in_parts, turns)), list(map(_in_parts, marked))
    text = _rendered(key, turns, options)
    owners = tuple((leaf.message, leaf.role) for leaf in marks.leaves)
    shape = _shape(key, json.dumps(marked), json.dumps(options, default=str), owners)
    _check_printed(key, messages, turns, marked, marks.leaves, shape, options, text)
    spans = _walk(text, shape.segments, marks.leaves, messages)
    if spans is None:
        raise HoldfastError(
            "the chat template rewrites the messages, so that the place of each cannot be known",
            hint="use --template dialogue, or a chat template that prints the contents as they are",
        )
    _check_weighed(messages, spans)
    for note in shape.notes:
        _say_once(key.tokenizer, note)
    return _asking(spans, text, _rendered(key, turns, options, prompt=True)) if asks else spans


def _check_weighed(messages: Sequence[Message], spans: Sequence[Span]) -> None:
    """Raise if weights of a call would have no effect, because the template prints its texts in another form."""
    there = {(id(span.message), span.part) for span in spans}
    for number, message in enumerate(messages, 1):
        first = 1 + any(name in message.extras for name in REASONING_KEYS)  # templates may drop thoughts
        for part in range(first, len(message.beside_weights) + 1):
            if message.weights_of(part) and (id(message), part) not in there:
                raise HoldfastError(
                    f"token_weights of message {number}: the chat template prints the tool call in another form, so "
                    "that they have no place",
                    hint="leave them out of the row, or weigh the data again with this chat template",
                )


def _asking(spans: list[Span], text: str, prompt: str) -> list[Span]:
    """The spans of a text, with its end as the generation prompt has it.

    Raises:
        HoldfastError: the two part before the last message ends.
    """
    same = _common(text, prompt)
    excess = len(text) - same
    while excess and spans[-1].role is Role.TEMPLATE:
        last = spans.pop()
        kept = last.text[: max(len(last.text) - excess, 0)]
        excess -= len(last.text) - len(kept)
        spans += [replace(last, text=kept)] if kept else []
    if excess:
        raise HoldfastError(
            "the chat template prints these messages in another way where it asks for an answer", hint=_REFUSED_HINT
        )
    return [*spans, Span(prompt[same:], Role.TEMPLATE)]


def _in_parts(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn["content"]
    return turn | {"content": [] if content is None else [{"type": "text", "text": content}]}


def _like(turns: Turns, turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of text in the form that the others have."""
    return _in_parts(turn) if any(isinstance(other["content"], list) for other in turns) else turn


def _rendered(key: TokenizerKey, turns: Turns, options: Mapping[str, Any], *, prompt: bool = False) -> str:
    return str(key.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **options))


def _say_once(tokenizer: Any, note: str) -> None:
    said: set[str] = tokenizer.__dict__.setdefault("_holdfast_said", set())
    if not said and os.environ.get("RANK", "0") == "0":
        print(f"note: {note}", file=sys.stderr)
    said.add(note)


def _check_printed(
    key: TokenizerKey,
    messages: Sequence[Message],
    turns: Turns,
    marked: Turns,
    leaves: Sequence[_Leaf],
    shape: _Shape,
    options: dict[str, Any],
    text: str,
) -> None:
    """Raise if something that the row says is not printed."""
    for number in shape.missing:
        leaf = leaves[number]
        if leaf.role is Role.THINK and leaf.message < len(marked) - 1:
            # templates drop earlier thoughts, and print them where their turn is the last one
            alone = _rendered(key, marked[: leaf.message + 1], options)
            if f"@~{number}~@" in alone:
                continue
        what = {Role.THINK: "reasoning", Role.TOOL_CALL: "tool call"}.get(leaf.role, "content")
        place = f"message {leaf.message + 1}"
        if what == "content":
            raise HoldfastError(
                f"the chat template drops a message: it prints no trace of the content of {place}", hint=_REFUSED_HINT
            )
        raise HoldfastError(
            f"the chat template prints no trace of the {what} of {place}",
            hint="--chat-template FILE gives a template that does",
        )
    _check_tools(key, turns, options, text)
    for number, turn in enumerate(turns):
        for call in turn.get("tool_calls", ()):
            value = call["function"]["arguments"]
            if isinstance(value, dict) and value and str(value) != json.dumps(value) and str(value) in text:
                raise HoldfastError(f"the chat template prints the arguments of message {number + 1} as Python does")
        if turn["content"] is None and messages[number].absent:
            empty = [t | {"content": ""} if t["content"] is None else t for t in turns]
            if text.count("None") > _count_none(key, empty, options):
                raise HoldfastError(f"the chat template prints None for the absent content of message {number + 1}")


def _check_tools(key: TokenizerKey, turns: Turns, options: Mapping[str, Any], text: str) -> None:
    tools = options.get("tools") or []
    without = (
        _rendered(key, turns, {name: value for name, value in options.items() if name != "tools"}) if tools else ""
    )
    for tool in tools:
        name = str((tool.get("function") or tool).get("name", ""))
        if without == text or text.count(name) <= without.count(name):
            raise HoldfastError(
                f"the chat template prints no trace of the tools{f' ({name})' if name else ''}",
                hint="--chat-template FILE gives a template that does",
            )


def _count_none(key: TokenizerKey, turns: Turns, options: Mapping[str, Any]) -> int:
    try:
        return _rendered(key, turns, options).count("None")
    except Exception:  # a template that takes null alone
        return sys.maxsize


def _walk(
    text: str, segments: Sequence[_Segment], leaves: Sequence[_Leaf], messages: Sequence[Message]
) -> list[Span] | None:
    """Match ``text`` against the segments; None if it does not match."""
    spans: list[Span] = []
    at = 0
    for place, segment in enumerate(segments):
        weight = 1.0 if segment.message is None else messages[segment.message].weight
        if segment.leaf is None:
            if not segment.added and not text.startswith(segment.text, at):
                return None
            spans.append(Span(segment.text, segment.role, weight))
            at += 0 if segment.added else len(segment.text)
            continue
        following = "".join(s.text for s in _until_leaf(segments, place + 1))
        leaf = leaves[segment.leaf]
        for printed in _printed(leaf.text):
            if text.startswith(printed + following, at):
                break
        else:
            return None
        said = leaf.role is segment.role and leaf.part is not None and printed in leaf.text
        message = messages[leaf.message] if said else None
        start = leaf.start + max(leaf.text.find(printed), 0)
        spans.append(Span(printed, segment.role, weight, message, start, leaf.part or 0))
        at += len(printed)
    return spans if at == len(text) else None


def _until_leaf(segments: Sequence[_Segment], place: int) -> Iterator[_Segment]:
    for segment in segments[place:]:
        if segment.leaf is not None:
            return
        if not segment.added:
            yield segment


def _printed(text: str) -> dict[str, None]:
    """The ways in which a template may print a text: as it is, stripped, or inside JSON."""
    quoted = (json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1], repr(text)[1:-1])
    return dict.fromkeys((text, text.strip(), text.rstrip(), text.lstrip(), text.strip("\n"), *quoted))


# shapes


@lru_cache(maxsize=512)
def _shape(key: TokenizerKey, marked_json: str, options_json: str, owners: tuple[tuple[int, Role], ...]) -> _Shape:
    turns, options = from_json(marked_json), from_json(options_json)
    text = _rendered(key, turns, options)
    places = _places(text, owners)
    labels: list[tuple[int, int, Role, int]] = []
    notes: list[str] = []
    appended: dict[int, tuple[str, int]] = {}
    for number, turn in enumerate(turns):
        mine = [places[i] for i, (message, _) in enumerate(owners) if message == number and i in places]
        if turn["role"] != "assistant":
            labels += [(*places[i], role, message) for i, (message, role) in enumerate(owners)
                       if message == number and i in places]  # fmt: skip
            continue
        if not mine:
            continue
        after = max(end for _, end in mine)
        calls = _calls(text, turn, min(mine)[0], _next_begin(text, places, owners, number, after))
        stretch = _Stretch(text, turns, number, places, owners, calls, options)
        for parts, response in _responses(key, stretch, notes):
            labels += _inside(text, number, response, parts)
            if response.appended:
                appended[response.end] = (response.appended, number)
    missing = tuple(i for i in range(len(owners)) if i not in places)
    return _Shape(tuple(_segments(text, labels, appended)), missing, tuple(notes))


def _places(text: str, owners: Sequence[tuple[int, Role]]) -> dict[int, tuple[int, int]]:
    """Leaf -> where it is printed first. A later one is an echo, such as the name of a call over its result."""
    places: dict[int, tuple[int, int]] = {}
    for match in _MARK.finditer(text):
        if int(match[1]) < len(owners):
            places.setdefault(int(match[1]), match.span())
    return places


def _next_begin(
    text: str, places: Mapping[int, tuple[int, int]], owners: Sequence[tuple[int, Role]], number: int, after: int
) -> int:
    """Where the first text of a later message begins."""
    later = [places[i][0] for i, (message, _) in enumerate(owners) if message > number and i in places]
    return min([begin for begin in later if begin >= after], default=len(text))


def _calls(text: str, turn: dict[str, Any], begin: int, end: int) -> list[tuple[int, int]]:
    """Where the names and the arguments of the calls of a turn lie."""
    places: list[tuple[int, int]] = []
    for call in turn.get("tool_calls") or ():
        name = call["function"]["name"]
        at = text.find(name, begin, end)
        if at < 0:
            continue
        begin = at + len(name)
        places.append((at, begin))
        arguments = _arguments(text, call["function"]["arguments"], begin, end)
        if arguments is not None:
            places.append(arguments)
            begin = max(begin, arguments[1])
    return places


def _arguments(text: str, value: Any, begin: int, end: int) -> tuple[int, int] | None:
    whole = [value] if isinstance(value, str) else _jsons(value)
    for printed in whole:
        at = text.find(printed, begin, end)
        if at >= 0:
            return at, at + len(printed)
    there = []
    for words in _words(value):
        # a mark stands for itself, a key or a number only as a whole word: `a` is no part of <arg_key>
        whole_words = "|".join(
            re.escape(word) if _MARK.fullmatch(word) else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words
        )
        match = re.compile(whole_words).search(text, begin, end)
        there += [match.span()] if match else []
    return (min(at for at, _ in there), max(stop for _, stop in there)) if there else None


def _jsons(value: Any) -> list[str]:
    compact = (",", ":")
    return [
        json.dumps(value, ensure_ascii=False),
        json.dumps(value, ensure_ascii=False, separators=compact),
        json.dumps(value),
        json.dumps(value, indent=4, ensure_ascii=False),
    ]


def _words(value: Any) -> Iterator[tuple[str, ...]]:
    """The keys and values of arguments, each in the ways in which a template prints it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (name,)
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    else:
        yield (value,) if isinstance(value, str) else (json.dumps(value), str(value))


def _responses(
    key: TokenizerKey, stretch: _Stretch, notes: list[str]
) -> Iterator[tuple[list[tuple[int, int, Role]], _Response]]:
    """The responses of a turn with their parts. There is more than one where the template prints the results of calls
    inside of the turn, before its text.
    """
    text, number = stretch.text, stretch.number
    groups = stretch.groups()
    first = groups[0][0][0]
    before = [stretch.places[i][1] for i, (message, _) in stretch.printed() if message < number]
    previous = max([end for end in before if end <= first], default=0)
    begin = min(_begin(key, text, stretch.turns[:number], previous, first, stretch.options, notes), first)
    last_of_all = not any(turn["role"] == "assistant" for turn in stretch.turns[number + 1 :])
    for place, parts in enumerate(groups):
        calls, last = parts[-1][2] is Role.TOOL_CALL, parts[-1][1]
        turns = stretch.turns[: number + 1]
        if place < len(groups) - 1:
            turns = [*turns[:-1], turns[-1] | {"content": type(turns[-1]["content"])()}]
        after = text[last : stretch.next_begin(last)]
        run = _stop_run(key, after, turns, stretch.options, calls=calls)
        stop = last + (len(run) - len(_bare_stop(key, run, turns[:-1], stretch.options)) if calls else 0)
        end = last + len(run)
        stops = bool(run) and (not calls or stop < end)
        append = "" if stops or not last_of_all or parts is not groups[-1] else _appended(key, turns, stretch.options)
        yield parts, _Response(begin if place == 0 else parts[0][0], stop, end, append)


def _begin(
    key: TokenizerKey, text: str, turns: Turns, previous: int, first: int, options: dict[str, Any], notes: list[str]
) -> int:
    """Where the generation prompt of the next turn ends in ``text``."""
    if not turns:  # there is no prompt, and templates refuse to render nothing
        return _with_opening(text, first)
    try:
        prompt = _rendered(key, turns, options, prompt=True)
    except Exception:  # a template may refuse a conversation that stops here
        notes.append("the chat template makes no generation prompt for a turn, which is taken to begin with its text")
        return _with_opening(text, first)
    if "add_generation_prompt" not in str(key.tokenizer.chat_template):
        begin = _with_opening(text, first)
        if text.startswith(prompt) and text[len(prompt) : begin].isspace():
            return len(prompt)
        notes.append("the chat template has no generation prompt, so headers of turns are taken as given to the model")
        return begin
    if text.startswith(prompt):
        return len(prompt)
    same = _common(text, prompt)
    offset = 0
    if same < previous:  # the difference lies in an earlier turn: what follows that turn is compared alone
        marks = [match.end() for match in _MARK.finditer(prompt)]
        offset = previous - (marks[-1] if marks else 0)
        same = previous + _common(text[previous:], prompt[previous - offset :])
        if same - offset == len(prompt):
            notes.append(_difference(text, prompt, _common(text, prompt), 0))
            return same
    begin = _cut_back(key, text, same, previous)
    notes.append(_difference(text, prompt, begin, offset))
    return begin


def _with_opening(text: str, first: int) -> int:
    """Where a response begins whose first text stands at ``first``: before the tag that opens its thought."""
    opening = re.search(r"<think>\s*$", text[:first])
    return opening.start() if opening else first


def _common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _cut_back(key: TokenizerKey, text: str, same: int, floor: int) -> int:
    """The end of the last line or special token before ``same``."""
    special = special_token(key)
    ends = [match.end() for match in special.finditer(text, floor, same)] if special else []
    ends += [match.end() for match in re.finditer("\n", text[:same]) if match.end() >= floor]
    return max([end for end in ends if end <= same], default=floor)


def _difference(text: str, prompt: str, at: int, offset: int) -> str:
    trained, asked = (_MARK.sub("...", part)[:60] for part in (text[at:], prompt[at - offset :]))
    return (
        "the generation prompt of this chat template is not how the training text goes on: it asks with "
        f"{asked!r} where the text has {trained!r}; the response is taken to begin where the two part"
    )


@lru_cache(maxsize=512)
def special_token(key: TokenizerKey) -> re.Pattern[str] | None:
    """Matches white space and a special token; None for a tokenizer without any."""
    names = {*key.tokenizer.get_added_vocab(), *key.tokenizer.all_special_tokens, *stop_texts(key.tokenizer)}
    specials = sorted(names, key=len, reverse=True)
    return re.compile(r"\s*(?:" + "|".join(map(re.escape, specials)) + ")") if specials else None


def _stop_run(key: TokenizerKey, after: str, turns: Turns, options: dict[str, Any], *, calls: bool) -> str:
    """What stands behind a response up to the token that generation stops on, with the markup that closes a call; empty
    if there is none.

    A conversation that ends with the turn shows it best: no header of a next turn stands there. If the turn ends with
    another token (or with the header of the next turn, as GLM's does), it is a stop, or the special token with which
    what follows begins.
    """
    tail = _tail(key, turns, options)
    stops, special = stop_texts(key.tokenizer), special_token(key)
    run = _up_to(tail, stops)
    if run and after.startswith(run):
        return run
    stated = _up_to(after, _stated_stops(key.tokenizer))
    if stated:
        return stated
    if calls:
        same = tail[: _common(tail, after)]
        ends = [match.end() for match in special.finditer(same)] if special else []
        return same[: max(ends, default=0)]
    match = special.search(tail) if special and not run else None
    if match and after.startswith(tail[: match.end()]):
        return tail[: match.end()]
    match = special.match(after) if special else None
    return match.group() if match else ""


def _tail(key: TokenizerKey, turns: Turns, options: dict[str, Any]) -> str:
    """What the template prints behind the last text of a conversation."""
    try:
        text = _rendered(key, turns, options)
    except Exception:  # a template may refuse a conversation that stops here: what follows is looked at alone
        return ""
    ends = [match.end() for match in _MARK.finditer(text)]
    ends += [end for _, end in _calls(text, turns[-1], 0, len(text))]
    return text[max(ends, default=0) :]


def _up_to(text: str, stops: Sequence[str]) -> str:
    """Text up to and including the first of the stops; empty if it has none."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else ""


def _bare_stop(key: TokenizerKey, run: str, before: Turns, options: dict[str, Any]) -> str:
    """The stop run without the markup that closes a call: how a turn of text ends there, else the last special token.
    Empty if the stops are known and none of them ends the run.
    """
    plain = _tail(key, [*before, _like(before, {"role": "assistant", "content": "@~9999~@"})], options)
    special = special_token(key)
    match = special.search(plain) if special else None
    end = _up_to(plain, stop_texts(key.tokenizer)) or (plain[: match.end()] if match else "")
    if end and run.endswith(end):
        return end
    matches = list(special.finditer(run)) if special else []
    last = matches[-1].group() if matches else run
    stated = _stated_stops(key.tokenizer)
    return "" if stated and not last.endswith(stated) else last


def _appended(key: TokenizerKey, turns: Turns, options: dict[str, Any]) -> str:
    """The stop of a last response behind which the template prints none: the header of a next turn, if generation
    stops on it, else EOS.
    """
    stops = _stated_stops(key.tokenizer)
    role = "tool" if turns[-1].get("tool_calls") else "user"
    following = ""
    if stops:
        try:
            following = _rendered(key, [*turns, _like(turns, {"role": role, "content": "@~9999~@"})], options)
        except Exception:  # a template may refuse it
            following = ""
    head = following.partition("@~9999~@")[0]
    ends = [match.end() for match in _MARK.finditer(head)]
    run = _up_to(head[max(ends, default=len(head)) :], stops)
    return next((stop for stop in stops if run.endswith(stop)), "") if run else eos_text(key.tokenizer)


def _inside(
    text: str, number: int, response: _Response, parts: Sequence[tuple[int, int, Role]]
) -> list[tuple[int, int, Role, int]]:
    """(begin, end, role, message) of every part of a response and of what stands between, in order."""
    labels: list[tuple[int, int, Role, int]] = []
    at = response.begin
    for begin, end, role in parts:
        gap = text[at:begin]
        if gap.isspace() and role is Role.ASSISTANT and at == response.begin:
            labels.append((at, begin, Role.ASSISTANT, number))  # white space before the text alone
        else:
            labels += _format(text, at, begin, number)
        labels.append((begin, end, role, number))
        at = end
    labels += _format(text, at, response.stop, number)
    if response.end > response.stop:
        labels.append((response.stop, response.end, Role.EOS, number))
    return labels


def _format(text: str, begin: int, end: int, number: int) -> Iterator[tuple[int, int, Role, int]]:
    """A stretch of what the model writes around its texts; thoughts that hold nothing have a role of their own."""
    match = _EMPTY_THOUGHT.search(text, begin, end)
    cuts = (begin, *(match.span() if match else ()), end)
    for place, (first, last) in enumerate(itertools.pairwise(cuts)):
        if last > first:
            yield first, last, Role.EMPTY_THINK if place == 1 else Role.FORMAT, number


def _segments(
    text: str, labels: Sequence[tuple[int, int, Role, int]], appended: Mapping[int, tuple[str, int]]
) -> Iterator[_Segment]:
    """The text of a shape, cut where a role or a leaf begins or ends."""
    marks = {match.start(): match for match in _MARK.finditer(text)}
    edges = {0, len(text), *appended}
    for begin, end, _, _ in labels:
        edges |= {begin, end}
    for match in marks.values():
        edges |= {match.start(), match.end()}
    ordered = sorted(edges)
    stretches = iter(sorted(labels))
    label = next(stretches, None)
    if 0 in appended:
        yield _Segment(appended[0][0], None, Role.EOS, appended[0][1], added=True)
    for begin, end in itertools.pairwise(ordered):
        while label is not None and label[1] <= begin:
            label = next(stretches, None)
        inside = label is not None and label[0] <= begin < label[1]
        role, message = (label[2], label[3]) if inside and label else (Role.TEMPLATE, None)
        leaf = int(marks[begin][1]) if begin in marks else None
        yield _Segment("" if leaf is not None else text[begin:end], leaf, role, message)
        if end in appended:
            yield _Segment(appended[end][0], None, Role.EOS, appended[end][1], added=True)
