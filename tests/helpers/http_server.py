"""A local HTTP server whose answers, well-behaved or not, a function makes. Every stand-in for a server is built on
it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """What was asked: ``number`` counts from 1."""

    number: int
    path: str
    key: str | None
    headers: Any
    body: Any


@dataclass
class Reply:
    """What is sent. ``data``: JSON, text, bytes, or pieces of bytes. ``length``: what is announced, None for the right
    one, 0 for none.
    """

    data: Any = b""
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    wait: float = 0.0
    drop: bool = False
    """Close the connection without a word."""

    @property
    def pieces(self) -> Iterable[bytes]:
        if isinstance(self.data, str | bytes):
            return [self.data.encode() if isinstance(self.data, str) else self.data]
        return [json.dumps(self.data).encode()] if isinstance(self.data, dict | list) else self.data


def half(data: Any) -> Reply:
    """An answer that ends too early."""
    text = json.dumps(data).encode()
    return Reply(text[: len(text) // 2], length=len(text))


def completion(text: Any) -> dict[str, Any]:
    return {"choices": [{"text": text}]}


@contextmanager
def serving(answer: Callable[[Request], Reply], port: int = 0) -> Iterator[Any]:
    """A running server: ``.address``, ``.url`` with ``/v1`` behind it, ``.port``, ``.asked`` with every request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"] or 0))
            with server.lock:
                key, body = self.headers.get("Authorization"), json.loads(text or "0")
                request = Request(len(server.asked) + 1, self.path, key, self.headers, body)
                server.asked.append(request)
            reply = answer(request)
            self.close_connection = True
            threading.Event().wait(reply.wait)
            try:
                self.send(reply)
            except OSError:
                return  # the client has given up

        do_GET = do_POST

        def send(self, reply: Reply) -> None:
            if reply.drop:
                self.connection.close()
                return
            pieces = reply.pieces
            self.send_response(reply.code)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = sum(map(len, pieces)) if reply.length is None else reply.length
            if length:
                self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)
                if server.closing:
                    return

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server: Any = Server(("127.0.0.1", port), Handler)
    server.daemon_threads, server.closing = True, False
    server.asked, server.lock, server.port = [], threading.Lock(), server.server_port
    server.address = f"http://127.0.0.1:{server.port}"
    server.url = server.address + "/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing = True
        server.shutdown()
        server.server_close()
        thread.join()
