"""Files, folders and names -> rows, each with its place.

What a parser, a codec or a library raises becomes a ``HoldfastError`` here.

    JSONL, JSON, CSV, TSV, Parquet, text  a file, by its suffix, packed or not (``files``)
    folders, globs, splits                see ``sources``
    the name of a data set of the hub     ``name`` or ``name:split``
    pocket:NAME                           the rows that come with Holdfast

Rows may be broken in many ways (cut, not UTF-8, nested too deep, numbers of thousands of digits, half a character, a
quote that is never closed): each is an error with file and row. YAML files are read here, too: no key twice, no value
that its tag does not fit.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from holdfast.data.files import KINDS, PACKED, check_utf8, csv_records, kind_of, lines_of, say, text_of
from holdfast.data.media import refuse_media, undecoded
from holdfast.data.sources import HELD_OUT, files_of, sources_of, split_names, tell_unread
from holdfast.data.yaml_errors import broken_yaml
from holdfast.errors import HoldfastError, from_json, set_aside, whole_text

Row = tuple[dict[str, Any], str]
"""Columns of a row and its place, such as ``data.jsonl, row 3``."""

_CONVERSATIONS = ("messages", "conversations")  # a JSON object that holds one of them is a row
_ODD = re.compile(rb"\\u[dD][89a-fA-F]|\d{309}")


def read_rows(source: str, bad_rows: list[str] | None = None) -> Iterator[Row]:
    """The rows of a data source as they stand there, whatever their columns.

    Args:
        source: see ``holdfast.data.sources``.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    tell_unread(source)
    files = files_of(source)
    return chain.from_iterable(_single_rows(file, bad_rows) for file in files)


def _single_rows(source: str, bad_rows: list[str] | None) -> Iterator[Row]:
    if source.startswith("pocket:"):
        return _pocket_rows(source)
    path = Path(source)
    if path.exists() and not path.is_dir():
        return _file_rows(path, bad_rows)
    folder, _, split = source.rpartition(":")
    if path.is_dir() or not folder:
        folder, split = source, ""
    if not Path(folder).is_dir() and (kind_of(path) in KINDS or source.startswith((".", "/", "~"))):
        raise HoldfastError(f"{source}: no such file or folder", hint="paths are relative to the current directory")
    return dataset_rows(open_dataset(folder, split or None), source)


def read_values(source: str, *, objects: bool = True, hint: str | None = None) -> list[tuple[Any, str]]:
    """Return all rows of one file, saved dataset folder or ``pocket:...``, each with its place.

    So the wings read what people write by hand.

    A suffix that says nothing means JSONL, and a ``.json`` file may hold JSONL. Blank cells of a CSV file are not
    there.

    Args:
        objects: whether every row must be an object; otherwise it may be any JSON value.
        hint: what to do if there is no such file.

    Raises:
        HoldfastError: names file and row.
    """
    if source.startswith("pocket:"):
        return list(_pocket_rows(source))
    path = Path(source)
    if not path.exists():
        raise HoldfastError(f"{source}: no such file", hint=hint)
    rows: list[tuple[Any, str]]
    rows = list(read_rows(source) if path.is_dir() else _file_rows(path, None, objects=objects, plain=".jsonl"))
    for row, where in rows:
        refuse_media(row, where)
    if path.is_dir() or kind_of(path) not in (".csv", ".tsv"):
        return rows
    for row, _ in rows:
        for blank in [name for name, value in row.items() if value == ""]:
            del row[blank]
    return rows


def load_rows(source: str) -> list[dict[str, Any]]:
    """The rows of ``read_rows`` without their places."""
    return [row for row, _ in read_rows(source)]


