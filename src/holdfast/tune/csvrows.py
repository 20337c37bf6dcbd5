"""CSV files -> records, each with its place. What opens a quote and does not close it is an error, not a field of many rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError

_LONGEST = 2**31 - 1  # the largest limit that the csv module takes on every platform: a C long has 32 bits on Windows


class Record(NamedTuple):
    """``row`` counts records that are not blank, the header being 0; ``line`` is where it begins in the file."""

    row: int
    line: int
    fields: list[str]


def csv_records(path: Path, delimiter: str = ",") -> list[Record]:
    """Every record of a CSV file, the header first.

    Quotes within a field that does not begin with one are characters like any other. Quoted fields may hold line breaks.

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
        raise HoldfastError(f"{path}: not a CSV file in UTF-8: not UTF-8 (byte {error.start})", hint="save the file as UTF-8") from error
    finally:
        csv.field_size_limit(before)


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
            closed = f"ends in line {reader.line_num}, before more text" if "expected after" in str(error) else "never ends"
            if "expected after" not in str(error) and "end of data" not in str(error):
                raise HoldfastError(f"{place}: broken CSV ({error})") from error
            raise HoldfastError(
                f"{place}: a quoted field begins there and {closed}", hint='close the quote; within quotes, a quote is written twice ("")'
            ) from error
        if fields:
            records.append(Record(len(records), line, fields))
        line = reader.line_num + 1
