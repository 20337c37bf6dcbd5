"""JSON over HTTP to servers that drop connections, are slow, answer 429, send half an answer, or never come to an end.

    Client(base, timeout=60, retries=4, key=api_key()).post("/completions", {...})  ->  the parsed answer

Asked again      the statuses of ``RETRIED``; no connection, a lost one, no whole answer in time; a cut body;
                 no JSON; JSON of another form
Refused at once  every other status; a redirect (the key would travel along); more than ``LIMIT`` bytes;
                 a compressed answer; an untrusted certificate

If the server echoes the key, it is removed from the answer.
"""

from __future__ import annotations

import base64
import email.utils
import functools
import http.client
import io
import json
import math
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from holdfast.errors import KEY_VARIABLES, HoldfastError, from_json, redacted, without_keys

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses, of a server or of a proxy in front of it, that are usually temporary."""
_INVALID = re.compile(r"validation error|invalid_request_error", re.IGNORECASE)
"""In the body of a status 500: the request is at fault, not the moment (llama-cpp-python says it so)."""
LIMIT = 64 * 2**20
"""Largest size of an answer, in bytes."""
NEUTRAL = {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}
"""With these settings temperature 0 means greedy decoding, whatever the server's defaults are.

vLLM takes penalties from generation_config.json.
"""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_DAY = 86400.0
_PIECE, _QUOTED = 2**16, 2000
_HINTS = {
    401: "set OPENAI_API_KEY to the server's key",
    402: "the server wants to be paid first; answers so far are kept, and the same command asks for the rest",
    403: "set OPENAI_API_KEY to the server's key",
    404: "does the server speak this protocol under this address?",
}
_LOCK = threading.Lock()
_said: set[tuple[str, str, str]] = set()
A = TypeVar("A")
B = TypeVar("B")


class RefusedError(HoldfastError):
    """A server refused a request. Holds the status and the beginning of its answer."""

    def __init__(self, message: str, *, hint: str | None = None, code: int = 0, text: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code, self.text = code, text


class Client:
    """Talks to one server. May be used from many threads.

    Args:
        base: address that paths are appended to. A query stays behind them; ``user:password@`` is sent in place of the
            key.
        timeout: seconds until a request counts as lost, its whole answer included.
        retries: how often a failed request is sent again, after 0.5 s, 1 s, 2 s, ... or as long as the server says, at
            most a minute.
        key: sent as a bearer token.
        headers: sent beside the usual ones.

    Raises:
        HoldfastError: requests cannot be sent to that address.
    """

    def __init__(
        self,
        base: str,
        *,
        timeout: float,
        retries: int,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_address(base)
        self.base, self.timeout, self.retries = base.rstrip("/"), min(timeout, _DAY), retries
        self.requests = self.retried = 0
        self._parts = urllib.parse.urlsplit(base)
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        user = self._parts.netloc.rpartition("@")[0]
        if user:
            self._headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        elif key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._headers |= headers or {}
        self._lock = threading.Lock()

    def post(
        self, path: str, body: dict[str, Any], take: Callable[[Any], Any] | None = None, kind: str = "JSON"
    ) -> Any:
        """Send JSON, get JSON.

        Args:
            take: extracts the result from the answer. An answer that it fails on (KeyError, ValueError, ...) is
                reported as not being a ``kind``.

        Raises:
            RefusedError: the server refused the request.
            HoldfastError: the request failed ``retries`` + 1 times, or got an answer that asking again would not
                change.
        """
        url = self._url(path)
        problem = ""
        for attempt in range(self.retries + 1):
            with self._lock:
                self.requests += 1
                self.retried += attempt > 0
            pause, text = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 20)), ""
            try:
                text = self._send(url, body)
                answer = from_json(text)
                return take(answer) if take else answer
            except urllib.error.HTTPError as error:
                problem = _status(url, error)
                pause = _asked_pause(error.headers.get("Retry-After"), pause)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                problem = f"the answer is no {_misread(error, kind)}: {text[:200]}".removesuffix(": ")
            except (http.client.HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise HoldfastError(
                        f"{url}: {reason}", hint="SSL_CERT_FILE names the authorities that are trusted"
                    ) from None
                problem = str(reason) or type(reason).__name__
            if attempt < self.retries:
                time.sleep(pause)
        raise HoldfastError(
            f"{url}: failed {self.retries + 1} times; last: {problem}",
            hint="is the server up? --timeout, --retries and --concurrency can be changed; the same command continues",
        )

    def get(self, path: str) -> Any:
        """Return the JSON at a path, or None where the server has nothing there. Asked once, and not counted."""
        try:
            return from_json(self._send(self._url(path), None))
        except (HoldfastError, ValueError, http.client.HTTPException, OSError):
            return None

    def _url(self, path: str) -> str:
        parts = self._parts
        host = parts.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/") + path, parts.query, ""))

    def _send(self, url: str, body: dict[str, Any] | None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, self._headers)
        with _OPENER.open(request, timeout=self.timeout) as answer:
            coding = answer.headers.get("Content-Encoding") or "identity"
            if coding.lower() != "identity":
                raise HoldfastError(f"{url}: the answer is compressed ({coding}), which was not asked for")
            whole = _whole(url, answer)
        return without_keys(whole.decode(json.detect_encoding(whole)))


def _whole(url: str, answer: Any) -> bytes:
    """All of a body, unless it is longer than ``LIMIT``."""
    pieces, size, announced = [], 0, answer.length or 0
    while max(size, announced) <= LIMIT and (piece := answer.read(_PIECE)):
        pieces.append(piece)
        size += len(piece)
    if max(size, announced) > LIMIT:
        raise HoldfastError(f"{url}: the answer has more than {LIMIT:,} bytes, which is no answer to one prompt")
    data = b"".join(pieces)
    if answer.length:  # what is still missing
        raise http.client.IncompleteRead(data, answer.length)
    return data


def _status(url: str, error: urllib.error.HTTPError) -> str:
    """What a status says that passes. Raises on one that does not."""
    try:
        # more than is quoted: a key that is cut in two would not be seen for one
        text = error.read(_QUOTED + 4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    error.close()
    if 300 <= error.code < 400:
        raise HoldfastError(
            f"{url}: the server answers HTTP {error.code} and points to "
            f"{error.headers.get('Location') or 'no address'}; "
            "a request is not sent on, because its key would travel along",
            hint="if you trust that address, give it yourself",
        ) from None
    text = redacted(text).strip()[:_QUOTED]
    problem = f"HTTP {error.code} {text[:200]}".rstrip()
    if error.code not in RETRIED or _INVALID.search(text):
        hint = _HINTS.get(error.code, "the server refuses this request")
        raise RefusedError(f"{url}: {problem}", hint=hint, code=error.code, text=text) from None
    return problem


def _misread(error: Exception, kind: str) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"JSON ({error.msg})"
    return f"text (byte {error.start + 1} is not {error.encoding})" if isinstance(error, UnicodeDecodeError) else kind


def _asked_pause(header: str | None, otherwise: float) -> float:
    """Seconds of a Retry-After, which is a number or a date, as far as they can be waited."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header or "").timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            return otherwise
    return min(_LONGEST_PAUSE, seconds) if seconds >= 0 and not math.isnan(seconds) else otherwise


