"""Rows -> examples. A file's layout is recognised by its columns; every error names file and row.

| layout | columns |
|---|---|
| chat | ``messages``: list of {role, content, weight?}, or ShareGPT's ``conversations``; ``system``?; and |
| | what ``data.agent`` reads beside |
| alpaca | ``instruction``, ``output``, ``input``?; Dolly's ``context``? and ``response``; ``system``?, ``history``? |
| pair | ``prompt`` and ``response`` or ``completion``: two texts, or two lists of messages; or ``question`` and |
| | ``answer``, ``query`` and ``response``, ``input`` and ``output`` or ``target``, ``source`` and ``target`` |
| text | ``text`` (everything is response) |
| prompt | ``prompt`` alone (needs response weight 0: the paper's prompt-only tuning on unannotated data) |

Every row may also have ``weight`` (a number) and ``token_weights`` (of ``holdfast weigh``). What others call a column
or a role is the matter of ``shapes``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from holdfast.data.agent import ROW_KEYS, extras_of, kwargs_of, tools_of, trains
from holdfast.data.columns import blank, unused_columns
from holdfast.data.read import Row, read_rows
from holdfast.data.shapes import USUAL, Reading, Shape, as_openai, line_of_roles, line_to_type, readings_of
from holdfast.data.sources import files_of, tell_unread
from holdfast.data.weights import check_weight, with_char_weights
from holdfast.errors import HoldfastError, whole_text
from holdfast.progress import Progress
from holdfast.records import Example, Message, Role

T = TypeVar("T")
_ACCEPTED = (
    "messages (or conversations) | instruction + output | prompt + response (or completion) | question + answer | text "
    "| prompt (with response weight 0)"
)
_COLUMNS = {
    "chat": ("messages", "system"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "pair": ("prompt", "response", "completion"),
    "text": ("text",),
    "prompt": ("prompt",),
}
_READINGS = set[str]().union(*_COLUMNS.values()) - {"system", "history"}
_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


def load_examples(
    source: str,
    *,
    layout: str = "auto",
    limit: int | None = None,
    needs_response: bool = True,
    bad_rows: list[str] | None = None,
    shape: Shape = USUAL,
) -> list[Example]:
    """Read a data source into examples; the layout of each file of it is recognised for itself.

    Args:
        source: see ``holdfast.data.sources``.
        layout: ``auto`` or a name of the table above.
        limit: only the first rows.
        needs_response: False where responses have weight 0, so that rows without one are fine.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    tell_unread(source)
    examples: list[Example] = []
    left = limit
    for file in files_of(source):
        rows = list(Progress("row", doing=f"reading {Path(file).name}").each(islice(read_rows(file, bad_rows), left)))
        if rows or left != 0:
            examples += examples_of(
                rows, file, layout=layout, needs_response=needs_response, bad_rows=bad_rows, shape=shape
            )
        left = None if left is None else left - len(rows)
    return examples


def examples_of(
    rows: list[Row],
    source: str,
    *,
    layout: str = "auto",
    needs_response: bool = True,
    bad_rows: list[str] | None = None,
    shape: Shape = USUAL,
) -> list[Example]:
    """Rows that are in memory already, as ``load_examples`` reads them; ``source`` is their name in errors."""
    others = () if layout == "auto" else _READINGS  # who names a layout leaves the columns of the others out on purpose
    reading = _recognise(source, rows, layout, needs_response, shape)
    used = [reading.name(column) for column in _COLUMNS[reading.layout]]
    if reading.layout == "pair" and "system" in shape.columns:
        used.append(reading.name("system"))
    before = {reading.name(column) for column in ("system", "history")} & {*used}
    turns = any(_opens(row, before) for row, _ in rows)
    reading = replace(reading, turns=turns)

    def example_of(row: dict[str, Any], where: str) -> Example:
        row = as_openai(row, used, shape, where)
        beside = ROW_KEYS if _converses(row, reading) else ()
        unused = unused_columns(row, used, where, listed=others, beside=beside)
        example = replace(_example(row, where, reading, needs_response, shape), unused=unused)
        if not beside:
            return example
        return replace(example, tools=tools_of(row, where), template_kwargs=kwargs_of(row, where))

    return read_each(rows, source, example_of, bad_rows)


def _opens(row: dict[str, Any], columns: Collection[str]) -> bool:
    """Whether a row says something in one of these columns."""
    return not all(blank(row.get(column)) for column in columns)


def _converses(row: dict[str, Any], reading: Reading) -> bool:
    """Whether a row holds messages, and so may hold what a chat template takes beside them."""
    return reading.layout == "chat" or (reading.layout == "pair" and isinstance(row.get(reading.name("prompt")), list))


