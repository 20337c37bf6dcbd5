"""A stand-in for an OpenAI-compatible judge: HTTP on a thread, with faults on order. Grades by a rule, so that scores can be checked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[str], str]
Fault = Callable[[int], str | None]


class Judge:
    """What was asked (prompt -> times), and how to answer: ``say`` makes the text, ``fault`` looks at the number of the request."""

    def __init__(self, say: Say, fault: Fault) -> None:
        self.say, self.fault = say, fault
        self.asked: Counter[str] = Counter()
        self.requests = 0
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def judging(say: Say, fault: Fault = lambda number: None, port: int = 0) -> Iterator[Judge]:
    """Serve until the block ends. A fault is 429, 503, 500, slow, drop or half. ``port`` 0: any."""
    judge = Judge(say, fault)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return None

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with judge.lock:
                judge.requests += 1
                fault = judge.fault(judge.requests)
            if fault == "drop":
                self.connection.close()
                return
            if fault in ("429", "503", "500"):
                why = "Rate limit reached" if fault == "429" else "out of order"
                self.reply(int(fault), json.dumps({"error": {"message": why}}).encode())
                return
            if fault == "slow":
                time.sleep(1.5)
            prompt = body["messages"][-1]["content"]
            with judge.lock:
                judge.asked[prompt] += 1
            text = json.dumps(completion(body["model"], judge.say(prompt))).encode()
            self.reply(200, text[: len(text) // 2] if fault == "half" else text)

        def reply(self, code: int, text: bytes) -> None:
            try:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if code == 429:
                    self.send_header("Retry-After", "0.05")
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                return  # the client has given up

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(model: str, text: str) -> dict[str, Any]:
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
