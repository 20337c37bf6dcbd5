"""Bytes of files: packed ones are unpacked, texts are decoded, CSV is parted into records.

.gz, .bz2, .xz, .zst      unpacked on the way
text                      UTF-8, with or without BOM; UTF-16 with its BOM; else cp1252, and a note says so
CSV                       the separator is the one that the header holds: comma, semicolon or tab
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError, set_aside

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
PACKED = (".gz", ".bz2", ".xz", ".zst")
_LONGEST = 2**31 - 1  # the largest limit that the csv module takes on every platform: a C long has 32 bits on Windows
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class Record(NamedTuple):
    """``row`` counts records that are not blank, the header being 0; ``line`` is where it begins in the file."""

    row: int
    line: int
    fields: list[str]


def kind_of(path: Path) -> str:
    """Return the suffix that says what a file holds: that of ``a.jsonl.gz`` is ``.jsonl``."""
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()


def say(note: str) -> None:
    """Print a note on stderr: once, not once per device."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {note}", file=sys.stderr)


def lines_of(path: Path) -> Iterator[bytes]:
    """Return the lines of a file, unpacked.

    Raises:
        HoldfastError: it cannot be read, or what is packed is cut or damaged.
    """
    try:
        with _opened(path) as file:
            yield from file
    # gzip: BadGzipFile (an OSError), EOFError, zlib.error; lzma: LZMAError, EOFError; zstd: OSError or ValueError
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "unpack it by hand to see how much of it is whole" if path.suffix.lower() in PACKED else None
        raise HoldfastError(f"{path}: cannot be read ({reason})", hint=hint) from error


def _opened(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(suffix, open)(path, "rb")


def text_of(path: Path) -> str:
    """Return the text of a file; bytes that UTF-8 does not have stay in it as half surrogates.

    A note names the encoding where it is not UTF-8.

    Raises:
        HoldfastError: it cannot be read, or is in no encoding that we know.
    """
    content = b"".join(lines_of(path))
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            if encoding == "utf-16":
                say(f"{path}: read as UTF-16")
            return _strictly(path, content, encoding) if encoding == "utf-16" else _utf8(content[len(mark) :])
    text = _utf8(content)
    if not _NOT_UTF8.search(text):
        return text
    if b"\0" in content:
        raise HoldfastError(f"{path}: neither UTF-8 nor another text that we know", hint="save the file as UTF-8")
    if any(ord(character) > 127 for character in _NOT_UTF8.sub("", text)):
        return text  # a UTF-8 file with damage: its rows are named
    text = _strictly(path, content, "cp1252")
    say(f"{path}: not UTF-8; read as cp1252 (Windows). If letters are wrong, save the file as UTF-8")
    return text


def _utf8(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _strictly(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise HoldfastError(
            f"{path}: not UTF-8, and not {encoding} either (byte {error.start}: {content[error.start]:#04x})",
            hint="save the file as UTF-8",
        ) from error


def check_utf8(text: str, where: str) -> str:
    """Return a text of ``text_of`` if all of its bytes were UTF-8.

    Raises:
        HoldfastError: one was not.
    """
    wrong = _NOT_UTF8.search(text)
    if wrong:
        byte = ord(wrong.group()) - 0xDC00
        raise HoldfastError(f"{where}: not UTF-8 (byte {byte:#04x})", hint="save the file as UTF-8")
    return text


def csv_records(path: Path, bad_rows: list[str] | None = None) -> tuple[list[Record], str]:
    """Return every record of a CSV file, the header first, and the separator of its fields.

    Quotes within a field that does not begin with one are characters like any other. Quoted fields may hold line
    breaks and be of any length.

    Args:
        bad_rows: collects the messages of records that are broken, and reading goes on in the line after the one in
            which such a record begins; None raises at the first one.

    Raises:
        HoldfastError: not to be read, or a quoted field that does not end, with the row in which it begins.
    """
    before = csv.field_size_limit(_LONGEST)
    try:
        lines = list(io.StringIO(text_of(path), newline=""))
        first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
        named = re.fullmatch(r"sep=([,;\t])\s*", lines[first]) if first < len(lines) else None  # as Excel writes it
        separator = named.group(1) if named else _separator(lines[first:], path)
        return _records(path, lines, first + bool(named), separator, bad_rows), separator
    finally:
        csv.field_size_limit(before)


def _separator(lines: list[str], path: Path) -> str:
    """Return what parts the header's fields; of several that could, the one by which the first rows fit the header."""
    candidates = "\t,;" if kind_of(path) == ".tsv" else ",;\t"
    header = _first_records(lines, candidates[0], 1)
    possible = [c for c in candidates if any(len(fields) > 1 for fields in _first_records(lines, c, 1))]
    if len(possible) < 2 or not header:
        return (possible or candidates)[0]
    return max(possible, key=lambda c: (_evenness(_first_records(lines, c, 100)), -candidates.index(c)))


def _first_records(lines: list[str], separator: str, count: int) -> list[list[str]]:
    records: list[list[str]] = []
    with contextlib.suppress(csv.Error, StopIteration):
        reader = csv.reader(lines, delimiter=separator, strict=True)
        while len(records) < count:
            fields = next(reader)
            if fields:
                records.append(fields)
    return records


def _evenness(records: list[list[str]]) -> float:
    """Return the share of the records that have as many fields as the header."""
    return sum(len(fields) == len(records[0]) for fields in records) / len(records) if records else 0.0


def _records(path: Path, lines: list[str], start: int, separator: str, bad_rows: list[str] | None) -> list[Record]:
    records: list[Record] = []
    row = 0
    while start < len(lines):
        reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=separator, strict=True)
        line = start
        try:
            for fields in _checked(reader, path, row, start):
                if fields:
                    with set_aside(bad_rows if row else None):
                        check_utf8("\0".join(fields), f"{path}, row {row}")
                        records.append(Record(row, line + 1, fields))
                    row += 1
                line = start + reader.line_num
            return records
        except HoldfastError as error:
            if bad_rows is None or row == 0:
                raise
            bad_rows.append(f"{error.message}; reading went on in line {line + 2}")
        row += 1
        start = line + 1
    return records


def _checked(reader: Any, path: Path, row: int, start: int) -> Iterator[list[str]]:
    """Return the fields of each record; what is broken is named by row and line."""
    line = start
    while True:
        place = f"{path}, row {row} (line {line + 1})" if row else f"{path}, header"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "expected after" not in str(error) and "end of data" not in str(error):
                raise HoldfastError(f"{place}: broken CSV ({error})") from error
            last = start + reader.line_num
            closed = f"ends in line {last}, before more text" if "expected after" in str(error) else "never ends"
            raise HoldfastError(
                f"{place}: a quoted field begins there and {closed}",
                hint='close the quote; within quotes, a quote is written twice ("")',
            ) from error
        yield fields
        row += bool(fields)
        line = start + reader.line_num