Fields = dict[str, Any]


class Optional:
    """Fields that are sent until the server refuses them.

    Where a refusal (400, 422) names one of them, the next form of it is tried from then on: by default, none.

    Args:
        client: of the server.
        fields: each is sent as it is, or not at all.
        ladders: forms of what can be said in several ways, the best first: ``[{"max_tokens": 9},
            {"max_completion_tokens": 9}]``.
    """

    def __init__(self, client: Client, fields: Fields, *ladders: Sequence[Fields]) -> None:
        self.client = client
        self._forms: list[list[Fields]] = [[{name: value}, {}] for name, value in fields.items()]
        self._forms += [list(ladder) for ladder in ladders]

    @property
    def fields(self) -> Fields:
        """What is sent now."""
        return _joined([forms[0] for forms in self._forms])

    def post(self, path: str, request: Callable[[Fields], Fields], take: Callable[[Any], B], kind: str) -> B:
        """Send what ``request`` makes of the fields; see ``Client.post``."""
        while True:
            sent = [forms[0] for forms in self._forms]
            try:
                answer: B = self.client.post(path, request(_joined(sent)), take, kind)
                return answer
            except RefusedError as error:
                places = [i for i, form in enumerate(sent) if self._is_named(i, form, error)]
                if not places:
                    raise
            self._step(places, sent)

    def _is_named(self, place: int, sent: Fields, error: RefusedError) -> bool:
        if error.code not in (400, 422) or (self._forms[place][0] is sent and len(self._forms[place]) == 1):
            return False
        return any(re.search(rf"\b{name}\b", error.text) for name in sent)

    def _step(self, places: list[int], sent: list[Fields]) -> None:
        """Ask with the next forms from now on. That is said once per server."""
        base = self.client.base
        instead: dict[str, list[str]] = {}
        with _LOCK:
            for place in places:
                forms = self._forms[place]
                if forms[0] is sent[place]:  # else another request has been refused for the same reason
                    forms.pop(0)
                old, new = ", ".join(sent[place]), ", ".join(forms[0])
                if old != new and (base, old, new) not in _said:
                    _said.add((base, old, new))
                    instead.setdefault(f"with {new} instead" if new else "without", []).append(old)
        for how, names in instead.items():
            print(f"note: {redacted(base)} does not take {', '.join(names)}: it is asked {how}", file=sys.stderr)


