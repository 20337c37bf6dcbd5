"""The one family of errors that a user can cause. The command prints them without a traceback and exits with code 2."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any


class HoldfastError(Exception):
    """Bad input: says what was given and what is allowed, names the file and row, and hints at the way out.

    Args:
        message: what was found, where, and what is allowed.
        hint: what to do next, one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class DivergedError(HoldfastError):
    """A training whose loss is no number any more: it would end so again, and most likely with other seeds, too."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the known name nearest to an unknown one, or None if there is none near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else None


def from_json(text: str) -> Any:
    """``json.loads`` with one kind of error, ``json.JSONDecodeError``: also for nesting too deep and numbers of thousands of digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(str(error).partition(";")[0], text, 0) from error


def whole_text(text: str, where: str) -> str:
    """Text that UTF-8 can hold, which is all that tokenizers take; a ``HoldfastError`` otherwise."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HoldfastError(
            f"{where} holds half of a surrogate pair (character {error.start + 1})", hint="save it as whole characters, UTF-8"
        ) from None
    return text
