"""Files -> examples. What a file is, is recognised by its columns; every error names file and row.

| layout | columns |          optional everywhere, on the row: ``weight`` (a number) and ``token_weights`` (of ``holdfast weigh``)
|---|---|
| chat | ``messages``: list of {role, content, weight?} |
| alpaca | ``instruction``, ``output``, ``input``? |
| pair | ``prompt`` and ``response`` or ``completion``: two texts, or two lists of messages |
| text | ``text`` (everything is response) |
| prompt | ``prompt`` alone (needs response weight 0: the paper's prompt-only tuning on unannotated data) |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, from_json, whole_text
from holdfast.records import Example, Message, Role
from holdfast.tune.charweights import with_char_weights
from holdfast.tune.columns import unused_columns
from holdfast.tune.csvrows import csv_records
from holdfast.tune.weights import check_weight

Row = tuple[dict[str, Any], str]
"""Columns of a row and its place, such as ``data.jsonl, row 3``."""

_ACCEPTED = "messages | instruction + output | prompt + response (or completion) | text | prompt (with response weight 0)"
_COLUMNS = {
    "chat": ("messages",),
    "alpaca": ("instruction", "input", "output"),
    "pair": ("prompt", "response", "completion"),
    "text": ("text",),
    "prompt": ("prompt",),
}
_READINGS = {column for columns in _COLUMNS.values() for column in columns}
_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.TOOL}
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def load_examples(
    source: str, *, layout: str = "auto", limit: int | None = None, needs_response: bool = True, bad_rows: list[str] | None = None
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
        list(islice(read_rows(source, bad_rows), limit)), source, layout=layout, needs_response=needs_response, bad_rows=bad_rows
    )


def examples_of(
    rows: list[Row], source: str, *, layout: str = "auto", needs_response: bool = True, bad_rows: list[str] | None = None
) -> list[Example]:
    """Rows that are in memory already, as ``load_examples`` reads them; ``source`` is their name in errors."""
    if not rows:
        raise HoldfastError(f"{source}: no rows", hint="the file is empty or every row was bad")
    others = () if layout == "auto" else _READINGS  # who names a layout leaves the columns of the others out on purpose
    layout = _recognise(source, rows, layout, needs_response)
    examples, first = [], None
    for row, where in rows:
        try:
            unused = unused_columns(row, _COLUMNS[layout], where, listed=others)
            examples.append(replace(_example(row, where, layout, needs_response), unused=unused))
        except HoldfastError as error:
            if bad_rows is None:
                raise
            bad_rows.append(error.message)
            first = first or error
    if first is not None and not examples:
        raise no_row_left(source, len(rows), first)
    return examples


def no_row_left(source: str, count: int, first: HoldfastError) -> HoldfastError:
    """What to raise where every row is bad: what is the same in all of them is no matter of bad rows."""
    return HoldfastError(f"{source}: every row is refused ({count} in all); the first: {first.message}", hint=first.hint)


def load_rows(source: str) -> list[dict[str, Any]]:
    """The rows of a data source as they stand there, whatever their columns.

    Raises:
        HoldfastError: as ``load_examples``, of which this is the first half.
    """
    return [row for row, _ in read_rows(source)]


def source_digest(source: str | None) -> str | None:
    """SHA-256 of a data file, so that a run notices when it has changed; other sources stand for themselves."""
    if source is None or not Path(source).is_file():
        return source
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(source: str, bad_rows: list[str] | None = None) -> Iterator[Row]:
    """The rows of a data source as they are, each with its place. Arguments and errors as in ``load_examples``."""
    if source.startswith("pocket:"):
        from holdfast import pocket

        return ((row, f"{source}, row {i}") for i, row in enumerate(pocket.rows(source), 1))
    path = Path(source)
    if path.is_file():
        return _file_rows(path, bad_rows)
    if path.suffix in _SUFFIXES or source.startswith((".", "/", "~")):
        if path.is_dir():
            return _dataset_rows(_from_disk(path), source)
        raise HoldfastError(f"{source}: no such file or folder", hint="paths are relative to the current directory")
    return _dataset_rows(_from_disk(path) if path.is_dir() else _from_hub(source), source)


def _file_rows(path: Path, bad_rows: list[str] | None) -> Iterator[Row]:
    if path.suffix == ".parquet":
        import datasets

        try:
            return _dataset_rows(datasets.Dataset.from_parquet(str(path)), path.name)
        except Exception as error:  # of pyarrow or of datasets, by version
            raise HoldfastError(f"{path}: not a Parquet file that can be read ({str(error).partition(chr(10))[0]})") from error
    if path.suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, bad_rows)
    if path.suffix == ".json":
        return _json_rows(path)
    if path.suffix in (".csv", ".tsv"):
        return _csv_rows(path, bad_rows)
    raise HoldfastError(f"{path}: unknown kind of file '{path.suffix}'; known: {', '.join(_SUFFIXES)}")


def _json_lines(path: Path, bad_rows: list[str] | None) -> Iterator[Row]:
    for number, raw in enumerate(path.open("rb"), 1):
        where = f"{path}, row {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if line:
                row = from_json(line)
                if not isinstance(row, dict):
                    raise HoldfastError(f"{where}: a {type(row).__name__}, not an object", hint='each line is one object {"column": value}')
                yield row, where
            continue
        except UnicodeDecodeError as error:
            problem = HoldfastError(f"{where}: not UTF-8 (byte {error.start}: {raw[error.start]:#04x})", hint="save the file as UTF-8")
        except json.JSONDecodeError as error:
            problem = HoldfastError(f"{where}: broken JSON, {error.msg} at column {error.colno}", hint="each line must be one JSON object")
        except HoldfastError as error:
            problem = error
        if bad_rows is None:
            raise problem
        bad_rows.append(problem.message)


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        content = from_json(path.read_bytes().decode("utf-8-sig") or "[]")
    except UnicodeDecodeError as error:
        raise HoldfastError(f"{path}: not UTF-8 (byte {error.start})", hint="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "one object per line belongs in a .jsonl file" if error.msg == "Extra data" else "the file must be one list of objects"
        raise HoldfastError(f"{path}: broken JSON, {error.msg} at line {error.lineno} column {error.colno}", hint=hint) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise HoldfastError(f"{path}: not a list of objects", hint='the file must be [{"column": value}, ...]')
    return ((row, f"{path}, row {i}") for i, row in enumerate(content, 1))


def _csv_rows(path: Path, bad_rows: list[str] | None) -> Iterator[Row]:
    records = csv_records(path, "\t" if path.suffix == ".tsv" else ",")
    names = records[0].fields if records else []
    for name in names:
        if name and names.count(name) > 1:
            raise HoldfastError(f"{path}: column '{name}' appears twice")
    for record in records[1:]:
        where = f"{path}, row {record.row}"
        try:
            yield _csv_row(names, record.fields, where), where
        except HoldfastError as error:
            if bad_rows is None:
                raise
            bad_rows.append(error.message)


def _csv_row(names: list[str], values: list[str], where: str) -> dict[str, Any]:
    if len(values) > len(names):
        raise HoldfastError(f"{where}: more fields than the header has", hint="quote fields that hold a comma")
    columns: dict[str, Any] = dict(zip(names, values, strict=False))
    if "weight" in columns:
        try:
            columns["weight"] = float(columns["weight"])
        except ValueError:
            raise HoldfastError(f"{where}: weight is '{columns['weight']}', not a number") from None
    return columns


def _from_disk(path: Path) -> Any:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise HoldfastError(
            f"{path}: not a saved dataset folder", hint="make one with Dataset.save_to_disk, or name a file in it"
        ) from error
    return _one_split(found, str(path))


def _from_hub(source: str) -> Any:
    import datasets

    name, _, split = source.partition(":")
    try:
        return _one_split(datasets.load_dataset(name, split=split or None), name)
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise HoldfastError(
            f"{source}: neither a file or folder here nor a data set that could be loaded from the hub ({type(error).__name__})",
            hint="check the spelling; with HF_HUB_OFFLINE=1 only cached data sets can be had",
        ) from error


def _one_split(found: Any, name: str) -> Any:
    if not isinstance(found, dict):
        return found
    if "train" not in found and len(found) != 1:
        raise HoldfastError(f"{name}: splits are {', '.join(found)}, none is 'train'", hint=f"name one: {name}:{next(iter(found))}")
    return found["train"] if "train" in found else next(iter(found.values()))


def _dataset_rows(dataset: Any, name: str) -> Iterator[Row]:
    return ((row, f"{name}, row {i}") for i, row in enumerate(dataset, 1))


def _recognise(source: str, rows: list[Row], layout: str, needs_response: bool) -> str:
    if layout != "auto":
        return layout
    columns = {column for row, _ in rows for column, value in row.items() if value is not None}
    readings = {
        "chat": "messages" in columns,
        "alpaca": {"instruction", "output"} <= columns,
        "pair": "prompt" in columns and bool({"response", "completion"} & columns),
        "text": "text" in columns,
    }
    found = [name for name, fits in readings.items() if fits]
    if not found and "prompt" in columns and not needs_response:
        return "prompt"
    if len(found) == 1:
        return found[0]
    hint = None
    empty = sorted({column for row, _ in rows for column in row if column} - columns)
    if not found and "prompt" in columns:
        hint = "prompts alone can be trained on with --preset prompt-only (response weight 0)"
    elif found:
        hint = f"choose with --layout {' or '.join(found)}"
    elif empty:
        hint = f"null in every row: {', '.join(empty)}"
    kind = "several readings are possible" if found else "no reading fits"
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
            raise HoldfastError(f"{where}: both 'response' and 'completion' are given", hint="keep one of the two columns")
        column = "completion" if row.get("completion") is not None else "response"
        for name in ("prompt", column):
            _check_there(row, name, where)
        if isinstance(row["prompt"], list) and isinstance(row[column], list):
            joined = {"messages": row["prompt"] + row[column]}
            conversation = _conversation(joined, where, needs_response)
            return Example(with_char_weights(conversation, row, where), "chat", where, weight)
        messages = (Message(Role.USER, read_text(row, "prompt", where)), Message(Role.ASSISTANT, read_response(row, column, where)))
    elif layout == "text":
        messages = (Message(Role.ASSISTANT, read_response(row, "text", where)),)
    else:
        messages = (Message(Role.USER, read_response(row, "prompt", where)),)
    return Example(with_char_weights(tuple(messages), row, where), layout, where, weight)


def _conversation(row: dict[str, Any], where: str, needs_response: bool) -> tuple[Message, ...]:
    messages = read_messages(row, "messages", where)
    if needs_response and not any(m.role is Role.ASSISTANT for m in messages):
        raise HoldfastError(f"{where}: no assistant message", hint="add one, or train on prompts alone with --preset prompt-only")
    return messages


def read_messages(row: dict[str, Any], column: str, where: str) -> tuple[Message, ...]:
    """A column that holds a list of {role, content, weight?}.

    Raises:
        HoldfastError: it holds something else, an unknown role, or an assistant's message without text.
    """
    given = row.get(column)
    if not isinstance(given, list) or not given:
        raise HoldfastError(
            f"{where}: '{column}' is {_found(given)}, not a list of messages", hint='[{"role": "user", "content": "..."}, ...]'
        )
    messages = []
    for number, turn in enumerate(given, 1):
        place = f"{where}, message {number}"
        if not isinstance(turn, dict):
            raise HoldfastError(f"{place}: {_found(turn)}, not an object with role and content")
        role = _ROLES.get(str(turn.get("role")))
        if role is None:
            raise HoldfastError(f"{place}: role is {turn.get('role')!r}; allowed: {', '.join(_ROLES)}")
        read = read_response if role is Role.ASSISTANT else read_text
        messages.append(Message(role, read(turn, "content", place), _weight(turn, "weight", place)))
    return tuple(messages)


def read_text(row: dict[str, Any], column: str, where: str) -> str:
    """A column that holds text; a ``HoldfastError`` otherwise."""
    _check_there(row, column, where)
    if not isinstance(row[column], str):
        raise HoldfastError(f"{where}: '{column}' is {_found(row[column])}, not text")
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
        raise HoldfastError(f"{where}: '{column}' is {_found(value)}, not a number")
    return check_weight(float(value), f"'{column}'", where)


def _found(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
