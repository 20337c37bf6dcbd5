"""The one family of errors that a user can cause, and the exit codes of the command.

The command prints such an error without a traceback and exits with its code.

API keys must never reach a message or a file: ``redacted`` removes them from text, ``redacted_values`` from data that
is written as JSON.
"""

from __future__ import annotations

import contextlib
import difflib
import enum
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

REDACTED = "***"
KEY_VARIABLES = ("HOLDFAST_API_KEY", "OPENAI_API_KEY")
"""The environment variables whose keys Holdfast itself sends to servers."""
_OTHER_KEYS = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_SECRET_ACCESS_KEY|_PASSWORD)$")
_NO_KEYS = {"none", "null", "empty", "dummy"}  # what people put where a server wants no key
_USER = re.compile(r"(?<=://)(?:[^\s/?#]+|[^\s/?#:@]+:(?!\d+(?:[/?#]|$))[^\s@]+)@")
_WORD = (
    r"key|apikey|accesskey|token|accesstoken|secret|sig|signature|password|passwd|pwd|auth|authorization|credentials?"
    r"|jwt"
)
_QUERY = re.compile(
    rf"([?&;#](?:[\w.~%-]*[_.~%-])?(?:{_WORD})=)[^&#\s\"'<>]*?(?=[:;,.)]*(?:[&#\s\"'<>]|$))", re.IGNORECASE
)
_BEARER = re.compile(r"(\b(?:Bearer|Basic)\s+)(?=[^\s\"',]*[\d=_-])[^\s\"',]+")
_NAMED = re.compile(
    r"(\b(?:hub[_-]token|push_to_hub_token|api[_-]key|access[_-]token|auth[_-]token)[\"']?[\s:=]+[\"']?)"
    r"(?=[\w.-]*\d)[\w.-]{6,}"
)
_FIELDS = {"hub_token", "push_to_hub_token", "api_key", "access_token", "auth_token", "password", "secret"}


class ExitCode(enum.IntEnum):
    """How a command ends; docs/exit-codes.md says which command gives which."""

    FINE = 0
    NO = 1
    BAD_INPUT = 2
    NOT_COMPARABLE = 3
    UNDECIDED = 4
    FAULT = 70
    INTERRUPTED = 130
    NO_READER = 141
    TERMINATED = 143


class HoldfastError(Exception):
    """Bad input. The message says what was given and what is allowed and names the file and row; the hint says how to
    mend it.

    Args:
        message: the offending value, its place, and what is allowed instead.
        hint: what to do next, one sentence.

    >>> import holdfast
    >>> try:
    ...     holdfast.train(model="pocket", promt_weight=0.2)
    ... except holdfast.HoldfastError as error:
    ...     print(error)
    TuneConfig from keywords: unknown key 'promt_weight'
      hint: did you mean 'prompt_weight'?
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = redacted(message)
        self.hint = None if hint is None else redacted(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class NotComparableError(HoldfastError):
    """Two runs measured different things."""

    exit_code = ExitCode.NOT_COMPARABLE


class DivergedError(HoldfastError):
    """A training whose loss became NaN or infinite. Running it again would end the same way, most likely with other
    seeds too.
    """


@contextlib.contextmanager
def set_aside(bad_rows: list[str] | None, place: str = "") -> Iterator[None]:
    """Append the message of a refused row to ``bad_rows``. Without such a list the error is raised.

    Args:
        place: file and row, put in front of a message that does not name the row yet.
    """
    try:
        yield
    except HoldfastError as error:
        located = type(error)(f"{place}: {error.message}", hint=error.hint) if place else error
        if bad_rows is None:
            raise located from error.__cause__
        bad_rows.append(located.message)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return a hint with the valid name nearest to an unknown one, or None if no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean '{near[0]}'?" if near else None


def from_json(text: str, *, unique: bool = False) -> Any:
    """Return the parsed JSON. Every fault in it raises the same error, ``json.JSONDecodeError``.

    This includes nesting that is too deep and numbers of thousands of digits.

    ``unique`` also refuses an object that has a key twice; the json module would silently keep the last one.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(str(error).partition(";")[0], text, 0) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return unique


def whole_text(text: str, where: str) -> str:
    """Return the text if UTF-8 can encode it, since tokenizers take nothing else; otherwise raise ``HoldfastError``."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HoldfastError(
            f"{where} holds half of a surrogate pair (character {error.start + 1})",
            hint="save it as whole characters, UTF-8",
        ) from None
    return text


def redacted(text: str) -> str:
    """Return a message without secrets: keys from the environment, ``user:password@`` and key-like query values in
    addresses, bearer tokens, and values labelled as a token.
    """
    text = _USER.sub(f"{REDACTED}@", text)
    for pattern in (_QUERY, _BEARER, _NAMED):
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return _without(text, _keys())


def without_keys(text: str) -> str:
    """Return data without the keys from the environment. Nothing else is changed; a key that could be an ordinary word
    stays.
    """
    return _without(text, [key for key in _keys() if _is_distinctive(key)])


def redacted_values(value: Any) -> Any:
    """Return a JSON value with ``redacted`` applied to every text in it. A key that could be an ordinary word stays."""
    if isinstance(value, dict):
        return {name: REDACTED if name in _FIELDS and item else redacted_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [redacted_values(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if not isinstance(value, str):
        return value
    return without_keys(_QUERY.sub(rf"\g<1>{REDACTED}", _USER.sub(f"{REDACTED}@", value)))


def _keys() -> list[str]:
    """The keys in the environment, the longest first. Those of others count only where they cannot be anything else."""
    own = [os.environ.get(name, "").strip() for name in KEY_VARIABLES]
    others = [
        value.strip() for name, value in os.environ.items() if _OTHER_KEYS.search(name) and name not in KEY_VARIABLES
    ]
    keys = {key for key in own if key and key.lower() not in _NO_KEYS} | {
        k for k in others if len(k) >= 12 and _is_distinctive(k)
    }
    return sorted(keys, key=len, reverse=True)


def _is_distinctive(key: str) -> bool:
    return len(key) >= 12 or (len(key) >= 4 and any(c.isalpha() for c in key) and not key.isalpha())


def _without(text: str, keys: Iterable[str]) -> str:
    for key in keys:
        for form in (
            {repr(key)[1:-1], json.dumps(key)[1:-1]} if key in text or any(sign in text for sign in "%&\\") else ()
        ):
            text = _spelled(form).sub(REDACTED, text)
    return text


@functools.cache
def _spelled(key: str) -> re.Pattern[str]:
    """Return a pattern of a key as JSON, addresses and HTML may write it.

    Any of its ASCII characters may be escaped, each in a way of its own.
    """
    characters = [re.escape(c) if not c.isascii() else _escaped(c) for c in key]
    whole = "".join(characters)
    return re.compile(rf"(?<!\w){whole}(?!\w)" if len(key) < 8 else whole)


def _escaped(c: str) -> str:
    number = ord(c)
    ways = rf"%{number:02x}|\\u00{number:02x}|&\#x0*{number:x};|&\#0*{number};"
    return rf"(?:{re.escape(c)}|(?i:{ways})" + ("" if c.isalnum() else rf"|\\{re.escape(c)}") + ")"