def read_each(
    rows: Sequence[Row], source: str, read: Callable[[dict[str, Any], str], T], bad_rows: list[str] | None
) -> list[T]:
    """Return what ``read`` makes of each row; the messages of bad rows go to ``bad_rows``.

    Raises:
        HoldfastError: no row; a bad row, where ``bad_rows`` is None; or nothing but bad rows, because what is the same
            in all rows is a mistake of the file and not of a row.
    """
    if not rows:
        raise HoldfastError(f"{source}: no rows", hint="the file is empty or every row was bad")
    items, first = [], None
    for row, where in rows:
        try:
            items.append(read(row, where))
        except HoldfastError as error:
            if bad_rows is None:
                raise
            bad_rows.append(error.message)
            first = first or error
    if first is not None and not items:
        message = f"{source}: every row is refused ({len(rows)} in all); the first: {first.message}"
        raise HoldfastError(message, hint=first.hint)
    return items


def _recognise(source: str, rows: list[Row], layout: str, needs_response: bool, shape: Shape) -> Reading:
    if not rows:
        return Reading("text", {})
    columns, empty, lists = set[str](), set[str](), set[str]()
    ours = {theirs: name for name, theirs in shape.columns.items()}
    theirs = set[str]()
    for row, _ in rows:
        for column, value in row.items():
            theirs.add(column)
            if column in shape.columns and column not in ours:
                continue  # another column is called so by --columns
            name = ours.get(column, column)
            (empty if value is None else columns).add(name)
            if isinstance(value, list):
                lists.add(name)
    missing = [name for name in ours if name not in theirs]
    if missing:
        raise HoldfastError(
            f"{source}: no column '{missing[0]}', which --columns names; columns are {', '.join(sorted(theirs))}"
        )
    fitting = readings_of(columns, lists)
    if layout != "auto":
        fitting = [reading for reading in fitting if reading.layout == layout][:1] or [Reading(layout, {})]
    if not fitting and "prompt" in columns and not needs_response:
        fitting = [Reading("prompt", {})]
    if len(fitting) == 1:
        (reading,) = fitting
        names = {column: column for column in _COLUMNS.get(reading.layout, ())} | {
            **reading.columns,
            "system": "system",
        }
        return Reading(reading.layout, {name: shape.columns.get(column, column) for name, column in names.items()})
    hint = None
    line = line_to_type(rows[0][0])
    if not fitting and "input_ids" in columns:
        hint = f"tokenised already: holdfast audit --model MODEL --prepared {source} checks such rows; tune needs texts"
    elif not fitting and {"chosen", "rejected"} <= columns:
        hint = "these are preferences, which `holdfast align` takes"
    elif not fitting and "prompt" in columns:
        hint = "prompts alone can be trained on with --preset prompt-only (response weight 0)"
    elif fitting and len({reading.layout for reading in fitting}) > 1:
        hint = f"choose with --layout {' or '.join(reading.layout for reading in fitting)}"
    elif empty - columns - {""}:
        hint = f"null in every row: {', '.join(sorted(empty - columns - {''}))}"
    elif line:
        hint = f"say which column is what, such as {line}"
    kind = "several readings are possible" if fitting else "no reading fits"
    raise HoldfastError(f"{source}: {kind}; columns are {', '.join(sorted(columns))}; accepted: {_ACCEPTED}", hint=hint)


def _example(row: dict[str, Any], where: str, reading: Reading, needs_response: bool, shape: Shape) -> Example:
    weight = _weight(row, "weight", where)
    layout, name = reading.layout, reading.name
    messages: tuple[Message, ...]
    if layout == "chat":
        messages = _conversation(row, name("messages"), where, needs_response)
    elif layout == "alpaca":
        columns = [name("instruction"), *([name("input")] if row.get(name("input")) else [])]
        texts = [read_text(row, column, where) for column in columns]
        user = [Message(Role.USER, text) for text in (["\n\n".join(texts)] if reading.turns else texts)]
        messages = (*user, Message(Role.ASSISTANT, read_response(row, name("output"), where), joint=shape.joint))
    elif layout == "pair":
        messages = _prompt_and_response(row, where, reading, needs_response, shape)
        if isinstance(row[name("prompt")], list):
            layout = "chat"
    elif layout == "text":
        messages = (Message(Role.ASSISTANT, read_response(row, name("text"), where)),)
    elif isinstance(row.get(name("prompt")), list):
        messages, layout = read_messages(row, name("prompt"), where), "chat"
    else:
        messages = (Message(Role.USER, read_response(row, name("prompt"), where)),)
    messages = (*_before(row, reading, messages, where), *messages)
    layout = "chat" if reading.turns else layout
    asks = reading.layout == "prompt" and messages[-1].role is not Role.ASSISTANT
    return Example(with_char_weights(messages, row, where), layout, where, weight, asks=asks)


