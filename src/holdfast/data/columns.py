"""Columns that nothing reads: what may change what a model learns is refused, plain metadata is listed.

    says nothing       null, NaN, blank, empty, a list or an object of such values;
                       what a column that is read says already
    plain metadata     a name of _PLAIN; text whose name ends as _ENDINGS;
                       a number or a truth value, unless its name steers (_STEERING)
    refused            everything else: other text, lists and objects (tools, system, history, context, a second
                       answer, ...)

In a message the border is narrower, since chat templates read what they like there: only _PLAIN_IN_MESSAGES is
metadata.
"""

from __future__ import annotations

import datetime
import numbers
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast.data.agent import message_keys
from holdfast.errors import HoldfastError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What says where a row comes from, how it is sorted or how good it is. A template could print none of it without being
# told to.
_PLAIN = _names("""
    id idx index uid uuid guid key hash md5 sha sha256 name title category categories subcategory kind type task tasks
    topic topics subject domain field_of_study tag tags keyword keywords genre difficulty quality score scores rating
    ratings rank toxicity language languages lang locale country source sources data_source dataset datasets corpus
    subset collection origin provenance url urls link uri path file filename file_name file_path repo repository
    repo_name license licence copyright author authors annotator annotators worker creator generator model model_name
    date time timestamp timestamps created added updated modified split fold version revision dump meta metadata
    attributes fields confidence method parallel_tool_calls votes wording held_out_wording fault
""")  # the last line is what `crosstask label` and `pocket` write beside their rows
_ENDINGS = _names("""
    id uid uuid idx index hash url uri link date time timestamp at lang language source dataset license version category
    topic domain type model score rating count length split
""")
_PLAIN_IN_MESSAGES = _names("""
    id uuid idx index turn turn_id turn_index message_id parent_id timestamp time date created created_at updated_at
    create_time language lang country source url model score rating rank length tokens token_count num_tokens toxicity
    metadata meta
""")
_STEERING = _names("""
    weight weights mask masks masked loss train trained training trainable learn learned skip ignore ignored include
    exclude excluded
""")
_PICKING = _names("""
    keep kept drop dropped use used discard discarded delete deleted remove removed select selected pick picked filtered
    supervised enabled disabled label
""")  # as a truth value: whether the row is to be there at all
_CONTENT = _names("""
    tool tools function functions system developer history context reasoning thinking thought thoughts think image
    images audio video videos template generation generate
""")
NOT_USED = "is not used here, and may change what is to be learned"
"""What is said of a column or a key that is refused."""
_SYSTEM = _names("system_prompt system_message system_instruction sys_prompt")
_ANSWERS = _names("answer response completion output target solution")


def unused_columns(
    row: Mapping[str, Any],
    used: Collection[str],
    where: str,
    *,
    listed: Collection[str] = (),
    beside: Collection[str] = (),
    weighted: bool = True,
) -> tuple[str, ...]:
    """The names of the metadata of a row, that of its messages as ``messages.id``.

    Args:
        used: the columns that are read; keys of the messages in them are looked at, too.
        listed: columns that are left out on purpose.
        beside: columns that are read and hold no messages.
        weighted: whether weights of rows and messages are read.

    Raises:
        HoldfastError: a column or a key of a message that is not read may change what is to be learned; it is named.
    """
    read = {*used, *beside, *(("weight", "token_weights") if weighted else ())}
    others = {
        name: value
        for name, value in row.items()
        if not (name in read or blank(value) or (name == "weight" and value == 1))
    }
    texts, values = list(_texts(row, used) if others else ()), [row[column] for column in used if column in row]
    names = [name for name, value in others.items() if not _repeats(value, texts, values)]
    refused = [str(name) for name in names if name not in listed and not _is_metadata(str(name), others[name])]
    if refused:
        raise _refusal(where, "column", refused, _how_to_drop(refused))
    return tuple(map(str, names)) + tuple(dict.fromkeys(_of_messages(row, used, where, weighted)))


def all_unused(items: Iterable[Any]) -> list[str]:
    """Every name in the ``unused`` of some examples or pairs, sorted."""
    return sorted(set[str]().union(*(item.unused for item in items)))