def _joined(forms: Sequence[Fields]) -> Fields:
    fields: Fields = {}
    for form in forms:
        fields |= form
    return fields


def chat_text(answer: Any) -> str:
    """Return the text of a chat completion: its content, the parts of a list joined, or else the words in which a model
    refuses. Null without such words (reasoning only) becomes empty text.
    """
    message = answer["choices"][0]["message"]
    content = message.get("content") or message.get("refusal") or message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if part.get("type") == "text" and part["text"] is not None)
    return printable("" if content is None else content)


def completion_text(answer: Any) -> str:
    """Return the text of a completion."""
    return printable(answer["choices"][0]["text"])


def printable(text: str) -> str:
    """Return a text without halves of characters."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)  # half of a character, which no file can hold


def together(work: Callable[[A], B], items: Iterable[A], concurrency: int, keep: Callable[[A, B], None]) -> None:
    """Work on several items at a time. ``keep`` is called with each result as it arrives, never twice at once.

    Raises:
        Exception: the first that ``work`` raised. After it no further item is started; those already under way are
            finished and kept.
    """
    pool = ThreadPoolExecutor(max(1, concurrency))
    waiting = {pool.submit(work, item): item for item in items}
    try:
        for future in as_completed(list(waiting)):
            result = future.result()
            keep(waiting.pop(future), result)
    finally:
        pool.shutdown(cancel_futures=True)
        for future, item in waiting.items():
            if not future.cancelled() and future.exception() is None:
                keep(item, future.result())


def api_key(*names: str) -> str | None:
    """Return the first key that one of these environment variables holds, without surrounding white space.

    Raises:
        HoldfastError: it holds characters that an HTTP header cannot carry. The message names the variable, never the
            key.
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
    """Raise unless the address is one that requests can be sent to.

    Raises:
        HoldfastError: the address is not http(s), has no host, or has an invalid port or path.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise HoldfastError(f"{option}: not an address: its host or its port cannot be read") from None
    if not fine:
        raise HoldfastError(f"{option} {address}: an address begins with http:// or https:// and names a host")
    if re.search(r"\s", parts.netloc) or re.search(r"[^!-~]", parts.path + parts.query):
        message = f"{option} {address}: an address holds neither white space nor letters that are not ASCII"
        raise HoldfastError(message, hint="write them as %20 and the like")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Turns every redirect into an ``HTTPError``."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _Reader(io.RawIOBase):
    """What comes from a socket until some time: a timeout of the socket alone would begin anew with every byte."""

    def __init__(self, sock: socket.socket, seconds: float, end: float) -> None:
        self.sock, self.seconds, self.end = sock, seconds, end
        self.raw: Any = sock.makefile("rb", buffering=0)  # keeps the socket open when the connection lets go of it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        try:
            self.sock.settimeout(max(0.001, self.end - time.monotonic()))
            return self.raw.readinto(buffer)
        except TimeoutError:
            raise TimeoutError(f"no whole answer within {self.seconds:g} s") from None

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """Status, headers and body, all read by one deadline."""

    def __init__(self, sock: socket.socket, *args: Any, seconds: float, end: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, seconds, end))


class _Plain(http.client.HTTPConnection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        seconds = float(self.timeout or _DAY)
        self.response_class: Any = functools.partial(_Answer, seconds=seconds, end=time.monotonic() + seconds)


class _Secure(_Plain, http.client.HTTPSConnection):
    pass


class _Open(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Plain, req)


class _OpenSecurely(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Secure, req)


_OPENER = urllib.request.build_opener(_Stay, _Open, _OpenSecurely)
