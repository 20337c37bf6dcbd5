"""Files, folders and names -> rows, each with its place.

What a parser, a codec or a library raises becomes a ``HoldfastError`` here.

    JSONL, JSON, CSV, TSV, Parquet        a file, by its suffix
    a folder of Dataset.save_to_disk      and the name of a data set of the hub (``name`` or ``name:split``)
    pocket:NAME                           the rows that come with Holdfast

Rows may be broken in many ways (cut, not UTF-8, nested too deep, numbers of thousands of digits, half a character, a
quote that is never closed): each is an error with file and row. YAML files are read here, too: no key twice, no value
that its tag does not fit.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError, from_json, set_aside, whole_text

Row = tuple[dict[str, Any], str]
"""Columns of a row and its place, such as ``data.jsonl, row 3``."""

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_ODD = re.compile(rb"\\u[dD][89a-fA-F]|\d{309}")
_LONGEST = 2**31 - 1  # the largest limit that the csv module takes on every platform: a C long has 32 bits on Windows


class Record(NamedTuple):
    """``row`` counts records that are not blank, the header being 0; ``line`` is where it begins in the file."""

    row: int
    line: int
    fields: list[str]


def read_rows(source: str, bad_rows: list[str] | None = None) -> Iterator[Row]:
    """The rows of a data source as they stand there, whatever their columns.

    Args:
        source: file, saved dataset folder, hub name (``name`` or ``name:split``), or ``pocket:...``.
        bad_rows: collects the messages of bad rows; None raises at the first one.

    Raises:
        HoldfastError: names file and row, what was found, what is allowed.
    """
    if source.startswith("pocket:"):
        return _pocket_rows(source)
    path = Path(source)
    if path.exists() and not path.is_dir():
        return _file_rows(path, bad_rows)
    if path.suffix in _SUFFIXES or source.startswith((".", "/", "~")):
        if not path.is_dir():
            raise HoldfastError(f"{source}: no such file or folder", hint="paths are relative to the current directory")
        return dataset_rows(open_dataset(source), source)
    name, _, split = source.partition(":")
    return dataset_rows(open_dataset(source) if path.is_dir() else open_dataset(name, split or None), source)


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
    if path.is_dir():
        return list(dataset_rows(open_dataset(source), source))
    rows: list[tuple[Any, str]] = list(_file_rows(path, None, objects=objects, plain=".jsonl"))
    if path.suffix not in (".csv", ".tsv"):
        return rows
    for row, _ in rows:
        for blank in [name for name, value in row.items() if value == ""]:
            del row[blank]
    return rows


def load_rows(source: str) -> list[dict[str, Any]]:
    """The rows of ``read_rows`` without their places."""
    return [row for row, _ in read_rows(source)]


def source_digest(source: str | None) -> str | None:
    """SHA-256 of a data file, so that a run notices when it has changed; other sources stand for themselves."""
    if source is None or not Path(source).is_file():
        return source
    try:
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HoldfastError(f"{source}: cannot be read ({error.strerror})") from error


def csv_records(path: Path, delimiter: str = ",") -> list[Record]:
    """Every record of a CSV file, the header first.

    Quotes within a field that does not begin with one are characters like any other. Quoted fields may hold line
    breaks.

    Raises:
        HoldfastError: not to be read, not UTF-8, or a quoted field that does not end, with the row in which it begins.
    """
    before = csv.field_size_limit(_LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _records(path, csv.reader(file, delimiter=delimiter, strict=True))
    except OSError as error:
        raise HoldfastError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HoldfastError(
            f"{path}: not a CSV file in UTF-8: not UTF-8 (byte {error.start})", hint="save the file as UTF-8"
        ) from error
    finally:
        csv.field_size_limit(before)


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
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise HoldfastError(f"{place}{line}: broken YAML: {error.problem or error.context}") from error
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
        others = ", ".join(str(other) for other in data if other != name)
        if others and os.environ.get("RANK", "0") == "0":  # once, not once per device
            print(f"note: {path if saved else source}: split '{name}' is read; {others} are not", file=sys.stderr)
        return data[name]
    if split not in data:
        kind = "none is 'train'" if split is None else f"none is '{split}'"
        advice = None if saved else f"name one: {source}:{next(iter(data), '')}"
        raise HoldfastError(f"{path if saved else source}: splits are {', '.join(map(str, data))}, {kind}", hint=advice)
    return data[split]


def dataset_rows(dataset: Any, name: str) -> Iterator[Row]:
    """The rows of a data set of ``datasets``; a file that was cut shows only here."""
    number, rows = 0, None
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
    suffix = path.suffix if path.suffix in _SUFFIXES or not plain else plain
    if suffix == ".parquet":
        return dataset_rows(_parquet(path), path.name)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path, _lines(path), bad_rows, objects)
    if suffix == ".json":
        return _json_rows(path, bad_rows, objects, lines_too=bool(plain))
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, bad_rows)
    raise HoldfastError(f"{path}: unknown kind of file '{path.suffix}'; known: {', '.join(_SUFFIXES)}")


def _parquet(path: Path) -> Any:
    import datasets

    try:
        return datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # of pyarrow or of datasets, by version
        raise HoldfastError(f"{path}: not a Parquet file that can be read ({_reason(error)})") from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise HoldfastError(f"{path}: cannot be read ({error.strerror})") from error


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
    content = b"".join(_lines(path))
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
    records = csv_records(path, "\t" if path.suffix == ".tsv" else ",")
    names = records[0].fields if records else []
    for name in names:
        if name and names.count(name) > 1:
            raise HoldfastError(f"{path}: column '{name}' appears twice")
    for record in records[1:]:
        where = f"{path}, row {record.row}"
        with set_aside(bad_rows):
            yield _csv_row(names, record.fields, where), where


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


def _records(path: Path, reader: Any) -> list[Record]:
    records: list[Record] = []
    line = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return records
        except csv.Error as error:
            place = f"{path}, row {len(records)} (line {line})" if records else f"{path}, header"
            closed = (
                f"ends in line {reader.line_num}, before more text" if "expected after" in str(error) else "never ends"
            )
            if "expected after" not in str(error) and "end of data" not in str(error):
                raise HoldfastError(f"{place}: broken CSV ({error})") from error
            raise HoldfastError(
                f"{place}: a quoted field begins there and {closed}",
                hint='close the quote; within quotes, a quote is written twice ("")',
            ) from error
        if fields:
            records.append(Record(len(records), line, fields))
        line = reader.line_num + 1


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
