"""Rows -> examples. A file's layout is recognised by its columns; every error names file and row.

| layout | columns |
|---|---|
| chat | ``messages``: list of {role, content, weight?}, and what ``data.agent`` reads beside |
| alpaca | ``instruction``, ``output``, ``input``? |
| pair | ``prompt`` and ``response`` or ``completion``: two texts, or two lists of messages |
| text | ``text`` (everything is response) |
| prompt | ``prompt`` alone (needs response weight 0: the paper's prompt-only tuning on unannotated data) |

Every row may also have ``weight`` (a number) and ``token_weights`` (of ``holdfast weigh``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from holdfast.data.agent import ROW_KEYS, extras_of, kwargs_of, tools_of, trains
from holdfast.data.columns import unused_columns
from holdfast.data.read import Row, read_rows
from holdfast.data.weights import check_weight, with_char_weights
from holdfast.errors import HoldfastError, whole_text
from holdfast.records import Example, Message, Role

T = TypeVar("T")
_ACCEPTED = (
    "messages | instruction + output | prompt + response (or completion) | text | prompt (with response weight 0)"
)
_COLUMNS = {
    "chat": ("messages",),
    "alpaca": ("instruction", "input", "output"),
    "pair": ("prompt", "response", "completion"),
    "text": ("text",),
    "prompt": ("prompt",),
}
_READINGS = set[str]().union(*_COLUMNS.values())
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
) -> list[Example]:
    """Read a data source into examples.

    Args:
        source: file, saved dataset folder, hub name (``name`` or ``name:split``), or ``pocket:...``.
        layout: ``auto`` or a name of the table above.
        limit: only the first rows.
        needs_response: False where responses have weight 0, so that rows without one are fine.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    return examples_of(
        list(islice(read_rows(source, bad_rows), limit)),
        source,
        layout=layout,
        needs_response=needs_response,
        bad_rows=bad_rows,
    )


def examples_of(
    rows: list[Row],
    source: str,
    *,
    layout: str = "auto",
    needs_response: bool = True,
    bad_rows: list[str] | None = None,
) -> list[Example]:
    """Rows that are in memory already, as ``load_examples`` reads them; ``source`` is their name in errors."""
    others = () if layout == "auto" else _READINGS  # who names a layout leaves the columns of the others out on purpose
    layout = _recognise(source, rows, layout, needs_response)

    def example_of(row: dict[str, Any], where: str) -> Example:
        beside = ROW_KEYS if _converses(row, layout) else ()
        unused = unused_columns(row, _COLUMNS[layout], where, listed=others, beside=beside)
        example = replace(_example(row, where, layout, needs_response), unused=unused)
        if not beside:
            return example
        return replace(example, tools=tools_of(row, where), template_kwargs=kwargs_of(row, where))

    return read_each(rows, source, example_of, bad_rows)


def _converses(row: dict[str, Any], layout: str) -> bool:
    """Whether a row holds messages, and so may hold what a chat template takes beside them."""
    return layout == "chat" or (layout == "pair" and isinstance(row.get("prompt"), list))


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


def _recognise(source: str, rows: list[Row], layout: str, needs_response: bool) -> str:
    if layout != "auto" or not rows:
        return layout
    columns, empty = set[str](), set[str]()
    for row, _ in rows:
        for column, value in row.items():
            (empty if value is None else columns).add(column)
    readings = {
        "chat": "messages" in columns,
        "alpaca": {"instruction", "output"} <= columns,
        "pair": "prompt" in columns and bool({"response", "completion"} & columns),
        "text": "text" in columns,
    }
    fitting = [name for name, fits in readings.items() if fits]
    if not fitting and "prompt" in columns and not needs_response:
        return "prompt"
    if len(fitting) == 1:
        return fitting[0]
    hint = None
    if not fitting and {"chosen", "rejected"} <= columns:
        hint = "these are preferences, which `holdfast align` takes"
    elif not fitting and any(";" in column for column in columns):
        hint = "the columns seem to be parted by ';': save the file with commas"
    elif not fitting and "prompt" in columns:
        hint = "prompts alone can be trained on with --preset prompt-only (response weight 0)"
    elif fitting:
        hint = f"choose with --layout {' or '.join(fitting)}"
    elif empty - columns - {""}:
        hint = f"null in every row: {', '.join(sorted(empty - columns - {''}))}"
    kind = "several readings are possible" if fitting else "no reading fits"
    raise HoldfastError(f"{source}: {kind}; columns are {', '.join(sorted(columns))}; accepted: {_ACCEPTED}", hint=hint)


def _example(row: dict[str, Any], where: str, layout: str, needs_response: bool) -> Example:
    weight = _weight(row, "weight", where)
    if layout == "chat":
        messages = _conversation(row, where, needs_response)
    elif layout == "alpaca":
        user = [Message(Role.USER, read_text(row, "instruction", where))]
        if row.get("input"):
            user.append(Message(Role.USER, read_text(row, "input", where)))
        messages = (*user, Message(Role.ASSISTANT, read_response(row, "output", where)))
    elif layout == "pair":
        if row.get("response") is not None and row.get("completion") is not None:
            raise HoldfastError(
                f"{where}: both 'response' and 'completion' are given", hint="keep one of the two columns"
            )
        column = "completion" if row.get("completion") is not None else "response"
        for name in ("prompt", column):
            _check_there(row, name, where)
        if isinstance(row["prompt"], list) and isinstance(row[column], list):
            joined = {"messages": row["prompt"] + row[column]}
            conversation = _conversation(joined, where, needs_response)
            return Example(with_char_weights(conversation, row, where), "chat", where, weight)
        messages = (
            Message(Role.USER, read_text(row, "prompt", where)),
            Message(Role.ASSISTANT, read_response(row, column, where)),
        )
    elif layout == "text":
        messages = (Message(Role.ASSISTANT, read_response(row, "text", where)),)
    else:
        messages = (Message(Role.USER, read_response(row, "prompt", where)),)
    return Example(with_char_weights(tuple(messages), row, where), layout, where, weight)


def _conversation(row: dict[str, Any], where: str, needs_response: bool) -> tuple[Message, ...]:
    messages = read_messages(row, "messages", where)
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
            raise HoldfastError(f"{place}: {_kind(turn)}, not an object with role and content")
        role = _ROLES.get(str(turn.get("role")))
        if role is None:
            raise HoldfastError(f"{place}: role is {turn.get('role')!r}; allowed: {', '.join(_ROLES)}")
        weight = _weight(turn, "weight", place) * trains(turn, place)
        extras = extras_of(turn, role, place)
        absent = "tool_calls" in extras and not turn.get("content")
        read = read_response if role is Role.ASSISTANT else read_text
        content = "" if absent else read(turn, "content", place)
        messages.append(Message(role, content, weight, extras=extras, absent=absent))
    return tuple(messages)


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
