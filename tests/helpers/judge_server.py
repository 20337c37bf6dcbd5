"""A stand-in for an OpenAI-compatible judge: HTTP on a thread, with faults on order. Grades by a rule, so that scores
can be checked.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from http_server import Reply, Request, serving

Say = Callable[[str], str]
Fault = Callable[[int], str | None]


class Judge:
    """What was asked (prompt -> times), and how to answer: ``say`` makes the text, ``fault`` looks at the number of the
    request.
    """

    def __init__(self, say: Say, fault: Fault) -> None:
        self.say, self.fault = say, fault
        self.asked: Counter[str] = Counter()
        self.requests = 0
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def judging(say: Say, fault: Fault = lambda number: None, port: int = 0) -> Iterator[Judge]:
    """Serve until the block ends. A fault is 429, 503, 500, 402, slow, drop or half. ``port`` 0: any."""
    judge = Judge(say, fault)

    def answer(request: Request) -> Reply:
        with judge.lock:
            judge.requests += 1
            fault = judge.fault(judge.requests)
        if fault == "drop":
            return Reply(drop=True)
        if fault in ("429", "503", "500", "402"):
            why = "Rate limit reached" if fault == "429" else "out of order"
            return Reply({"error": {"message": why}}, int(fault), {"Retry-After": "0.05"} if fault == "429" else {})
        prompt = request.body["messages"][-1]["content"]
        with judge.lock:
            judge.asked[prompt] += 1
        text = json.dumps(completion(request.body["model"], judge.say(prompt)))
        return Reply(text[: len(text) // 2] if fault == "half" else text, wait=1.5 if fault == "slow" else 0)

    with serving(answer, port) as server:
        judge.url = server.url
        yield judge


def completion(model: str, text: str) -> dict[str, Any]:
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
