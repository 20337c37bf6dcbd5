"""One POST to a server, as both HTTP clients send it: the key of the environment, the address taken apart, no redirect.

A redirected POST would carry the key to wherever the answer points. What comes back holds no key either, should the
server echo it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.errors import KEY_VARIABLES, HoldfastError, redacted, without_keys

NEUTRAL = {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}
"""With these, temperature 0 is greedy, whatever a server's own defaults are (vLLM takes penalties from
generation_config.json). A server that does not take one of them is asked without it."""
_READ = 2000
_LOCK = threading.Lock()
_left_out: set[tuple[str, str]] = set()


class StatusError(Exception):
    """A status that is no success. ``text``: the beginning of what the server says, without keys; ``wait``: its
    Retry-After."""

    def __init__(self, code: int, text: str, wait: str | None) -> None:
        super().__init__(f"HTTP {code} {text[:200]}".rstrip())
        self.code, self.text, self.wait = code, text, wait


class _Stay(urllib.request.HTTPRedirectHandler):
    """Turns every redirect into an ``HTTPError``."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def api_key(*names: str) -> str | None:
    """The first key that is set in these variables of the environment, without white space around it.

    Raises:
        HoldfastError: it holds what no HTTP header can; says where, not what.
    """
    for name in names or KEY_VARIABLES:
        key = os.environ.get(name, "").strip()
        bad = next((i for i, c in enumerate(key, 1) if not " " <= c <= "~"), None)
        if bad is not None:
            raise HoldfastError(
                f"{name} cannot be a key: character {bad} of {len(key)} is a control character or not ASCII",
                hint="copy the key again, as one line",
            )
        if key:
            return key
    return None


def check_address(address: str, option: str = "--endpoint") -> None:
    """Whether something can be asked there.

    Raises:
        HoldfastError: no http(s), no host, or a port that is none.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise HoldfastError(f"{option}: not an address: its host or its port cannot be read") from None
    if not fine:
        raise HoldfastError(f"{option} {address}: an address begins with http:// or https:// and names a host")


def post(base: str, path: str, body: dict[str, Any], *, key: str | None, timeout: float) -> str:
    """Send JSON to ``base`` + ``path`` and return the text of the answer. A query of ``base`` stays behind the path;
    ``user:password@`` is sent as such, in place of the key.

    Raises:
        HoldfastError: no address, or the server points elsewhere.
        StatusError: any other status that is no success.
        OSError, http.client.HTTPException: no answer.
        UnicodeDecodeError: an answer that is no text.
    """
    check_address(base)
    parts = urllib.parse.urlsplit(base)
    user, _, host = parts.netloc.rpartition("@")
    url = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/") + path, parts.query, ""))
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        with _OPENER.open(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=timeout) as answer:
            data = answer.read()
            return without_keys(data.decode(json.detect_encoding(data)))
    except urllib.error.HTTPError as error:
        if not 300 <= error.code < 400:
            raise StatusError(error.code, _said(error), error.headers.get("Retry-After")) from None
        raise HoldfastError(
            f"{url}: the server answers HTTP {error.code} and points to {error.headers.get('Location') or 'no address'}; "
            "a request is not sent on, because its key would travel along",
            hint="if you trust that address, give it yourself",
        ) from None


def refused_fields(code: int, text: str, fields: Iterable[str]) -> list[str]:
    """Those of the fields that a server's refusal names."""
    return [name for name in fields if re.search(rf"\b{name}\b", text)] if code in (400, 422) else []


def without_fields(fields: dict[str, Any], refused: Sequence[str], base: str) -> dict[str, Any]:
    """The other fields. What is left out is said, once per server."""
    with _LOCK:
        new = [name for name in refused if (base, name) not in _left_out]
        _left_out.update((base, name) for name in new)
    if new:
        print(f"note: {redacted(base)} does not take {', '.join(new)}: it is asked without", file=sys.stderr)
    return {name: value for name, value in fields.items() if name not in refused}


def _said(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(_READ + 4096).decode("utf-8", "replace")  # a key that is cut in two would not be seen for one
    except (OSError, http.client.HTTPException):
        return ""
    return redacted(text).strip()[:_READ]