def source_digest(source: str | Sequence[str] | None) -> str | None:
    """SHA-256 of the data files, so that a run notices when they have changed; other sources stand for themselves."""
    if source is None:
        return source
    files = [file for single in sources_of(source) for file in files_of(single)]
    digests = [_file_digest(file) if Path(file).is_file() else file for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_digest(file: str) -> str:
    try:
        with Path(file).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise HoldfastError(f"{file}: cannot be read ({error.strerror})") from error


def read_yaml(path: Path, place: str = "", hint: str | None = None) -> Any:
    """What a YAML file holds; in no mapping is a key given twice.

    Args:
        place: what the file is called in errors, by default its path.
        hint: what to do if it cannot be opened.

    Raises:
        HoldfastError: it cannot be opened, is broken, or holds a value that its tag does not fit.
    """
    place = place or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HoldfastError(f"{place}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise HoldfastError(
            f"{place}: broken YAML: not UTF-8 (byte {error.start})", hint="save the file as UTF-8"
        ) from error
    return from_yaml(text, place)


def from_yaml(text: str, place: str) -> Any:
    """As ``read_yaml``, for text."""
    import yaml

    try:
        return yaml.load(text, _yaml_loader())
    except yaml.MarkedYAMLError as error:
        raise broken_yaml(text, place, error) from error
    # of a value and its tag: AttributeError for `!!timestamp x`, ValueError for `!!int x`, RecursionError, ...
    except Exception as error:
        reason = (
            f"a value does not fit its tag ({error})"
            if isinstance(error, AttributeError | KeyError | TypeError)
            else str(error)
        )
        raise HoldfastError(f"{place}: broken YAML: {reason.partition(chr(10))[0]}") from error


def open_dataset(source: str, split: str | None = None, folder: Path = Path()) -> Any:
    """A saved data set in ``folder``, or one of the hub.

    Args:
        split: which one; None takes the only one, or ``train``.

    Raises:
        HoldfastError: there is none of that name, it is damaged, or it has no such split.
    """
    import datasets

    path = folder / source
    try:
        saved = path.is_dir()
        data = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(source, split=split)
    except FileNotFoundError as error:
        if path.is_dir():
            hint = "make one with Dataset.save_to_disk, or name a file in it"
            raise HoldfastError(f"{path}: not a saved dataset folder, or not a whole one", hint=hint) from error
        raise _not_on_the_hub(source, folder, error) from error
    # of a dozen unrelated types: of the hub client, of pyarrow, KeyError of a state.json that lacks its keys
    except Exception as error:
        if path.is_dir():
            raise HoldfastError(
                f"{path}: a saved dataset folder that cannot be read ({_reason(error)})", hint="save it anew"
            ) from error
        raise _not_on_the_hub(source, folder, error) from error
    if not isinstance(data, dict):
        return data
    if split is None and ("train" in data or len(data) == 1):
        name = "train" if "train" in data else next(iter(data))
        others = [str(other) for other in data if other != name]
        if others:
            are = "is" if len(others) == 1 else "are"
            say(f"{path if saved else source}: split '{name}' is read; {', '.join(others)} {are} not")
        return data[name]
    if split not in data:
        kind = "none is 'train'" if split is None else f"none is '{split}'"
        advice = f"name one: {source}:{next(iter(data), '')}"
        raise HoldfastError(f"{path if saved else source}: splits are {', '.join(map(str, data))}, {kind}", hint=advice)
    return data[split]


def with_held_out(source: str) -> tuple[str, str | None]:
    """Return a source as it is trained on, and the split of it that is held out: (``x:train``, ``x:validation``).

    A source that names its split, or has but one, is its own, and nothing of it is held out. A note says what is read.
    """
    names = split_names(source)
    if names is None:
        names = _splits_on_the_hub(source)
    held_out = next((name for name in HELD_OUT if name in names), None)
    if "train" not in names or held_out is None:
        return source, None
    tell_unread(source, held_out)
    others = [name for name in names if name not in ("train", held_out)]
    unread = f"; {', '.join(others)} {'is' if len(others) == 1 else 'are'} not read" if others else ""
    say(
        f"{source}: split 'train' is trained on, and split '{held_out}' is the held-out data{unread} "
        "(--eval-data names other held-out data)"
    )
    return f"{source}:train", f"{source}:{held_out}"


def _splits_on_the_hub(name: str) -> list[str]:
    """Return the names of the splits of a data set of the hub; none where it cannot be had or has but one."""
    import datasets

    try:
        data = datasets.load_dataset(name)
    except Exception:  # of a dozen unrelated types; reading it will say what is wrong
        return []
    return [str(split) for split in data] if isinstance(data, dict) else []


def dataset_rows(dataset: Any, name: str) -> Iterator[Row]:
    """The rows of a data set of ``datasets``; a file that was cut shows only here."""
    number, rows = 0, None
    dataset = undecoded(dataset)
    while True:
        number += 1
        try:
            rows = iter(dataset) if rows is None else rows
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # of pyarrow, of a decoder of pictures, ...
            raise HoldfastError(f"{name}, row {number}: cannot be read ({_reason(error)})") from error
        yield row, f"{name}, row {number}"


def _pocket_rows(source: str) -> Iterator[Row]:
    from holdfast import pocket

    return ((row, f"{source}, row {i}") for i, row in enumerate(pocket.rows(source), 1))


def _file_rows(path: Path, bad_rows: list[str] | None, *, objects: bool = True, plain: str = "") -> Iterator[Row]:
    """``plain``: the suffix of files whose own says nothing; with it a .json file may hold one value per line."""
    suffix = kind_of(path)
    if plain and (suffix not in KINDS or suffix == ".txt"):
        suffix = plain
    if suffix == ".parquet":
        return dataset_rows(_parquet(path), path.name)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, lines_of(path), bad_rows, objects)
    if suffix == ".json":
        return _json_rows(path, bad_rows, objects, lines_too=bool(plain))
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, bad_rows)
    if suffix == ".txt":
        return _text_rows(path, bad_rows)
    hint = "save the sheet as CSV" if suffix in (".xlsx", ".xls", ".ods") else None
    kinds = f"{', '.join(KINDS)}, and these packed ({', '.join(PACKED)})"
    raise HoldfastError(f"{path}: unknown kind of file '{path.suffix}'; known: {kinds}", hint=hint)


