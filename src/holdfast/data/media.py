"""What is not text in a row: images, sounds, videos, files. Such rows are refused by name.

a row as it was read -> nothing, or an error that says where what lies:

    parts of a content   {"type": "image_url", ...}, input_image, video, audio, input_audio, file, ...
    columns, keys        image, audio, ... that hold a path, an address or data; features of ``datasets``
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.errors import HoldfastError

_KINDS = {"image": "an image", "video": "a video", "audio": "a sound", "file": "a file", "document": "a document"}
_PART = re.compile(r"(?:input_|output_)?(image|video|audio|file|document)s?(?:_url|_file|_data)?")
_CONTENTS = ("content", "value", "message")
_COLUMN = re.compile(r"(image|video|audio)s?")
_PATH = re.compile(
    r"data:(?:image|audio|video)/|https?://"
    r"|.*\.(?:png|jpe?g|gif|webp|bmp|tiff?|mp3|wav|flac|ogg|mp4|webm|mov|avi|mkv)$",
    re.IGNORECASE,
)


def refuse_media(row: Any, where: str) -> None:
    """Raise ``HoldfastError`` if a row holds anything but text, with its place; a row that is no object has none."""
    for name, value in row.items() if isinstance(row, Mapping) else ():
        for what in _in_column(str(name), value):
            raise HoldfastError(
                f"{where}: {what}; Holdfast reads text only",
                hint="leave such rows out, or put what it shows or says into words",
            )


def undecoded(dataset: Any) -> Any:
    """Return a data set of ``datasets`` whose pictures and sounds stay bytes, so that none has to be decoded."""
    for name, feature in (getattr(dataset, "features", None) or {}).items():
        if type(feature).__name__ in ("Image", "Audio", "Video") and getattr(feature, "decode", False):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def _in_column(name: str, value: Any) -> Iterator[str]:
    """What is not text in a column: in its own words, or in the messages that it holds."""
    kind = _COLUMN.fullmatch(name)
    for number, item in enumerate(value if isinstance(value, list | tuple) else [value], 1):
        if _is_data(item) or (kind and isinstance(item, str) and _PATH.match(item)):
            yield f"column '{name}' holds {_KINDS[kind[1]] if kind else 'an image, a sound or a file'}"
        elif isinstance(item, Mapping) and isinstance(value, list):
            place = f"message {number}" if name in ("messages", "conversations") else f"message {number} of '{name}'"
            yield from _in_message(item, place)


def _in_message(turn: Mapping[str, Any], place: str) -> Iterator[str]:
    """What is not text in a message, or in a part that stands in the place of one."""
    content = next((turn[key] for key in _CONTENTS if key in turn), None)
    for part in content if isinstance(content, list) else [turn]:
        names = [part["type"]] if isinstance(part, Mapping) and "type" in part else part if part is not turn else []
        for name in names:
            kind = _PART.fullmatch(str(name))
            if kind and (part is not turn or _COLUMN.fullmatch(kind[1])):  # documents are also what a search found
                yield f"{place} holds {_KINDS[kind[1]]} ({name})"
    for key, item in turn.items() if content is not None else ():
        column = _COLUMN.fullmatch(str(key))
        if column and item:
            yield f"{place} holds {_KINDS[column[1]]} ({key})"


def _is_data(value: Any) -> bool:
    """Whether a value is a picture or a sound: bytes, as ``datasets`` has it decoded or not, or of Pillow."""
    module = type(value).__module__
    if isinstance(value, bytes | bytearray) or module.startswith("PIL.") or "torchcodec" in module:
        return True
    return isinstance(value, Mapping) and (
        value.keys() == {"bytes", "path"} or {"array", "sampling_rate"} <= value.keys()
    )