def _prompt_and_response(
    row: dict[str, Any], where: str, reading: Reading, needs_response: bool, shape: Shape
) -> tuple[Message, ...]:
    prompt, column, completion = reading.name("prompt"), reading.name("response"), reading.name("completion")
    if row.get(column) is not None and row.get(completion) is not None:
        raise HoldfastError(
            f"{where}: both '{column}' and '{completion}' are given", hint="keep one of the two columns"
        )
    column = completion if row.get(completion) is not None else column
    for name in (prompt, column):
        _check_there(row, name, where)
    if isinstance(row[prompt], list) and isinstance(row[column], list):
        return _conversation({"messages": row[prompt] + row[column]}, "messages", where, needs_response)
    return (
        Message(Role.USER, read_text(row, prompt, where)),
        Message(Role.ASSISTANT, read_response(row, column, where), joint=shape.joint),
    )


def _before(row: dict[str, Any], reading: Reading, messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """Return the messages of the columns ``system`` and ``history``, which stand before those of the row."""
    system, history = reading.name("system"), reading.name("history")
    before: list[Message] = []
    if reading.layout in ("chat", "alpaca", "pair") and not blank(row.get(system)):
        if messages[0].role is Role.SYSTEM:
            raise HoldfastError(f"{where}: column '{system}' beside a system message", hint="keep one of the two")
        before.append(Message(Role.SYSTEM, read_text(row, system, where)))
    turns = row.get(history) if reading.layout == "alpaca" else None
    for number, turn in enumerate([] if blank(turns) else turns if isinstance(turns, list) else [turns], 1):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise HoldfastError(
                f"{where}: '{history}' {number} is {_kind(turn)}, not a question and its answer",
                hint='[["Hi", "Hello!"], ...]',
            )
        before += [Message(Role.USER, turn[0]), Message(Role.ASSISTANT, turn[1])]
    return tuple(before)


def _conversation(row: dict[str, Any], column: str, where: str, needs_response: bool) -> tuple[Message, ...]:
    messages = read_messages(row, column, where)
    if needs_response and not any(m.role is Role.ASSISTANT for m in messages):
        raise HoldfastError(
            f"{where}: no assistant message", hint="add one, or train on prompts alone with --preset prompt-only"
        )
    return messages


def read_messages(row: dict[str, Any], column: str, where: str) -> tuple[Message, ...]:
    """A column that holds a list of {role, content, weight?}.

    Raises:
        HoldfastError: it holds something else, an unknown role, or an assistant's message without text.
    """
    turns = row.get(column)
    if not isinstance(turns, list) or not turns:
        raise HoldfastError(
            f"{where}: '{column}' is {_kind(turns)}, not a list of messages",
            hint='[{"role": "user", "content": "..."}, ...]',
        )
    messages = []
    for number, turn in enumerate(turns, 1):
        place = f"{where}, message {number}"
        if not isinstance(turn, dict):
            hint = _NAME_SPEAKERS.replace("COLUMN", column) if isinstance(turn, str) else None
            raise HoldfastError(f"{place}: {_kind(turn)}, not an object with role and content", hint=hint)
        role = _ROLES.get(str(turn.get("role")))
        if role is None:
            line = line_of_roles(turns)
            hint = f"say who is who, such as {line}" if line else None
            raise HoldfastError(f"{place}: role is {turn.get('role')!r}; allowed: {', '.join(_ROLES)}", hint=hint)
        weight = _weight(turn, "weight", place) * trains(turn, place)
        extras = extras_of(turn, role, place)
        absent = "tool_calls" in extras and not turn.get("content")
        read = read_response if role is Role.ASSISTANT else read_text
        content = "" if absent else read(turn, "content", place)
        messages.append(Message(role, content, weight, extras=extras, absent=absent))
    return tuple(messages)


_NAME_SPEAKERS = (
    "if user and assistant take turns: jq -c '.COLUMN |= [to_entries[] | {role: "
    '(if .key % 2 == 0 then "user" else "assistant" end), content: .value}]\' rows.jsonl'
)


def read_text(row: dict[str, Any], column: str, where: str) -> str:
    """A column that holds text; a ``HoldfastError`` otherwise."""
    _check_there(row, column, where)
    if not isinstance(row[column], str):
        raise HoldfastError(f"{where}: '{column}' is {_kind(row[column])}, not text")
    return whole_text(row[column], f"{where}: '{column}'")


def _check_there(row: dict[str, Any], column: str, where: str) -> None:
    if row.get(column) is None:
        raise HoldfastError(
            f"{where}: no column '{column}'; the row has {', '.join(map(str, row)) or 'no columns'}",
            hint="every row needs it; --skip-bad-rows leaves rows without it out and lists them",
        )


def read_response(row: dict[str, Any], column: str, where: str) -> str:
    """A column that holds text that is not blank; a ``HoldfastError`` otherwise."""
    text = read_text(row, column, where)
    if not text.strip():
        raise HoldfastError(f"{where}: '{column}' is empty", hint="--skip-bad-rows leaves such rows out and lists them")
    return text


def _weight(row: dict[str, Any], column: str, where: str) -> float:
    value = row.get(column)
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise HoldfastError(f"{where}: '{column}' is {_kind(value)}, not a number")
    return check_weight(value, f"'{column}'", where)


def _kind(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