def tell(source: str, names: Collection[str]) -> None:
    """Say on stderr, in one line, which columns of a data source are not used.

    Those of ``pocket`` are our own, and for other readers.
    """
    if names and not source.startswith("pocket:") and os.environ.get("RANK", "0") == "0":  # once, not once per device
        print(f"{source}: columns not used: {', '.join(name or repr(name) for name in names)}", file=sys.stderr)


def _of_messages(row: Mapping[str, Any], used: Collection[str], where: str, weighted: bool) -> Iterator[str]:
    for column in used:
        turns = row.get(column)
        for number, turn in enumerate(turns if isinstance(turns, list) else (), 1):
            place = f"{where}, message {number}" if column == "messages" else f"{where}, message {number} of '{column}'"
            for key, value in turn.items() if isinstance(turn, dict) else ():
                if (
                    key in ("role", "content", *message_keys(turn.get("role"), weighted))
                    or blank(value)
                    or (key == "weight" and (weighted or value == 1))
                ):
                    continue
                if _snake(str(key)) not in _PLAIN_IN_MESSAGES:
                    raise _refusal(place, "key", [str(key)], f"jq -c 'del(.{column}[].{key})' rows.jsonl")
                yield f"{column}.{key}"


def _how_to_drop(names: Sequence[str]) -> str:
    keys, texts = ", ".join(f".{name}" for name in names), ", ".join(f'"{name}"' for name in names)
    texts = f"[{texts}]" if len(names) > 1 else texts
    return f"jq -c 'del({keys})' rows.jsonl, or Dataset.remove_columns({texts}), or in the spreadsheet"


def is_plain(name: str) -> bool:
    """Whether a name is one of metadata, whatever its column holds."""
    return _snake(name) in _PLAIN or _snake(name).endswith("_id")


def _refusal(place: str, what: str, names: Sequence[str], drop: str) -> HoldfastError:
    words = set[str]().union(*map(_words, names)) - ({"weight"} if "weight" in names else set())
    system = next((name for name in names if what == "column" and _snake(name) in _SYSTEM), None)
    if system:
        hint = f"--columns system={system} makes it the system message; or drop it: {drop}"
    elif words & (_STEERING | _PICKING):
        hint = f"a 'weight' of 0, on a row or a message, leaves out what is not to be learned; or drop it: {drop}"
    else:
        hint = f"put what it says into a text that is read, or drop it: {drop}"
    if len(names) > 1:
        listed = ", ".join(f"'{name}'" for name in names)
        return HoldfastError(f"{place}: {what}s {listed} {NOT_USED.replace('is', 'are', 1)}", hint=hint)
    return HoldfastError(f"{place}: {what} '{names[0]}' {NOT_USED}", hint=hint)


def _is_metadata(name: str, value: Any) -> bool:
    words = _words(name)
    if name == "weight":  # only where weights are not read
        return False
    if _snake(name) in _PLAIN:
        return True
    if _is_truth(value):
        return not words & (_STEERING | _CONTENT | _PICKING)
    if _is_number(value):
        return not words & _STEERING and _snake(name) not in _ANSWERS
    return isinstance(value, str) and _snake(name).rpartition("_")[2] in _ENDINGS and not words & (_STEERING | _CONTENT)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_number(value: Any) -> bool:
    """Also as text, which is all that a CSV file has; and what Parquet files have of times."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, numbers.Number | datetime.date | datetime.time | datetime.timedelta)


def blank(value: Any) -> bool:
    """Columns of Parquet files are filled up with null, and those of a struct with its parts as null."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(map(blank, value.values()))
    return isinstance(value, list | tuple) and all(map(blank, value))


def _texts(row: Mapping[str, Any], used: Collection[str]) -> Iterator[str]:
    """What is read: texts, and the contents of messages."""
    for column in used:
        value = row.get(column)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text.strip()


def _repeats(value: Any, texts: Iterable[str], values: Iterable[Any]) -> bool:
    """Whether a column repeats one that is read.

    It may hold the same messages, the text of one of them, or how one ends (its answer).
    """
    if not isinstance(value, str):
        return isinstance(value, list) and any(value == other for other in values)
    ending = value.strip()
    return any(text.endswith(ending) and not text[: -len(ending)][-1:].isalnum() for text in texts)


def _snake(name: str) -> str:
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()


def _words(name: str) -> set[str]:
    return set(_snake(name).split("_"))
