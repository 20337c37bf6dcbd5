"""JSON over HTTP, with retries: for servers that drop connections, are slow, answer 429, or send half an answer."""

from __future__ import annotations

import http.client
import math
import threading
import time
from typing import Any

from holdfast import servers
from holdfast.errors import HoldfastError, from_json

_FIRST_PAUSE = 0.5
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class RefusedError(HoldfastError):
    """A server will not have a request: its status, and the beginning of what it said."""

    def __init__(self, message: str, *, hint: str | None = None, code: int = 0, text: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code, self.text = code, text


class Client:
    """Talks to one server. May be used from many threads.

    Args:
        base: address that paths are appended to.
        timeout: seconds until a request counts as lost.
        retries: how often a failed request is sent again, waiting 0.5 s, 1 s, 2 s, ... or as long as the server says.
        key: sent as a bearer token.
    """

    def __init__(self, base: str, *, timeout: float, retries: int, key: str | None = None) -> None:
        servers.check_address(base)
        self.base, self.timeout, self.retries, self.key = base.rstrip("/"), timeout, retries, key
        self.requests = self.retried = 0
        self._lock = threading.Lock()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON, get JSON.

        Raises:
            RefusedError: the server will not have it.
            HoldfastError: failed ``retries`` + 1 times, or redirected.
        """
        problem = ""
        for attempt in range(self.retries + 1):
            with self._lock:
                self.requests += 1
                self.retried += attempt > 0
            wait = _FIRST_PAUSE * 2**attempt
            try:
                return self._send(path, body)
            except servers.StatusError as error:
                problem = str(error)
                if error.code not in _RETRIED:
                    message = f"{self.base}{path}: {problem}"
                    raise RefusedError(message, hint=_hint(error.code), code=error.code, text=error.text) from error
                wait = _told(error.wait, wait)
            except (http.client.HTTPException, OSError, ValueError) as error:  # also URLError, which is an OSError
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            if attempt < self.retries:
                time.sleep(wait)
        raise HoldfastError(
            f"{self.base}{path}: failed {self.retries + 1} times; last: {problem}",
            hint="is the server up? --timeout, --retries and --concurrency can be changed; the same command continues",
        )

    def _send(self, path: str, body: dict[str, Any]) -> Any:
        return from_json(servers.post(self.base, path, body, key=self.key, timeout=self.timeout))


def _told(header: str | None, otherwise: float) -> float:
    try:
        seconds = float(header) if header else otherwise
    except ValueError:
        return otherwise
    return min(60.0, seconds) if seconds >= 0 and not math.isnan(seconds) else otherwise


def _hint(code: int) -> str:
    if code in (401, 403):
        return "set OPENAI_API_KEY to the server's key"
    return "does the server speak this protocol under this address?" if code == 404 else "the server refuses this request"