def _parquet(path: Path) -> Any:
    import datasets

    try:
        return datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # of pyarrow or of datasets, by version
        raise HoldfastError(f"{path}: not a Parquet file that can be read ({_reason(error)})") from error


def _json_lines(path: Path, lines: Iterator[bytes], bad_rows: list[str] | None, objects: bool) -> Iterator[Row]:
    for number, raw in enumerate(lines, 1):
        where = f"{path}, row {number}"
        row = _BLANK
        with set_aside(bad_rows):
            row = _json_line(raw, where, "utf-8-sig" if number == 1 else "utf-8", objects)
        if row is not _BLANK:
            yield row, where


_BLANK = object()


def _json_line(raw: bytes, where: str, encoding: str, objects: bool) -> Any:
    try:
        line = raw.decode(encoding).strip()
        row = from_json(line, unique=True) if line else _BLANK
    except UnicodeDecodeError as error:
        place = f"{where}: not UTF-8 (byte {error.start}: {raw[error.start]:#04x})"
        raise HoldfastError(f"{place}, cannot be read", hint="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "each line must be one JSON object" if objects else "JSONL has one JSON value per line"
        raise HoldfastError(f"{where}: broken JSON, {error.msg} at column {error.colno}", hint=hint) from error
    return row if row is _BLANK else _checked(row, where, objects, _ODD.search(raw) is not None)


def _json_rows(path: Path, bad_rows: list[str] | None, objects: bool, lines_too: bool) -> Iterator[Row]:
    content = b"".join(lines_of(path))
    try:
        rows = from_json(content.decode("utf-8-sig") or "[]", unique=True)
    except UnicodeDecodeError as error:
        raise HoldfastError(f"{path}: not UTF-8 (byte {error.start})", hint="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        if lines_too and error.msg == "Extra data" and not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            return _json_lines(path, iter(content.split(b"\n")), bad_rows, objects)
        hint = (
            "one object per line belongs in a .jsonl file"
            if error.msg == "Extra data"
            else "the file must be one list of objects"
        )
        raise HoldfastError(
            f"{path}: broken JSON, {error.msg} at line {error.lineno} column {error.colno}", hint=hint
        ) from error
    rows = _listed(rows, path)
    if lines_too and objects and isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list) or (
        objects and not lines_too and not any(isinstance(row, dict) for row in rows or [{}])
    ):
        hint = 'the file must be [{"column": value}, ...]'
        raise HoldfastError(f"{path}: not a list of objects; a list is needed, not {type(rows).__name__}", hint=hint)
    places = ((row, f"{path}, row {number}") for number, row in enumerate(rows, 1))
    odd = _ODD.search(content) is not None
    return _checked_rows(places, bad_rows, objects, odd)


def _listed(content: Any, path: Path) -> Any:
    """Return the list under ``data``, or the only list of objects in a JSON object; a note names what else is there."""
    if not isinstance(content, dict):
        return content
    lists = [
        name for name, value in content.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if "data" not in lists and (len(lists) != 1 or lists[0] in _CONVERSATIONS):
        return content
    name = "data" if "data" in lists else lists[0]
    others = ", ".join(other for other in content if other != name)
    say(f"{path}: the rows are those of '{name}'" + (f"; not read: {others}" if others else ""))
    return content[name]


def _checked_rows(
    places: Iterator[tuple[Any, str]], bad_rows: list[str] | None, objects: bool, odd: bool
) -> Iterator[Row]:
    for row, where in places:
        with set_aside(bad_rows):
            yield _checked(row, where, objects, odd), where


def _checked(row: Any, where: str, objects: bool, odd: bool) -> Any:
    """A row of JSON that is what it must be; ``odd``: whether half a character or an endless number may be in it."""
    if objects and not isinstance(row, dict):
        raise HoldfastError(
            f"{where}: a {type(row).__name__}, not an object", hint='each line is one object {"column": value}'
        )
    if odd:
        for name, value in row.items() if isinstance(row, dict) else [("the row", row)]:
            _check_whole(name, f"{where}: a name of a column")
            _check_whole(value, f"{where}: {name!r}" if isinstance(row, dict) else f"{where}: {name}")
    return row


def _check_whole(value: Any, where: str) -> None:
    """Every text and number in a nested value: what UTF-8 and floats can hold."""
    if isinstance(value, str):
        whole_text(value, where)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        raise HoldfastError(
            f"{where} holds a number of {len(str(abs(value)))} digits", hint="numbers have at most 308 digits"
        )
    for part in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_whole(part, where)


def _csv_rows(path: Path, bad_rows: list[str] | None) -> Iterator[Row]:
    records, _ = csv_records(path, bad_rows)
    names = records[0].fields if records else []
    for name in names:
        if name and names.count(name) > 1:
            raise HoldfastError(f"{path}: column '{name}' appears twice")
    for record in records[1:]:
        where = f"{path}, row {record.row}"
        if not "".join(record.fields).strip() and len(record.fields) > 1:
            continue  # spreadsheets write their empty rows as separators alone
        with set_aside(bad_rows):
            yield _csv_row(names, record.fields, where), where


def _text_rows(path: Path, bad_rows: list[str] | None) -> Iterator[Row]:
    """One row per line that is not blank, as the text files of ``datasets`` are read."""
    lines = text_of(path).splitlines()
    count = sum(bool(line.strip()) for line in lines)
    say(f"{path}: its one line is a row" if count == 1 else f"{path}: each of its {count:,} lines is a row")
    for number, line in enumerate(lines, 1):
        where = f"{path}, row {number}"
        with set_aside(bad_rows):
            if line.strip():
                yield {"text": check_utf8(line, where)}, where


def _csv_row(names: list[str], values: list[str], where: str) -> dict[str, Any]:
    if "".join(values[len(names) :]).strip():
        raise HoldfastError(f"{where}: more fields than the header has", hint="quote fields that hold the separator")
    columns: dict[str, Any] = dict(zip(names, values, strict=False))
    if "weight" in columns:
        try:
            columns["weight"] = float(columns["weight"])
        except ValueError:
            raise HoldfastError(f"{where}: weight is '{columns['weight']}', not a number") from None
    return columns


def _not_on_the_hub(source: str, folder: Path, error: Exception) -> HoldfastError:
    place = "here" if folder == Path() else f"in {folder}"
    return HoldfastError(
        f"{source}: neither a file or folder {place} nor a data set that could be loaded from the hub "
        f"({type(error).__name__})",
        hint="check the spelling; with HF_HUB_OFFLINE=1 only cached data sets can be had",
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def _yaml_loader() -> Any:
    """Return a loader of YAML that refuses a key given twice, and a number too large for a float.

    PyYAML alone would take the last of two keys without a word.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"'{key.value}' is there twice", key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            return node

        def construct_yaml_int(self, node: Any) -> Any:
            value = super().construct_yaml_int(node)
            if abs(value) > sys.float_info.max:
                raise yaml.constructor.ConstructorError(None, None, "a number too large", node.start_mark)
            return value

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    return Loader
